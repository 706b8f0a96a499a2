//! Rows 16 and 18: watches that break, hang, expire, or deliver invalid objects.

use std::sync::Arc;
use std::time::Duration;

use super::super::eventually::condition_of;
use super::super::gate::{GateAction, GateRule};
use super::super::harness::{Checked, Harness};
use super::super::lock::lock;
use super::super::scenarios::begin;
use super::{BINDING, BINDINGS, IDENTITIES, NAMESPACES, azure_not_written, bound};

pub(super) fn watches_cut_and_expired(harness: &Arc<Harness>) -> Checked {
    bound(harness)?;
    for (round, account) in ["one", "two", "three"].into_iter().enumerate() {
        harness.gate.rule(GateRule {
            method: "GET",
            contains: vec!["watch=true".to_owned()],
            skip: 0,
            times: 2 + u32::try_from(round).expect("a few"),
            action: GateAction::Answer { status: 410, retry_after: None },
            fired: Arc::default(),
        });
        harness.gate.cut();
        harness.binding("shop", account, "orders", account);
        // Watches reconnect in real time.
        harness.eventually_in_real_time("the binding to be ready", |harness| {
            let binding = harness.live(BINDING, "shop", account).unwrap_or_default();
            condition_of(&binding, "Ready").is_some_and(|ready| ready["status"] == "True")
        })?;
    }
    harness.trusts("orders", &[("shop", "app"), ("shop", "one"), ("shop", "two"), ("shop", "three")])
}

pub(super) fn half_open_watch(harness: &Arc<Harness>) -> Checked {
    bound(harness)?;
    harness.gate.hold(&[BINDINGS, IDENTITIES, NAMESPACES]);
    harness.binding("shop", "more", "orders", "more");
    harness.delete(BINDING, "shop", "app");
    azure_not_written(harness)?;
    harness.gate.cut();
    harness.gate.release();
    harness.eventually_in_real_time("the new binding to have a status", |harness| {
        harness.live(BINDING, "shop", "more").is_some_and(|binding| binding["status"].is_object())
    })?;
    harness.ready("shop", "more")?;
    harness.binding_deleted("shop", "app")?;
    harness.trusts("orders", &[("shop", "more")])
}

pub(super) fn an_invalid_object_affects_only_itself(harness: &Arc<Harness>) -> Checked {
    harness.gate.replace(r#""serviceAccountName":"poison""#, r#""serviceAccountName":{"not":"text"}"#);
    begin(harness)?;
    harness.binding("shop", "poison", "orders", "poison");
    harness.binding("shop", "app", "orders", "app");
    harness.ready("shop", "app")?;
    harness.probe.crash_now();
    harness.binding("shop", "later", "orders", "later");
    harness.ready("shop", "later")?;
    harness.delete(BINDING, "shop", "app");
    harness.binding_deleted("shop", "app")?;
    harness.trusts("orders", &[("shop", "later")])
}

/// A failed watch is retried within this real time.
const BACK: Duration = Duration::from_secs(45);

/// Changes while the API server was unavailable are found afterwards.
fn restarted(harness: &Arc<Harness>, compacted: bool) -> Checked {
    bound(harness)?;
    harness.gate.hold(&[BINDINGS, IDENTITIES, NAMESPACES]);
    harness.binding("shop", "more", "orders", "more");
    harness.delete(BINDING, "shop", "app");
    if compacted {
        harness.cluster.compact_etcd();
    }
    harness.cluster.restart_api_server();
    harness.gate.release();
    // Watches reconnect in real time.
    harness.eventually_in_real_time("the new binding to have a status", |harness| {
        harness.live(BINDING, "shop", "more").is_some_and(|binding| binding["status"].is_object())
    })?;
    harness.eventually_in_real_time("the watches to be open again", |harness| harness.gate.is_watched())?;
    *lock(&harness.real_time_limit) = BACK;
    harness.ready("shop", "more")?;
    harness.binding_deleted("shop", "app")?;
    harness.trusts("orders", &[("shop", "more")])?;
    if compacted && harness.gate.expired() == 0 {
        return Err("no watch expired".to_owned());
    }
    Ok(())
}

pub(super) fn the_api_server_restarts(harness: &Arc<Harness>) -> Checked {
    restarted(harness, false)
}

pub(super) fn etcd_is_compacted_and_the_api_server_restarts(harness: &Arc<Harness>) -> Checked {
    restarted(harness, true)
}
