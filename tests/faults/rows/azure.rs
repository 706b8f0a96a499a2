//! Rows 7, 12, 14 and 31: answers of Azure that a script of single failures does not cover.

use std::sync::Arc;
use std::time::Duration;

use ensign_azure_emulator::state::{DenyPolicy, Lock, LockLevel};
use serde_json::json;

use super::super::clock::lock;
use super::super::goals::condition_of;
use super::super::scenarios::begin;
use super::super::world::{Checked, RESYNC, World};
use super::{BINDING, settled};

pub(super) fn other_subscriptions_go_on(world: &Arc<World>) -> Checked {
    settled(world)?;
    world.azure_identity("far", &[]);
    world.managed_identity("far", "far", &json!([world.grant("shop")]), &json!({}));
    world.identity_ready("far")?;
    let near = world.azure.info().subscription_id.clone();
    let action = json!({"status": 429, "code": "SubscriptionRequestsThrottled", "retryAfter": "600"});
    world.azure_fails(&json!([{"match": {"pathContains": near}, "action": action}]));
    let from = world.clock.passed();
    world.binding("shop", "near", "orders", "near");
    world.quiet(std::time::Instant::now())?;
    world.binding("shop", "far", "far", "far");
    world.ready("shop", "far")?;
    if world.clock.passed() >= from + Duration::from_secs(600) {
        return Err("the other subscription waited too".to_owned());
    }
    world.ready("shop", "near")
}

pub(super) fn stale_list_is_no_storm(world: &Arc<World>) -> Checked {
    begin(world)?;
    let list = json!({"method": "GET", "pathContains": "federatedIdentityCredentials?"});
    world.azure_fails(&json!([{"match": list, "times": 4, "action": {"status": 200, "body": {"value": []}}}]));
    world.binding("shop", "app", "orders", "app");
    world.ready("shop", "app")?;
    world.pass_slowly(RESYNC * 6)?;
    let puts = world.azure_writes().len();
    if puts > 4 { Err(format!("{puts} writes for one credential")) } else { world.trusts("orders", &[("shop", "app")]) }
}

fn lifted(world: &Arc<World>, reason: &str, lift: impl Fn()) -> Checked {
    world.binding("shop", "more", "orders", "more");
    world.refused("shop", "more", reason)?;
    let before = world.azure_writes().len();
    world.pass_slowly(Duration::from_secs(3600))?;
    let tries = world.azure_writes().len() - before;
    if tries == 0 || tries > 30 {
        return Err(format!("{tries} tries in an hour"));
    }
    lift();
    world.ready("shop", "more")
}

pub(super) fn locked(world: &Arc<World>) -> Checked {
    settled(world)?;
    let scope = world.arm_id("orders").in_answers();
    world.azure.with_state(|state| state.locks.push(Lock { scope, level: LockLevel::ReadOnly }));
    lifted(world, "ResourceLocked", || world.azure.with_state(|state| state.locks.clear()))?;
    world.trusts("orders", &[("shop", "app"), ("shop", "more")])
}

pub(super) fn forbidden_by_policy(world: &Arc<World>) -> Checked {
    settled(world)?;
    let scope = world.arm_id("orders").in_answers();
    let policy: DenyPolicy =
        serde_json::from_value(json!({"name": "no-federation", "scope": scope})).expect("a policy");
    world.azure.with_state(|state| state.deny_policies.push(policy));
    lifted(world, "PolicyDenied", || world.azure.with_state(|state| state.deny_policies.clear()))?;
    world.trusts("orders", &[("shop", "app"), ("shop", "more")])
}

