//! Which pods are gated at admission.

use std::sync::Arc;

use serde_json::{Value, json};

use super::tests::{binding, condition, config, decide, injected, left_unchanged, pod, resolved, warnings};
use super::*;
use ensign_api::keys::{GATED_LABEL, IDENTITY_GATE, INJECT_LABEL};

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

fn is_gated(pod: &Value) -> bool {
    let (gate, label) = (gates(pod).contains(&IDENTITY_GATE), pod["metadata"]["labels"][GATED_LABEL] == "true");
    assert_eq!(gate, label, "gate and label belong together: {pod:#}");
    gate
}

#[test]
fn a_pod_is_gated_until_its_credential_is_ready() {
    let gated = |binding: Arc<Binding>| is_gated(&injected(&pod(&json!({})), &[binding]));
    assert!(gated(unconfirmed("orders")), "also if someone has to act");
    assert!(gated(binding(
        "orders",
        &json!({"status": {"conditions": [
            condition("Accepted", "True", "Accepted", ""), condition("CredentialReady", "Unknown", "Propagating", ""),
        ]}})
    )));
    assert!(!gated(resolved("orders")));
}

#[test]
fn start_policy_immediate_does_not_gate() {
    assert!(!is_gated(&injected(&pod(&json!({})), &[immediate("orders")])));
}

#[test]
fn one_binding_that_waits_gates_the_pod_unless_it_selects_none_of_the_containers() {
    let elsewhere = json!({"status": {"credential": null, "conditions": [condition("Accepted", "True", "Accepted", "")]}, "spec": {"injection": {"containers": {"include": ["nobody"]}}}});
    assert!(is_gated(&injected(&pod(&json!({})), &[immediate("audit"), unconfirmed("orders")])));
    assert!(!is_gated(&injected(&pod(&json!({})), &[resolved("orders"), binding("other", &elsewhere)])));
}

#[test]
fn the_decision_reports_whether_the_pod_is_gated() {
    let gated = |bindings: &[Arc<Binding>]| match decide(&pod(&json!({})), bindings) {
        Decision::Patch { gated, .. } => gated,
        other => panic!("not injected: {other:?}"),
    };
    assert!(gated(&[unconfirmed("orders")]));
    assert!(!gated(&[resolved("orders")]));
}

#[test]
fn no_pod_is_gated_if_gating_is_disabled() {
    let text = pod(&json!({})).to_string();
    let read: Pod<'_> = serde_json::from_str(&text).unwrap();
    let config = Config { gate_pods: false, ..config() };
    let decision = admit(&read, "shop", &[unconfirmed("orders")], &config);
    assert!(matches!(decision, Decision::Patch { gated: false, .. }), "{decision:?}");
}

#[test]
fn a_pod_that_sets_its_node_is_injected_with_a_warning_and_not_gated() {
    let bound = pod(&json!({"spec": {"nodeName": "node-1"}}));
    assert!(!is_gated(&injected(&bound, &[unconfirmed("orders")])));
    let warned = warnings(&bound, &[unconfirmed("orders")]);
    assert!(warned.len() == 1 && warned[0].contains("spec.nodeName") && warned[0].contains("\"orders\""), "{warned:?}");
    assert!(warnings(&bound, &[resolved("orders")]).is_empty(), "it would not have been gated");
    assert!(is_gated(&injected(&pod(&json!({"spec": {"nodeName": ""}})), &[unconfirmed("orders")])));
}

#[test]
fn gates_and_labels_of_others_are_kept() {
    let gated = pod(&json!({"spec": {"schedulingGates": [{"name": "example.com/quota"}]}}));
    let after = injected(&gated, &[unconfirmed("orders")]);
    assert_eq!(gates(&after), ["example.com/quota", IDENTITY_GATE]);
    assert_eq!(after["metadata"]["labels"], json!({"app": "orders", GATED_LABEL: "true"}));
}

#[test]
fn a_pod_that_comes_with_the_gate_gets_the_label_so_that_the_controller_finds_it() {
    for label in [Value::Null, json!("false"), json!("true")] {
        let copy = pod(&json!({
            "metadata": {"labels": {GATED_LABEL: label}}, "spec": {"schedulingGates": [{"name": IDENTITY_GATE}]},
        }));
        let after = injected(&copy, &[resolved("orders")]);
        assert!(is_gated(&after));
        assert_eq!(gates(&after), [IDENTITY_GATE], "once");
    }
}

#[test]
fn the_label_without_the_gate_is_kept_and_has_no_effect() {
    let labelled = pod(&json!({"metadata": {"labels": {GATED_LABEL: "true"}}}));
    let after = injected(&labelled, &[resolved("orders")]);
    assert_eq!((gates(&after), &after["metadata"]["labels"]), (vec![], &labelled["metadata"]["labels"]));
}

#[test]
fn pods_without_labels_or_without_metadata_are_gated_too() {
    for metadata in [json!({"name": "orders-1"}), Value::Null] {
        let mut bare = pod(&json!({}));
        bare["metadata"] = metadata;
        assert!(is_gated(&injected(&bare, &[unconfirmed("orders")])));
    }
}

#[test]
fn a_second_pass_over_a_gated_pod_changes_nothing_even_once_the_identity_is_ready() {
    let once = injected(&pod(&json!({})), &[unconfirmed("orders")]);
    assert!(left_unchanged(&decide(&once, &[unconfirmed("orders")])));
    assert!(left_unchanged(&decide(&once, &[resolved("orders")])));
}

#[test]
fn pods_that_are_not_injected_are_never_gated() {
    let gated = json!({"spec": {"schedulingGates": [{"name": IDENTITY_GATE}]}});
    let opted_out = json!({"metadata": {"labels": {INJECT_LABEL: "false"}}});
    assert!(left_unchanged(&decide(&pod(&opted_out), &[unconfirmed("orders")])));
    assert!(left_unchanged(&decide(&pod(&gated), &[])));
}
