//! A Deployment before its binding, as Helm may apply them: with a real `ReplicaSet` controller, without manual steps.

use std::collections::BTreeMap;

use ensign_api::keys::{GATED_LABEL, INJECT_LABEL};
use ensign_core::cel::Mode;
use serde_json::{Value, json};

use crate::INJECTION;
use ensign_testkit::gating::{GatingTestbed, SETTLE};
use ensign_testkit::objects::{apply_all, kubectl, unique};
use ensign_testkit::pods::{gates, is_gated, is_injected};
use ensign_testkit::testbed::Testbed;

/// Azure allows 20 credentials per identity.
const BATCH: usize = 20;

/// A batch of namespaces, whose objects are labelled with its name.
struct Batch<'a> {
    testbed: &'a GatingTestbed,
    name: String,
}

impl Batch<'_> {
    fn namespaces(&self) -> Vec<String> {
        (0..BATCH).map(|index| format!("{}-{index}", self.name)).collect()
    }

    fn each(&self, object: impl Fn(&str) -> Value) {
        let objects: Vec<Value> = self.namespaces().iter().map(|namespace| object(namespace)).collect();
        apply_all(self.testbed.control_plane, &objects);
    }

    /// Objects of the batch by namespace.
    fn list(&self, kind: &str) -> BTreeMap<String, Vec<Value>> {
        let selector = format!("batch={}", self.name);
        let arguments = ["get", kind, "--all-namespaces", "--selector", &selector, "--output", "json"];
        let list: Value = serde_json::from_str(&kubectl(self.testbed.control_plane, &arguments)).expect("a list");
        let mut found: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for item in list["items"].as_array().cloned().unwrap_or_default() {
            found.entry(item["metadata"]["namespace"].as_str().unwrap_or_default().to_owned()).or_default().push(item);
        }
        found
    }

    /// Waits until each namespace has exactly one object of the kind, and it fits.
    fn wait_each(&self, what: &str, kind: &str, fits: impl Fn(&Value) -> bool) -> BTreeMap<String, Value> {
        self.testbed.wait_for(what, || {
            let found = self.list(kind);
            let fitting = found.into_iter().filter(|(_, all)| all.len() == 1 && fits(&all[0]));
            let fitting: BTreeMap<String, Value> = fitting.map(|(name, mut all)| (name, all.remove(0))).collect();
            (fitting.len() == BATCH).then_some(fitting)
        })
    }
}

/// A batch at a time: a hundred rounds with the webhook, and twenty with policies. The race is
/// whether the webhook's cache has the binding by the time of the pod;
/// policies deny a pod until their watch has delivered it.
#[test]
fn a_deployment_before_its_binding_starts_injected_and_gated_without_manual_steps() {
    let testbed = GatingTestbed::acquire(INJECTION);
    let _controller = testbed.start(&unique("rounds"));
    let batches = match INJECTION {
        Mode::Webhook => 5,
        Mode::Policy => 1,
    };
    for _ in 0..batches {
        let identity = Testbed::team(&testbed, "rounds");
        let batch = Batch { testbed: &testbed, name: identity.name.clone() };
        let labels = json!({"batch": batch.name});
        batch.each(
            |name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}),
        );
        batch.each(|namespace| {
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "app", "namespace": namespace}})
        });
        batch.each(|namespace| {
            let labels = json!({"app": "app", "batch": batch.name, INJECT_LABEL: "true"});
            json!({
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "app", "namespace": namespace},
                "spec": {
                    "selector": {"matchLabels": {"app": "app"}},
                    "template": {"metadata": {"labels": labels}, "spec": {
                        "serviceAccountName": "app", "containers": [{"name": "app", "image": "app:1"}],
                    }},
                },
            })
        });
        batch.wait_each("the pods to be denied", "replicasets", |set| {
            set["status"]["conditions"].to_string().contains("Create a ManagedIdentityBinding")
        });
        identity
            .grant(&json!([{"name": "all", "namespaceSelector": {"matchLabels": labels}, "serviceAccounts": ["app"]}]));
        batch.each(|namespace| {
            json!({
                "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentityBinding",
                "metadata": {"name": "app", "namespace": namespace},
                "spec": {"identityRef": {"name": batch.name}, "serviceAccountName": "app"},
            })
        });
        let held = batch.wait_each("a pod in each namespace", "pods", |_| true);
        for pod in held.values() {
            assert!(is_injected(pod) && is_gated(pod), "{pod:#}");
        }
        testbed.clock.advance(SETTLE);
        let released = batch.wait_each("the pods to be ungated", "pods", |pod| gates(pod).is_empty());
        for (namespace, pod) in &released {
            assert_eq!(pod["metadata"]["uid"], held[namespace]["metadata"]["uid"], "the same pod");
            assert!(is_injected(pod) && pod["metadata"]["labels"].get(GATED_LABEL).is_none(), "{pod:#}");
        }
    }
}
