//! Objects as users handle them: apply them, wait for a condition, read their status.

use std::io::Write;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::control_plane::ControlPlane;
use super::ensign::Ensign;

/// How long a condition may take on a busy machine before the test fails.
const TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(25);

/// Polls until there is a result.
pub fn wait_for<T>(what: &str, poll: impl FnMut() -> Option<T>) -> T {
    wait_or_show(what, poll, String::new)
}

fn wait_or_show<T>(what: &str, mut poll: impl FnMut() -> Option<T>, show: impl Fn() -> String) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = poll() {
            return found;
        }
        assert!(start.elapsed() < TIMEOUT, "not within {TIMEOUT:?}: {what}\n{}", show());
        std::thread::sleep(POLL);
    }
}

/// A name that no other test uses.
pub fn unique(prefix: &str) -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}-{}", COUNTER.fetch_add(1, Ordering::Relaxed))
}

/// Applies the CRDs and waits until they are established.
pub fn apply_crds(control_plane: &ControlPlane) {
    // Two at a time would both try to create them.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let files = ensign_api::crds::all_as_yaml().expect("the CRDs");
    let text: Vec<&str> = files.iter().map(|(_, text)| text.as_str()).collect();
    let text = text.join("---\n");
    apply_text(control_plane, &text).expect("apply the CRDs");
    let waited = control_plane
        .kubectl()
        .args(["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"])
        .output()
        .expect("run kubectl");
    assert!(waited.status.success(), "{}", String::from_utf8_lossy(&waited.stderr));
}

/// Runs `kubectl apply`; returns its error if it is rejected.
pub fn apply(control_plane: &ControlPlane, object: &Value) -> Result<(), String> {
    apply_text(control_plane, &object.to_string())
}

fn apply_text(control_plane: &ControlPlane, text: &str) -> Result<(), String> {
    kubectl_with(control_plane, &["apply", "--filename", "-"], text).map(|_| ())
}

/// Runs kubectl with this input; returns what it printed, or its error.
pub fn kubectl_with(control_plane: &ControlPlane, arguments: &[&str], input: &str) -> Result<String, String> {
    let mut child = control_plane
        .kubectl()
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run kubectl");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("write to kubectl");
    let done = child.wait_with_output().expect("wait for kubectl");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if done.status.success() { Ok(text(&done.stdout)) } else { Err(text(&done.stderr)) }
}

/// Applies many objects at once.
pub fn apply_all(control_plane: &ControlPlane, objects: &[Value]) {
    apply(control_plane, &list(objects)).expect("apply");
}

/// Replaces many objects at once, in this order and regardless of their versions.
pub fn replace_all(control_plane: &ControlPlane, objects: &[Value]) {
    kubectl_with(control_plane, &["replace", "--filename", "-"], &list(objects).to_string()).expect("replace");
}

fn list(objects: &[Value]) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "items": objects})
}

/// Runs kubectl, which has to succeed.
pub fn kubectl(control_plane: &ControlPlane, arguments: &[&str]) -> String {
    let done = control_plane.kubectl().args(arguments).output().expect("run kubectl");
    assert!(done.status.success(), "kubectl {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// A team: a namespace and an identity in Azure, both with the same unique name.
pub struct Team {
    pub ensign: &'static Ensign,
    pub name: String,
}

impl Team {
    pub fn new(prefix: &str) -> Self {
        Self::named(unique(prefix))
    }

    /// A team with a given name.
    pub fn named(name: String) -> Self {
        Self::of(Ensign::shared(), name)
    }

    /// A team of this install.
    pub fn of(ensign: &'static Ensign, name: String) -> Self {
        ensign.azure_identity(&name, None, &[]);
        kubectl(ensign.control_plane, &["create", "namespace", &name]);
        Self { ensign, name }
    }

    /// The `ManagedIdentity` of the team, which lets every service account of its namespace use it.
    pub fn identity(&self) -> Value {
        json!({
            "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentity", "metadata": {"name": self.name},
            "spec": {
                "existing": {"resourceID": self.ensign.arm_id(&self.name)},
                "allowedSubjects": [{"name": "team", "namespace": self.name, "serviceAccounts": ["*"]}],
            },
        })
    }

    /// A binding of the service account to the team's identity.
    pub fn binding(&self, name: &str, service_account: &str) -> Value {
        json!({
            "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentityBinding",
            "metadata": {"name": name, "namespace": self.name},
            "spec": {"identityRef": {"name": self.name}, "serviceAccountName": service_account},
        })
    }

    pub fn apply(&self, object: &Value) {
        apply(self.ensign.control_plane, object).expect("apply");
    }

    pub fn delete(&self, kind: &str, name: &str) {
        kubectl(
            self.ensign.control_plane,
            &["delete", kind, name, "--namespace", &self.name, "--wait=false", "--ignore-not-found"],
        );
    }

    /// The object, if it exists.
    pub fn get(&self, kind: &str, name: &str) -> Option<Value> {
        let arguments = ["get", kind, name, "--namespace", &self.name, "--ignore-not-found", "--output", "json"];
        let text = kubectl(self.ensign.control_plane, &arguments);
        (!text.trim().is_empty()).then(|| serde_json::from_str(&text).expect("an object"))
    }

    /// Waits until a condition of the object has a status and a reason; returns the whole object.
    pub fn wait_condition(&self, kind: &str, name: &str, condition: &str, status: &str, reason: &str) -> Value {
        let poll = || {
            let object = self.get(kind, name)?;
            let found = condition_of(&object, condition)?;
            (found["status"] == status && found["reason"] == reason).then(|| object.clone())
        };
        let show = || format!("{:#}", self.get(kind, name).map_or(Value::Null, |object| object["status"].clone()));
        wait_or_show(&format!("{kind} {name} to have {condition}={status}/{reason}"), poll, show)
    }

    pub fn wait_ready(&self, name: &str) -> Value {
        self.wait_condition("mib", name, "Ready", "True", "Ready")
    }

    pub fn wait_deleted(&self, kind: &str, name: &str) {
        let left = || self.get(kind, name);
        let show = || left().map(|left| format!("{left:#}")).unwrap_or_default();
        wait_or_show(&format!("{kind} {name} to be deleted"), || left().is_none().then_some(()), show);
    }

    /// Messages of the Warning events on an object, with their reasons.
    pub fn warnings(&self, name: &str) -> Vec<(String, String)> {
        let arguments = ["get", "events", "--namespace", &self.name, "--output", "json"];
        let list: Value = serde_json::from_str(&kubectl(self.ensign.control_plane, &arguments)).expect("events");
        let events = list["items"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        events
            .iter()
            .filter(|event| event["type"] == "Warning" && event["involvedObject"]["name"] == name)
            .map(|event| (text(&event["reason"]), text(&event["message"])))
            .collect()
    }

    /// The credentials under the team's identity, as `(name, subject)`.
    pub fn credentials(&self) -> Vec<(String, String)> {
        self.ensign.credentials(&self.name)
    }

    /// How many writes of the identity's credentials ARM received.
    pub fn arm_writes(&self) -> usize {
        self.ensign.arm_writes(&self.name).len()
    }
}

/// A condition of an object's status.
pub fn condition_of<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}
