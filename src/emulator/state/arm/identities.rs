//! User-assigned managed identities.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::paging::Page;
use super::versions::ApiVersion;
use super::{ArmAnswer, ArmError, governance, names};
use crate::emulator::state::model::{ArmRights, Identity, IdentityId, State};
use crate::emulator::state::text::{normalize_location, read_object};

const TYPE: &str = "Microsoft.ManagedIdentity/userAssignedIdentities";

/// What a PUT says.
#[derive(Clone, Debug)]
pub(super) struct IdentityBody {
    location: String,
    tags: BTreeMap<String, String>,
    isolation_scope: Option<String>,
}

/// What a PATCH says.
#[derive(Clone, Debug)]
pub(super) struct IdentityPatch {
    tags: Option<BTreeMap<String, String>>,
    isolation_scope: Option<String>,
}

#[derive(Deserialize)]
struct Wire {
    location: Option<String>,
    tags: Option<BTreeMap<String, String>>,
    properties: Option<WireProperties>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireProperties {
    isolation_scope: Option<String>,
}

impl Wire {
    fn read(body: &[u8]) -> Result<Self, ArmError> {
        read_object(body).map_err(|error| ArmError::content(&error))
    }

    fn isolation_scope(&self) -> Result<Option<String>, ArmError> {
        let scope = self.properties.as_ref().and_then(|properties| properties.isolation_scope.as_deref());
        let known = |scope: &str| ["None", "Regional"].into_iter().find(|known| known.eq_ignore_ascii_case(scope));
        scope
            .map(|scope| {
                known(scope).map(str::to_owned).ok_or_else(|| {
                    ArmError::bad_request(format!(
                        "The value '{scope}' of 'isolationScope' is invalid: None, Regional."
                    ))
                })
            })
            .transpose()
    }
}

pub(super) fn read_body(id: &IdentityId, body: &[u8]) -> Result<IdentityBody, ArmError> {
    if !names::is_identity_name(&id.name) {
        let message = format!(
            "The resource name '{}' is invalid: 3 to 128 letters, digits, '-' and '_', starting with a letter or digit.",
            id.name
        );
        return Err(ArmError::bad_request(message));
    }
    let wire = Wire::read(body)?;
    let isolation_scope = wire.isolation_scope()?;
    let location = wire.location.map(|location| normalize_location(&location)).filter(|location| !location.is_empty());
    let location = location.ok_or_else(|| {
        ArmError::new(400, "LocationRequired", "The location property is required for this definition.")
    })?;
    if !names::is_location(&location) {
        let message = format!(
            "The provided location '{location}' is not available for resource type '{TYPE}'. List of available regions for the resource type is '{}'.",
            names::locations()
        );
        return Err(ArmError::new(400, "LocationNotAvailableForResourceType", message));
    }
    Ok(IdentityBody { location, tags: wire.tags.unwrap_or_default(), isolation_scope })
}

pub(super) fn read_patch(body: &[u8]) -> Result<IdentityPatch, ArmError> {
    let wire = Wire::read(body)?;
    let isolation_scope = wire.isolation_scope()?;
    Ok(IdentityPatch { tags: wire.tags, isolation_scope })
}

pub(super) fn check_put(state: &State, id: &IdentityId, body: &IdentityBody) -> Result<(), ArmError> {
    governance::allow_write(state, &id.in_answers(), TYPE)?;
    match state.identities.get(&id.key()) {
        Some(there) if there.location != body.location => Err(ArmError::new(
            409,
            "InvalidResourceLocation",
            format!(
                "The resource '{}' already exists in location '{}' in resource group '{}'. A resource with the same name cannot be created in location '{}'. Please select a new resource name.",
                id.name, there.location, id.resource_group, body.location
            ),
        )),
        _ => Ok(()),
    }
}

pub(super) fn check_patch(state: &State, id: &IdentityId) -> Result<(), ArmError> {
    governance::allow_write(state, &id.in_answers(), TYPE)
}

pub(super) fn check_delete(state: &State, id: &IdentityId) -> Result<(), ArmError> {
    governance::allow_delete(state, &id.in_answers())
}

pub(super) fn put(state: &mut State, id: &IdentityId, body: IdentityBody, version: ApiVersion) -> ArmAnswer {
    let key = id.key();
    if let Some(identity) = state.identities.get_mut(&key) {
        identity.tags = body.tags;
        if let Some(scope) = body.isolation_scope {
            identity.isolation_scope = scope;
        }
        let identity = identity.clone();
        return ArmAnswer::ok(show(state, &identity, version));
    }
    let client_id = state.next_guid(&format!("{key}/client"));
    let principal_id = state.next_guid(&format!("{key}/principal"));
    let identity = Identity {
        id: id.clone(),
        location: body.location,
        tags: body.tags,
        isolation_scope: body.isolation_scope.unwrap_or_else(|| "None".to_owned()),
        client_id,
        principal_id,
        arm_rights: ArmRights::None,
        credentials: BTreeMap::new(),
    };
    let answer = ArmAnswer::created(show(state, &identity, version));
    state.identities.insert(key, identity);
    answer
}

pub(super) fn patch(
    state: &mut State,
    id: &IdentityId,
    patch: IdentityPatch,
    version: ApiVersion,
) -> Result<Value, ArmError> {
    let identity = state.identities.get_mut(&id.key()).ok_or_else(|| ArmError::identity_not_found(id))?;
    if let Some(tags) = patch.tags {
        identity.tags = tags;
    }
    if let Some(scope) = patch.isolation_scope {
        identity.isolation_scope = scope;
    }
    let identity = identity.clone();
    Ok(show(state, &identity, version))
}

pub(super) fn get(state: &State, id: &IdentityId, version: ApiVersion) -> Result<Value, ArmError> {
    let identity = state.identities.get(&id.key()).ok_or_else(|| ArmError::identity_not_found(id))?;
    Ok(show(state, identity, version))
}

pub(super) fn delete(state: &mut State, id: &IdentityId) -> ArmAnswer {
    ArmAnswer::deleted(state.identities.remove(&id.key()).is_some())
}

pub(super) fn list(
    state: &State,
    subscription: &str,
    group: Option<&str>,
    page: &Page,
    version: ApiVersion,
) -> (Vec<Value>, Option<String>) {
    let listed = state.identities.iter().filter(|(_, identity)| {
        identity.id.subscription.eq_ignore_ascii_case(subscription)
            && group.is_none_or(|group| identity.id.resource_group.eq_ignore_ascii_case(group))
    });
    page.cut(listed, state.settings.identity_page_size, |identity| show(state, identity, version))
}

fn show(state: &State, identity: &Identity, version: ApiVersion) -> Value {
    let mut properties = json!({
        "tenantId": state.tenant_of(&identity.id),
        "principalId": identity.principal_id,
        "clientId": identity.client_id,
    });
    if let (true, Some(properties)) = (version.has_isolation_scope(), properties.as_object_mut()) {
        properties.insert("isolationScope".to_owned(), Value::from(identity.isolation_scope.clone()));
    }
    json!({
        "id": identity.id.in_answers(),
        "name": identity.id.name,
        "type": TYPE,
        "location": identity.location,
        "tags": identity.tags,
        "properties": properties,
    })
}
