use serde_json::{Value, json};

use super::*;

const NOW: &str = "2026-01-03T00:00:00Z";
const BY_ORDERS: &str = "orders=ManagedIdentity/orders";

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": NOW})
}

/// A binding whose identity is ready, changed by a merge patch.
fn binding(name: &str, change: &Value) -> ManagedIdentityBinding {
    let mut object = json!({
        "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentityBinding",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"identityRef": {"name": name}, "serviceAccountName": "app"},
        "status": {
            "clientID": "client",
            "credential": {"name": "c", "issuer": "https://i", "origin": "Created", "confirmedSince": NOW},
            "conditions": [
                condition("Ready", "True", "Ready", ""),
                condition("Accepted", "True", "Accepted", ""),
                condition("CredentialReady", "True", "Confirmed", ""),
            ],
        },
    });
    json_patch::merge(&mut object, change);
    serde_json::from_value(object).unwrap()
}

/// A binding without a credential, for this reason.
fn without_credential(name: &str, reason: &str, message: &str) -> ManagedIdentityBinding {
    let conditions = [
        condition("Ready", "False", reason, message),
        condition("Accepted", "True", "Accepted", ""),
        condition("CredentialReady", "False", reason, message),
    ];
    binding(name, &json!({"status": {"credential": null, "conditions": conditions}}))
}

fn decide_on(injected_by: &str, bindings: &[ManagedIdentityBinding]) -> GateDecision {
    let find = |name: &str| bindings.iter().find(|binding| binding.name_any() == name);
    decide(Some(injected_by), find)
}

/// Why the pod starts although its identity is not ready.
fn lost(injected_by: &str, bindings: &[ManagedIdentityBinding]) -> String {
    match decide_on(injected_by, bindings) {
        GateDecision::Remove { events } if events.len() == 1 => {
            assert_eq!(events[0].reason, Reason::StartedWithoutIdentity);
            events[0].message.clone()
        }
        other => panic!("not ungated with one event: {other:?}"),
    }
}

/// What the pod waits for.
fn waits(injected_by: &str, bindings: &[ManagedIdentityBinding]) -> Vec<Event> {
    match decide_on(injected_by, bindings) {
        GateDecision::Wait { events } => events,
        GateDecision::Remove { events } => panic!("ungated: {events:?}"),
    }
}

#[test]
fn a_pod_starts_without_an_event_once_its_credential_is_ready() {
    assert!(decide_on(BY_ORDERS, &[binding("orders", &json!({}))]).is_identity_ready());
    let events = waits(BY_ORDERS, &[without_credential("orders", "Propagating", "Entra gets 30 s")]);
    assert_eq!(events[0].reason, Reason::Propagating);
    assert!(events[0].message.contains("Entra gets 30 s"), "{events:?}");
}

#[test]
fn a_pod_waits_for_every_binding_that_injected_it() {
    let by = "orders=ManagedIdentity/orders,pay=ManagedIdentity/pay";
    let events =
        waits(by, &[without_credential("orders", "Propagating", ""), without_credential("pay", "Propagating", "")]);
    assert_eq!(events.len(), 1, "one event for one reason");
    assert!(events[0].message.contains("orders") && events[0].message.contains("pay"), "{events:?}");
    let events = waits(by, &[binding("orders", &json!({})), without_credential("pay", "Forbidden", "no role")]);
    assert_eq!(events[0].reason, Reason::Forbidden);
    let others =
        [binding("orders", &json!({})), binding("pay", &json!({})), without_credential("new", "Forbidden", "")];
    assert!(decide_on(by, &others).is_identity_ready(), "a later binding does not gate it");
}

#[test]
fn a_pod_whose_binding_needs_someone_to_act_waits_with_an_event_that_tells_who() {
    let stuck = without_credential("orders", "QuotaExceeded", "20/20: free one");
    let events = waits(BY_ORDERS, &[stuck]);
    assert_eq!(events[0].reason, Reason::QuotaExceeded);
    for part in ["someone has to act", "ManagedIdentityBinding orders", "20/20: free one", "startPolicy: Immediate"] {
        assert!(events[0].message.contains(part), "{part} is missing: {}", events[0].message);
    }
}

#[test]
fn a_pod_waits_for_a_pending_credential_without_anyone_acting() {
    let events = waits(BY_ORDERS, &[without_credential("orders", "CredentialPending", "about to be written")]);
    assert_eq!(events[0].reason, Reason::CredentialPending);
    assert!(events[0].message.contains("starts automatically"), "{}", events[0].message);
    let events = waits(BY_ORDERS, &[binding("orders", &json!({"status": null}))]);
    assert_eq!(events[0].reason, Reason::Pending);
}

#[test]
fn a_confirmed_credential_counts_while_azure_is_unavailable() {
    let conditions = [
        condition("Ready", "False", "AzureUnavailable", ""),
        condition("Accepted", "True", "Accepted", ""),
        condition("IdentityResolved", "Unknown", "AzureUnavailable", ""),
        condition("CredentialReady", "True", "Confirmed", ""),
    ];
    assert!(
        decide_on(BY_ORDERS, &[binding("orders", &json!({"status": {"conditions": conditions}}))]).is_identity_ready()
    );
}

#[test]
fn a_pod_whose_binding_was_deleted_is_ungated_with_an_event() {
    let message = lost(BY_ORDERS, &[]);
    assert!(message.contains("orders, which injected it, was deleted"), "{message}");
    assert!(message.contains("Entra will reject its token"), "{message}");
    let another = json!({"spec": {"identityRef": {"name": "other"}}});
    assert!(lost(BY_ORDERS, &[binding("orders", &another)]).contains("was deleted"), "a different binding");
    let deleting = json!({"metadata": {"deletionTimestamp": NOW}});
    assert!(lost(BY_ORDERS, &[binding("orders", &deleting)]).contains("being deleted"));
}

#[test]
fn a_pod_whose_binding_is_no_longer_accepted_is_ungated_with_the_reason() {
    let not_allowed = [condition("Accepted", "False", "NotAllowed", "ask the operator")];
    let message = lost(BY_ORDERS, &[binding("orders", &json!({"status": {"conditions": not_allowed}}))]);
    assert!(message.contains("NotAllowed") && message.contains("ask the operator"), "{message}");
}

#[test]
fn a_binding_that_became_immediate_ungates_with_an_event_unless_the_identity_is_ready() {
    let immediate = json!({"spec": {"injection": {"startPolicy": "Immediate"}}});
    let mut not_ready = without_credential("orders", "Propagating", "");
    not_ready.spec.injection.start_policy = StartPolicy::Immediate;
    assert!(lost(BY_ORDERS, &[not_ready]).contains("startPolicy"));
    assert!(decide_on(BY_ORDERS, &[binding("orders", &immediate)]).is_identity_ready());
}

#[test]
fn a_deleted_binding_does_not_ungate_a_pod_that_another_one_gates() {
    let by = "gone=ManagedIdentity/gone,orders=ManagedIdentity/orders";
    let events = waits(by, &[without_credential("orders", "CredentialPending", "")]);
    assert_eq!(events.len(), 1);
    assert!(lost(by, &[binding("orders", &json!({}))]).contains("gone, which injected it"));
}

#[test]
fn the_gate_of_a_pod_without_entries_in_its_annotation_is_removed() {
    for annotation in [None, Some(""), Some("nonsense"), Some(",,")] {
        let decision = decide(annotation, |_| None);
        assert!(
            matches!(&decision, GateDecision::Remove { events } if events[0].message.contains(IDENTITY_GATE)),
            "{decision:?}"
        );
    }
}
