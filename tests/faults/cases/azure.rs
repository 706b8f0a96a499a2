//! Rows 7, 12, 14 and 31: responses of Azure that single scripted failures do not cover.

use std::sync::Arc;
use std::time::Duration;

use ensign_azure_emulator::state::{DenyPolicy, Lock, LockLevel};
use serde_json::json;

use super::super::eventually::condition_of;
use super::super::harness::{Checked, Harness, RESYNC};
use super::super::lock::lock;
use super::super::scenarios::begin;
use super::{BINDING, bound};

pub(super) fn other_subscriptions_continue(harness: &Arc<Harness>) -> Checked {
    bound(harness)?;
    harness.azure_identity("far", &[]);
    harness.managed_identity("far", "far", &json!([harness.grant("shop")]), &json!({}));
    harness.identity_ready("far")?;
    let near = harness.azure.info().subscription_id.clone();
    let action = json!({"status": 429, "code": "SubscriptionRequestsThrottled", "retryAfter": "600"});
    harness.azure_fails(&json!([{"match": {"pathContains": near}, "action": action}]));
    let from = harness.clock.passed();
    harness.binding("shop", "near", "orders", "near");
    harness.wait_until_idle(std::time::Instant::now())?;
    harness.binding("shop", "far", "far", "far");
    harness.ready("shop", "far")?;
    if harness.clock.passed() >= from + Duration::from_secs(600) {
        return Err("the other subscription waited too".to_owned());
    }
    harness.ready("shop", "near")
}

pub(super) fn stale_list_causes_no_write_storm(harness: &Arc<Harness>) -> Checked {
    begin(harness)?;
    let list = json!({"method": "GET", "pathContains": "federatedIdentityCredentials?"});
    harness.azure_fails(&json!([{"match": list, "times": 4, "action": {"status": 200, "body": {"value": []}}}]));
    harness.binding("shop", "app", "orders", "app");
    harness.ready("shop", "app")?;
    harness.advance_in_steps(RESYNC * 6)?;
    let puts = harness.azure_writes().len();
    if puts > 4 {
        Err(format!("{puts} writes for one credential"))
    } else {
        harness.trusts("orders", &[("shop", "app")])
    }
}

fn lifted(harness: &Arc<Harness>, reason: &str, lift: impl Fn()) -> Checked {
    harness.binding("shop", "more", "orders", "more");
    harness.not_ready("shop", "more", reason)?;
    let before = harness.azure_writes().len();
    harness.advance_in_steps(Duration::from_secs(3600))?;
    let tries = harness.azure_writes().len() - before;
    if tries == 0 || tries > 30 {
        return Err(format!("{tries} attempts in an hour"));
    }
    lift();
    harness.ready("shop", "more")
}

pub(super) fn resource_lock(harness: &Arc<Harness>) -> Checked {
    bound(harness)?;
    let scope = harness.arm_id("orders").in_answers();
    harness.azure.with_state(|state| state.locks.push(Lock { scope, level: LockLevel::ReadOnly }));
    lifted(harness, "ResourceLocked", || harness.azure.with_state(|state| state.locks.clear()))?;
    harness.trusts("orders", &[("shop", "app"), ("shop", "more")])
}

pub(super) fn denied_by_azure_policy(harness: &Arc<Harness>) -> Checked {
    bound(harness)?;
    let scope = harness.arm_id("orders").in_answers();
    let policy: DenyPolicy =
        serde_json::from_value(json!({"name": "no-federation", "scope": scope})).expect("a policy");
    harness.azure.with_state(|state| state.deny_policies.push(policy));
    lifted(harness, "PolicyDenied", || harness.azure.with_state(|state| state.deny_policies.clear()))?;
    harness.trusts("orders", &[("shop", "app"), ("shop", "more")])
}

