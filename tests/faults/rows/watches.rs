//! Rows 16 and 18: watches that break, hang, are too old, or bring nonsense.

use std::sync::Arc;
use std::time::Duration;

use super::super::clock::lock;
use super::super::gate::{GateAction, GateRule};
use super::super::goals::condition_of;
use super::super::scenarios::begin;
use super::super::world::{Checked, World};
use super::{BINDING, BINDINGS, IDENTITIES, NAMESPACES, azure_untouched, settled};

pub(super) fn watches_cut_and_expired(world: &Arc<World>) -> Checked {
    settled(world)?;
    for (round, account) in ["one", "two", "three"].into_iter().enumerate() {
        world.gate.rule(GateRule {
            method: "GET",
            contains: vec!["watch=true".to_owned()],
            skip: 0,
            times: 2 + u32::try_from(round).expect("a few"),
            action: GateAction::Answer { status: 410, retry_after: None },
            fired: Arc::default(),
        });
        world.gate.cut();
        world.binding("shop", account, "orders", account);
        // The watches come back on the real clock.
        world.happens("the binding to be ready", |world| {
            let binding = world.live(BINDING, "shop", account).unwrap_or_default();
            condition_of(&binding, "Ready").is_some_and(|ready| ready["status"] == "True")
        })?;
    }
    world.trusts("orders", &[("shop", "app"), ("shop", "one"), ("shop", "two"), ("shop", "three")])
}

pub(super) fn half_open_watch(world: &Arc<World>) -> Checked {
    settled(world)?;
    world.gate.hold(&[BINDINGS, IDENTITIES, NAMESPACES]);
    world.binding("shop", "more", "orders", "more");
    world.delete(BINDING, "shop", "app");
    azure_untouched(world)?;
    world.gate.cut();
    world.gate.release();
    world.happens("the new binding to be seen", |world| {
        world.live(BINDING, "shop", "more").is_some_and(|binding| binding["status"].is_object())
    })?;
    world.ready("shop", "more")?;
    world.binding_gone("shop", "app")?;
    world.trusts("orders", &[("shop", "more")])
}

pub(super) fn poison_is_one_objects_problem(world: &Arc<World>) -> Checked {
    world.gate.replace(r#""serviceAccountName":"poison""#, r#""serviceAccountName":{"not":"text"}"#);
    begin(world)?;
    world.binding("shop", "poison", "orders", "poison");
    world.binding("shop", "app", "orders", "app");
    world.ready("shop", "app")?;
    world.probe.crash_now();
    world.binding("shop", "later", "orders", "later");
    world.ready("shop", "later")?;
    world.delete(BINDING, "shop", "app");
    world.binding_gone("shop", "app")?;
    world.trusts("orders", &[("shop", "later")])
}

/// A watch that failed is tried again within this real time.
const BACK: Duration = Duration::from_secs(45);

/// What happened while the API server was away is found when it is back.
fn restarted(world: &Arc<World>, compacted: bool) -> Checked {
    settled(world)?;
    world.gate.hold(&[BINDINGS, IDENTITIES, NAMESPACES]);
    world.binding("shop", "more", "orders", "more");
    world.delete(BINDING, "shop", "app");
    if compacted {
        world.cluster.compact_etcd();
    }
    world.cluster.restart_api_server();
    world.gate.release();
    // The watches come back on the real clock.
    world.happens("the new binding to be seen", |world| {
        world.live(BINDING, "shop", "more").is_some_and(|binding| binding["status"].is_object())
    })?;
    world.happens("the watches to be there again", |world| world.gate.is_watched())?;
    *lock(&world.settled) = BACK;
    world.ready("shop", "more")?;
    world.binding_gone("shop", "app")?;
    world.trusts("orders", &[("shop", "more")])?;
    if compacted && world.gate.expired() == 0 {
        return Err("no watch was told that it is too old".to_owned());
    }
    Ok(())
}

pub(super) fn the_api_server_restarts(world: &Arc<World>) -> Checked {
    restarted(world, false)
}

pub(super) fn etcd_is_compacted_and_the_api_server_restarts(world: &Arc<World>) -> Checked {
    restarted(world, true)
}
