use serde_json::{Value, json};

use super::*;

pub(crate) fn identity(name: &str, allowed: &Value) -> ManagedIdentity {
    serde_json::from_value(json!({
        "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentity", "metadata": {"name": name},
        "spec": {"existing": {"resourceID": "/subscriptions/x"}, "allowedSubjects": allowed},
    }))
    .unwrap()
}

fn shop_grant() -> Value {
    json!([{"name": "shop", "namespace": "shop", "serviceAccounts": ["*"]}])
}

pub(crate) fn binding(name: &str, second: u8, spec: &Value) -> ManagedIdentityBinding {
    let mut whole = json!({"identityRef": {"name": "orders"}, "serviceAccountName": "app"});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    serde_json::from_value(json!({
        "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentityBinding",
        "metadata": {"name": name, "namespace": "shop", "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z")},
        "spec": whole,
    }))
    .unwrap()
}

fn confirmed(mut binding: ManagedIdentityBinding) -> ManagedIdentityBinding {
    binding.status = serde_json::from_value(json!({
        "credential": {"name": "c", "issuer": "i", "origin": "Created", "confirmedSince": "2026-01-01T00:00:00Z"},
        "conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
    }))
    .unwrap();
    binding
}

fn decide_all(identities: &[ManagedIdentity], bindings: &[ManagedIdentityBinding]) -> BTreeMap<String, Acceptance> {
    let labels = BTreeMap::new();
    let namespace = NamespaceFacts {
        name: "shop",
        labels: &labels,
        bindings: bindings.iter().collect(),
        classes: &Classes::default(),
    };
    let accepted = Verdict::good(Reason::Accepted, "");
    let facts = identities
        .iter()
        .map(|object| {
            let name = object.metadata.name.as_deref().unwrap();
            (name, IdentityFacts { object, accepted: accepted.clone() })
        })
        .collect();
    decide(&namespace, &facts)
}

pub(crate) fn reasons(decided: &BTreeMap<String, Acceptance>) -> Vec<(&str, Reason)> {
    decided.iter().map(|(name, acceptance)| (name.as_str(), acceptance.verdict.reason)).collect()
}

#[test]
fn a_covered_binding_is_accepted_and_names_its_grant() {
    let decided = decide_all(&[identity("orders", &shop_grant())], &[binding("a", 0, &json!({}))]);
    assert_eq!(decided["a"].grant.as_deref(), Some("shop"));
    assert_eq!(reasons(&decided), [("a", Reason::Accepted)]);
}

#[test]
fn a_binding_that_no_grant_covers_is_rejected_and_reports_who_has_to_do_what() {
    let decided = decide_all(&[identity("orders", &json!([]))], &[binding("a", 0, &json!({}))]);
    let verdict = &decided["a"].verdict;
    assert_eq!(verdict.reason, Reason::NotAllowed);
    assert!(
        verdict.message.contains("a cluster operator has to add an entry to its spec.allowedSubjects"),
        "{verdict:?}"
    );
    assert!(verdict.message.contains("service account app of namespace shop"), "{verdict:?}");
}

#[test]
fn a_binding_to_an_identity_that_does_not_exist_is_rejected() {
    let decided = decide_all(&[], &[binding("a", 0, &json!({}))]);
    assert_eq!(reasons(&decided), [("a", Reason::ManagedIdentityNotFound)]);
}

#[test]
fn a_binding_to_an_identity_that_is_being_deleted_is_rejected() {
    let mut deleting = identity("orders", &shop_grant());
    deleting.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH));
    let decided = decide_all(&[deleting], &[binding("a", 0, &json!({}))]);
    assert_eq!(reasons(&decided), [("a", Reason::ManagedIdentityNotFound)]);
}

#[test]
fn a_token_lifetime_that_exceeds_the_identitys_limit_is_rejected() {
    let mut strict = identity("orders", &shop_grant());
    strict.spec.max_token_expiration_seconds = 3600;
    let decided = decide_all(&[strict], &[binding("a", 0, &json!({"injection": {"tokenExpirationSeconds": 7200}}))]);
    assert_eq!(reasons(&decided), [("a", Reason::TokenExpirationTooLong)]);
}

#[test]
fn of_two_conflicting_bindings_the_oldest_wins_and_is_named() {
    let identities = [identity("orders", &shop_grant()), identity("audit", &shop_grant())];
    let older = binding("z-older", 1, &json!({}));
    let younger = binding("a-younger", 2, &json!({"identityRef": {"name": "audit"}}));
    let decided = decide_all(&identities, &[younger, older]);
    assert_eq!(reasons(&decided), [("a-younger", Reason::Conflict), ("z-older", Reason::Accepted)]);
    assert!(decided["a-younger"].verdict.message.contains("binding z-older is older"));
}

#[test]
fn between_equally_old_bindings_the_name_decides() {
    let identities = [identity("orders", &shop_grant()), identity("audit", &shop_grant())];
    let one = binding("a", 1, &json!({"identityRef": {"name": "audit"}}));
    let decided = decide_all(&identities, &[binding("b", 1, &json!({})), one]);
    assert_eq!(reasons(&decided), [("a", Reason::Accepted), ("b", Reason::Conflict)]);
}

#[test]
fn a_rejected_binding_does_not_win_a_conflict() {
    let identities = [identity("orders", &json!([])), identity("audit", &shop_grant())];
    let older = binding("older", 1, &json!({}));
    let younger = binding("younger", 2, &json!({"identityRef": {"name": "audit"}}));
    let decided = decide_all(&identities, &[older, younger]);
    assert_eq!(reasons(&decided), [("older", Reason::NotAllowed), ("younger", Reason::Accepted)]);
}

#[test]
fn a_grant_admits_a_limited_number_of_subjects_per_namespace_and_keeps_confirmed_ones() {
    let limited = json!([{"name": "shop", "namespace": "shop", "serviceAccounts": ["*"], "maxPerNamespace": 1}]);
    let older = binding("older", 1, &json!({"serviceAccountName": "one"}));
    let younger = confirmed(binding("younger", 2, &json!({"serviceAccountName": "two"})));
    let decided = decide_all(&[identity("orders", &limited)], &[older, younger]);
    assert_eq!(reasons(&decided), [("older", Reason::NotAllowed), ("younger", Reason::Accepted)]);
    assert!(decided["older"].verdict.message.contains("maxPerNamespace"));
}

#[test]
fn two_bindings_of_one_subject_count_once_towards_the_limit() {
    let limited = json!([{"name": "shop", "namespace": "shop", "serviceAccounts": ["*"], "maxPerNamespace": 1}]);
    let decided =
        decide_all(&[identity("orders", &limited)], &[binding("a", 1, &json!({})), binding("b", 2, &json!({}))]);
    assert_eq!(reasons(&decided), [("a", Reason::Accepted), ("b", Reason::Accepted)]);
}
