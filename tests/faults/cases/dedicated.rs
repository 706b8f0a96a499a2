//! Provisioned identities: who owns them, and their lifecycle.

use std::sync::Arc;

use ensign_core::provisioning::{CLUSTER_TAG, OBJECT_TAG};
use serde_json::json;

use super::super::harness::{Checked, Harness, RESYNC};
use super::stale_cache::restart_onto;
use super::{BINDING, BINDINGS, IDENTITY, azure_not_written};

fn with_class(harness: &Arc<Harness>, more: &serde_json::Value) -> Checked {
    harness.namespace("shop", &json!({}));
    harness.class(more);
    harness.start();
    harness.asking("app", "app");
    harness.ready("shop", "app")
}

fn made(harness: &Arc<Harness>) -> Checked {
    harness.namespace("shop", &json!({}));
    harness.provisioned("made", &json!({"reclaimPolicy": "Delete"}));
    harness.start();
    harness.identity_ready("made")
}

pub(super) fn a_foreign_identity_is_unchanged(harness: &Arc<Harness>) -> Checked {
    harness.namespace("shop", &json!({}));
    harness.azure_identity("made", &[]);
    // Another object of the same cluster created it.
    harness.give_to_another_owner("made", &[(CLUSTER_TAG, &harness.cluster_id.clone()), (OBJECT_TAG, "another")]);
    harness.provisioned("made", &json!({"reclaimPolicy": "Delete"}));
    harness.start();
    harness.condition(IDENTITY, "", "made", "IdentityResolved", "False", "IdentityExists")?;
    harness.binding("shop", "app", "made", "app");
    harness.not_ready("shop", "app", "IdentityExists")?;
    harness.give_to_another_owner("made", &[]);
    azure_not_written(harness)?;
    harness.delete(IDENTITY, "", "made");
    harness.deleted(IDENTITY, "", "made")?;
    if harness.identities_in_azure() == ["made"] { Ok(()) } else { Err("it was deleted".to_owned()) }
}

pub(super) fn an_identity_with_a_new_owner_is_unchanged(harness: &Arc<Harness>) -> Checked {
    made(harness)?;
    harness.give_to_another_owner("made", &[(CLUSTER_TAG, "another"), (OBJECT_TAG, "another")]);
    harness.delete(IDENTITY, "", "made");
    harness.deleted(IDENTITY, "", "made")?;
    if harness.identities_in_azure() == ["made"] { Ok(()) } else { Err("it was deleted".to_owned()) }
}

pub(super) fn an_identity_deleted_out_of_band_is_recreated(harness: &Arc<Harness>) -> Checked {
    made(harness)?;
    harness.binding("shop", "app", "made", "app");
    harness.ready("shop", "app")?;
    harness.remove_azure_identity("made");
    harness.trusts("made", &[("shop", "app")])?;
    harness.eventually("status to follow", |harness| {
        let binding = harness.live(BINDING, "shop", "app").unwrap_or_default();
        let real = harness.client_id_of(&binding);
        if real.is_some_and(|real| binding["status"]["clientID"] == real.as_str()) {
            Ok(())
        } else {
            Err(String::new())
        }
    })?;
    harness.ready("shop", "app")?;
    let reported = harness.probe.points().iter().any(|point| point.starts_with("event ManagedIdentity made"));
    if reported { Ok(()) } else { Err("no event says that pods have to be restarted".to_owned()) }
}

pub(super) fn a_failing_identity_deletion_keeps_the_object(harness: &Arc<Harness>) -> Checked {
    made(harness)?;
    let answer = json!({"status": 500, "code": "InternalServerError"});
    harness.azure_fails(&json!([{"match": {"method": "DELETE"}, "times": 3, "action": answer}]));
    harness.delete(IDENTITY, "", "made");
    harness.deleted(IDENTITY, "", "made")?;
    harness.azure_is_empty()
}

pub(super) fn an_identity_quota_is_reported_and_recovered_from(harness: &Arc<Harness>) -> Checked {
    harness.namespace("shop", &json!({}));
    harness.class(&json!({}));
    let answer = json!({"status": 403, "code": "QuotaExceeded", "message": "The quota of identities is used up."});
    harness.azure_fails(&json!([{"match": {"method": "PUT"}, "times": 100_000, "action": answer}]));
    harness.start();
    harness.asking("app", "app");
    harness.not_ready("shop", "app", "QuotaExceeded")?;
    let asked = harness.azure_writes().len();
    harness.advance_in_steps(std::time::Duration::from_secs(3600))?;
    if harness.azure_writes().len() > asked + 20 {
        return Err("too many requests in an hour of denials".to_owned());
    }
    harness.azure_fails(&json!([]));
    harness.ready("shop", "app")
}

pub(super) fn a_claim_belongs_to_one_uid(harness: &Arc<Harness>) -> Checked {
    with_class(harness, &json!({"reclaimPolicy": "Retain"}))?;
    let released = harness.object_created_for("shop", "app");
    harness.delete(BINDING, "shop", "app");
    harness.binding_deleted("shop", "app")?;
    harness.condition(IDENTITY, "shop", "app", "Claimed", "False", "Released")?;
    let own = released.strip_prefix(&format!("{}-", harness.plan)).unwrap_or(&released).to_owned();
    harness.binding_named("shop", "app", &own, "app");
    harness.not_ready("shop", "app", "ClaimMismatch")?;
    azure_not_written(harness)?;
    harness.not_ready("shop", "app", "ClaimMismatch")
}

pub(super) fn an_old_list_lacks_the_claimant(harness: &Arc<Harness>) -> Checked {
    harness.namespace("shop", &json!({}));
    harness.class(&json!({}));
    harness.start();
    harness.asking("first", "first");
    harness.ready("shop", "first")?;
    harness.probe.crash_now();
    harness.advance_in_steps(RESYNC * 5 / 4)?;
    let old = harness.gate.last_list(BINDINGS);
    harness.asking("app", "app");
    harness.ready("shop", "app")?;
    // No write under the identity may reveal the stale list before.
    let own = harness
        .identities_in_azure()
        .into_iter()
        .find(|name| name.starts_with("ensign-app-"))
        .ok_or("there is no identity")?;
    harness.change_out_of_band(&own, &harness.credential_name("shop", "app"), None);
    restart_onto(harness, &old);
    azure_not_written(harness)?;
    if harness.live(IDENTITY, "shop", "app").is_none_or(|object| object["metadata"]["deletionTimestamp"].is_string()) {
        return Err("the object of a living binding was deleted".to_owned());
    }
    harness.gate.release();
    harness.ready("shop", "app")?;
    harness.ready("shop", "first")
}

pub(super) fn identities_outlive_their_class(harness: &Arc<Harness>) -> Checked {
    with_class(harness, &json!({}))?;
    harness.delete("ManagedIdentityClass", "", "dedicated");
    harness.asking("late", "late");
    harness.not_ready("shop", "late", "ManagedIdentityClassNotFound")?;
    azure_not_written(harness)?;
    harness.ready("shop", "app")?;
    harness.delete(BINDING, "shop", "app");
    harness.binding_deleted("shop", "app")?;
    harness.azure_is_empty()
}
