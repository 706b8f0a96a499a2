use serde_json::{Value, json};

use super::*;

const NOW: &str = "2026-01-03T00:00:00Z";
const BY_ORDERS: &str = "orders=ManagedIdentity/orders";

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": NOW})
}

/// A binding whose identity works, changed by a merge patch.
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

/// A binding that has no credential, for this reason.
fn without_credential(name: &str, reason: &str, message: &str) -> ManagedIdentityBinding {
    let conditions = [
        condition("Ready", "False", reason, message),
        condition("Accepted", "True", "Accepted", ""),
        condition("CredentialReady", "False", reason, message),
    ];
    binding(name, &json!({"status": {"credential": null, "conditions": conditions}}))
}

fn decide(injected_by: &str, bindings: &[ManagedIdentityBinding]) -> Lifting {
    let find = |name: &str| bindings.iter().find(|binding| binding.name_any() == name);
    lifting(Some(injected_by), find)
}

/// Why the pod starts though its identity does not work.
fn lost(injected_by: &str, bindings: &[ManagedIdentityBinding]) -> String {
    match decide(injected_by, bindings) {
        Lifting::Lift { notes } if notes.len() == 1 => {
            assert_eq!(notes[0].reason, Reason::StartedWithoutIdentity);
            notes[0].message.clone()
        }
        other => panic!("not let go with a word: {other:?}"),
    }
}

/// What the pod waits for.
fn waits(injected_by: &str, bindings: &[ManagedIdentityBinding]) -> Vec<Event> {
    match decide(injected_by, bindings) {
        Lifting::Wait { notes } => notes,
        Lifting::Lift { notes } => panic!("let go: {notes:?}"),
    }
}

#[test]
fn a_pod_starts_without_a_word_once_its_credential_has_settled() {
    assert!(decide(BY_ORDERS, &[binding("orders", &json!({}))]).is_earned());
    let notes = waits(BY_ORDERS, &[without_credential("orders", "Propagating", "Entra gets 30 s")]);
    assert_eq!(notes[0].reason, Reason::Propagating);
    assert!(notes[0].message.contains("Entra gets 30 s"), "{notes:?}");
}

#[test]
fn a_pod_waits_for_every_binding_that_injected_it() {
    let by = "orders=ManagedIdentity/orders,pay=ManagedIdentity/pay";
    let notes =
        waits(by, &[without_credential("orders", "Propagating", ""), without_credential("pay", "Propagating", "")]);
    assert_eq!(notes.len(), 1, "one note for one reason");
    assert!(notes[0].message.contains("orders") && notes[0].message.contains("pay"), "{notes:?}");
    let notes = waits(by, &[binding("orders", &json!({})), without_credential("pay", "Forbidden", "no role")]);
    assert_eq!(notes[0].reason, Reason::Forbidden);
    let others =
        [binding("orders", &json!({})), binding("pay", &json!({})), without_credential("new", "Forbidden", "")];
    assert!(decide(by, &others).is_earned(), "a binding that came later does not hold it");
}

#[test]
fn a_pod_that_only_a_person_can_help_waits_and_says_who_has_to_do_what() {
    let stuck = without_credential("orders", "QuotaExceeded", "20/20: free one");
    let notes = waits(BY_ORDERS, &[stuck]);
    assert_eq!(notes[0].reason, Reason::QuotaExceeded);
    for part in ["somebody has to act", "ManagedIdentityBinding orders", "20/20: free one", "startPolicy: Immediate"] {
        assert!(notes[0].message.contains(part), "{part} is missing: {}", notes[0].message);
    }
}

#[test]
fn a_credential_on_its_way_is_waited_for_by_itself() {
    let notes = waits(BY_ORDERS, &[without_credential("orders", "CredentialPending", "about to be written")]);
    assert_eq!(notes[0].reason, Reason::CredentialPending);
    assert!(notes[0].message.contains("starts by itself"), "{}", notes[0].message);
    let notes = waits(BY_ORDERS, &[binding("orders", &json!({"status": null}))]);
    assert_eq!(notes[0].reason, Reason::Pending);
}

#[test]
fn while_azure_is_away_a_confirmed_credential_still_counts() {
    let conditions = [
        condition("Ready", "False", "AzureUnavailable", ""),
        condition("Accepted", "True", "Accepted", ""),
        condition("IdentityResolved", "Unknown", "AzureUnavailable", ""),
        condition("CredentialReady", "True", "Confirmed", ""),
    ];
    assert!(decide(BY_ORDERS, &[binding("orders", &json!({"status": {"conditions": conditions}}))]).is_earned());
}

#[test]
fn a_pod_whose_binding_is_gone_is_let_go_with_a_word() {
    let said = lost(BY_ORDERS, &[]);
    assert!(said.contains("orders, which injected it, is gone") && said.contains("Entra will refuse"), "{said}");
    let another = json!({"spec": {"identityRef": {"name": "other"}}});
    assert!(lost(BY_ORDERS, &[binding("orders", &another)]).contains("is gone"), "another identity, another binding");
    let deleting = json!({"metadata": {"deletionTimestamp": NOW}});
    assert!(lost(BY_ORDERS, &[binding("orders", &deleting)]).contains("being deleted"));
}

#[test]
fn a_pod_whose_binding_was_refused_is_let_go_with_its_reason() {
    let refused = [condition("Accepted", "False", "NotAllowed", "ask the operator")];
    let said = lost(BY_ORDERS, &[binding("orders", &json!({"status": {"conditions": refused}}))]);
    assert!(said.contains("NotAllowed") && said.contains("ask the operator"), "{said}");
}

#[test]
fn a_binding_that_came_to_be_immediate_lets_go_with_a_word_unless_the_identity_works() {
    let immediate = json!({"spec": {"injection": {"startPolicy": "Immediate"}}});
    let mut unsettled = without_credential("orders", "Propagating", "");
    unsettled.spec.injection.start_policy = StartPolicy::Immediate;
    assert!(lost(BY_ORDERS, &[unsettled]).contains("startPolicy"));
    assert!(decide(BY_ORDERS, &[binding("orders", &immediate)]).is_earned());
}

#[test]
fn one_binding_that_is_lost_does_not_let_go_what_another_holds() {
    let by = "gone=ManagedIdentity/gone,orders=ManagedIdentity/orders";
    let notes = waits(by, &[without_credential("orders", "CredentialPending", "")]);
    assert_eq!(notes.len(), 1);
    assert!(lost(by, &[binding("orders", &json!({}))]).contains("gone, which injected it"));
}

#[test]
fn a_gate_on_a_pod_that_nobody_injected_is_lifted_whatever_its_annotation_says() {
    for annotation in [None, Some(""), Some("nonsense"), Some(",,")] {
        let lifting = lifting(annotation, |_| None);
        assert!(matches!(&lifting, Lifting::Lift { notes } if notes[0].message.contains(IDENTITY_GATE)), "{lifting:?}");
    }
}
