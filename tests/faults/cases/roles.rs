//! Role assignments: drift, foreign ones, deletion, and attempts at privilege escalation.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ensign_core::provisioning::{CLUSTER_TAG, OBJECT_TAG};
use serde_json::{Value, json};

use super::super::eventually::condition_of;
use super::super::gate::LABEL;
use super::super::harness::{Checked, Harness, RESYNC};
use super::{BINDING, IDENTITIES, IDENTITY, azure_not_written};

/// A provisioned identity with two roles.
fn made(harness: &Arc<Harness>) -> Checked {
    harness.namespace("shop", &json!({}));
    harness.provisioned("made", &json!({"reclaimPolicy": "Delete"}));
    harness.start();
    harness.identity_ready("made")?;
    harness.ask_for_roles("made", &harness.two_roles());
    harness.roles_ready("made")?;
    harness.assigned(2)
}

pub(super) fn a_deleted_role_assignment_is_recreated_once(harness: &Arc<Harness>) -> Checked {
    made(harness)?;
    let before = harness.assignments();
    for name in before.keys() {
        let written = harness.role_writes().len();
        harness.meddle(|state| state.role_assignments.remove(name));
        harness.advance_in_steps(RESYNC * 5 / 4)?;
        // On a busy machine the check that is due may not have begun yet.
        harness.eventually_in_real_time("a repair", |harness| harness.role_writes().len() > written)?;
        harness.wait_until_idle(Instant::now())?;
        let writes = harness.role_writes().len() - written;
        if writes != 1 {
            return Err(format!("{writes} writes for one deleted role assignment"));
        }
        if !harness.assignments().keys().eq(before.keys()) {
            return Err("the role assignment was not recreated under its name".to_owned());
        }
    }
    harness.roles_ready("made")
}

/// Azure finds a role definition at one request and not at the next. Once it was found, nothing is reported as missing.
pub(super) fn role_definitions_that_come_and_go_are_not_reported(harness: &Arc<Harness>) -> Checked {
    harness.namespace("shop", &json!({}));
    harness.provisioned("made", &json!({"reclaimPolicy": "Delete"}));
    harness.start();
    harness.identity_ready("made")?;
    let lookups = json!({"method": "GET", "pathContains": "/roleDefinitions?"});
    let none = json!({"status": 200, "body": {"value": []}});
    let flap = |first: u64| json!({"match": lookups, "nth": first, "times": 1, "action": none});
    // The two roles are found, then not found for their writes.
    harness.azure_fails(&json!([flap(3), flap(5), flap(6)]));
    harness.ask_for_roles("made", &harness.two_roles());
    harness.roles_ready("made")?;
    harness.assigned(2)?;
    // The cached definitions expire; then Azure finds them again after minutes.
    harness.azure_fails(&json!([{"match": lookups, "times": 1_000_000, "action": none}]));
    harness.advance_in_steps(Duration::from_secs(3600 + 500))?;
    harness.azure_fails(&json!([]));
    harness.advance_in_steps(RESYNC * 5 / 4)?;
    for version in harness.history.all(IDENTITY).iter().flatten() {
        let reported = condition_of(&version.object, "PermissionsReady");
        if let Some(reported) = reported.filter(|reported| reported["reason"] == "RoleNotFound") {
            return Err(format!("a role that was found before was reported as missing: {reported}"));
        }
    }
    harness.roles_ready("made")
}

pub(super) fn foreign_role_assignments_are_unchanged(harness: &Arc<Harness>) -> Checked {
    harness.namespace("shop", &json!({}));
    harness.identity("orders");
    // One equals what is wanted; the other is another role of the same identity.
    harness.assign_by_hand(1, "orders", "Storage Blob Data Reader", &harness.storage().to_uppercase());
    harness.assign_by_hand(2, "orders", "Contributor", &harness.storage());
    harness.start();
    harness.identity_ready("orders")?;
    harness.ask_for_roles("orders", &harness.two_roles());
    harness.roles_ready("orders")?;
    harness.assigned(1)?;
    let object = harness.live(IDENTITY, "", "orders").unwrap_or_default();
    if object["status"]["roleAssignments"][1]["origin"] != "Adopted" {
        return Err(format!("the equal assignment is not adopted: {}", object["status"]["roleAssignments"]));
    }
    azure_not_written(harness)?;
    harness.ask_for_roles("orders", &json!([]));
    harness.assigned(0)?;
    harness.ask_for_roles("orders", &harness.two_roles());
    harness.roles_ready("orders")?;
    harness.delete(IDENTITY, "", "orders");
    harness.deleted(IDENTITY, "", "orders")?;
    harness.assigned(0)
}

