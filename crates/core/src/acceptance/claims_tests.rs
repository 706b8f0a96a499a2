use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn claim_ref(namespace: &str, name: &str, uid: &str) -> ClaimRef {
    ClaimRef { namespace: namespace.into(), name: name.into(), uid: uid.into() }
}

fn binding(name: &str, uid: &str, kind: &str) -> ManagedIdentityBinding {
    serde_json::from_value(json!({
        "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentityBinding",
        "metadata": {"name": name, "namespace": "shop", "uid": uid},
        "spec": {"identityRef": {"kind": kind, "name": "dedicated"}, "serviceAccountName": "app"},
    }))
    .unwrap()
}

fn class(spec: &Value) -> ManagedIdentityClass {
    let mut whole = json!({"provision": {
        "subscriptionID": "00000000-0000-0000-0000-000000000001", "resourceGroup": "rg", "location": "westeurope",
    }});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    serde_json::from_value(json!({
        "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentityClass", "metadata": {"name": "dedicated"},
        "spec": whole,
    }))
    .unwrap()
}

fn dedicated() -> ManagedIdentity {
    identity_for("shop", &binding("orders", "1", "ManagedIdentityClass"), &class(&json!({})), "one")
}

fn is_name(name: &str) -> bool {
    (3..=128).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

#[test]
fn a_dedicated_identity_serves_one_binding_and_one_service_account_and_is_deleted_with_it() {
    let object = dedicated();
    assert_eq!(object.metadata.name.as_deref(), Some("mib-1"));
    assert_eq!(object.spec.claim_ref, Some(claim_ref("shop", "orders", "1")));
    assert_eq!(object.spec.class_name.as_deref(), Some("dedicated"));
    assert!(reclaims(&object), "a class defaults to Delete");
    let [grant] = &object.spec.allowed_subjects[..] else { panic!("one grant") };
    assert_eq!((grant.namespace.as_deref(), grant.service_accounts[0].0.as_str()), (Some("shop"), "app"));
    assert!(crate::acceptance::identities::arm_id(&object).is_ok());
    let kept = class(&json!({"reclaimPolicy": "Retain"}));
    assert!(!reclaims(&identity_for("shop", &binding("orders", "1", "ManagedIdentityClass"), &kept, "one")));
}

#[test]
fn roles_and_tags_are_copied_from_the_class() {
    let role = json!({"roleDefinition": "Reader", "scope": "/subscriptions/x/resourceGroups/rg"});
    let class = class(&json!({"roleAssignments": [role]}));
    let object = identity_for("shop", &binding("orders", "1", "ManagedIdentityClass"), &class, "one");
    assert_eq!(serde_json::to_value(&object.spec.role_assignments).unwrap(), json!([role]));
}

#[test]
fn a_claim_matches_only_one_uid() {
    let object = dedicated();
    assert_eq!(mismatch(&object, "shop", &binding("orders", "1", "ManagedIdentityClass")), None);
    for (namespace, name, uid) in [("shop", "orders", "2"), ("shop", "other", "1"), ("other", "orders", "1")] {
        for kind in ["ManagedIdentity", "ManagedIdentityClass"] {
            let rejected = mismatch(&object, namespace, &binding(name, uid, kind)).expect("a mismatch");
            assert_eq!(rejected.reason, Reason::ClaimMismatch);
        }
    }
}

#[test]
fn an_identity_whose_claim_was_removed_serves_bindings_that_name_it_but_not_its_former_one() {
    let mut object = dedicated();
    object.spec.claim_ref = None;
    assert_eq!(mismatch(&object, "shop", &binding("orders", "2", "ManagedIdentity")), None);
    let former = mismatch(&object, "shop", &binding("orders", "1", "ManagedIdentityClass")).expect("a mismatch");
    assert!(former.message.contains("removed its spec.claimRef"), "{former:?}");
}

#[test]
fn an_identity_whose_binding_was_deleted_is_released_or_deleted() {
    let mut object = dedicated();
    let present = binding("orders", "1", "ManagedIdentityClass");
    let again = binding("orders", "2", "ManagedIdentityClass");
    assert_eq!(claim(&object, |_| vec![&present]), ClaimState::Bound);
    assert_eq!(claim(&object, |_| vec![&again]), ClaimState::Deleted, "a new binding of the same name is another");
    assert_eq!(claimed(&object, ClaimState::Deleted).unwrap().reason, Reason::Deleting);
    object.spec.provision.as_mut().unwrap().reclaim_policy = ReclaimPolicy::Retain;
    assert_eq!(claimed(&object, ClaimState::Deleted).unwrap().reason, Reason::Released);
    assert_eq!(claimed(&object, ClaimState::Bound).unwrap().reason, Reason::Bound);
    object.spec.claim_ref = None;
    assert_eq!(claim(&object, |_| Vec::new()), ClaimState::None);
    assert_eq!(claimed(&object, ClaimState::None), None);
}

#[test]
fn names_start_with_the_filled_in_template() {
    let name = azure_name("{cluster}-{namespace}-{binding}", "one", &claim_ref("shop", "orders", "1"));
    assert!(name.starts_with(&format!("{}-shop-orders-", cluster_tag("one"))), "{name}");
    let name = azure_name("app_{binding}", "one", &claim_ref("shop", "orders.v1", "1"));
    assert!(name.starts_with("app_orders-v1-"), "{name}");
}

#[test]
fn the_boundaries_between_parts_affect_the_name() {
    let names: BTreeSet<_> = [("a-b", "c"), ("a", "b-c"), ("a", "b.c")]
        .map(|(namespace, name)| azure_name("{namespace}-{binding}", "one", &claim_ref(namespace, name, "1")))
        .into();
    assert_eq!(names.len(), 3, "{names:?}");
}

#[test]
fn a_recreated_binding_gets_another_name() {
    let name = |uid| azure_name("{binding}", "one", &claim_ref("shop", "orders", uid));
    assert_ne!(name("1"), name("2"));
}

proptest! {
    #[test]
    fn for_any_template_azure_accepts_the_name(
        template in ".{0,120}", namespace in "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name in "[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?",
    ) {
        let name = azure_name(&template, "one", &claim_ref(&namespace, &name, "1"));
        prop_assert!(is_name(&name), "{}", name);
    }

    #[test]
    fn each_part_affects_the_name_wherever_the_boundaries_are(
        parts in prop::array::uniform4("[a-b.-]{0,3}"), others in prop::array::uniform4("[a-b.-]{0,3}"),
        template in "x|\\{namespace\\}-\\{binding\\}",
    ) {
        let name = |[cluster, namespace, binding, uid]: &[String; 4]| {
            azure_name(&template, cluster, &claim_ref(namespace, binding, uid))
        };
        prop_assert_eq!(name(&parts) == name(&others), parts == others);
    }
}
