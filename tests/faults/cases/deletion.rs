//! Rows 10, 25 and 30: what a deletion waits for.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::super::eventually::condition_of;
use super::super::harness::{Checked, Harness};
use super::{BINDING, BINDINGS, IDENTITY, bound};

fn held_while(harness: &Arc<Harness>, answer: &serde_json::Value) -> Checked {
    bound(harness)?;
    harness.azure_fails(&json!([{"match": {"method": "GET"}, "times": 100_000, "action": answer}]));
    harness.delete(BINDING, "shop", "app");
    harness.advance_in_steps(Duration::from_secs(3 * 3600))?;
    let binding =
        harness.live(BINDING, "shop", "app").ok_or("the binding was released without a confirmation from Azure")?;
    if condition_of(&binding, "Ready").is_none_or(|ready| ready["reason"] != "DeletionBlocked") {
        return Err(format!("no condition says why the deletion takes long: {}", binding["status"]));
    }
    harness.trusts("orders", &[("shop", "app")])?;
    let asked = harness.azure_log().len();
    if asked > 250 {
        return Err(format!("{asked} requests in three hours of failures"));
    }
    harness.azure_fails(&json!([]));
    harness.binding_deleted("shop", "app")?;
    harness.trusts("orders", &[])
}

pub(super) fn forbidden_does_not_mean_deleted(harness: &Arc<Harness>) -> Checked {
    held_while(harness, &json!({"status": 403, "code": "AuthorizationFailed"}))
}

pub(super) fn server_errors_do_not_mean_deleted(harness: &Arc<Harness>) -> Checked {
    held_while(harness, &json!({"status": 500, "code": "InternalServerError"}))
}

pub(super) fn an_html_404_does_not_mean_deleted(harness: &Arc<Harness>) -> Checked {
    held_while(harness, &json!({"status": 404, "html": true}))
}

pub(super) fn a_deleted_identity_releases_its_objects(harness: &Arc<Harness>) -> Checked {
    bound(harness)?;
    harness.remove_azure_identity("orders");
    harness.delete(BINDING, "shop", "app");
    harness.binding_deleted("shop", "app")?;
    harness.delete(IDENTITY, "", "orders");
    harness.deleted(IDENTITY, "", "orders")
}

pub(super) fn stripped_finalizer(harness: &Arc<Harness>) -> Checked {
    bound(harness)?;
    harness.gate.hold(&[BINDINGS]);
    harness.patch(BINDING, "shop", "app", &json!({"metadata": {"finalizers": []}}));
    harness.delete(BINDING, "shop", "app");
    harness.gate.release();
    harness.eventually_in_real_time("the binding to be deleted", |harness| {
        harness.live(BINDING, "shop", "app").is_none()
    })?;
    harness.trusts("orders", &[])
}

pub(super) fn tenants_cannot_abandon(harness: &Arc<Harness>) -> Checked {
    bound(harness)?;
    harness.patch(BINDING, "shop", "app", &json!({"metadata": {"annotations": {"ensign.dev/abandon": "true"}}}));
    harness.azure_fails(&json!([{"match": {"method": "GET"}, "times": 3, "action": {"status": 500}}]));
    harness.delete(BINDING, "shop", "app");
    harness.binding_deleted("shop", "app")?;
    harness.trusts("orders", &[])
}

pub(super) fn unauthenticated_does_not_mean_deleted(harness: &Arc<Harness>) -> Checked {
    held_while(harness, &json!({"status": 401, "code": "InvalidAuthenticationToken"}))
}

pub(super) fn no_response_does_not_mean_deleted(harness: &Arc<Harness>) -> Checked {
    held_while(harness, &json!("drop-before"))
}

/// Abandoning is only up to cluster operators.
pub(super) fn an_operator_abandons(harness: &Arc<Harness>) -> Checked {
    bound(harness)?;
    harness.azure_fails(&json!([{"match": {"method": "DELETE"}, "times": 100_000, "action": {"status": 403, "code": "AuthorizationFailed"}}]));
    harness.delete(BINDING, "shop", "app");
    harness.condition(BINDING, "shop", "app", "Ready", "False", "DeletionBlocked")?;
    harness.patch(IDENTITY, "", "orders", &json!({"metadata": {"annotations": {"ensign.dev/abandon": "true"}}}));
    harness.binding_deleted("shop", "app")?;
    // An event reports what is left, and it is left.
    let reported =
        harness.probe.points().iter().any(|point| point.starts_with("event ManagedIdentityBinding shop/app"));
    if !reported {
        return Err("no event says that the credential may be left".to_owned());
    }
    harness.trusts("orders", &[("shop", "app")])?;
    harness.patch(IDENTITY, "", "orders", &json!({"metadata": {"annotations": {"ensign.dev/abandon": null}}}));
    harness.azure_fails(&json!([]));
    // Azure works again: what was abandoned is ours, and is deleted.
    harness.trusts("orders", &[])
}
