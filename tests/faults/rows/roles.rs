//! Roles of identities: drift, what others assigned, objects that go, and attempts to get at more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ensign_core::provisioning::{CLUSTER_TAG, OBJECT_TAG};
use serde_json::{Value, json};

use super::super::gate::LABEL;
use super::super::goals::condition_of;
use super::super::world::{Checked, RESYNC, World};
use super::{BINDING, IDENTITIES, IDENTITY, azure_untouched};

/// An identity that Ensign makes, with two roles.
fn made(world: &Arc<World>) -> Checked {
    world.namespace("shop", &json!({}));
    world.provisioned("made", &json!({"reclaimPolicy": "Delete"}));
    world.start();
    world.identity_ready("made")?;
    world.ask_for_roles("made", &world.two_roles());
    world.roles_ready("made")?;
    world.assigned(2)
}

pub(super) fn a_role_removed_by_hand_is_given_again_once(world: &Arc<World>) -> Checked {
    made(world)?;
    let before = world.assignments();
    for name in before.keys() {
        let written = world.role_writes().len();
        world.azure.with_state(|state| state.role_assignments.remove(name));
        world.pass_slowly(RESYNC * 5 / 4)?;
        // On a busy machine the look that is due may not have begun yet.
        world.happens("a repair", |world| world.role_writes().len() > written)?;
        world.quiet(Instant::now())?;
        let writes = world.role_writes().len() - written;
        if writes != 1 {
            return Err(format!("{writes} writes for one role that was taken away"));
        }
        if !world.assignments().keys().eq(before.keys()) {
            return Err("the role was not given again under its name".to_owned());
        }
    }
    world.roles_ready("made")
}

pub(super) fn what_others_assigned_is_left(world: &Arc<World>) -> Checked {
    world.namespace("shop", &json!({}));
    world.identity("orders");
    // One is equal to what is asked for; the others are something else to the same identity.
    world.assign_by_hand(1, "orders", "Storage Blob Data Reader", &world.storage().to_uppercase());
    world.assign_by_hand(2, "orders", "Contributor", &world.storage());
    world.start();
    world.identity_ready("orders")?;
    world.ask_for_roles("orders", &world.two_roles());
    world.roles_ready("orders")?;
    world.assigned(1)?;
    let object = world.live(IDENTITY, "", "orders").unwrap_or_default();
    if object["status"]["roleAssignments"][1]["origin"] != "Adopted" {
        return Err(format!("the equal assignment is not used: {}", object["status"]["roleAssignments"]));
    }
    azure_untouched(world)?;
    world.ask_for_roles("orders", &json!([]));
    world.assigned(0)?;
    world.ask_for_roles("orders", &world.two_roles());
    world.roles_ready("orders")?;
    world.delete(IDENTITY, "", "orders");
    world.gone(IDENTITY, "", "orders")?;
    world.assigned(0)
}

pub(super) fn an_object_waits_for_its_roles_to_go(world: &Arc<World>) -> Checked {
    made(world)?;
    world.azure_fails(&json!([{"match": {}, "times": 1_000_000, "action": {"status": 503}}]));
    world.delete(IDENTITY, "", "made");
    world.pass_slowly(Duration::from_secs(2 * 3600))?;
    let object = world.live(IDENTITY, "", "made").ok_or("the object went though Azure had its roles")?;
    let ready = condition_of(&object, "Ready").ok_or("no condition")?;
    if ready["reason"] != "DeletionBlocked" {
        return Err(format!("nobody is told why the deletion takes long: {ready}"));
    }
    world.azure_fails(&json!([]));
    world.gone(IDENTITY, "", "made")?;
    world.azure_is_empty()?;
    world.assigned(0)
}

pub(super) fn a_role_that_cannot_be_taken_away_holds_the_object(world: &Arc<World>) -> Checked {
    made(world)?;
    let matching = json!({"method": "DELETE", "pathContains": "/roleAssignments/"});
    let refused = json!({"status": 403, "code": "AuthorizationFailed"});
    world.azure_fails(&json!([{"match": matching, "times": 1_000_000, "action": refused}]));
    world.delete(IDENTITY, "", "made");
    world.pass_slowly(Duration::from_secs(2 * 3600))?;
    if world.in_azure() != ["made"] {
        return Err("the identity went before its roles".to_owned());
    }
    world.live(IDENTITY, "", "made").ok_or("the object went before its roles")?;
    if world.role_writes().len() > 80 {
        return Err("two hours of refusals are no reason for a storm".to_owned());
    }
    world.azure_fails(&json!([]));
    world.gone(IDENTITY, "", "made")?;
    world.azure_is_empty()?;
    world.assigned(0)
}

/// The identity goes by hand: what it was assigned is left in Azure, and goes with its record.
pub(super) fn roles_of_an_identity_that_vanished_go(world: &Arc<World>) -> Checked {
    made(world)?;
    let before = world.assignments();
    world.remove_azure_identity("made");
    world.until("the new identity to have roles of its own", |world| {
        let now = world.assignments();
        let new = now.len() == 2 && now.keys().all(|name| !before.contains_key(name));
        if new { Ok(()) } else { Err(format!("{:?}", now.keys())) }
    })?;
    world.roles_ready("made")?;
    world.delete(IDENTITY, "", "made");
    world.gone(IDENTITY, "", "made")?;
    world.assigned(0)
}

