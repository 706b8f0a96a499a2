//! Row 7: pauses that Azure asks for, and its rate limits.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::super::eventually::condition_of;
use super::super::harness::{Checked, Harness};
use super::super::scenarios::begin;
use super::{BINDING, IDENTITY, bound};

/// A pause that Azure asks for at one identity applies to all identities of the subscription.
pub(super) fn a_pause_applies_to_the_whole_subscription(harness: &Arc<Harness>) -> Checked {
    bound(harness)?;
    harness.identity("audit");
    harness.identity_ready("audit")?;
    pause_reads(harness, Duration::from_secs(600))?;
    let asked = harness.azure_log().len();
    for name in ["one", "two"] {
        harness.binding("shop", name, "audit", name);
        let more = format!("more-{name}");
        harness.binding("shop", &more, "orders", &more);
        harness.advance_in_steps(Duration::from_secs(250))?;
    }
    let more = harness.azure_log().len() - asked;
    if more > 0 {
        return Err(format!("{more} requests during the pause"));
    }
    harness.ready("shop", "one")?;
    harness.ready("shop", "more-two")?;
    harness.trusts("audit", &[("shop", "one"), ("shop", "two")])
}

/// Makes Azure ask for a pause of the subscription's reads at the next read.
fn pause_reads(harness: &Arc<Harness>, pause: Duration) -> Checked {
    let code = "SubscriptionRequestsThrottled";
    let action = json!({"status": 429, "code": code, "retryAfter": pause.as_secs().to_string()});
    harness.azure_fails(&json!([{"match": {"method": "GET"}, "action": action}]));
    harness.binding("shop", "unlucky", "orders", "unlucky");
    harness.not_ready("shop", "unlucky", "Throttled")
}

/// What does not depend on Azure is decided and reported during a pause.
pub(super) fn kubernetes_continues_during_a_pause(harness: &Arc<Harness>) -> Checked {
    bound(harness)?;
    harness.namespace("elsewhere", &json!({}));
    pause_reads(harness, Duration::from_secs(600))?;
    let from = harness.clock.passed();
    harness.binding("elsewhere", "stranger", "orders", "stranger");
    harness.not_ready("elsewhere", "stranger", "NotAllowed")?;
    harness.binding("shop", "friend", "orders", "friend");
    harness.condition(BINDING, "shop", "friend", "Accepted", "True", "Accepted")?;
    harness.delete(BINDING, "shop", "app");
    harness.eventually("the deletion to report what it waits for", |harness| {
        let left = harness.live(BINDING, "shop", "app").ok_or("it was released without a confirmation from Azure")?;
        let ready = condition_of(&left, "Ready");
        let blocked = ready.is_some_and(|ready| ready["reason"] == "DeletionBlocked");
        if blocked { Ok(()) } else { Err(format!("{ready:?}")) }
    })?;
    harness.patch(IDENTITY, "", "orders", &json!({"spec": {"allowedSubjects": []}}));
    harness.not_ready("shop", "friend", "NotAllowed")?;
    if harness.clock.passed() >= from + Duration::from_secs(60) {
        return Err("what does not depend on Azure waited for Azure".to_owned());
    }
    harness.binding_deleted("shop", "app")?;
    harness.trusts("orders", &[])
}

/// More is wanted than Azure's rate limits allow at once, and Azure never has to throttle.
pub(super) fn rate_limits_are_respected(harness: &Arc<Harness>) -> Checked {
    const ALL: u32 = 20;
    const AGAIN: u32 = 8;
    harness.azure.limit_requests(Some(harness.clock.clone()));
    begin(harness)?;
    let name = |number: u32| format!("app-{number}");
    (0..ALL).for_each(|number| harness.binding("shop", &name(number), "orders", &name(number)));
    (0..ALL).try_for_each(|number| harness.ready("shop", &name(number)))?;
    let from = harness.clock.passed();
    (0..AGAIN).for_each(|number| harness.delete(BINDING, "shop", &name(number)));
    (0..AGAIN).try_for_each(|number| harness.binding_deleted("shop", &name(number)))?;
    (0..AGAIN).for_each(|number| harness.binding("shop", &name(number), "orders", &name(number)));
    (0..AGAIN).try_for_each(|number| harness.ready("shop", &name(number)))?;
    // One write per four seconds, and some time for the last of a batch.
    let (took, limit) = (harness.clock.passed().saturating_sub(from), Duration::from_secs(4) * (2 * AGAIN));
    if took > limit * 2 {
        return Err(format!("{took:?} for what the rate limit allows in {limit:?}"));
    }
    Ok(())
}
