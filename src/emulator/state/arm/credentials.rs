//! Federated identity credentials.

use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::paging::Page;
use super::{ArmAnswer, ArmError, governance, names};
use crate::emulator::state::model::{Credential, Identity, IdentityId, State};
use crate::emulator::state::text::read_object;

const TYPE: &str = "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials";
const MAX_CREDENTIALS: usize = 20;
const MAX_CHARACTERS: usize = 600;

/// What a PUT says.
#[derive(Clone, Debug)]
pub(super) struct CredentialBody {
    issuer: String,
    subject: String,
    audience: String,
}

#[derive(Deserialize)]
struct Wire {
    properties: Option<WireProperties>,
}

#[derive(Deserialize)]
struct WireProperties {
    issuer: Option<String>,
    subject: Option<String>,
    audiences: Option<Vec<String>>,
}

pub(super) fn read_body(name: &str, body: &[u8]) -> Result<CredentialBody, ArmError> {
    if !names::is_credential_name(name) {
        return Err(ArmError::bad_request(format!("Federated Identity Credential name '{name}' is invalid.")));
    }
    let wire: Wire = read_object(body).map_err(|error| ArmError::content(&error))?;
    let empty = || ArmError::bad_request("Federated Identity Credential from HTTP body has empty properties");
    let WireProperties { issuer, subject, audiences } = wire.properties.ok_or_else(empty)?;
    let given = |text: Option<String>| text.filter(|text| !text.trim().is_empty()).ok_or_else(empty);
    let (issuer, subject) = (given(issuer)?, given(subject)?);
    let Ok([audience]) = <[String; 1]>::try_from(audiences.unwrap_or_default()) else {
        return Err(ArmError::bad_request("Federated identity credentials must have exactly one audience."));
    };
    for (property, value) in [("issuer", &issuer), ("subject", &subject), ("audience", &audience)] {
        let length = value.chars().count();
        if length > MAX_CHARACTERS {
            return Err(ArmError::bad_request(format!(
                "The {property} of a Federated Identity Credential must not exceed {MAX_CHARACTERS} characters, it has {length}."
            )));
        }
    }
    Ok(CredentialBody { issuer, subject, audience: given(Some(audience))? })
}

pub(super) fn check_put(state: &State, id: &IdentityId, name: &str, body: &CredentialBody) -> Result<(), ArmError> {
    governance::allow_write(state, &resource(id, name), TYPE)?;
    let identity = parent(state, id)?;
    if state.settings.regions_without_credentials.contains(&identity.location) {
        return Err(ArmError::new(
            405,
            "MethodNotAllowed",
            "The request format was unexpected: Support for federated identity credentials not enabled.",
        ));
    }
    let others = || identity.credentials.iter().filter(|(key, _)| **key != name.to_lowercase());
    if others().any(|(_, other)| other.issuer == body.issuer && other.subject == body.subject) {
        let message = "Issuer and subject combination already exists for this Managed Identity.";
        return Err(ArmError::new(409, "Conflict", message));
    }
    if others().count() >= MAX_CREDENTIALS {
        return Err(ArmError::bad_request(format!(
            "Too many Federated Identity Credentials: a managed identity can have at most {MAX_CREDENTIALS} Federated Identity Credentials."
        )));
    }
    Ok(())
}

pub(super) fn check_delete(state: &State, id: &IdentityId, name: &str) -> Result<(), ArmError> {
    governance::allow_delete(state, &resource(id, name))?;
    parent(state, id).map(|_| ())
}

pub(super) fn put(
    state: &mut State,
    id: &IdentityId,
    name: &str,
    body: CredentialBody,
    now: Timestamp,
) -> Result<ArmAnswer, ArmError> {
    let identity = state.identities.get_mut(&id.key()).ok_or_else(ArmError::parent_not_found)?;
    let key = name.to_lowercase();
    // The name stays as it was first written.
    let name = identity.credentials.get(&key).map_or_else(|| name.to_owned(), |there| there.name.clone());
    let CredentialBody { issuer, subject, audience } = body;
    let credential = Credential { name, issuer, subject, audiences: vec![audience], written_at: now };
    let shown = show(identity, &credential);
    let replaced = identity.credentials.insert(key, credential).is_some();
    Ok(if replaced { ArmAnswer::ok(shown) } else { ArmAnswer::created(shown) })
}

pub(super) fn get(state: &State, id: &IdentityId, name: &str) -> Result<Value, ArmError> {
    let identity = parent(state, id)?;
    let credential = identity.credentials.get(&name.to_lowercase());
    credential.map(|credential| show(identity, credential)).ok_or_else(|| ArmError::credential_not_found(id, name))
}

pub(super) fn delete(state: &mut State, id: &IdentityId, name: &str) -> Result<ArmAnswer, ArmError> {
    let identity = state.identities.get_mut(&id.key()).ok_or_else(ArmError::parent_not_found)?;
    Ok(ArmAnswer::deleted(identity.credentials.remove(&name.to_lowercase()).is_some()))
}

pub(super) fn list(state: &State, id: &IdentityId, page: &Page) -> Result<(Vec<Value>, Option<String>), ArmError> {
    let identity = parent(state, id)?;
    let size = state.settings.credential_page_size;
    Ok(page.cut(identity.credentials.iter(), size, |credential| show(identity, credential)))
}

fn parent<'a>(state: &'a State, id: &IdentityId) -> Result<&'a Identity, ArmError> {
    state.identities.get(&id.key()).ok_or_else(ArmError::parent_not_found)
}

fn resource(id: &IdentityId, name: &str) -> String {
    format!("{}/federatedIdentityCredentials/{name}", id.in_answers())
}

fn show(identity: &Identity, credential: &Credential) -> Value {
    json!({
        "id": resource(&identity.id, &credential.name),
        "name": credential.name,
        "type": TYPE,
        "properties": {
            "issuer": credential.issuer,
            "subject": credential.subject,
            "audiences": credential.audiences,
        },
    })
}
