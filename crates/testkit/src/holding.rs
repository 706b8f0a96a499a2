//! A stage where pods are held, by the webhook or by policies, on a clock that stands until a test moves it: a pod that is
//! held stays so for as long as the test likes.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ensign_api::keys::{GATED_LABEL, IDENTITY_GATE};
use ensign_controller::PodSettings;
use ensign_core::cel::Mode;
use serde_json::{Value, json};

use super::clock::FakeClock;
use super::objects::{condition_of, kubectl, wait_for};
use super::pods::{create, gates, is_held, labelled, pod};
use super::policies::{self, Policies};
use super::replica::{Replica, ReplicaOptions, Stage, StageTeam};
use super::webhook::Webhook;

/// Far more than the clock moves while a test waits for something else.
pub const SETTLE: Duration = Duration::from_secs(3_600);
/// How much the clock moves at each glance, so that whatever is retried is retried.
const TICK: Duration = Duration::from_millis(100);

/// Azure, a cluster and whoever injects, without a controller.
pub struct HoldStage {
    pub stage: Stage,
    pub clock: Arc<FakeClock>,
    /// None where the API server injects by itself.
    webhook: Option<&'static Webhook>,
}

impl HoldStage {
    pub fn enter(mode: Mode) -> Self {
        static CLOCK: OnceLock<Arc<FakeClock>> = OnceLock::new();
        static WEBHOOK: OnceLock<Webhook> = OnceLock::new();
        let stage = Stage::enter();
        let clock = CLOCK.get_or_init(FakeClock::new).clone();
        let webhook = match mode {
            Mode::Webhook => Some(WEBHOOK.get_or_init(|| {
                let authority = &stage.azure.info().authority_host;
                Webhook::start(stage.control_plane, authority, clock.clone())
            })),
            Mode::Policy => {
                Policies::leave_to_controllers(stage.control_plane);
                None
            }
        };
        Self { stage, clock, webhook }
    }

    /// Starts a controller, and waits until the API server refuses labelled pods that nobody injects.
    pub fn start(&self, name: &str) -> Replica {
        let webhook = self.webhook.map(Webhook::target);
        let injection = webhook.is_none().then(|| policies::target(&self.stage.azure.info().authority_host));
        let options = ReplicaOptions {
            clock: self.clock.clone(),
            pods: Some(PodSettings { excluded: BTreeSet::new() }),
            settle: SETTLE,
            webhook,
            injection,
            ..ReplicaOptions::default()
        };
        let replica = self.stage.start(name, options);
        self.wait_for("the controller to be ready", || replica.is_ready().then_some(()));
        let mut probe = pod("default", &labelled());
        probe["spec"]["serviceAccountName"] = json!("default");
        self.wait_for("labelled pods to be refused", || {
            let refusal = create(self.stage.control_plane, &probe, &["--dry-run=server"]).err()?;
            refusal.contains("Create a ManagedIdentityBinding").then_some(())
        });
        replica
    }

    /// Waits for a fact, while the clock moves a little.
    pub fn wait_for<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        wait_for(what, || {
            self.clock.pass(TICK);
            look()
        })
    }

    /// A team with a service account `app` that can be bound.
    pub fn team(&self, prefix: &str) -> HoldTeam<'_> {
        let team = self.stage.team(prefix);
        kubectl(self.stage.control_plane, &["create", "serviceaccount", "app", "--namespace", &team.name]);
        HoldTeam { team, stage: self }
    }
}

/// One team's world on the stage.
pub struct HoldTeam<'a> {
    pub team: StageTeam<'a>,
    stage: &'a HoldStage,
}

impl HoldTeam<'_> {
    /// Binds the service account and waits until the credential stands, which settles while the clock does not move.
    pub fn bind(&self) {
        self.team.bind();
        self.stage.wait_for("the credential to stand", || {
            let binding = self.team.get("mib", "app")?;
            (condition_of(&binding, "Ready")?["reason"] == "Propagating").then_some(())
        });
    }

    /// A labelled pod of the service account, changed by a merge patch.
    pub fn pod(&self, change: &Value) -> Value {
        let mut pod = pod(&self.team.name, &labelled());
        json_patch::merge(&mut pod, change);
        pod
    }

    pub fn create(&self, pod: &Value, flags: &[&str]) -> Result<Value, String> {
        create(self.stage.stage.control_plane, pod, flags)
    }

    /// Creates a pod, as soon as whoever injects knows of its binding, that is held; answers its name.
    pub fn held_pod(&self, change: &Value) -> String {
        let pod = self.pod(change);
        let made = self.stage.wait_for("the pod to be admitted", || self.create(&pod, &[]).ok());
        assert!(is_held(&made), "{made:#}");
        made["metadata"]["name"].as_str().expect("a name").to_owned()
    }

    pub fn get(&self, pod: &str) -> Value {
        self.team.get("pod", pod).expect("the pod")
    }

    /// Waits until the pod has neither gate nor label of Ensign's.
    pub fn wait_let_go(&self, pod: &str) -> Value {
        self.stage.wait_for(&format!("pod {pod} to be let go"), || {
            let found = self.get(pod);
            (!gates(&found).contains(&IDENTITY_GATE) && found["metadata"]["labels"].get(GATED_LABEL).is_none())
                .then_some(found)
        })
    }

    /// Waits for an event of this reason on the pod; answers its type and text.
    pub fn wait_event(&self, pod: &str, reason: &str) -> (String, String) {
        self.stage.wait_for(&format!("event {reason} on pod {pod}"), || {
            self.events(pod).into_iter().find(|(_, found, _)| found == reason).map(|(kind, _, text)| (kind, text))
        })
    }

    /// Types, reasons and texts of Ensign's events on the pod.
    pub fn events(&self, pod: &str) -> Vec<(String, String, String)> {
        let arguments = ["get", "events", "--namespace", &self.team.name, "--output", "json"];
        let list: Value =
            serde_json::from_str(&kubectl(self.stage.stage.control_plane, &arguments)).expect("a list of events");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let events = list["items"].as_array().cloned().unwrap_or_default();
        events
            .iter()
            .filter(|event| {
                event["involvedObject"]["name"] == pod && event["reportingComponent"] == "ensign-controller"
            })
            .map(|event| (text(&event["type"]), text(&event["reason"]), text(&event["message"])))
            .collect()
    }

    pub fn patch(&self, kind: &str, name: &str, patch: &Value) {
        let patch = patch.to_string();
        let arguments = ["patch", kind, name, "--namespace", &self.team.name, "--type", "merge", "--patch", &patch];
        kubectl(self.stage.stage.control_plane, &arguments);
    }
}
