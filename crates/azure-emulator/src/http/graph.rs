//! Microsoft Graph, as far as `az role assignment` asks it who a principal is.
//!
//! Who may do everything in ARM may also read the directory here. Others get Graph's 403, as in Azure an identity without
//! a directory role does.

use axum::http::Method;
use serde_json::{Value, json};

use super::exchange::{Incoming, Reply};
use super::shared::Shared;
use crate::state::text::{percent_decode, query_parameter};
use crate::state::{ADMINISTRATOR, ArmRights, Identity, State, has_propagated};

/// The path under which Graph is served; also the resource that tokens are for, with the emulator's address before it.
pub(super) const ROOT: &str = "/graph";

/// Whether a path is one of Graph's.
pub(super) fn is_at(path: &str) -> bool {
    path.strip_prefix(ROOT).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

pub(super) fn answer(shared: &Shared, incoming: &Incoming) -> Reply {
    let reply = match principal(shared, incoming) {
        None => {
            error(incoming, 401, "InvalidAuthenticationToken", "Access token is missing or is not for this resource.")
        }
        Some(object_id) => {
            let state = shared.state.lock();
            let reply = if may_read(&state, &object_id) {
                read(shared, &state, incoming)
            } else {
                let message = "Insufficient privileges to complete the operation.";
                error(incoming, 403, "Authorization_RequestDenied", message)
            };
            Reply { principal_id: Some(object_id), ..reply }
        }
    };
    reply.with("request-id", &incoming.id)
}

/// The object ID in the token, if the token is for Graph and has not expired.
fn principal(shared: &Shared, incoming: &Incoming) -> Option<String> {
    let (scheme, token) = incoming.header("authorization")?.split_once(' ')?;
    let claims = shared.signer.verify(token.trim(), &shared.base_url)?;
    let resource = format!("{}{ROOT}", incoming.origin(&shared.base_url));
    let fits = scheme.eq_ignore_ascii_case("bearer")
        && claims.aud.trim_end_matches('/') == resource
        && claims.exp > shared.clock.now().as_second();
    fits.then_some(claims.oid)
}

fn may_read(state: &State, object_id: &str) -> bool {
    object_id == ADMINISTRATOR
        || state.identity_by_principal_id(object_id).is_some_and(|identity| identity.arm_rights == ArmRights::All)
}

fn read(shared: &Shared, state: &State, incoming: &Incoming) -> Reply {
    let now = shared.clock.now();
    let lag = state.settings.roles.principal_replication_seconds;
    let known = || state.identities.values().filter(|identity| has_propagated(identity.created_at, now, lag));
    let path = incoming.path.trim_end_matches('/').strip_prefix(ROOT).unwrap_or_default();
    match (&incoming.method, percent_decode(path).as_str()) {
        (&Method::GET, "/v1.0/servicePrincipals") => match wanted_name(&incoming.query) {
            Some(name) => list(known().filter(|one| one.client_id.eq_ignore_ascii_case(&name)).map(service_principal)),
            None => error(incoming, 400, "Request_UnsupportedQuery", "This filter is not supported."),
        },
        // All principals here are managed identities.
        (&Method::GET, "/v1.0/users") => list(std::iter::empty()),
        (&Method::POST, "/v1.0/directoryObjects/getByIds") => {
            let body: Value = serde_json::from_slice(&incoming.body).unwrap_or_default();
            let ids: Vec<&str> = body["ids"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let asked = |one: &&Identity| ids.iter().any(|id| id.eq_ignore_ascii_case(&one.principal_id));
            list(known().filter(asked).map(service_principal))
        }
        (_, path) => {
            let message = format!("Resource not found for the segment '{}'.", path.trim_start_matches('/'));
            error(incoming, 404, "Request_ResourceNotFound", &message)
        }
    }
}

/// The name in `$filter=servicePrincipalNames/any(c:c eq '…')`.
fn wanted_name(query: &str) -> Option<String> {
    let filter = query_parameter(query, "$filter")?;
    let name = filter.strip_prefix("servicePrincipalNames/any(c:c eq '")?.strip_suffix("')")?;
    (!name.contains('\'')).then(|| name.to_owned())
}

fn service_principal(identity: &Identity) -> Value {
    let Identity { id, client_id, principal_id, .. } = identity;
    json!({
        "@odata.type": "#microsoft.graph.servicePrincipal",
        "id": principal_id,
        "appId": client_id,
        "displayName": id.name,
        "servicePrincipalType": "ManagedIdentity",
        "servicePrincipalNames": [client_id],
        "alternativeNames": ["isExplicit=True", id.in_answers()],
    })
}

fn list(values: impl Iterator<Item = Value>) -> Reply {
    Reply::json(200, &json!({"value": values.collect::<Vec<_>>()}))
}

fn error(incoming: &Incoming, status: u16, code: &str, message: &str) -> Reply {
    let inner = json!({"request-id": incoming.id, "client-request-id": incoming.client_request_id()});
    Reply::json(status, &json!({"error": {"code": code, "message": message, "innerError": inner}})).error_code(code)
}