/// The identity of a credential that was just written is not found for a while.
pub(super) fn a_list_without_a_parent_causes_no_write_storm(harness: &Arc<Harness>) -> Checked {
    begin(harness)?;
    let list = json!({"method": "GET", "pathContains": "federatedIdentityCredentials?"});
    let gone = json!({"status": 404, "code": "ResourceNotFound"});
    harness.azure_fails(&json!([{"match": list, "times": 3, "nth": 2, "action": gone}]));
    harness.binding("shop", "app", "orders", "app");
    harness.ready("shop", "app")?;
    harness.advance_in_steps(RESYNC * 6)?;
    harness.ready("shop", "app")?;
    let writes = harness.azure_writes().len();
    if writes > 2 {
        Err(format!("{writes} writes for one credential"))
    } else {
        harness.trusts("orders", &[("shop", "app")])
    }
}

pub(super) fn a_list_with_deleted_credentials_causes_no_write_storm(harness: &Arc<Harness>) -> Checked {
    bound(harness)?;
    let one = harness.credentials("orders").into_iter().next().ok_or("a credential")?;
    let properties = json!({"issuer": one.issuer, "subject": one.subject, "audiences": one.audiences});
    let old = json!({"value": [{"name": one.name, "properties": properties}]});
    let list = json!({"method": "GET", "pathContains": "federatedIdentityCredentials?"});
    harness.azure_fails(&json!([{"match": list, "times": 4, "action": {"status": 200, "body": old}}]));
    let before = harness.azure_writes().len();
    harness.delete(BINDING, "shop", "app");
    harness.binding_deleted("shop", "app")?;
    harness.advance_in_steps(RESYNC * 6)?;
    let writes = harness.azure_writes().len() - before;
    if writes > 4 { Err(format!("{writes} writes for one deletion")) } else { harness.trusts("orders", &[]) }
}

/// A rejected token is refreshed once, and no condition reports it.
pub(super) fn a_refused_token_is_refreshed_once(harness: &Arc<Harness>) -> Checked {
    bound(harness)?;
    let asked = harness.tokens.asked();
    let expired = json!({"status": 401, "code": "ExpiredAuthenticationToken"});
    for matching in [json!({"method": "GET"}), json!({"method": "PUT"}), json!({"method": "DELETE"})] {
        harness.azure_fails(&json!([{"match": matching, "action": expired}]));
        harness.binding("shop", "more", "orders", "more");
        harness.ready("shop", "more")?;
        harness.delete(BINDING, "shop", "more");
        harness.binding_deleted("shop", "more")?;
        if harness.azure.faults().iter().any(|rule| rule.fired == 0) {
            return Err(format!("{matching} was not rejected"));
        }
    }
    let refreshed = harness.tokens.asked() - asked;
    if refreshed != 3 {
        return Err(format!("{refreshed} new tokens for 3 rejections"));
    }
    let versions = harness.history.all(BINDING);
    let complained = versions.iter().flatten().find(|version| {
        let ready = condition_of(&version.object, "Ready");
        ready.is_some_and(|ready| ready["reason"] == "CredentialUnavailable")
    });
    match complained {
        Some(version) => Err(format!("a token that was rejected once was reported: {}", version.object["status"])),
        None => harness.trusts("orders", &[("shop", "app")]),
    }
}

/// Entra returns no token for hours: nothing is released, requests are limited, and everything continues afterwards.
pub(super) fn no_token_does_not_mean_deleted(harness: &Arc<Harness>) -> Checked {
    bound(harness)?;
    harness.tokens.fail(true);
    // A controller that has just started has no token yet.
    harness.probe.crash_now();
    harness.delete(BINDING, "shop", "app");
    let asked = harness.tokens.asked();
    harness.advance_in_steps(Duration::from_secs(3 * 3600))?;
    let binding =
        harness.live(BINDING, "shop", "app").ok_or("the binding was released without a confirmation from Azure")?;
    let ready = condition_of(&binding, "Ready").ok_or("no condition")?;
    if ready["reason"] != "DeletionBlocked" {
        return Err(format!("no condition says why the deletion takes long: {ready}"));
    }
    let asked = harness.tokens.asked() - asked;
    if asked > 200 {
        return Err(format!("{asked} token requests in three hours"));
    }
    // The next attempt is up to five minutes away.
    *lock(&harness.patience) = Duration::from_secs(3600);
    harness.tokens.fail(false);
    harness.binding_deleted("shop", "app")?;
    harness.trusts("orders", &[])
}
