//! Rows 33 and 34: reads that lag behind writes for as long as one likes, and other people's credentials of any shape.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::eventually::condition_of;
use super::super::harness::{Checked, Harness, RESYNC};
use super::{BINDING, IDENTITY, bound};

const EVER: u64 = 1_000_000;

fn lists() -> Value {
    json!({"method": "GET", "pathContains": "federatedIdentityCredentials?"})
}

/// Deletes the binding, then its identity; nothing of ours may be left in Azure when they are gone.
fn deleted_with_all_credentials(harness: &Arc<Harness>) -> Checked {
    harness.delete(BINDING, "shop", "app");
    harness.binding_deleted("shop", "app")?;
    if !harness.credentials("orders").is_empty() {
        return Err("the credential outlived its binding".to_owned());
    }
    harness.delete(IDENTITY, "", "orders");
    harness.deleted(IDENTITY, "", "orders")?;
    harness.trusts("orders", &[])
}

pub(super) fn a_stale_list_releases_nothing(harness: &Arc<Harness>) -> Checked {
    bound(harness)?;
    harness.azure_fails(&json!([{"match": lists(), "times": EVER, "action": {"status": 200, "body": {"value": []}}}]));
    deleted_with_all_credentials(harness)
}

/// The same, long after the credential was written, by a controller that did not write it.
pub(super) fn a_list_that_is_stale_for_hours_releases_nothing(harness: &Arc<Harness>) -> Checked {
    bound(harness)?;
    harness.advance_in_steps(RESYNC * 5 / 4)?;
    harness.azure_fails(&json!([{"match": lists(), "times": EVER, "action": {"status": 200, "body": {"value": []}}}]));
    harness.probe.crash_now();
    deleted_with_all_credentials(harness)
}

pub(super) fn a_missing_identity_releases_nothing(harness: &Arc<Harness>) -> Checked {
    bound(harness)?;
    harness.advance_in_steps(RESYNC * 5 / 4)?;
    let gone = json!({"status": 404, "code": "ResourceNotFound"});
    harness.azure_fails(&json!([{"match": {"method": "GET"}, "times": EVER, "action": gone}]));
    harness.probe.crash_now();
    harness.delete(BINDING, "shop", "app");
    harness.delete(IDENTITY, "", "orders");
    harness.binding_deleted("shop", "app")?;
    harness.deleted(IDENTITY, "", "orders")?;
    harness.trusts("orders", &[])
}

/// The grant is withdrawn while no LIST shows the credential.
pub(super) fn a_stale_list_revokes_all_the_same(harness: &Arc<Harness>) -> Checked {
    bound(harness)?;
    harness.advance_in_steps(RESYNC * 5 / 4)?;
    harness.azure_fails(&json!([{"match": lists(), "times": EVER, "action": {"status": 200, "body": {"value": []}}}]));
    harness.patch(IDENTITY, "", "orders", &json!({"spec": {"allowedSubjects": []}}));
    harness.not_ready("shop", "app", "NotAllowed")?;
    harness.trusts("orders", &[])
}

/// GET answers 404 for ever after the identity was created.
pub(super) fn a_get_that_never_finds_the_identity_causes_no_write_storm(harness: &Arc<Harness>) -> Checked {
    harness.namespace("shop", &json!({}));
    let gone = json!({"status": 404, "code": "ResourceNotFound"});
    let gets = json!({"method": "GET", "pathContains": "/userAssignedIdentities/made?"});
    harness.azure_fails(&json!([{"match": gets, "times": EVER, "action": gone}]));
    harness.provisioned("made", &json!({"reclaimPolicy": "Delete"}));
    harness.start();
    harness.identity_ready("made")?;
    harness.binding("shop", "app", "made", "app");
    harness.ready("shop", "app")?;
    let puts = |harness: &Harness| {
        let of_identity = |path: &str| path.ends_with("/userAssignedIdentities/made");
        harness.azure_writes().iter().filter(|entry| entry.method == "PUT" && of_identity(&entry.path)).count()
    };
    let at_once = puts(harness);
    if at_once != 1 {
        return Err(format!("{at_once} PUTs of the identity before anything was late"));
    }
    // Something happens all the time, so that the identity is looked at again and again.
    for round in 0..30 {
        harness.patch(IDENTITY, "", "made", &json!({"metadata": {"annotations": {"round": round.to_string()}}}));
        harness.advance_in_steps(Duration::from_secs(10))?;
    }
    let in_five_minutes = puts(harness);
    if in_five_minutes > 5 {
        return Err(format!("{in_five_minutes} PUTs of the identity in five minutes"));
    }
    harness.advance_in_steps(RESYNC * 4)?;
    let in_an_hour = puts(harness) - in_five_minutes;
    if in_an_hour > 6 {
        return Err(format!("{in_an_hour} PUTs of the identity in an hour"));
    }
    harness.azure_fails(&json!([]));
    never_flapped(harness)
}

/// Once an object was Ready, it stayed so.
fn never_flapped(harness: &Harness) -> Checked {
    for kind in [BINDING, IDENTITY] {
        for versions in harness.history.all(kind) {
            let ready = |object: &Value| condition_of(object, "Ready").is_some_and(|ready| ready["status"] == "True");
            let since = versions.iter().skip_while(|version| !ready(&version.object));
            if let Some(flapped) = since.filter(|version| !version.is_deleted).find(|version| !ready(&version.object)) {
                return Err(format!("{kind} was Ready, and then {}", flapped.object["status"]["conditions"]));
            }
        }
    }
    Ok(())
}
