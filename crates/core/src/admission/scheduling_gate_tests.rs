//! Which pods are held at admission.

use serde_json::{Value, json};

use super::tests::{binding, condition, config, decide, injected, left_alone, pod, resolved, warnings};
use super::*;
use ensign_api::keys::{GATED_LABEL, IDENTITY_GATE};

fn unconfirmed(name: &str) -> Arc<Binding> {
    let conditions = [
        condition("Accepted", "True", "Accepted", ""),
        condition("CredentialReady", "False", "QuotaExceeded", "20/20"),
    ];
    binding(name, &json!({"status": {"credential": null, "conditions": conditions}}))
}

fn immediate(name: &str) -> Arc<Binding> {
    binding(
        name,
        &json!({
            "status": {"credential": null, "conditions": [condition("Accepted", "True", "Accepted", "")]},
            "spec": {"injection": {"startPolicy": "Immediate", "clientIDEnv": "SECOND_CLIENT_ID"}},
        }),
    )
}

fn gates(pod: &Value) -> Vec<&str> {
    let gates = pod["spec"]["schedulingGates"].as_array().map(Vec::as_slice).unwrap_or_default();
    gates.iter().map(|gate| gate["name"].as_str().unwrap()).collect()
}

fn is_held(pod: &Value) -> bool {
    let (gate, label) = (gates(pod).contains(&IDENTITY_GATE), pod["metadata"]["labels"][GATED_LABEL] == "true");
    assert_eq!(gate, label, "gate and label belong together: {pod:#}");
    gate
}

#[test]
fn a_pod_is_held_until_the_controller_says_that_the_credential_is_ready() {
    let held = |binding: Arc<Binding>| is_held(&injected(&pod(&json!({})), &[binding]));
    assert!(held(unconfirmed("orders")), "also where only a person can help: the pod waits, and says so");
    assert!(held(binding(
        "orders",
        &json!({"status": {"conditions": [
            condition("Accepted", "True", "Accepted", ""), condition("CredentialReady", "Unknown", "Propagating", ""),
        ]}})
    )));
    assert!(!held(resolved("orders")));
}

#[test]
fn start_policy_immediate_holds_nothing() {
    assert!(!is_held(&injected(&pod(&json!({})), &[immediate("orders")])));
}

#[test]
fn one_binding_that_waits_is_enough_unless_it_is_for_none_of_the_containers() {
    let elsewhere = json!({"status": {"credential": null, "conditions": [condition("Accepted", "True", "Accepted", "")]}, "spec": {"injection": {"containers": {"include": ["nobody"]}}}});
    assert!(is_held(&injected(&pod(&json!({})), &[immediate("audit"), unconfirmed("orders")])));
    assert!(!is_held(&injected(&pod(&json!({})), &[resolved("orders"), binding("other", &elsewhere)])));
}

#[test]
fn the_decision_says_whether_the_pod_is_held() {
    let held = |bindings: &[Arc<Binding>]| match decide(&pod(&json!({})), bindings) {
        Decision::Patch { held, .. } => held,
        other => panic!("not injected: {other:?}"),
    };
    assert!(held(&[unconfirmed("orders")]));
    assert!(!held(&[resolved("orders")]));
}

#[test]
fn without_holding_nothing_is_held() {
    let text = pod(&json!({})).to_string();
    let read: Pod<'_> = serde_json::from_str(&text).unwrap();
    let config = Config { hold: false, ..config() };
    let decision = admit(&read, "shop", &[unconfirmed("orders")], &config);
    assert!(matches!(decision, Decision::Patch { held: false, .. }), "{decision:?}");
}

#[test]
fn a_pod_that_names_its_node_is_injected_and_not_held_and_its_creator_is_told() {
    let bound = pod(&json!({"spec": {"nodeName": "node-1"}}));
    assert!(!is_held(&injected(&bound, &[unconfirmed("orders")])));
    let said = warnings(&bound, &[unconfirmed("orders")]);
    assert!(said.len() == 1 && said[0].contains("spec.nodeName") && said[0].contains("\"orders\""), "{said:?}");
    assert!(warnings(&bound, &[resolved("orders")]).is_empty(), "nothing would have held it");
    assert!(is_held(&injected(&pod(&json!({"spec": {"nodeName": ""}})), &[unconfirmed("orders")])));
}

#[test]
fn gates_and_labels_of_others_stay() {
    let gated = pod(&json!({"spec": {"schedulingGates": [{"name": "example.com/quota"}]}}));
    let after = injected(&gated, &[unconfirmed("orders")]);
    assert_eq!(gates(&after), ["example.com/quota", IDENTITY_GATE]);
    assert_eq!(after["metadata"]["labels"], json!({"app": "orders", GATED_LABEL: "true"}));
}

#[test]
fn a_pod_that_brings_the_gate_gets_the_label_so_that_the_controller_finds_it() {
    for label in [Value::Null, json!("false"), json!("true")] {
        let copy = pod(&json!({
            "metadata": {"labels": {GATED_LABEL: label}}, "spec": {"schedulingGates": [{"name": IDENTITY_GATE}]},
        }));
        let after = injected(&copy, &[resolved("orders")]);
        assert!(is_held(&after));
        assert_eq!(gates(&after), [IDENTITY_GATE], "once");
    }
}

#[test]
fn the_label_alone_is_nobodys_business() {
    let labelled = pod(&json!({"metadata": {"labels": {GATED_LABEL: "true"}}}));
    let after = injected(&labelled, &[resolved("orders")]);
    assert_eq!((gates(&after), &after["metadata"]["labels"]), (vec![], &labelled["metadata"]["labels"]));
}

#[test]
fn pods_without_labels_or_without_metadata_are_held_too() {
    for metadata in [json!({"name": "orders-1"}), Value::Null] {
        let mut bare = pod(&json!({}));
        bare["metadata"] = metadata;
        assert!(is_held(&injected(&bare, &[unconfirmed("orders")])));
    }
}

#[test]
fn a_second_pass_over_a_held_pod_changes_nothing_even_if_time_has_passed() {
    let once = injected(&pod(&json!({})), &[unconfirmed("orders")]);
    assert!(left_alone(&decide(&once, &[unconfirmed("orders")])));
    assert!(left_alone(&decide(&once, &[resolved("orders")])));
}

#[test]
fn pods_that_are_not_injected_are_never_held() {
    let gated = json!({"spec": {"schedulingGates": [{"name": IDENTITY_GATE}]}});
    let opted_out = json!({"metadata": {"labels": {INJECT_LABEL: "false"}}});
    assert!(left_alone(&decide(&pod(&opted_out), &[unconfirmed("orders")])));
    assert!(left_alone(&decide(&pod(&gated), &[])));
}
