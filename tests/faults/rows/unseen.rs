//! Rows 3, 4 and 5: what happened while the watch was held, or before an old list.

use std::sync::Arc;

use serde_json::json;

use super::super::gate::{GateAction, GateRule};
use super::super::world::{Checked, RESYNC, World};
use super::{BINDING, BINDINGS, IDENTITIES, IDENTITY, NAMESPACES, azure_untouched, settled};

pub(super) fn revoked_unseen(world: &Arc<World>) -> Checked {
    settled(world)?;
    world.gate.hold(&[IDENTITIES]);
    world.patch(IDENTITY, "", "orders", &json!({"spec": {"allowedSubjects": []}}));
    world.meddle("orders", &world.credential_name("shop", "app"), None);
    azure_untouched(world)?;
    world.gate.release();
    world.refused("shop", "app", "NotAllowed")?;
    world.trusts("orders", &[])
}

pub(super) fn deleted_unseen(world: &Arc<World>) -> Checked {
    settled(world)?;
    world.gate.hold(&[BINDINGS]);
    world.delete(BINDING, "shop", "app");
    world.meddle("orders", &world.credential_name("shop", "app"), None);
    azure_untouched(world)?;
    world.gate.release();
    world.binding_gone("shop", "app")?;
    world.trusts("orders", &[])
}

pub(super) fn label_unseen(world: &Arc<World>) -> Checked {
    world.namespace("shop", &json!({"team": "orders"}));
    world.azure_identity("orders", &[]);
    let selector = json!({"matchLabels": {"team": "orders"}});
    let grants = json!([{"name": "team", "namespaceSelector": selector, "serviceAccounts": ["*"]}]);
    world.managed_identity("orders", "orders", &grants, &json!({}));
    world.start();
    world.binding("shop", "app", "orders", "app");
    world.ready("shop", "app")?;
    world.gate.hold(&[NAMESPACES]);
    world.patch("Namespace", "", "shop", &json!({"metadata": {"labels": {"team": "payments"}}}));
    world.meddle("orders", &world.credential_name("shop", "app"), None);
    azure_untouched(world)?;
    world.gate.release();
    world.refused("shop", "app", "NotAllowed")?;
    world.trusts("orders", &[])
}

pub(super) fn claim_unseen(world: &Arc<World>) -> Checked {
    settled(world)?;
    world.azure_fails(&json!([{"match": {"method": "GET"}, "times": 1000, "action": {"status": 503}}]));
    world.delete(BINDING, "shop", "app");
    world.quiet(std::time::Instant::now())?;
    world.gate.hold(&[BINDINGS]);
    world.binding("shop", "heir", "orders", "app");
    let finalizer = json!({"metadata": {"finalizers": [super::super::history::FINALIZER]}});
    world.patch(BINDING, "shop", "heir", &finalizer);
    world.azure_fails(&json!([]));
    azure_untouched(world)?;
    world.gate.release();
    world.binding_gone("shop", "app")?;
    world.ready("shop", "heir")?;
    world.trusts("orders", &[("shop", "app")])
}

pub(super) fn restart_onto(world: &Arc<World>, list: &bytes::Bytes) {
    world.gate.rule(GateRule {
        method: "GET",
        contains: vec![format!("{BINDINGS}?")],
        skip: 0,
        times: 1,
        action: GateAction::Replay(list.clone()),
        fired: Arc::default(),
    });
    world.gate.hold(&[BINDINGS]);
    world.probe.crash_now();
}

pub(super) fn old_list_knows_a_binding_too_many(world: &Arc<World>) -> Checked {
    settled(world)?;
    // The list of a controller that starts now has the binding.
    world.probe.crash_now();
    world.pass_slowly(RESYNC * 5 / 4)?;
    let old = world.gate.last_list(BINDINGS);
    world.delete(BINDING, "shop", "app");
    world.binding_gone("shop", "app")?;
    restart_onto(world, &old);
    azure_untouched(world)?;
    world.gate.release();
    world.until("the binding to be forgotten", |_| Ok(()))?;
    world.trusts("orders", &[])
}

pub(super) fn old_list_lacks_a_binding(world: &Arc<World>) -> Checked {
    settled(world)?;
    world.probe.crash_now();
    world.pass_slowly(RESYNC * 5 / 4)?;
    let old = world.gate.last_list(BINDINGS);
    world.binding("shop", "more", "orders", "more");
    world.ready("shop", "more")?;
    restart_onto(world, &old);
    azure_untouched(world)?;
    world.gate.release();
    world.ready("shop", "more")?;
    world.trusts("orders", &[("shop", "app"), ("shop", "more")])
}

pub(super) fn made_and_deleted_unseen(world: &Arc<World>) -> Checked {
    settled(world)?;
    let before = world.azure_writes().len();
    world.gate.hold(&[BINDINGS]);
    world.binding("shop", "brief", "orders", "brief");
    world.delete(BINDING, "shop", "brief");
    world.gate.release();
    world.pass_slowly(RESYNC * 5 / 4)?;
    if world.azure_writes().len() != before {
        return Err("something was written for a binding that came and went".to_owned());
    }
    world.trusts("orders", &[("shop", "app")])
}

pub(super) fn same_name_new_uid_unseen(world: &Arc<World>) -> Checked {
    settled(world)?;
    // Azure is away, so that the deletion is seen and can't be done; somebody else does it.
    world.azure_fails(&json!([{"match": {"method": "GET"}, "times": 1000, "action": {"status": 503}}]));
    world.delete(BINDING, "shop", "app");
    world.quiet(std::time::Instant::now())?;
    world.gate.hold(&[BINDINGS]);
    world.patch(BINDING, "shop", "app", &json!({"metadata": {"finalizers": []}}));
    world.happens("the old binding to be gone", |world| world.live(BINDING, "shop", "app").is_none())?;
    world.meddle("orders", &world.credential_name("shop", "app"), None);
    world.binding("shop", "app", "orders", "app");
    let held = json!({"metadata": {"finalizers": [super::super::history::FINALIZER]}});
    world.patch(BINDING, "shop", "app", &held);
    world.azure_fails(&json!([]));
    world.pass_slowly(RESYNC * 5 / 4)?;
    let now = world.live(BINDING, "shop", "app").unwrap_or_default();
    if now["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty) {
        return Err("the finalizer of another object of the same name was taken off".to_owned());
    }
    if !now["status"]["conditions"].is_null() {
        return Err("another object of the same name got the status".to_owned());
    }
    world.gate.release();
    world.ready("shop", "app")?;
    world.trusts("orders", &[("shop", "app")])
}