/// The parent of a credential that was just written is not to be found for a while.
pub(super) fn a_list_without_a_parent_is_no_storm(world: &Arc<World>) -> Checked {
    begin(world)?;
    let list = json!({"method": "GET", "pathContains": "federatedIdentityCredentials?"});
    let gone = json!({"status": 404, "code": "ResourceNotFound"});
    world.azure_fails(&json!([{"match": list, "times": 3, "nth": 2, "action": gone}]));
    world.binding("shop", "app", "orders", "app");
    world.ready("shop", "app")?;
    world.pass_slowly(RESYNC * 6)?;
    world.ready("shop", "app")?;
    let writes = world.azure_writes().len();
    if writes > 2 {
        Err(format!("{writes} writes for one credential"))
    } else {
        world.trusts("orders", &[("shop", "app")])
    }
}

pub(super) fn a_list_that_still_has_what_is_gone_is_no_storm(world: &Arc<World>) -> Checked {
    settled(world)?;
    let one = world.credentials("orders").into_iter().next().ok_or("a credential")?;
    let properties = json!({"issuer": one.issuer, "subject": one.subject, "audiences": one.audiences});
    let old = json!({"value": [{"name": one.name, "properties": properties}]});
    let list = json!({"method": "GET", "pathContains": "federatedIdentityCredentials?"});
    world.azure_fails(&json!([{"match": list, "times": 4, "action": {"status": 200, "body": old}}]));
    let before = world.azure_writes().len();
    world.delete(BINDING, "shop", "app");
    world.binding_gone("shop", "app")?;
    world.pass_slowly(RESYNC * 6)?;
    let writes = world.azure_writes().len() - before;
    if writes > 4 { Err(format!("{writes} writes for one deletion")) } else { world.trusts("orders", &[]) }
}

/// One refusal of the token costs one new token, and nobody notices.
pub(super) fn a_refused_token_is_refreshed_once(world: &Arc<World>) -> Checked {
    settled(world)?;
    let asked = world.tokens.asked();
    let expired = json!({"status": 401, "code": "ExpiredAuthenticationToken"});
    for matching in [json!({"method": "GET"}), json!({"method": "PUT"}), json!({"method": "DELETE"})] {
        world.azure_fails(&json!([{"match": matching, "action": expired}]));
        world.binding("shop", "more", "orders", "more");
        world.ready("shop", "more")?;
        world.delete(BINDING, "shop", "more");
        world.binding_gone("shop", "more")?;
        if world.azure.faults().iter().any(|rule| rule.fired == 0) {
            return Err(format!("{matching} was not refused"));
        }
    }
    let refreshed = world.tokens.asked() - asked;
    if refreshed != 3 {
        return Err(format!("{refreshed} new tokens for 3 refusals"));
    }
    let versions = world.history.all(BINDING);
    let complained = versions.iter().flatten().find(|version| {
        let ready = condition_of(&version.object, "Ready");
        ready.is_some_and(|ready| ready["reason"] == "CredentialUnavailable")
    });
    match complained {
        Some(version) => Err(format!("a token that was refused once was a problem: {}", version.object["status"])),
        None => world.trusts("orders", &[("shop", "app")]),
    }
}

/// Entra gives no token for hours: nothing is released, nobody is asked in a storm, and everything goes on afterwards.
pub(super) fn no_token_is_not_gone(world: &Arc<World>) -> Checked {
    settled(world)?;
    world.tokens.fail(true);
    // A controller that starts has no token yet.
    world.probe.crash_now();
    world.delete(BINDING, "shop", "app");
    let asked = world.tokens.asked();
    world.pass_slowly(Duration::from_secs(3 * 3600))?;
    let binding = world.live(BINDING, "shop", "app").ok_or("the binding was released though Azure was not asked")?;
    let ready = condition_of(&binding, "Ready").ok_or("no condition")?;
    if ready["reason"] != "DeletionBlocked" {
        return Err(format!("nobody is told why the deletion takes long: {ready}"));
    }
    let asked = world.tokens.asked() - asked;
    if asked > 200 {
        return Err(format!("Entra was asked {asked} times in three hours"));
    }
    // The last failure was a while ago, and the next try is up to five minutes away.
    *lock(&world.patience) = Duration::from_secs(3600);
    world.tokens.fail(false);
    world.binding_gone("shop", "app")?;
    world.trusts("orders", &[])
}
