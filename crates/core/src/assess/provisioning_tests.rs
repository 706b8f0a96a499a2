//! Identities that Ensign provisions, as whole reconciles decide about them.

use serde_json::json;

use super::tests::{World, azure_identity, condition, failure, is, merged, object, ours};
use super::*;
use crate::acceptance::claims::Classes;
use crate::credentials::plan::CredentialWrite;
use crate::provisioning::{CLUSTER_TAG, IdentityWrite, OBJECT_TAG};
use crate::roles::RolePolicy;
use ensign_api::conditions::ConditionType;

const ABSENT: Reason = Reason::IdentityNotFound;

fn provisioned(spec: &serde_json::Value) -> World {
    let plain = json!({
        "existing": null,
        "provision": {
            "subscriptionID": "00000000-0000-0000-0000-000000000001", "resourceGroup": "rg", "location": "westeurope",
            "name": "orders",
        },
    });
    let mut world = World::with(&json!({"spec": merged(plain, spec)}), &json!({}));
    world.observed.identity = Some(Ok(own()));
    world
}

fn own() -> AzureIdentity {
    let tags = [(CLUSTER_TAG, "one"), (OBJECT_TAG, "mi")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    AzureIdentity { tags: tags.into(), ..azure_identity() }
}

fn absent(world: &mut World) {
    world.observed.identity = Some(Err(failure(ABSENT)));
    world.observed.credentials = None;
}

fn to_be_deleted() -> serde_json::Value {
    json!({"provision": {"reclaimPolicy": "Delete"}})
}

fn events(assessment: &Assessment) -> Vec<Reason> {
    assessment.identities[0].events.iter().map(|event| event.reason).collect()
}

#[test]
fn a_missing_identity_is_created_after_the_finalizer_is_set_and_before_any_credential() {
    let mut world = provisioned(&json!({}));
    absent(&mut world);
    let assessment = world.assess();
    assert!(matches!(assessment.identity_write, Some(IdentityWrite::Create(_))));
    assert_eq!(assessment.identities[0].finalizer, Finalizer::Require);
    assert!(assessment.credential_writes.is_empty());
    let resolved = |conditions: &[_]| condition(conditions, ConditionType::IdentityResolved);
    assert_eq!(resolved(&assessment.identities[0].status.conditions), is("Unknown", "Provisioning"));
    assert_eq!(resolved(&assessment.bindings[0].status.conditions), is("Unknown", "Provisioning"));
    assert!(events(&assessment).is_empty(), "it never existed");
}

#[test]
fn a_provisioned_identity_is_used_like_any_other() {
    let assessment = provisioned(&json!({})).assess();
    assert_eq!(assessment.identity_write, None);
    assert_eq!(assessment.credential_writes.len(), 1, "the credential");
    assert_eq!(assessment.identities[0].status.client_id.as_deref(), Some("client"));
}

#[test]
fn a_creation_that_azure_rejects_is_reported_on_both_objects() {
    for reason in [Reason::QuotaExceeded, Reason::PolicyDenied, Reason::Forbidden, Reason::ResourceGroupNotFound] {
        let mut world = provisioned(&json!({}));
        absent(&mut world);
        world.observed.identity_write_failure = Some(failure(reason));
        assert_eq!(world.identity_ready(), is("False", reason.as_str()));
        assert_eq!(world.ready(), is("False", reason.as_str()));
    }
}

#[test]
fn tags_that_cannot_be_corrected_do_not_affect_bindings() {
    let mut world = provisioned(&json!({"provision": {"tags": {"team": "shop"}}})).reconciled();
    world.observed.identity = Some(Ok(own()));
    world.observed.identity_write_failure = Some(failure(Reason::ResourceLocked));
    assert!(matches!(world.assess().identity_write, Some(IdentityWrite::Update(_))));
    assert_eq!(world.identity_ready(), is("False", "ResourceLocked"));
    assert_eq!(world.ready(), is("True", "Ready"));
}

#[test]
fn a_foreign_identity_is_neither_written_nor_used() {
    let mut world = provisioned(&json!({}));
    world.observed.identity = Some(Ok(azure_identity()));
    let assessment = world.assess();
    assert_eq!((assessment.identity_write, assessment.credential_writes), (None, Vec::new()));
    assert_eq!(world.identity_ready(), is("False", "IdentityExists"));
    assert_eq!(world.ready(), is("False", "IdentityExists"));
    assert_eq!(world.assess().bindings[0].status.client_id, None);
    assert_eq!(world.assess().identities[0].finalizer, Finalizer::Keep);
}

#[test]
fn the_controllers_own_identity_is_not_adopted() {
    let mut world = provisioned(&json!({"provision": {"ifExists": "Adopt"}}));
    world.observed.identity = Some(Ok(AzureIdentity { client_id: "own".into(), ..azure_identity() }));
    let assessment = world.assess();
    assert_eq!((assessment.identity_write, assessment.credential_writes), (None, Vec::new()));
    assert_eq!(world.identity_ready(), is("False", "OwnIdentity"));
}

#[test]
fn an_identity_in_another_tenant_is_not_adopted() {
    let mut world = provisioned(&json!({"provision": {"ifExists": "Adopt"}}));
    world.observed.identity = Some(Ok(AzureIdentity { tenant_id: "other".into(), ..azure_identity() }));
    assert_eq!(world.assess().identity_write, None);
    assert_eq!(world.identity_ready(), is("False", "TenantMismatch"));
}

#[test]
fn an_identity_that_disappeared_is_recreated_and_reported_once() {
    let mut world = provisioned(&json!({})).reconciled();
    absent(&mut world);
    let assessment = world.assess();
    assert!(matches!(assessment.identity_write, Some(IdentityWrite::Create(_))));
    assert_eq!(events(&assessment), [Reason::IdentityRecreated]);
    assert_eq!(assessment.bindings[0].status.client_id, None, "the previous client ID is not used any more");

    world.observed.identity = Some(Ok(AzureIdentity { client_id: "new".into(), principal_id: "new".into(), ..own() }));
    world.observed.credentials = Some(Ok(Vec::new()));
    let recreated = world.assess();
    assert_eq!(events(&recreated), [Reason::IdentityRecreated]);
    assert_eq!(recreated.bindings[0].status.client_id.as_deref(), Some("new"));
    assert_eq!(world.ready(), is("False", "CredentialPending"), "its credential was deleted with it");
    world.identity.status = Some(recreated.identities[0].status.clone());
    assert!(events(&world.assess()).is_empty());
}

#[test]
fn the_event_for_a_recreated_identity_reports_which_roles_it_has() {
    let group = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg";
    let entry = json!([{"roleDefinition": "Reader", "scope": group}]);
    for (assigned, enabled, text) in [
        (json!([]), true, "and no roles: running pods"),
        (entry.clone(), false, "and no roles: running pods"),
        (entry, true, "and only the roles in spec.roleAssignments: running pods"),
    ] {
        let mut world = provisioned(&json!({"roleAssignments": assigned})).reconciled();
        world.settings.roles = enabled.then(RolePolicy::default);
        absent(&mut world);
        let events = world.assess().identities[0].events.clone();
        let event = events.iter().find(|event| event.reason == Reason::IdentityRecreated).unwrap();
        assert!(event.message.contains(text), "{}", event.message);
    }
}

#[test]
fn a_deletion_removes_the_credentials_then_the_identity_then_the_finalizer() {
    let mut world = provisioned(&to_be_deleted()).reconciled().delete_identity();
    world.observed.identity = Some(Ok(own()));
    let credentials = world.assess();
    assert_eq!((credentials.identity_write, credentials.credential_writes.len()), (None, 1));
    assert_eq!(credentials.identities[0].finalizer, Finalizer::Keep);

    world.deleted_in_azure();
    let identity = world.assess();
    assert_eq!((identity.identity_write, identity.credential_writes.len()), (Some(IdentityWrite::Delete), 0));
    assert_eq!(identity.identities[0].finalizer, Finalizer::Keep);

    absent(&mut world);
    let missing = world.assess();
    assert_eq!(missing.identities[0].finalizer, Finalizer::Keep, "a single GET may be late");
    assert_eq!(missing.identities[0].status.principal_id.as_deref(), Some("principal"), "it stays on record");
    world.observed.confirmed.identity_gone = true;
    let gone = world.assess();
    assert!(events(&gone).is_empty(), "a missing identity is not a problem");
    assert_eq!((gone.identity_write, gone.identities[0].finalizer), (None, Finalizer::Release));
}

#[test]
fn an_identity_that_get_misses_stays_on_record_before_and_during_the_deletion_of_its_object() {
    let mut world = provisioned(&to_be_deleted()).reconciled();
    absent(&mut world);
    let missing = world.assess().identities[0].status.clone();
    assert_eq!((missing.client_id.as_deref(), missing.principal_id.as_deref()), (None, Some("principal")));
    world.identity.status = Some(missing);
    let mut world = world.delete_identity();
    world.observed.confirmed.deleted_credentials.insert(ours().name);
    assert_eq!(world.assess().identities[0].finalizer, Finalizer::Keep);
    world.observed.confirmed.identity_gone = true;
    assert_eq!(world.assess().identities[0].finalizer, Finalizer::Release);
}

#[test]
fn an_identity_that_may_have_a_new_owner_is_not_deleted() {
    let mut world = provisioned(&to_be_deleted()).delete_identity();
    world.observed.identity = Some(Ok(own()));
    world.observed.confirmed.identity_uncertain = true;
    let assessment = world.assess();
    assert_eq!((assessment.identity_write, assessment.identities[0].finalizer), (None, Finalizer::Keep));
}

#[test]
fn an_identity_that_was_never_used_is_deleted_too() {
    let mut world = provisioned(&to_be_deleted()).delete_identity();
    world.observed.identity = Some(Ok(own()));
    let assessment = world.assess();
    assert_eq!(
        (assessment.identity_write, assessment.identities[0].finalizer),
        (Some(IdentityWrite::Delete), Finalizer::Keep)
    );
}

#[test]
fn a_deletion_that_azure_does_not_confirm_waits_and_reports_it() {
    for answer in [Reason::Forbidden, Reason::AzureUnavailable] {
        let mut world = provisioned(&to_be_deleted()).reconciled().delete_identity();
        world.observed.identity = Some(Err(failure(answer)));
        world.observed.credentials = Some(Ok(Vec::new()));
        let assessment = world.assess();
        assert_eq!((assessment.identity_write, assessment.identities[0].finalizer), (None, Finalizer::Keep));
        assert_eq!(world.identity_ready(), is("False", "DeletionBlocked"));
    }
    let mut world = provisioned(&to_be_deleted()).reconciled().delete_identity();
    world.observed.identity = Some(Ok(own()));
    world.observed.credentials = Some(Ok(Vec::new()));
    world.observed.identity_write_failure = Some(failure(Reason::ResourceLocked));
    assert_eq!(world.assess().identities[0].finalizer, Finalizer::Keep);
    assert_eq!(world.identity_ready(), is("False", "DeletionBlocked"));
}

#[test]
fn an_identity_that_is_retained_does_not_delay_the_deletion() {
    let mut world = provisioned(&json!({})).reconciled().delete_identity();
    world.observed.identity = Some(Ok(own()));
    world.deleted_in_azure();
    let assessment = world.assess();
    assert_eq!((&assessment.identity_write, assessment.identities[0].finalizer), (&None, Finalizer::Release));
    assert!(events(&assessment).is_empty());
}

#[test]
fn an_identity_that_is_not_provably_ours_is_left_with_an_event() {
    let mut world = provisioned(&to_be_deleted()).reconciled().delete_identity();
    world.observed.identity = Some(Ok(azure_identity()));
    world.deleted_in_azure();
    let assessment = world.assess();
    assert_eq!((assessment.identity_write.clone(), assessment.identities[0].finalizer), (None, Finalizer::Release));
    assert_eq!(events(&assessment), [Reason::IdentityExists]);
}

/// An identity that is reserved for a binding with this UID.
fn claimed(policy: &str, uid: &str) -> World {
    let claim = json!({"namespace": "shop", "name": "app", "uid": uid});
    provisioned(&json!({"claimRef": claim, "provision": {"reclaimPolicy": policy}}))
}

#[test]
fn an_identity_serves_the_binding_that_claims_it() {
    let assessment = claimed("Delete", "mib").assess();
    let conditions = &assessment.identities[0].status.conditions;
    assert_eq!(condition(conditions, ConditionType::Claimed), is("True", "Bound"));
    assert!(!assessment.identities[0].should_delete);
    assert_eq!(assessment.credential_writes.len(), 1);
}

#[test]
fn an_identity_whose_binding_was_deleted_is_deleted_or_released_and_trusts_nobody() {
    for (policy, should_delete, reason) in [("Delete", true, "Deleting"), ("Retain", false, "Released")] {
        let mut world = claimed(policy, "of a deleted binding");
        world.observed.credentials = Some(Ok(vec![ours()]));
        let assessment = world.assess();
        assert_eq!(assessment.identities[0].should_delete, should_delete);
        assert_eq!(world.identity_ready(), is("False", reason));
        assert_eq!(world.ready(), is("False", "ClaimMismatch"), "a recreated binding has no claim");
        let [planned] = &assessment.credential_writes[..] else {
            panic!("one write: {:?}", assessment.credential_writes)
        };
        assert!(matches!(planned.write, CredentialWrite::Delete { .. }));
        assert_eq!(assessment.identity_write, None, "the identity itself is deleted with its object");
    }
}

#[test]
fn nothing_is_created_for_a_deleted_binding() {
    let mut world = claimed("Delete", "of a deleted binding");
    absent(&mut world);
    let assessment = world.assess();
    assert_eq!(assessment.identity_write, None);
    assert!(events(&assessment).is_empty());
}

#[test]
fn a_binding_that_references_a_class_gets_an_object_only_if_it_has_none() {
    let class = object(json!({
        "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentityClass", "metadata": {"name": "dedicated"},
        "spec": {
            "provision": {
                "subscriptionID": "00000000-0000-0000-0000-000000000001", "resourceGroup": "rg", "location": "westeurope",
            },
            "allowedSubjects": [{"name": "team", "namespace": "shop", "serviceAccounts": ["app"]}],
        },
    }));
    let reference = json!({"kind": "ManagedIdentityClass", "name": "dedicated"});
    let world = World::with(&json!({}), &json!({"spec": {"identityRef": reference}}));
    let labels = BTreeMap::new();
    let assess_with = |terminating| {
        let namespace = NamespaceSnapshot {
            labels: &labels,
            terminating,
            bindings: vec![&world.binding],
            classes: Classes { known: [("dedicated", &class)].into(), made: BTreeMap::new() },
        };
        let snapshot =
            Snapshot { namespaces: [("shop", namespace)].into(), missing: Some("mib-mib"), ..Snapshot::default() };
        assess(&snapshot, &Observed::default(), &world.settings, "2026-01-01T00:00:00Z".parse().unwrap())
    };
    let assessment = assess_with(false);
    assert_eq!(assessment.identities_to_create.len(), 1);
    assert_eq!(assessment.identities_to_create[0].metadata.name.as_deref(), Some("mib-mib"));
    assert_eq!(condition(&assessment.bindings[0].status.conditions, ConditionType::Ready), is("False", "Pending"));
    assert!(assess_with(true).identities_to_create.is_empty(), "nothing is created for a terminating namespace");
}
