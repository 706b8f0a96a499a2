//! Row 7: pauses that Azure asks for, and limits that it never has to remind of.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::super::goals::condition_of;
use super::super::scenarios::begin;
use super::super::world::{Checked, World};
use super::{BINDING, IDENTITY, settled};

/// Every identity of the subscription hears of a pause that Azure asked one of them for.
pub(super) fn a_subscription_waits_as_one(world: &Arc<World>) -> Checked {
    settled(world)?;
    world.identity("audit");
    world.identity_ready("audit")?;
    pause_reads(world, Duration::from_secs(600))?;
    let asked = world.azure_log().len();
    for name in ["one", "two"] {
        world.binding("shop", name, "audit", name);
        let more = format!("more-{name}");
        world.binding("shop", &more, "orders", &more);
        world.pass_slowly(Duration::from_secs(250))?;
    }
    let more = world.azure_log().len() - asked;
    if more > 0 {
        return Err(format!("{more} requests before the pause was over"));
    }
    world.ready("shop", "one")?;
    world.ready("shop", "more-two")?;
    world.trusts("audit", &[("shop", "one"), ("shop", "two")])
}

/// Azure asks for a pause of the subscription's reads, as soon as something is read.
fn pause_reads(world: &Arc<World>, pause: Duration) -> Checked {
    let code = "SubscriptionRequestsThrottled";
    let action = json!({"status": 429, "code": code, "retryAfter": pause.as_secs().to_string()});
    world.azure_fails(&json!([{"match": {"method": "GET"}, "action": action}]));
    world.binding("shop", "unlucky", "orders", "unlucky");
    world.refused("shop", "unlucky", "Throttled")
}

/// What Kubernetes alone decides is decided and told while Azure may not be asked.
pub(super) fn kubernetes_goes_on_in_a_pause(world: &Arc<World>) -> Checked {
    settled(world)?;
    world.namespace("elsewhere", &json!({}));
    pause_reads(world, Duration::from_secs(600))?;
    let from = world.clock.passed();
    world.binding("elsewhere", "stranger", "orders", "stranger");
    world.refused("elsewhere", "stranger", "NotAllowed")?;
    world.binding("shop", "friend", "orders", "friend");
    world.condition(BINDING, "shop", "friend", "Accepted", "True", "Accepted")?;
    world.delete(BINDING, "shop", "app");
    world.until("the deletion to say what it waits for", |world| {
        let left = world.live(BINDING, "shop", "app").ok_or("it was released though Azure was not asked")?;
        let ready = condition_of(&left, "Ready");
        let blocked = ready.is_some_and(|ready| ready["reason"] == "DeletionBlocked");
        if blocked { Ok(()) } else { Err(format!("{ready:?}")) }
    })?;
    world.patch(IDENTITY, "", "orders", &json!({"spec": {"allowedSubjects": []}}));
    world.refused("shop", "friend", "NotAllowed")?;
    if world.clock.passed() >= from + Duration::from_secs(60) {
        return Err("what Kubernetes alone decides waited for Azure".to_owned());
    }
    world.binding_gone("shop", "app")?;
    world.trusts("orders", &[])
}

/// More is asked for than Azure's limits let through at once, and Azure never has to refuse.
pub(super) fn the_limits_are_kept(world: &Arc<World>) -> Checked {
    const ALL: u32 = 20;
    const AGAIN: u32 = 8;
    world.azure.limit_requests(Some(world.clock.clone()));
    begin(world)?;
    let name = |number: u32| format!("app-{number}");
    (0..ALL).for_each(|number| world.binding("shop", &name(number), "orders", &name(number)));
    (0..ALL).try_for_each(|number| world.ready("shop", &name(number)))?;
    let from = world.clock.passed();
    (0..AGAIN).for_each(|number| world.delete(BINDING, "shop", &name(number)));
    (0..AGAIN).try_for_each(|number| world.binding_gone("shop", &name(number)))?;
    (0..AGAIN).for_each(|number| world.binding("shop", &name(number), "orders", &name(number)));
    (0..AGAIN).try_for_each(|number| world.ready("shop", &name(number)))?;
    // One write in four seconds, and some time for the last of a batch.
    let (took, limit) = (world.clock.passed().saturating_sub(from), Duration::from_secs(4) * (2 * AGAIN));
    if took > limit * 2 {
        return Err(format!("{took:?} for what the limit allows in {limit:?}"));
    }
    Ok(())
}
