//! A testbed whose simulated clock does not advance on its own, so that a pod that the webhook or a policy gates stays gated
//! until the test advances the clock by the propagation delay.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ensign_api::keys::{GATED_LABEL, IDENTITY_GATE};
use ensign_controller::PodSettings;
use ensign_core::cel::Mode;
use serde_json::{Value, json};

use super::clock::FakeClock;
use super::objects::{condition_of, kubectl, wait_for};
use super::pods::{create, gates, is_gated, labelled, pod};
use super::policies::{self, Policies};
use super::replica::{Replica, ReplicaOptions};
use super::testbed::{Testbed, TestbedTeam};
use super::webhook::Webhook;

/// The propagation delay: far more than the clock advances while a test waits for something else.
pub const SETTLE: Duration = Duration::from_secs(3_600);
/// How far the clock advances with each poll, so that failures are retried.
const TICK: Duration = Duration::from_millis(100);

/// A cluster, an emulator and, unless policies inject, a webhook; without a controller.
pub struct GatingTestbed {
    testbed: Testbed,
    pub clock: Arc<FakeClock>,
    /// None where policies inject.
    webhook: Option<&'static Webhook>,
}

impl GatingTestbed {
    pub fn acquire(mode: Mode) -> Self {
        static CLOCK: OnceLock<Arc<FakeClock>> = OnceLock::new();
        static WEBHOOK: OnceLock<Webhook> = OnceLock::new();
        let testbed = Testbed::acquire();
        let clock = CLOCK.get_or_init(FakeClock::new).clone();
        let webhook = match mode {
            Mode::Webhook => Some(WEBHOOK.get_or_init(|| {
                let authority = &testbed.azure.info().authority_host;
                Webhook::start(testbed.control_plane, authority, clock.clone())
            })),
            Mode::Policy => {
                Policies::leave_to_controllers(testbed.control_plane);
                None
            }
        };
        Self { testbed, clock, webhook }
    }

    /// Starts a controller, and waits until labelled pods without a binding are denied.
    pub fn start(&self, name: &str) -> Replica {
        let webhook = self.webhook.map(Webhook::target);
        let injection = webhook.is_none().then(|| policies::target(&self.testbed.azure.info().authority_host));
        let options = ReplicaOptions {
            clock: self.clock.clone(),
            pods: Some(PodSettings { excluded: BTreeSet::new() }),
            propagation_delay: SETTLE,
            webhook,
            injection,
            ..ReplicaOptions::default()
        };
        let replica = self.testbed.start(name, options);
        self.wait_for("the controller to be ready", || replica.is_ready().then_some(()));
        let mut probe = pod("default", &labelled());
        probe["spec"]["serviceAccountName"] = json!("default");
        self.wait_for("labelled pods to be denied", || {
            let denial = create(self.testbed.control_plane, &probe, &["--dry-run=server"]).err()?;
            denial.contains("Create a ManagedIdentityBinding").then_some(())
        });
        replica
    }

    /// Waits for a condition, while the clock advances a little.
    pub fn wait_for<T>(&self, what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
        wait_for(what, || {
            self.clock.advance(TICK);
            poll()
        })
    }

    /// A team with a service account `app` that can be bound.
    pub fn team(&self, prefix: &str) -> GatingTeam<'_> {
        let team = self.testbed.team(prefix);
        kubectl(self.testbed.control_plane, &["create", "serviceaccount", "app", "--namespace", &team.name]);
        GatingTeam { team, gating: self }
    }
}

/// A namespace with an identity on the testbed.
pub struct GatingTeam<'a> {
    team: TestbedTeam<'a>,
    gating: &'a GatingTestbed,
}

impl GatingTeam<'_> {
    /// Binds the service account and waits until its credential exists, which then propagates until the clock advances.
    pub fn bind(&self) {
        self.team.bind();
        self.gating.wait_for("the credential to exist", || {
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
        create(self.gating.control_plane, pod, flags)
    }

    /// Creates a gated pod, as soon as it is admitted because its binding is known. Returns its name.
    pub fn gated_pod(&self, change: &Value) -> String {
        let pod = self.pod(change);
        let made = self.gating.wait_for("the pod to be admitted", || self.create(&pod, &[]).ok());
        assert!(is_gated(&made), "{made:#}");
        made["metadata"]["name"].as_str().expect("a name").to_owned()
    }

    pub fn get_pod(&self, pod: &str) -> Value {
        self.team.get("pod", pod).expect("the pod")
    }

    /// Waits until the pod has neither gate nor label of Ensign's.
    pub fn wait_ungated(&self, pod: &str) -> Value {
        self.gating.wait_for(&format!("pod {pod} to be ungated"), || {
            let found = self.get_pod(pod);
            (!gates(&found).contains(&IDENTITY_GATE) && found["metadata"]["labels"].get(GATED_LABEL).is_none())
                .then_some(found)
        })
    }

    /// Waits for an event with this reason on the pod. Returns its type and text.
    pub fn wait_event(&self, pod: &str, reason: &str) -> (String, String) {
        self.gating.wait_for(&format!("event {reason} on pod {pod}"), || {
            self.events(pod).into_iter().find(|(_, found, _)| found == reason).map(|(kind, _, text)| (kind, text))
        })
    }

    /// Types, reasons and texts of Ensign's events on the pod.
    pub fn events(&self, pod: &str) -> Vec<(String, String, String)> {
        let arguments = ["get", "events", "--namespace", &self.team.name, "--output", "json"];
        let list: Value =
            serde_json::from_str(&kubectl(self.gating.control_plane, &arguments)).expect("a list of events");
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
        kubectl(self.gating.control_plane, &arguments);
    }
}

impl Deref for GatingTestbed {
    type Target = Testbed;

    fn deref(&self) -> &Testbed {
        &self.testbed
    }
}

impl<'a> Deref for GatingTeam<'a> {
    type Target = TestbedTeam<'a>;

    fn deref(&self) -> &TestbedTeam<'a> {
        &self.team
    }
}
