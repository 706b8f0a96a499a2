//! Identities that Ensign makes: whose they are, and what becomes of them.

use std::sync::Arc;

use ensign_core::provisioning::{CLUSTER_TAG, OBJECT_TAG};
use serde_json::json;

use super::super::world::{Checked, RESYNC, World};
use super::unseen::restart_onto;
use super::{BINDING, BINDINGS, IDENTITY, azure_untouched};

fn with_class(world: &Arc<World>, more: &serde_json::Value) -> Checked {
    world.namespace("shop", &json!({}));
    world.class(more);
    world.start();
    world.asking("app", "app");
    world.ready("shop", "app")
}

fn made(world: &Arc<World>) -> Checked {
    world.namespace("shop", &json!({}));
    world.provisioned("made", &json!({"reclaimPolicy": "Delete"}));
    world.start();
    world.identity_ready("made")
}

pub(super) fn an_identity_of_somebody_else_is_left(world: &Arc<World>) -> Checked {
    world.namespace("shop", &json!({}));
    world.azure_identity("made", &[]);
    // Another object of the same cluster made it.
    world.give_away("made", &[(CLUSTER_TAG, &world.cluster_id.clone()), (OBJECT_TAG, "another")]);
    world.provisioned("made", &json!({"reclaimPolicy": "Delete"}));
    world.start();
    world.condition(IDENTITY, "", "made", "IdentityResolved", "False", "IdentityExists")?;
    world.binding("shop", "app", "made", "app");
    world.refused("shop", "app", "IdentityExists")?;
    world.give_away("made", &[]);
    azure_untouched(world)?;
    world.delete(IDENTITY, "", "made");
    world.gone(IDENTITY, "", "made")?;
    if world.in_azure() == ["made"] { Ok(()) } else { Err("it was deleted".to_owned()) }
}

pub(super) fn an_identity_given_away_is_left(world: &Arc<World>) -> Checked {
    made(world)?;
    world.give_away("made", &[(CLUSTER_TAG, "another"), (OBJECT_TAG, "another")]);
    world.delete(IDENTITY, "", "made");
    world.gone(IDENTITY, "", "made")?;
    if world.in_azure() == ["made"] { Ok(()) } else { Err("it was deleted".to_owned()) }
}

pub(super) fn a_vanished_identity_is_made_anew(world: &Arc<World>) -> Checked {
    made(world)?;
    world.binding("shop", "app", "made", "app");
    world.ready("shop", "app")?;
    world.remove_azure_identity("made");
    world.trusts("made", &[("shop", "app")])?;
    world.until("status to follow", |world| {
        let binding = world.live(BINDING, "shop", "app").unwrap_or_default();
        let real = world.client_id_of(&binding);
        if real.is_some_and(|real| binding["status"]["clientID"] == real.as_str()) {
            Ok(())
        } else {
            Err(String::new())
        }
    })?;
    world.ready("shop", "app")?;
    let told = world.probe.points().iter().any(|point| point.starts_with("event ManagedIdentity made"));
    if told { Ok(()) } else { Err("nobody is told that pods have to be restarted".to_owned()) }
}

pub(super) fn a_deletion_of_an_identity_that_fails_holds_the_object(world: &Arc<World>) -> Checked {
    made(world)?;
    let answer = json!({"status": 500, "code": "InternalServerError"});
    world.azure_fails(&json!([{"match": {"method": "DELETE"}, "times": 3, "action": answer}]));
    world.delete(IDENTITY, "", "made");
    world.gone(IDENTITY, "", "made")?;
    world.azure_is_empty()
}

pub(super) fn a_quota_of_identities_is_told_and_passes(world: &Arc<World>) -> Checked {
    world.namespace("shop", &json!({}));
    world.class(&json!({}));
    let answer = json!({"status": 403, "code": "QuotaExceeded", "message": "The quota of identities is used up."});
    world.azure_fails(&json!([{"match": {"method": "PUT"}, "times": 100_000, "action": answer}]));
    world.start();
    world.asking("app", "app");
    world.refused("shop", "app", "QuotaExceeded")?;
    let asked = world.azure_writes().len();
    world.pass_slowly(std::time::Duration::from_secs(3600))?;
    if world.azure_writes().len() > asked + 20 {
        return Err("an hour of refusals is no reason for a storm".to_owned());
    }
    world.azure_fails(&json!([]));
    world.ready("shop", "app")
}

pub(super) fn a_claim_is_of_one_uid(world: &Arc<World>) -> Checked {
    with_class(world, &json!({"reclaimPolicy": "Retain"}))?;
    let released = world.made_for("shop", "app");
    world.delete(BINDING, "shop", "app");
    world.binding_gone("shop", "app")?;
    world.condition(IDENTITY, "shop", "app", "Claimed", "False", "Released")?;
    let own = released.strip_prefix(&format!("{}-", world.plan)).unwrap_or(&released).to_owned();
    world.binding_named("shop", "app", &own, "app");
    world.refused("shop", "app", "ClaimMismatch")?;
    azure_untouched(world)?;
    world.refused("shop", "app", "ClaimMismatch")
}

pub(super) fn an_old_list_lacks_the_claimant(world: &Arc<World>) -> Checked {
    world.namespace("shop", &json!({}));
    world.class(&json!({}));
    world.start();
    world.asking("first", "first");
    world.ready("shop", "first")?;
    world.probe.crash_now();
    world.pass_slowly(RESYNC * 5 / 4)?;
    let old = world.gate.last_list(BINDINGS);
    world.asking("app", "app");
    world.ready("shop", "app")?;
    // Nothing is to be written under the identity that could be found out to be wrong before.
    let own =
        world.in_azure().into_iter().find(|name| name.starts_with("ensign-app-")).ok_or("there is no identity")?;
    world.meddle(&own, &world.credential_name("shop", "app"), None);
    restart_onto(world, &old);
    azure_untouched(world)?;
    if world.live(IDENTITY, "shop", "app").is_none_or(|object| object["metadata"]["deletionTimestamp"].is_string()) {
        return Err("the object of a living binding was deleted".to_owned());
    }
    world.gate.release();
    world.ready("shop", "app")?;
    world.ready("shop", "first")
}

pub(super) fn a_class_goes_and_its_identities_live_on(world: &Arc<World>) -> Checked {
    with_class(world, &json!({}))?;
    world.delete("ManagedIdentityClass", "", "dedicated");
    world.asking("late", "late");
    world.refused("shop", "late", "ManagedIdentityClassNotFound")?;
    azure_untouched(world)?;
    world.ready("shop", "app")?;
    world.delete(BINDING, "shop", "app");
    world.binding_gone("shop", "app")?;
    world.azure_is_empty()
}
