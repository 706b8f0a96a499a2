//! Bindings that reference a `ManagedIdentityClass`.

use super::claims::identity_for;
use super::tests::{binding, identity, reasons};
use super::*;
use ensign_api::ManagedIdentityClass;
use serde_json::{Value, json};

fn class(spec: &Value) -> ManagedIdentityClass {
    let mut whole = json!({
        "provision": {
            "subscriptionID": "00000000-0000-0000-0000-000000000001", "resourceGroup": "rg", "location": "westeurope",
        },
        "allowedSubjects": [{"name": "shop", "namespace": "shop", "serviceAccounts": ["*"]}],
    });
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    serde_json::from_value(json!({
        "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentityClass", "metadata": {"name": "dedicated"},
        "spec": whole,
    }))
    .unwrap()
}

/// A binding that references the class, with its name as its UID and as its service account.
fn class_binding(name: &str, second: u8) -> ManagedIdentityBinding {
    let reference = json!({"kind": "ManagedIdentityClass", "name": "dedicated"});
    let mut requested = binding(name, second, &json!({"identityRef": reference, "serviceAccountName": name}));
    requested.metadata.uid = Some(name.to_owned());
    requested
}

fn dedicated_for(binding: &ManagedIdentityBinding) -> ManagedIdentity {
    identity_for("shop", binding, &class(&json!({})), "one")
}

fn decide_all(
    class: Option<&ManagedIdentityClass>,
    identities: &[ManagedIdentity],
    bindings: &[ManagedIdentityBinding],
) -> BTreeMap<String, Acceptance> {
    let labels = BTreeMap::new();
    let created = identities.iter().filter(|object| object.spec.class_name.is_some()).count();
    let classes = Classes {
        known: class.map(|class| ("dedicated", class)).into_iter().collect(),
        made: [("dedicated", u32::try_from(created).unwrap())].into(),
    };
    let bindings = bindings.iter().collect();
    let namespace = NamespaceFacts { name: "shop", labels: &labels, bindings, classes: &classes };
    let accepted = Verdict::good(Reason::Accepted, "");
    let facts = identities
        .iter()
        .map(|object| (object.metadata.name.as_deref().unwrap(), IdentityFacts { object, accepted: accepted.clone() }))
        .collect();
    decide(&namespace, &facts)
}

#[test]
fn an_allowed_binding_waits_for_its_identity_and_then_uses_it() {
    let (class, requested) = (class(&json!({})), class_binding("a", 0));
    let before = decide_all(Some(&class), &[], std::slice::from_ref(&requested));
    assert!(before["a"].awaits_identity() && !before["a"].verdict.holds());
    let after = decide_all(Some(&class), &[dedicated_for(&requested)], std::slice::from_ref(&requested));
    assert!(after["a"].verdict.holds() && !after["a"].awaits_identity());
    assert!(after["a"].verdict.message.contains("ManagedIdentityClass dedicated"), "{:?}", after["a"]);
}

#[test]
fn a_class_without_allowed_subjects_accepts_no_binding() {
    let class = class(&json!({"allowedSubjects": []}));
    let requested = class_binding("a", 0);
    let decided = decide_all(Some(&class), &[], std::slice::from_ref(&requested));
    assert_eq!(reasons(&decided), [("a", Reason::NotAllowed)]);
    assert!(!decided["a"].awaits_identity());
    assert!(decided["a"].verdict.message.contains("ManagedIdentityClass dedicated does not allow"));
    let decided = decide_all(Some(&class), &[dedicated_for(&requested)], std::slice::from_ref(&requested));
    assert_eq!(reasons(&decided), [("a", Reason::NotAllowed)], "removing the grant revokes");
}

#[test]
fn a_deleted_class_creates_no_identities_and_revokes_none() {
    let requested = class_binding("a", 0);
    let decided = decide_all(None, &[], std::slice::from_ref(&requested));
    assert_eq!(reasons(&decided), [("a", Reason::ManagedIdentityClassNotFound)]);
    let decided = decide_all(None, &[dedicated_for(&requested)], std::slice::from_ref(&requested));
    assert_eq!(reasons(&decided), [("a", Reason::Accepted)]);
}

#[test]
fn the_identity_of_another_binding_is_rejected_however_it_is_referenced() {
    let owner = class_binding("a", 0);
    let thief = binding("thief", 1, &json!({"identityRef": {"name": "mib-a"}, "serviceAccountName": "a"}));
    let decided = decide_all(Some(&class(&json!({}))), &[dedicated_for(&owner)], &[owner, thief]);
    assert_eq!(reasons(&decided), [("a", Reason::Accepted), ("thief", Reason::ClaimMismatch)]);
}

#[test]
fn the_limit_of_a_class_per_namespace_includes_released_identities() {
    let class = class(&json!({"maxPerNamespace": 2}));
    let all = [class_binding("a", 0), class_binding("b", 1), class_binding("c", 2)];
    let decided = decide_all(Some(&class), &[], &all);
    let waiting = |decided: &BTreeMap<String, Acceptance>| {
        decided.iter().filter(|(_, found)| found.awaits_identity()).map(|(name, _)| name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(waiting(&decided), ["a", "b"], "the oldest first");
    assert_eq!(decided["c"].verdict.reason, Reason::NotAllowed);
    let released = dedicated_for(&class_binding("gone", 0));
    assert_eq!(waiting(&decide_all(Some(&class), std::slice::from_ref(&released), &all)), ["a"]);
    let decided = decide_all(Some(&class), &[released, dedicated_for(&all[2])], &all);
    assert!(waiting(&decided).is_empty());
    assert!(decided["c"].verdict.holds(), "an existing identity is kept");
    assert!(decided["a"].verdict.message.contains("maxPerNamespace"), "{:?}", decided["a"]);
}

#[test]
fn a_binding_that_waits_for_its_identity_takes_precedence_over_younger_ones() {
    let mut older = class_binding("app", 0);
    older.spec.service_account_name = "app".into();
    let younger = binding("younger", 1, &json!({}));
    let grant = json!([{"name": "shop", "namespace": "shop", "serviceAccounts": ["*"]}]);
    let decided = decide_all(Some(&class(&json!({}))), &[identity("orders", &grant)], &[older, younger]);
    assert!(decided["app"].awaits_identity());
    assert_eq!(decided["younger"].verdict.reason, Reason::Conflict);
}

#[test]
fn a_binding_that_loses_a_conflict_gets_no_identity() {
    let mut younger = class_binding("app", 1);
    younger.spec.service_account_name = "app".into();
    let older = binding("older", 0, &json!({}));
    let grant = json!([{"name": "shop", "namespace": "shop", "serviceAccounts": ["*"]}]);
    let decided = decide_all(Some(&class(&json!({}))), &[identity("orders", &grant)], &[older, younger]);
    assert_eq!(decided["app"].verdict.reason, Reason::Conflict);
    assert!(!decided["app"].awaits_identity());
}

#[test]
fn two_bindings_that_reference_one_class_have_two_identities_and_can_conflict() {
    let mut bindings = [class_binding("a", 0), class_binding("b", 1)];
    for binding in &mut bindings {
        binding.spec.service_account_name = "app".into();
    }
    let decided = decide_all(Some(&class(&json!({}))), &[], &bindings);
    assert!(decided["a"].awaits_identity());
    assert_eq!(decided["b"].verdict.reason, Reason::Conflict);
}