pub(super) fn an_object_waits_until_its_role_assignments_are_deleted(harness: &Arc<Harness>) -> Checked {
    made(harness)?;
    harness.azure_fails(&json!([{"match": {}, "times": 1_000_000, "action": {"status": 503}}]));
    harness.delete(IDENTITY, "", "made");
    harness.advance_in_steps(Duration::from_secs(2 * 3600))?;
    let object = harness.live(IDENTITY, "", "made").ok_or("the object was deleted before its role assignments")?;
    let ready = condition_of(&object, "Ready").ok_or("no condition")?;
    if ready["reason"] != "DeletionBlocked" {
        return Err(format!("no condition says why the deletion takes long: {ready}"));
    }
    harness.azure_fails(&json!([]));
    harness.deleted(IDENTITY, "", "made")?;
    harness.azure_is_empty()?;
    harness.assigned(0)
}

pub(super) fn a_role_assignment_that_cannot_be_deleted_keeps_the_object(harness: &Arc<Harness>) -> Checked {
    made(harness)?;
    let matching = json!({"method": "DELETE", "pathContains": "/roleAssignments/"});
    let refused = json!({"status": 403, "code": "AuthorizationFailed"});
    harness.azure_fails(&json!([{"match": matching, "times": 1_000_000, "action": refused}]));
    harness.delete(IDENTITY, "", "made");
    harness.advance_in_steps(Duration::from_secs(2 * 3600))?;
    if harness.identities_in_azure() != ["made"] {
        return Err("the identity was deleted before its role assignments".to_owned());
    }
    harness.live(IDENTITY, "", "made").ok_or("the object was deleted before its role assignments")?;
    if harness.role_writes().len() > 80 {
        return Err("too many requests in two hours of denials".to_owned());
    }
    harness.azure_fails(&json!([]));
    harness.deleted(IDENTITY, "", "made")?;
    harness.azure_is_empty()?;
    harness.assigned(0)
}

/// The identity is deleted by hand: its assignments are left in Azure, and are deleted with their record.
pub(super) fn role_assignments_of_a_deleted_identity_are_deleted(harness: &Arc<Harness>) -> Checked {
    made(harness)?;
    let before = harness.assignments();
    harness.remove_azure_identity("made");
    harness.eventually("the new identity to have roles of its own", |harness| {
        let now = harness.assignments();
        let new = now.len() == 2 && now.keys().all(|name| !before.contains_key(name));
        if new { Ok(()) } else { Err(format!("{:?}", now.keys())) }
    })?;
    harness.roles_ready("made")?;
    harness.delete(IDENTITY, "", "made");
    harness.deleted(IDENTITY, "", "made")?;
    harness.assigned(0)
}

pub(super) fn a_role_removed_unseen_is_not_assigned(harness: &Arc<Harness>) -> Checked {
    made(harness)?;
    harness.gate.hold(&[IDENTITIES]);
    harness.ask_for_roles("made", &json!([]));
    harness.meddle(|state| state.role_assignments.clear());
    azure_not_written(harness)?;
    harness.gate.release();
    harness.assigned(0)?;
    harness.identity_ready("made")
}

pub(super) fn a_role_restored_unseen_is_not_unassigned(harness: &Arc<Harness>) -> Checked {
    made(harness)?;
    harness.azure_fails(&json!([{"match": {"method": "GET"}, "times": 100_000, "action": {"status": 503}}]));
    harness.ask_for_roles("made", &json!([]));
    harness.wait_until_idle(Instant::now())?;
    harness.gate.hold(&[IDENTITIES]);
    harness.ask_for_roles("made", &harness.two_roles());
    harness.azure_fails(&json!([]));
    azure_not_written(harness)?;
    harness.gate.release();
    harness.roles_ready("made")?;
    harness.assigned(2)
}

