//! The pods of a team.

use ensign_api::keys::TOKEN_VOLUME;
use serde_json::{Value, json};

use super::objects::{Team, kubectl, wait_for};
use super::pods::create;

impl Team {
    pub fn account(&self, name: &str) {
        kubectl(self.ensign.control_plane, &["create", "serviceaccount", name, "--namespace", &self.name]);
    }

    pub fn create(&self, object: &Value) -> Result<Value, String> {
        create(self.ensign.control_plane, object, &[])
    }

    pub fn dry_run(&self, object: &Value) -> Result<Value, String> {
        create(self.ensign.control_plane, object, &["--dry-run=server"])
    }

    /// The pod as stored, as soon as it is admitted: a denied one is retried, as its
    /// controller does.
    pub fn created(&self, object: &Value) -> Value {
        wait_for("the pod to be admitted", || self.create(object).ok())
    }

    /// The pod as it would be stored, as soon as it is injected: an unlabelled one is admitted before that, too.
    pub fn injected(&self, object: &Value) -> Value {
        wait_for("the pod to be injected", || self.dry_run(object).ok().filter(is_injected_at_all))
    }

    pub fn kubectl(&self, arguments: &[&str]) -> String {
        kubectl(self.ensign.control_plane, &[arguments, &["--namespace", &self.name]].concat())
    }

    pub fn deployment(&self, name: &str, labels: &Value) {
        let mut template = json!({
            "metadata": {"labels": {"app": name}},
            "spec": {"serviceAccountName": "app", "containers": [{"name": "app", "image": "app:1"}]},
        });
        json_patch::merge(&mut template, &json!({"metadata": {"labels": labels}}));
        self.apply(&json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": self.name},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"app": name}}, "template": template},
        }));
        wait_for("the pods of the Deployment", || (self.pods(name).len() == 2).then_some(()));
    }

    pub fn pods(&self, app: &str) -> Vec<Value> {
        let list = self.kubectl(&["get", "pods", "--selector", &format!("app={app}"), "--output", "json"]);
        let list: Value = serde_json::from_str(&list).expect("a list");
        list["items"].as_array().cloned().unwrap_or_default()
    }
}

/// Whether the pod has the token volume.
fn is_injected_at_all(pod: &Value) -> bool {
    pod["spec"]["volumes"].as_array().into_iter().flatten().any(|volume| volume["name"] == TOKEN_VOLUME)
}
