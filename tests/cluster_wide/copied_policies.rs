//! Copies of injected pods: policies skip a pod early when nothing is left to inject, and must not
//! skip one that lacks something, whatever its annotation says.

use ensign_api::keys::{GATED_LABEL, IDENTITY_GATE, TOKEN_MOUNT_PATH, TOKEN_VOLUME};
use serde_json::{Value, json};

use crate::expressions::PolicyTestbed;
use crate::policy_namespace::{binding, condition};
use ensign_testkit::pods::{env, env_names, is_gated, labelled};

/// A testbed with two bindings, whose pods are gated.
fn testbed() -> PolicyTestbed {
    let testbed = PolicyTestbed::create();
    let waits = json!({"conditions": [condition("Accepted", "True", "Accepted", "")]});
    let second = json!({"spec": {"injection": {"clientIDEnv": "SECOND"}}, "status": waits});
    testbed.bind(&[binding("first", &json!({})), binding("second", &second)]);
    testbed
}

/// The pod as it would be created from an injected one.
fn copied(injected: &Value) -> Value {
    let kept = &injected["metadata"];
    let metadata = json!({"name": "pod", "labels": kept["labels"], "annotations": kept["annotations"]});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": injected["spec"]})
}

#[test]
fn a_copy_of_an_injected_pod_stays_as_it_is() {
    let testbed = testbed();
    let first = testbed.admitted(&labelled());
    assert_eq!(first["spec"]["schedulingGates"], json!([{"name": IDENTITY_GATE}]));
    let second = testbed.dry_run(&copied(&first)).expect("admitted");
    assert_eq!(second["spec"], first["spec"]);
    assert_eq!(second["metadata"]["annotations"], first["metadata"]["annotations"]);
    assert_eq!(second["metadata"]["labels"], first["metadata"]["labels"]);
}

#[test]
fn a_copy_that_lacks_something_gets_it() {
    let testbed = testbed();
    let whole = copied(&testbed.admitted(&labelled()));
    for variable in env_names(&whole["spec"]["containers"][0]) {
        let mut lacking = whole.clone();
        let list = lacking["spec"]["containers"][0]["env"].as_array_mut().expect("variables");
        list.retain(|one| one["name"] != variable);
        let admitted = testbed.dry_run(&lacking).expect("admitted");
        assert_eq!(env(&admitted["spec"]["containers"][0]).len(), 5, "{variable}");
    }
    let lacks = |pointer: &str, value: Value| {
        let mut lacking = whole.clone();
        *lacking.pointer_mut(pointer).expect("something") = value;
        testbed.dry_run(&lacking).expect("admitted")
    };
    let admitted = lacks("/spec/containers/0/volumeMounts", json!([]));
    assert_eq!(admitted["spec"]["containers"][0]["volumeMounts"][0]["name"], TOKEN_VOLUME);
    let admitted = lacks("/spec/schedulingGates", json!([]));
    assert!(is_gated(&admitted), "{admitted:#}");
    let admitted = lacks(&format!("/metadata/labels/{}", GATED_LABEL.replace('/', "~1")), json!("false"));
    assert!(is_gated(&admitted), "{admitted:#}");
    // As a webhook that is called later would add it.
    let app = whole["spec"]["containers"][0].clone();
    let admitted = lacks("/spec/containers", json!([app, {"name": "sidecar", "image": "x"}]));
    assert_eq!(env(&admitted["spec"]["containers"][1]).len(), 5, "{admitted:#}");
    assert_eq!(admitted["spec"]["schedulingGates"], json!([{"name": IDENTITY_GATE}]));
}

#[test]
fn a_copy_with_a_conflicting_mount_is_denied() {
    let testbed = testbed();
    let mut copy = copied(&testbed.admitted(&labelled()));
    let below = format!("{TOKEN_MOUNT_PATH}/token");
    copy["spec"]["volumes"].as_array_mut().expect("volumes").push(json!({"name": "data", "emptyDir": {}}));
    let mounts = copy["spec"]["containers"][0]["volumeMounts"].as_array_mut().expect("mounts");
    mounts.push(json!({"name": "data", "mountPath": below}));
    let refusal = testbed.dry_run(&copy).expect_err("denied");
    assert!(refusal.contains(&format!("mounts volume \"data\" at \"{below}\", which conflicts with")), "{refusal}");
}
