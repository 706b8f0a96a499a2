//! Bindings that ask for an identity of their own.

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

/// A binding on the class, with its name as its UID and as its service account.
fn asking(name: &str, second: u8) -> ManagedIdentityBinding {
    let reference = json!({"kind": "ManagedIdentityClass", "name": "dedicated"});
    let mut asking = binding(name, second, &json!({"identityRef": reference, "serviceAccountName": name}));
    asking.metadata.uid = Some(name.to_owned());
    asking
}

fn made_for(binding: &ManagedIdentityBinding) -> ManagedIdentity {
    identity_for("shop", binding, &class(&json!({})), "one")
}

fn decide_all(
    class: Option<&ManagedIdentityClass>,
    identities: &[ManagedIdentity],
    bindings: &[ManagedIdentityBinding],
) -> BTreeMap<String, Acceptance> {
    let labels = BTreeMap::new();
    let made = identities.iter().filter(|object| object.spec.class_name.is_some()).count();
    let classes = Classes {
        known: class.map(|class| ("dedicated", class)).into_iter().collect(),
        made: [("dedicated", u32::try_from(made).unwrap())].into(),
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
fn who_may_use_the_class_has_an_identity_made_and_then_has_it() {
    let (class, asking) = (class(&json!({})), asking("a", 0));
    let before = decide_all(Some(&class), &[], std::slice::from_ref(&asking));
    assert!(before["a"].may_have_one_made() && !before["a"].verdict.holds());
    let after = decide_all(Some(&class), &[made_for(&asking)], std::slice::from_ref(&asking));
    assert!(after["a"].verdict.holds() && !after["a"].may_have_one_made());
    assert!(after["a"].verdict.message.contains("ManagedIdentityClass dedicated"), "{:?}", after["a"]);
}

#[test]
fn nobody_may_use_a_class_that_allows_nobody() {
    let class = class(&json!({"allowedSubjects": []}));
    let asking = asking("a", 0);
    let decided = decide_all(Some(&class), &[], std::slice::from_ref(&asking));
    assert_eq!(reasons(&decided), [("a", Reason::NotAllowed)]);
    assert!(!decided["a"].may_have_one_made());
    assert!(decided["a"].verdict.message.contains("ManagedIdentityClass dedicated does not allow"));
    let decided = decide_all(Some(&class), &[made_for(&asking)], std::slice::from_ref(&asking));
    assert_eq!(reasons(&decided), [("a", Reason::NotAllowed)], "a grant that goes revokes");
}

#[test]
fn a_class_that_is_gone_makes_nothing_and_takes_nothing_away() {
    let asking = asking("a", 0);
    let decided = decide_all(None, &[], std::slice::from_ref(&asking));
    assert_eq!(reasons(&decided), [("a", Reason::ManagedIdentityClassNotFound)]);
    let decided = decide_all(None, &[made_for(&asking)], std::slice::from_ref(&asking));
    assert_eq!(reasons(&decided), [("a", Reason::Accepted)]);
}

#[test]
fn the_identity_of_another_binding_is_refused_by_whatever_reference() {
    let owner = asking("a", 0);
    let thief = binding("thief", 1, &json!({"identityRef": {"name": "mib-a"}, "serviceAccountName": "a"}));
    let decided = decide_all(Some(&class(&json!({}))), &[made_for(&owner)], &[owner, thief]);
    assert_eq!(reasons(&decided), [("a", Reason::Accepted), ("thief", Reason::ClaimMismatch)]);
}

#[test]
fn a_namespace_has_as_many_identities_as_the_class_allows_and_those_left_behind_count() {
    let class = class(&json!({"maxPerNamespace": 2}));
    let all = [asking("a", 0), asking("b", 1), asking("c", 2)];
    let decided = decide_all(Some(&class), &[], &all);
    let waiting = |decided: &BTreeMap<String, Acceptance>| {
        decided.iter().filter(|(_, found)| found.may_have_one_made()).map(|(name, _)| name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(waiting(&decided), ["a", "b"], "the oldest come first");
    assert_eq!(decided["c"].verdict.reason, Reason::NotAllowed);
    let left_behind = made_for(&asking("gone", 0));
    assert_eq!(waiting(&decide_all(Some(&class), std::slice::from_ref(&left_behind), &all)), ["a"]);
    let decided = decide_all(Some(&class), &[left_behind, made_for(&all[2])], &all);
    assert!(waiting(&decided).is_empty());
    assert!(decided["c"].verdict.holds(), "who has one keeps it");
    assert!(decided["a"].verdict.message.contains("maxPerNamespace"), "{:?}", decided["a"]);
}

#[test]
fn one_that_waits_for_its_identity_keeps_its_place_before_younger_ones() {
    let mut older = asking("app", 0);
    older.spec.service_account_name = "app".into();
    let younger = binding("younger", 1, &json!({}));
    let grant = json!([{"name": "shop", "namespace": "shop", "serviceAccounts": ["*"]}]);
    let decided = decide_all(Some(&class(&json!({}))), &[identity("orders", &grant)], &[older, younger]);
    assert!(decided["app"].may_have_one_made());
    assert_eq!(decided["younger"].verdict.reason, Reason::Conflict);
}

#[test]
fn one_that_loses_a_conflict_gets_no_identity() {
    let mut younger = asking("app", 1);
    younger.spec.service_account_name = "app".into();
    let older = binding("older", 0, &json!({}));
    let grant = json!([{"name": "shop", "namespace": "shop", "serviceAccounts": ["*"]}]);
    let decided = decide_all(Some(&class(&json!({}))), &[identity("orders", &grant)], &[older, younger]);
    assert_eq!(decided["app"].verdict.reason, Reason::Conflict);
    assert!(!decided["app"].may_have_one_made());
}

#[test]
fn two_bindings_on_one_class_have_two_identities_and_can_clash() {
    let mut bindings = [asking("a", 0), asking("b", 1)];
    for binding in &mut bindings {
        binding.spec.service_account_name = "app".into();
    }
    let decided = decide_all(Some(&class(&json!({}))), &[], &bindings);
    assert!(decided["a"].may_have_one_made());
    assert_eq!(decided["b"].verdict.reason, Reason::Conflict);
}
