//! Resource groups.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::ResourceKind;
use crate::state::arm::{ArmAnswer, ArmError, governance, names};
use crate::state::model::{ResourceGroup, State, Subscription, is_within};
use crate::state::text::{normalize_location, query_parameter, read_object};

const TYPE: &str = "Microsoft.Resources/resourceGroups";

/// The body of a PUT.
#[derive(Clone, Debug)]
pub(super) struct GroupBody {
    location: String,
    tags: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Wire {
    location: Option<String>,
    tags: Option<BTreeMap<String, String>>,
}

impl GroupBody {
    pub(super) fn read(name: &str, body: &[u8]) -> Result<Self, ArmError> {
        let valid = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '(' | ')');
        if name.is_empty() || name.chars().count() > 90 || name.ends_with('.') || !name.chars().all(valid) {
            let message = format!("The provided resource group name '{name}' is invalid.");
            return Err(ArmError::front(400, "InvalidResourceGroup", message));
        }
        let wire: Wire = read_object(body).map_err(|error| ArmError::content(&error))?;
        let location = normalize_location(&wire.location.unwrap_or_default());
        if location.is_empty() {
            let message = "The location property is required for this definition.";
            return Err(ArmError::front(400, "LocationRequired", message));
        }
        if !names::is_location(&location) {
            let message = format!(
                "The provided location '{location}' is not available for resource group. List of available regions is '{}'.",
                names::locations(",")
            );
            return Err(ArmError::front(400, "LocationNotAvailableForResourceGroup", message));
        }
        Ok(Self { location, tags: wire.tags.unwrap_or_default() })
    }
}

/// A list without filters.
pub(super) fn listing(query: &str) -> Result<ResourceKind, ArmError> {
    match query_parameter(query, "$filter").filter(|filter| !filter.is_empty()) {
        None => Ok(ResourceKind::ListGroups),
        Some(filter) => {
            let message = format!("The filter '{filter}' is not supported.");
            Err(ArmError::front(400, "InvalidFilterInQueryString", message))
        }
    }
}

fn id(subscription: &str, name: &str) -> String {
    format!("/subscriptions/{subscription}/resourceGroups/{name}")
}

pub(super) fn check_put(state: &State, subscription: &str, name: &str, body: &GroupBody) -> Result<(), ArmError> {
    governance::allow_write(state, &id(subscription, name), TYPE)?;
    match find(state, subscription, name) {
        Some(there) if there.location != body.location => {
            let message = format!(
                "Invalid resource group location '{}'. The Resource group already exists in location '{}'.",
                body.location, there.location
            );
            Err(ArmError::front(409, "InvalidResourceGroupLocation", message))
        }
        _ => Ok(()),
    }
}

pub(super) fn check_delete(state: &State, subscription: &str, name: &str) -> Result<(), ArmError> {
    find(state, subscription, name).ok_or_else(|| not_found(name))?;
    governance::allow_delete(state, &id(subscription, name))
}

pub(super) fn put(state: &mut State, subscription: &str, name: &str, body: GroupBody) -> ArmAnswer {
    let there = find(state, subscription, name).map(|there| there.name.clone());
    let created = there.is_none();
    let name = there.unwrap_or_else(|| name.to_owned());
    let group = ResourceGroup { name: name.clone(), location: body.location, tags: body.tags };
    let shown = show(subscription, &group);
    if let Some(subscription) = state.subscriptions.get_mut(&subscription.to_lowercase()) {
        subscription.resource_groups.insert(name.to_lowercase(), group);
    }
    if created { ArmAnswer::created(shown) } else { ArmAnswer::ok(shown) }
}

pub(super) fn get(state: &State, subscription: &str, name: &str) -> Result<Value, ArmError> {
    find(state, subscription, name).map(|group| show(subscription, group)).ok_or_else(|| not_found(name))
}

pub(super) fn list(state: &State, subscription: &str) -> Value {
    let groups = state.subscription(subscription).map(|found| found.resource_groups.values()).into_iter().flatten();
    json!({"value": groups.map(|group| show(subscription, group)).collect::<Vec<_>>()})
}

/// Deletes a group with the identities in it, and the role assignments at its scope and below.
pub(super) fn delete(state: &mut State, subscription: &str, name: &str, now: Timestamp) {
    let scope = id(subscription, name);
    state.role_assignments.retain(|_, assignment| !is_within(&assignment.scope, &scope));
    let before = state.identities.len();
    state.identities.retain(|key, _| !is_within(key, &scope));
    for _ in state.identities.len()..before {
        state.identity_was_deleted(now);
    }
    if let Some(subscription) = state.subscriptions.get_mut(&subscription.to_lowercase()) {
        subscription.resource_groups.remove(&name.to_lowercase());
    }
}

fn find<'a>(state: &'a State, subscription: &str, name: &str) -> Option<&'a ResourceGroup> {
    state.subscription(subscription).and_then(|found: &Subscription| found.resource_groups.get(&name.to_lowercase()))
}

fn not_found(name: &str) -> ArmError {
    ArmError::front(404, "ResourceGroupNotFound", format!("Resource group '{name}' could not be found."))
}

fn show(subscription: &str, group: &ResourceGroup) -> Value {
    let mut shown = json!({
        "id": id(subscription, &group.name),
        "name": group.name,
        "type": TYPE,
        "location": group.location,
        "properties": {"provisioningState": "Succeeded"},
    });
    if !group.tags.is_empty() {
        shown["tags"] = json!(group.tags);
    }
    shown
}
