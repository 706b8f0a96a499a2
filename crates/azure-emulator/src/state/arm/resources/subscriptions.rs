//! Tenants and subscriptions.

use serde_json::{Value, json};

use super::ResourceKind;
use crate::state::arm::Caller;
use crate::state::arm::scope::Scope;
use crate::state::model::{ArmRights, State, Subscription};

/// A list of the subscriptions in which a caller may do anything: ARM does not list others.
pub(super) fn listing(caller: &Caller) -> ResourceKind {
    ResourceKind::ListSubscriptions {
        tenant: caller.tenant_id.clone(),
        sees_all: caller.rights != ArmRights::None,
        scopes: caller.grants.iter().map(|grant| grant.scope().to_owned()).collect(),
    }
}

pub(super) fn tenants(tenant: &str) -> Value {
    json!({"value": [{
        "id": format!("/tenants/{tenant}"),
        "tenantId": tenant,
        "tenantCategory": "Home",
        "tenantType": "AAD",
        "countryCode": "US",
        "displayName": "Azure emulator",
        "defaultDomain": "emulator.example",
        "domains": ["emulator.example"],
    }]})
}

pub(super) fn list(state: &State, tenant: &str, sees_all: bool, scopes: &[String]) -> Value {
    let granted = |subscription: &Subscription| {
        sees_all
            || scopes
                .iter()
                .filter_map(|scope| Scope::parse(scope))
                .any(|scope| scope.subscription().is_none_or(|id| id.eq_ignore_ascii_case(&subscription.id)))
    };
    let listed = state.subscriptions.values().filter(|one| one.tenant_id.eq_ignore_ascii_case(tenant) && granted(one));
    let shown: Vec<_> = listed.map(show).collect();
    json!({"count": {"type": "Total", "value": shown.len()}, "value": shown})
}

/// A subscription that is there, because the request has been checked.
pub(super) fn get(state: &State, id: &str) -> Value {
    state.subscription(id).map_or(Value::Null, show)
}

fn show(subscription: &Subscription) -> Value {
    let Subscription { id, tenant_id, .. } = subscription;
    json!({
        "id": format!("/subscriptions/{id}"),
        "authorizationSource": "RoleBased",
        "managedByTenants": [],
        "subscriptionId": id,
        "tenantId": tenant_id,
        "displayName": "Azure emulator",
        "state": if subscription.conditions.disabled { "Disabled" } else { "Enabled" },
        "subscriptionPolicies": {
            "locationPlacementId": "Public_2014-09-01",
            "quotaId": "PayAsYouGo_2014-09-01",
            "spendingLimit": "Off",
        },
    })
}
