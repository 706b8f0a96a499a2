//! Tags at a scope, of identities only: what `az tag` asks.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::state::arm::{ArmError, governance, names};
use crate::state::model::{IdentityId, State};
use crate::state::text::read_object;

const TYPE: &str = "Microsoft.ManagedIdentity/userAssignedIdentities";

/// The body of a PATCH.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct TagsPatch {
    operation: TagsOperation,
    properties: Tags,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum TagsOperation {
    Merge,
    Replace,
    Delete,
}

#[derive(Clone, Debug, Deserialize)]
struct Tags {
    #[serde(default)]
    tags: BTreeMap<String, String>,
}

impl TagsPatch {
    pub(super) fn read(body: &[u8]) -> Result<Self, ArmError> {
        read_object(body).map_err(|error| ArmError::content(&error))
    }
}

/// The identity whose tags a path refers to.
pub(super) fn resource(segments: &[String]) -> Result<IdentityId, ArmError> {
    let id = format!("/{}", segments.join("/"));
    names::identity_id(&id).ok_or_else(|| {
        // Not Azure's: a wrong answer would be worse.
        let message = format!("The emulator keeps tags of user-assigned identities only, not of '{id}'.");
        ArmError::front(400, "NotSupportedByEmulator", message)
    })
}

pub(super) fn check_patch(state: &State, id: &IdentityId) -> Result<(), ArmError> {
    state.identities.get(&id.key()).ok_or_else(|| ArmError::identity_not_found(id))?;
    governance::allow_write(state, &id.in_answers(), TYPE)
}

pub(super) fn get(state: &State, id: &IdentityId) -> Result<Value, ArmError> {
    let identity = state.identities.get(&id.key()).ok_or_else(|| ArmError::identity_not_found(id))?;
    Ok(show(id, &identity.tags))
}

pub(super) fn patch(state: &mut State, id: &IdentityId, patch: TagsPatch) -> Result<Value, ArmError> {
    let identity = state.identities.get_mut(&id.key()).ok_or_else(|| ArmError::identity_not_found(id))?;
    let given = patch.properties.tags;
    match patch.operation {
        TagsOperation::Merge => identity.tags.extend(given),
        TagsOperation::Replace => identity.tags = given,
        // By name, or by name and value (Microsoft.Resources, Tags - Update At Scope).
        TagsOperation::Delete => identity.tags.retain(|name, value| {
            !given.iter().any(|(key, wanted)| key.eq_ignore_ascii_case(name) && (wanted.is_empty() || wanted == value))
        }),
    }
    let tags = identity.tags.clone();
    Ok(show(id, &tags))
}

fn show(id: &IdentityId, tags: &BTreeMap<String, String>) -> Value {
    json!({
        "id": format!("{}/providers/Microsoft.Resources/tags/default", id.in_answers()),
        "name": "default",
        "type": "Microsoft.Resources/tags",
        "properties": {"tags": tags},
    })
}
