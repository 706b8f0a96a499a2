//! The registration of resource providers.

use serde_json::{Value, json};

use crate::state::arm::{ArmError, names};
use crate::state::model::State;

/// The namespaces that a subscription can be registered for, with the action that registers it.
const NAMESPACES: [(&str, &str); 3] = [
    ("Microsoft.ManagedIdentity", "Microsoft.ManagedIdentity/register/action"),
    ("Microsoft.Authorization", "Microsoft.Authorization/register/action"),
    ("Microsoft.Resources", "Microsoft.Resources/register/action"),
];

pub(super) fn register_action(namespace: &str) -> Result<&'static str, ArmError> {
    find(namespace).map(|(_, action)| action).ok_or_else(|| not_found(namespace))
}

pub(super) fn get(state: &State, subscription: &str, namespace: &str) -> Result<Value, ArmError> {
    let (name, _) = find(namespace).ok_or_else(|| not_found(namespace))?;
    let registered = state.subscription(subscription).is_none_or(|found| {
        !found.conditions.unregistered_providers.iter().any(|missing| missing.eq_ignore_ascii_case(name))
    });
    Ok(show(subscription, name, if registered { "Registered" } else { "NotRegistered" }))
}

/// Registers a subscription. In Azure that takes a minute, so its answer says that it has begun.
pub(super) fn register(state: &mut State, subscription: &str, namespace: &str) -> Result<Value, ArmError> {
    let (name, _) = find(namespace).ok_or_else(|| not_found(namespace))?;
    let Some(found) = state.subscriptions.get_mut(&subscription.to_lowercase()) else {
        return Err(not_found(namespace));
    };
    let missing = &mut found.conditions.unregistered_providers;
    let before = missing.len();
    missing.retain(|missing| !missing.eq_ignore_ascii_case(name));
    let was_registered = missing.len() == before;
    Ok(show(subscription, name, if was_registered { "Registered" } else { "Registering" }))
}

fn find(namespace: &str) -> Option<(&'static str, &'static str)> {
    NAMESPACES.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(namespace))
}

fn not_found(namespace: &str) -> ArmError {
    let message = format!("The resource namespace '{namespace}' is invalid.");
    ArmError::front(404, "InvalidResourceNamespace", message)
}

fn show(subscription: &str, namespace: &str, registration: &str) -> Value {
    let resource_types = if namespace == "Microsoft.ManagedIdentity" {
        let versions: Vec<_> = crate::state::arm::versions::identities().rev().collect();
        let resource_type = |name: &str| {
            json!({"resourceType": name, "locations": names::locations(",").split(',').collect::<Vec<_>>(),
                "apiVersions": versions, "capabilities": "SupportsTags, SupportsLocation"})
        };
        json!([
            resource_type("userAssignedIdentities"),
            resource_type("userAssignedIdentities/federatedIdentityCredentials")
        ])
    } else {
        json!([])
    };
    json!({
        "id": format!("/subscriptions/{subscription}/providers/{namespace}"),
        "namespace": namespace,
        "registrationPolicy": "RegistrationRequired",
        "registrationState": registration,
        "resourceTypes": resource_types,
    })
}
