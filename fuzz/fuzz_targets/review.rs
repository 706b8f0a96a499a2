//! Arbitrary bytes as the body of a review: parsed, decided with fixed bindings in both modes, answered.
//!
//! Nothing may panic. A patch must apply to its pod, and a second pass must not change the injected pod.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use ensign_core::admission::azure_workload_identity::{self, Account, Annotations, Compatibility};
use ensign_core::admission::{self, Binding, Config, Decision, Pod};
use ensign_webhook::review::{self, Question};
use json_patch::Patch;
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

/// The configuration of every decision.
struct World {
    plain: Config,
    compatible: Config,
    bindings: Vec<Arc<Binding>>,
    account: Account,
}

static WORLD: LazyLock<World> = LazyLock::new(World::new);

impl World {
    fn new() -> Self {
        let plain = Config {
            authority_host: "https://login.example/".to_owned(),
            audience: "api://AzureADTokenExchange".to_owned(),
            excluded: BTreeSet::from(["kube-system".to_owned()]),
            compatibility: None,
            gate_pods: true,
        };
        let compatibility = Some(Compatibility { tenant_id: "tenant".to_owned() });
        let annotations = BTreeMap::from([("azure.workload.identity/client-id".to_owned(), "annotated".to_owned())]);
        Self {
            compatible: Config { compatibility, ..plain.clone() },
            plain,
            bindings: vec![
                binding("first", &json!({}), "True"),
                binding("second", &json!({"injection": {"clientIDEnv": "SECOND_CLIENT_ID"}}), "True"),
                binding(
                    "some",
                    &json!({"injection": {"clientIDEnv": "THIRD", "containers": {"exclude": ["a"]}}}),
                    "True",
                ),
                binding(
                    "selected",
                    &json!({"podSelector": {"matchExpressions": [
                        {"key": "app", "operator": "NotIn", "values": ["a"]},
                    ]}}),
                    "True",
                ),
                binding("refused", &json!({}), "False"),
            ],
            account: Account::Present(Annotations::from(&annotations)),
        }
    }

    fn decide(&self, pod: &Pod<'_>, namespace: &str, bindings: &[Arc<Binding>], config: &Config) -> Decision {
        if azure_workload_identity::asks(pod, namespace, config) {
            azure_workload_identity::admit(pod, namespace, bindings, &self.account, config)
        } else {
            admission::admit(pod, namespace, bindings, config)
        }
    }
}

fn binding(name: &str, spec: &Value, accepted: &str) -> Arc<Binding> {
    let mut object = json!({
        "apiVersion": "ensign.dev/v1alpha1",
        "kind": "ManagedIdentityBinding",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"identityRef": {"name": name}, "serviceAccountName": "a"},
        "status": {"clientID": format!("{name}-client"), "tenantID": "tenant", "conditions": [{
            "type": "Accepted", "status": accepted, "reason": "Fuzzed", "message": "m",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]},
    });
    json_patch::merge(&mut object["spec"], spec);
    Arc::new(Binding::from(&serde_json::from_value(object).expect("a binding")))
}

fuzz_target!(|body: &[u8]| {
    let world = &*WORLD;
    let Ok(Question::Create(creation)) = review::read(body) else { return };
    // Fields that no rule uses are skipped without limits on depth or numbers.
    let Ok(whole) = serde_json::from_slice::<Value>(body) else { return };
    for config in [&world.plain, &world.compatible] {
        for bindings in [&world.bindings[..], &world.bindings[4..]] {
            let decision = world.decide(&creation.pod, &creation.namespace, bindings, config);
            let answer = review::answer(&creation.uid, &decision).expect("a response");
            serde_json::from_slice::<Value>(&answer).expect("the response is JSON");
            let Decision::Patch { operations, .. } = decision else { continue };
            let mut after = whole["request"]["object"].clone();
            let operations: Patch = serde_json::from_value(json!(operations)).expect("the patch is a JSON patch");
            json_patch::patch(&mut after, &operations).expect("the patch applies to the pod");
            let text = after.to_string();
            let pod: Pod<'_> = serde_json::from_str(&text).expect("the patched pod is a pod");
            let again = world.decide(&pod, &creation.namespace, bindings, config);
            assert!(matches!(again, Decision::Allow { .. }), "a second pass changes {text}: {again:?}");
        }
    }
});
