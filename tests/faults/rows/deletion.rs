//! Rows 10, 25 and 30: what a deletion waits for, and what ends it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::super::goals::condition_of;
use super::super::world::{Checked, World};
use super::{BINDING, BINDINGS, IDENTITY, settled};

fn held_while(world: &Arc<World>, answer: &serde_json::Value) -> Checked {
    settled(world)?;
    world.azure_fails(&json!([{"match": {"method": "GET"}, "times": 100_000, "action": answer}]));
    world.delete(BINDING, "shop", "app");
    world.pass_slowly(Duration::from_secs(3 * 3600))?;
    let binding = world.live(BINDING, "shop", "app").ok_or("the binding was released though Azure was not asked")?;
    if condition_of(&binding, "Ready").is_none_or(|ready| ready["reason"] != "DeletionBlocked") {
        return Err(format!("nobody is told why the deletion takes long: {}", binding["status"]));
    }
    world.trusts("orders", &[("shop", "app")])?;
    let asked = world.azure_log().len();
    if asked > 250 {
        return Err(format!("{asked} requests in three hours of trouble"));
    }
    world.azure_fails(&json!([]));
    world.binding_gone("shop", "app")?;
    world.trusts("orders", &[])
}

pub(super) fn forbidden_is_not_gone(world: &Arc<World>) -> Checked {
    held_while(world, &json!({"status": 403, "code": "AuthorizationFailed"}))
}

pub(super) fn trouble_is_not_gone(world: &Arc<World>) -> Checked {
    held_while(world, &json!({"status": 500, "code": "InternalServerError"}))
}

pub(super) fn a_page_for_people_is_not_gone(world: &Arc<World>) -> Checked {
    held_while(world, &json!({"status": 404, "html": true}))
}

pub(super) fn no_parent_releases(world: &Arc<World>) -> Checked {
    settled(world)?;
    world.remove_azure_identity("orders");
    world.delete(BINDING, "shop", "app");
    world.binding_gone("shop", "app")?;
    world.delete(IDENTITY, "", "orders");
    world.gone(IDENTITY, "", "orders")
}

pub(super) fn stripped_finalizer(world: &Arc<World>) -> Checked {
    settled(world)?;
    world.gate.hold(&[BINDINGS]);
    world.patch(BINDING, "shop", "app", &json!({"metadata": {"finalizers": []}}));
    world.delete(BINDING, "shop", "app");
    world.gate.release();
    world.happens("the binding to be gone", |world| world.live(BINDING, "shop", "app").is_none())?;
    world.trusts("orders", &[])
}

pub(super) fn tenants_cannot_abandon(world: &Arc<World>) -> Checked {
    settled(world)?;
    world.patch(BINDING, "shop", "app", &json!({"metadata": {"annotations": {"ensign.dev/abandon": "true"}}}));
    world.azure_fails(&json!([{"match": {"method": "GET"}, "times": 3, "action": {"status": 500}}]));
    world.delete(BINDING, "shop", "app");
    world.binding_gone("shop", "app")?;
    world.trusts("orders", &[])
}

pub(super) fn unauthenticated_is_not_gone(world: &Arc<World>) -> Checked {
    held_while(world, &json!({"status": 401, "code": "InvalidAuthenticationToken"}))
}

pub(super) fn silence_is_not_gone(world: &Arc<World>) -> Checked {
    held_while(world, &json!("drop-before"))
}

/// The way out that only a cluster operator has.
pub(super) fn an_operator_abandons(world: &Arc<World>) -> Checked {
    settled(world)?;
    world.azure_fails(&json!([{"match": {"method": "DELETE"}, "times": 100_000, "action": {"status": 403, "code": "AuthorizationFailed"}}]));
    world.delete(BINDING, "shop", "app");
    world.condition(BINDING, "shop", "app", "Ready", "False", "DeletionBlocked")?;
    world.patch(IDENTITY, "", "orders", &json!({"metadata": {"annotations": {"ensign.dev/abandon": "true"}}}));
    world.binding_gone("shop", "app")?;
    // Somebody is told what is left, and it is left.
    let told = world.probe.points().iter().any(|point| point.starts_with("event ManagedIdentityBinding shop/app"));
    if !told {
        return Err("nobody is told that the credential may be left".to_owned());
    }
    world.trusts("orders", &[("shop", "app")])?;
    world.patch(IDENTITY, "", "orders", &json!({"metadata": {"annotations": {"ensign.dev/abandon": null}}}));
    world.azure_fails(&json!([]));
    // Azure can be asked again: what was given up is ours, and goes.
    world.trusts("orders", &[])
}
