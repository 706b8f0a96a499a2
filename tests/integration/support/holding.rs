//! A stage with a webhook that holds pods, on a clock that stands until a test moves it: a pod that is held stays so
//! for as long as the test likes.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::Stdio;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ensign::api::keys::{HELD_LABEL, IDENTITY_GATE, INJECT_LABEL};
use ensign::controller::Pods;
use serde_json::{Value, json};

use super::clock::FakeClock;
use super::control_plane::ControlPlane;
use super::objects::{apply, kubectl, unique, wait_for};
use super::replica::{Replica, ReplicaOptions, Stage, StageTeam};
use super::webhook::Webhook;

/// Far more than the clock moves while a test waits for something else.
pub const SETTLE: Duration = Duration::from_secs(3_600);
/// How much the clock moves at each glance, so that whatever is retried is retried.
const TICK: Duration = Duration::from_millis(100);

/// Azure, a cluster and a webhook, without a controller.
pub struct HoldStage {
    pub stage: Stage,
    pub clock: Arc<FakeClock>,
    webhook: &'static Webhook,
}

impl HoldStage {
    pub fn enter() -> Self {
        static SHARED: OnceLock<(Arc<FakeClock>, Webhook)> = OnceLock::new();
        let stage = Stage::enter();
        let (clock, webhook) = SHARED.get_or_init(|| {
            let clock = FakeClock::new();
            let authority = &stage.azure.info().authority_host;
            let webhook = Webhook::start(stage.control_plane, authority, clock.clone());
            (clock, webhook)
        });
        Self { clock: clock.clone(), webhook, stage }
    }

    /// Starts a controller, and waits until the API server asks the webhook about labelled pods.
    pub fn start(&self, name: &str) -> Replica {
        let options = ReplicaOptions {
            clock: self.clock.clone(),
            pods: Some(Pods { excluded: BTreeSet::new() }),
            settle: SETTLE,
            webhook: Some(self.webhook.target()),
            ..ReplicaOptions::default()
        };
        let replica = self.stage.start(name, options);
        self.wait_for("the controller to be ready", || replica.is_ready().then_some(()));
        let probe = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "probe", "namespace": "default", "labels": {INJECT_LABEL: "true"}},
            "spec": {"containers": [{"name": "probe", "image": "probe"}]},
        });
        self.wait_for("the API server to ask the webhook", || {
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
            (super::objects::condition_of(&binding, "Ready")?["reason"] == "Settling").then_some(())
        });
    }

    /// A labelled pod of the service account, changed by a merge patch.
    pub fn pod(&self, change: &Value) -> Value {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": unique("pod"), "namespace": self.team.name, "labels": {INJECT_LABEL: "true"}},
            "spec": {
                "serviceAccountName": "app", "automountServiceAccountToken": false,
                "containers": [{"name": "app", "image": "app:1"}],
            },
        });
        json_patch::merge(&mut pod, change);
        pod
    }

    pub fn create(&self, pod: &Value, flags: &[&str]) -> Result<Value, String> {
        create(self.stage.stage.control_plane, pod, flags)
    }

    /// Creates a pod, as soon as the webhook knows of its binding, that is held; answers its name.
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
            (!gates(&found).contains(&IDENTITY_GATE) && found["metadata"]["labels"].get(HELD_LABEL).is_none())
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

pub fn gates(pod: &Value) -> Vec<&str> {
    let gates = pod["spec"]["schedulingGates"].as_array().map(Vec::as_slice).unwrap_or_default();
    gates.iter().filter_map(|gate| gate["name"].as_str()).collect()
}

/// Whether gate and label are there.
pub fn is_held(pod: &Value) -> bool {
    gates(pod).contains(&IDENTITY_GATE) && pod["metadata"]["labels"][HELD_LABEL] == "true"
}

/// Whether the pod has what injection gives.
pub fn is_injected(pod: &Value) -> bool {
    pod["spec"]["containers"][0]["env"].as_array().is_some_and(|env| env.len() == 4)
}

/// Applies many objects at once.
pub fn apply_all(control_plane: &ControlPlane, objects: &[Value]) {
    apply(control_plane, &json!({"apiVersion": "v1", "kind": "List", "items": objects})).expect("apply");
}

/// `kubectl create`: the object as the API server admitted it, or what kubectl said.
fn create(control_plane: &ControlPlane, object: &Value, flags: &[&str]) -> Result<Value, String> {
    let mut child = control_plane
        .kubectl()
        .args(["create", "--filename", "-", "--output", "json"])
        .args(flags)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run kubectl");
    child.stdin.take().expect("a pipe").write_all(object.to_string().as_bytes()).expect("write to kubectl");
    let done = child.wait_with_output().expect("kubectl ends");
    if done.status.success() {
        Ok(serde_json::from_slice(&done.stdout).expect("an object"))
    } else {
        Err(String::from_utf8_lossy(&done.stderr).into_owned())
    }
}