pub(super) fn privilege_escalation_is_never_written(harness: &Arc<Harness>) -> Checked {
    harness.namespace("shop", &json!({}));
    harness.provisioned("made", &json!({"reclaimPolicy": "Delete"}));
    harness.define_role(1, "Writes everything", &["*/write"]);
    harness.define_role(2, "A star in a word", &["Microsoft.Auth*/role*/w*"]);
    harness.define_role(3, "Trust by hand", &["Microsoft.ManagedIdentity/userAssignedIdentities/*"]);
    harness.define_role(4, "By any case", &["MICROSOFT.AUTHORIZATION/ROLEASSIGNMENTS/WRITE"]);
    harness.start();
    harness.identity_ready("made")?;
    let (storage, info) = (harness.storage(), harness.azure.info().clone());
    let subscription = format!("/subscriptions/{}", info.subscription_id);
    let group = format!("{subscription}/resourceGroups/{}", info.resource_group);
    let roles = [
        "Owner",
        "OWNER",
        "8E3AF657-A8FF-443C-A75C-2FE8C4BCB635",
        "User Access Administrator",
        "Writes everything",
        "A star in a word",
        "Trust by hand",
        "By any case",
    ];
    let scopes = [
        subscription.clone(),
        subscription.to_uppercase().replace("/SUBSCRIPTIONS/", "/Subscriptions/"),
        format!("{group}/"),
        format!("{group}/.."),
        format!("{group}/../.."),
        format!("{storage}/../../../.."),
        format!("{storage}/blobServices"),
        format!("{storage}?x"),
        format!("{subscription}/providers/Microsoft.Network/networkManagers/x"),
        format!("{group}/providers/Microsoft.Authorization/roleAssignments/x"),
        format!("{group}/resourceGroups/another"),
        "/".to_owned(),
        "/providers/Microsoft.Management/managementGroups/top".to_owned(),
    ];
    let roles = roles.into_iter().map(|role| (role, storage.clone()));
    let mut refused_here = 0;
    for (role, scope) in roles.chain(scopes.into_iter().map(|scope| ("Reader", scope))) {
        let asked: Value = json!([{"roleDefinition": role, "scope": scope}]);
        if harness.try_patch(IDENTITY, "made", &json!({"spec": {"roleAssignments": asked}})) {
            refused_here += 1;
            harness.eventually(&format!("{role} in {scope} to be rejected"), |harness| {
                let object = harness.live(IDENTITY, "", "made").ok_or("there is no such object")?;
                let current = object["status"]["observedGeneration"] == object["metadata"]["generation"];
                let said = condition_of(&object, "PermissionsReady").cloned().unwrap_or_default();
                let refused = ["RoleNotAllowed", "InvalidSpec"].iter().any(|reason| said["reason"] == *reason);
                if current && refused { Ok(()) } else { Err(said.to_string()) }
            })?;
        }
    }
    // The API server rejects some of them already.
    if refused_here < 12 {
        return Err(format!("only {refused_here} attempts reached the controller"));
    }
    if harness.role_writes().is_empty() { Ok(()) } else { Err(format!("{:?}", harness.role_writes())) }
}

pub(super) fn a_copied_claim_gets_no_identity_and_no_role(harness: &Arc<Harness>) -> Checked {
    harness.namespace("shop", &json!({}));
    harness.identity("orders");
    harness.start();
    harness.binding("shop", "app", "orders", "app");
    harness.ready("shop", "app")?;
    let written = harness.azure_writes().len();
    let info = harness.azure.info().clone();
    harness.create(&json!({
        "apiVersion": "ensign.dev/v1alpha1", "kind": IDENTITY,
        "metadata": {"name": harness.named("copied"), "labels": {LABEL: harness.plan}},
        "spec": {
            "provision": {
                "subscriptionID": info.subscription_id, "resourceGroup": info.resource_group,
                "location": info.location, "name": "copied", "reclaimPolicy": "Retain",
            },
            "allowedSubjects": [harness.grant("shop")],
            "roleAssignments": harness.two_roles(),
            "claimRef": {
                "namespace": harness.named("shop"), "name": "app", "uid": "00000000-0000-4000-8000-000000000001",
            },
        },
    }));
    harness.binding("shop", "thief", "copied", "thief");
    harness.not_ready("shop", "thief", "ClaimMismatch")?;
    harness.advance_in_steps(RESYNC * 5 / 4)?;
    let after = harness.azure_writes();
    if after.len() == written { Ok(()) } else { Err(format!("written for a copied claim: {:?}", &after[written..])) }
}

/// Ensign still owns the role assignments of an identity that has a new owner.
pub(super) fn role_assignments_are_deleted_though_the_identity_has_a_new_owner(harness: &Arc<Harness>) -> Checked {
    made(harness)?;
    harness.give_to_another_owner("made", &[(CLUSTER_TAG, "another"), (OBJECT_TAG, "another")]);
    harness.delete(IDENTITY, "", "made");
    harness.deleted(IDENTITY, "", "made")?;
    harness.assigned(0)?;
    let bindings = harness.cluster.list(BINDING, &harness.plan);
    if harness.identities_in_azure() == ["made"] && bindings.is_empty() {
        Ok(())
    } else {
        Err("it was deleted".to_owned())
    }
}
