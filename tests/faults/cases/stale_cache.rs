//! Rows 3, 4 and 5: changes while the watch was held, or after an old list.

use std::sync::Arc;

use serde_json::json;

use super::super::gate::{GateAction, GateRule};
use super::super::harness::{Checked, Harness, RESYNC};
use super::{BINDING, BINDINGS, IDENTITIES, IDENTITY, NAMESPACES, azure_not_written, bound};

pub(super) fn revoked_unseen(harness: &Arc<Harness>) -> Checked {
    bound(harness)?;
    harness.gate.hold(&[IDENTITIES]);
    harness.patch(IDENTITY, "", "orders", &json!({"spec": {"allowedSubjects": []}}));
    harness.change_out_of_band("orders", &harness.credential_name("shop", "app"), None);
    azure_not_written(harness)?;
    harness.gate.release();
    harness.not_ready("shop", "app", "NotAllowed")?;
    harness.trusts("orders", &[])
}

pub(super) fn deleted_unseen(harness: &Arc<Harness>) -> Checked {
    bound(harness)?;
    harness.gate.hold(&[BINDINGS]);
    harness.delete(BINDING, "shop", "app");
    harness.change_out_of_band("orders", &harness.credential_name("shop", "app"), None);
    azure_not_written(harness)?;
    harness.gate.release();
    harness.binding_deleted("shop", "app")?;
    harness.trusts("orders", &[])
}

pub(super) fn label_unseen(harness: &Arc<Harness>) -> Checked {
    harness.namespace("shop", &json!({"team": "orders"}));
    harness.azure_identity("orders", &[]);
    let selector = json!({"matchLabels": {"team": "orders"}});
    let grants = json!([{"name": "team", "namespaceSelector": selector, "serviceAccounts": ["*"]}]);
    harness.managed_identity("orders", "orders", &grants, &json!({}));
    harness.start();
    harness.binding("shop", "app", "orders", "app");
    harness.ready("shop", "app")?;
    harness.gate.hold(&[NAMESPACES]);
    harness.patch("Namespace", "", "shop", &json!({"metadata": {"labels": {"team": "payments"}}}));
    harness.change_out_of_band("orders", &harness.credential_name("shop", "app"), None);
    azure_not_written(harness)?;
    harness.gate.release();
    harness.not_ready("shop", "app", "NotAllowed")?;
    harness.trusts("orders", &[])
}

pub(super) fn claim_unseen(harness: &Arc<Harness>) -> Checked {
    bound(harness)?;
    harness.azure_fails(&json!([{"match": {"method": "GET"}, "times": 1000, "action": {"status": 503}}]));
    harness.delete(BINDING, "shop", "app");
    harness.wait_until_idle(std::time::Instant::now())?;
    harness.gate.hold(&[BINDINGS]);
    harness.binding("shop", "heir", "orders", "app");
    let finalizer = json!({"metadata": {"finalizers": [super::super::history::FINALIZER]}});
    harness.patch(BINDING, "shop", "heir", &finalizer);
    harness.azure_fails(&json!([]));
    azure_not_written(harness)?;
    harness.gate.release();
    harness.binding_deleted("shop", "app")?;
    harness.ready("shop", "heir")?;
    harness.trusts("orders", &[("shop", "app")])
}

pub(super) fn restart_onto(harness: &Arc<Harness>, list: &bytes::Bytes) {
    harness.gate.rule(GateRule {
        method: "GET",
        contains: vec![format!("{BINDINGS}?")],
        skip: 0,
        times: 1,
        action: GateAction::Replay(list.clone()),
        fired: Arc::default(),
    });
    harness.gate.hold(&[BINDINGS]);
    harness.probe.crash_now();
}

pub(super) fn old_list_contains_a_deleted_binding(harness: &Arc<Harness>) -> Checked {
    bound(harness)?;
    // The list of a controller that starts now contains the binding.
    harness.probe.crash_now();
    harness.advance_in_steps(RESYNC * 5 / 4)?;
    let old = harness.gate.last_list(BINDINGS);
    harness.delete(BINDING, "shop", "app");
    harness.binding_deleted("shop", "app")?;
    restart_onto(harness, &old);
    azure_not_written(harness)?;
    harness.gate.release();
    harness.eventually("the controllers to be idle", |_| Ok(()))?;
    harness.trusts("orders", &[])
}

pub(super) fn old_list_lacks_a_binding(harness: &Arc<Harness>) -> Checked {
    bound(harness)?;
    harness.probe.crash_now();
    harness.advance_in_steps(RESYNC * 5 / 4)?;
    let old = harness.gate.last_list(BINDINGS);
    harness.binding("shop", "more", "orders", "more");
    harness.ready("shop", "more")?;
    restart_onto(harness, &old);
    azure_not_written(harness)?;
    harness.gate.release();
    harness.ready("shop", "more")?;
    harness.trusts("orders", &[("shop", "app"), ("shop", "more")])
}

pub(super) fn created_and_deleted_unseen(harness: &Arc<Harness>) -> Checked {
    bound(harness)?;
    let before = harness.azure_writes().len();
    harness.gate.hold(&[BINDINGS]);
    harness.binding("shop", "brief", "orders", "brief");
    harness.delete(BINDING, "shop", "brief");
    harness.gate.release();
    harness.advance_in_steps(RESYNC * 5 / 4)?;
    if harness.azure_writes().len() != before {
        return Err("something was written for a short-lived binding".to_owned());
    }
    harness.trusts("orders", &[("shop", "app")])
}

pub(super) fn same_name_new_uid_unseen(harness: &Arc<Harness>) -> Checked {
    bound(harness)?;
    // Azure is unavailable, so that the deletion is seen but can't be finished; another program finishes it.
    harness.azure_fails(&json!([{"match": {"method": "GET"}, "times": 1000, "action": {"status": 503}}]));
    harness.delete(BINDING, "shop", "app");
    harness.wait_until_idle(std::time::Instant::now())?;
    harness.gate.hold(&[BINDINGS]);
    harness.patch(BINDING, "shop", "app", &json!({"metadata": {"finalizers": []}}));
    harness.eventually_in_real_time("the old binding to be deleted", |harness| {
        harness.live(BINDING, "shop", "app").is_none()
    })?;
    harness.change_out_of_band("orders", &harness.credential_name("shop", "app"), None);
    harness.binding("shop", "app", "orders", "app");
    let held = json!({"metadata": {"finalizers": [super::super::history::FINALIZER]}});
    harness.patch(BINDING, "shop", "app", &held);
    harness.azure_fails(&json!([]));
    harness.advance_in_steps(RESYNC * 5 / 4)?;
    let now = harness.live(BINDING, "shop", "app").unwrap_or_default();
    if now["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty) {
        return Err("the finalizer of the new object of the same name was removed".to_owned());
    }
    if !now["status"]["conditions"].is_null() {
        return Err("the new object of the same name got the status".to_owned());
    }
    harness.gate.release();
    harness.ready("shop", "app")?;
    harness.trusts("orders", &[("shop", "app")])
}