pub(super) fn a_role_given_up_unseen_is_not_assigned(world: &Arc<World>) -> Checked {
    made(world)?;
    world.gate.hold(&[IDENTITIES]);
    world.ask_for_roles("made", &json!([]));
    world.azure.with_state(|state| state.role_assignments.clear());
    azure_untouched(world)?;
    world.gate.release();
    world.assigned(0)?;
    world.identity_ready("made")
}

pub(super) fn a_role_asked_for_again_unseen_is_not_taken_away(world: &Arc<World>) -> Checked {
    made(world)?;
    world.azure_fails(&json!([{"match": {"method": "GET"}, "times": 100_000, "action": {"status": 503}}]));
    world.ask_for_roles("made", &json!([]));
    world.quiet(Instant::now())?;
    world.gate.hold(&[IDENTITIES]);
    world.ask_for_roles("made", &world.two_roles());
    world.azure_fails(&json!([]));
    azure_untouched(world)?;
    world.gate.release();
    world.roles_ready("made")?;
    world.assigned(2)
}

pub(super) fn no_attempt_to_get_at_more_is_written(world: &Arc<World>) -> Checked {
    world.namespace("shop", &json!({}));
    world.provisioned("made", &json!({"reclaimPolicy": "Delete"}));
    world.define_role(1, "Writes everything", &["*/write"]);
    world.define_role(2, "A star in a word", &["Microsoft.Auth*/role*/w*"]);
    world.define_role(3, "Trust by hand", &["Microsoft.ManagedIdentity/userAssignedIdentities/*"]);
    world.define_role(4, "By any case", &["MICROSOFT.AUTHORIZATION/ROLEASSIGNMENTS/WRITE"]);
    world.start();
    world.identity_ready("made")?;
    let (storage, info) = (world.storage(), world.azure.info().clone());
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
        if world.try_patch(IDENTITY, "made", &json!({"spec": {"roleAssignments": asked}})) {
            refused_here += 1;
            world.until(&format!("{role} in {scope} to be refused"), |world| {
                let object = world.live(IDENTITY, "", "made").ok_or("there is no such object")?;
                let current = object["status"]["observedGeneration"] == object["metadata"]["generation"];
                let said = condition_of(&object, "PermissionsReady").cloned().unwrap_or_default();
                let refused = ["RoleNotAllowed", "InvalidSpec"].iter().any(|reason| said["reason"] == *reason);
                if current && refused { Ok(()) } else { Err(said.to_string()) }
            })?;
        }
    }
    // Some are refused by the API server already.
    if refused_here < 12 {
        return Err(format!("only {refused_here} attempts came to the controller"));
    }
    if world.role_writes().is_empty() { Ok(()) } else { Err(format!("{:?}", world.role_writes())) }
}

pub(super) fn a_copied_claim_gets_no_identity_and_no_role(world: &Arc<World>) -> Checked {
    world.namespace("shop", &json!({}));
    world.identity("orders");
    world.start();
    world.binding("shop", "app", "orders", "app");
    world.ready("shop", "app")?;
    let written = world.azure_writes().len();
    let info = world.azure.info().clone();
    world.create(&json!({
        "apiVersion": "ensign.dev/v1alpha1", "kind": IDENTITY,
        "metadata": {"name": world.named("copied"), "labels": {LABEL: world.plan}},
        "spec": {
            "provision": {
                "subscriptionID": info.subscription_id, "resourceGroup": info.resource_group,
                "location": info.location, "name": "copied", "reclaimPolicy": "Retain",
            },
            "allowedSubjects": [world.grant("shop")],
            "roleAssignments": world.two_roles(),
            "claimRef": {
                "namespace": world.named("shop"), "name": "app", "uid": "00000000-0000-4000-8000-000000000001",
            },
        },
    }));
    world.binding("shop", "thief", "copied", "thief");
    world.refused("shop", "thief", "ClaimMismatch")?;
    world.pass_slowly(RESYNC * 5 / 4)?;
    let after = world.azure_writes();
    if after.len() == written { Ok(()) } else { Err(format!("a copied claim is written: {:?}", &after[written..])) }
}

/// An identity that was given away has roles that Ensign assigned; those are its own still.
pub(super) fn roles_go_though_the_identity_was_given_away(world: &Arc<World>) -> Checked {
    made(world)?;
    world.give_away("made", &[(CLUSTER_TAG, "another"), (OBJECT_TAG, "another")]);
    world.delete(IDENTITY, "", "made");
    world.gone(IDENTITY, "", "made")?;
    world.assigned(0)?;
    let bindings = world.cluster.list(BINDING, &world.plan);
    if world.in_azure() == ["made"] && bindings.is_empty() { Ok(()) } else { Err("it was deleted".to_owned()) }
}
