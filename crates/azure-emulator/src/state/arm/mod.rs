//! Azure Resource Manager, as far as user-assigned managed identities need it.
//!
//! A request is planned (everything that depends on the request and the caller's rights) and then applied (everything that
//! depends on the state at that moment). In between, a write of a credential waits for its duration.

mod authorization;
pub mod bearer;
mod credential_body;
mod credentials;
mod error;
mod governance;
mod identities;
pub mod names;
mod paging;
mod plan;
mod resources;
pub(in crate::state) mod scope;
mod throttle;
mod versions;

use axum::http::Method;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::model::{IdentityId, State};
use super::reads::Staleness;
pub use bearer::Caller;
pub use error::ArmError;
pub use plan::plan;
pub use throttle::Throttle;

use authorization::RoleOperation;
use credential_body::CredentialBody;
use identities::{IdentityBody, IdentityPatch};
use paging::Page;
use resources::ResourceOperation;
use versions::ApiVersion;

/// A request to ARM whose bearer token has been read.
#[derive(Clone, Copy, Debug)]
pub struct ArmRequest<'a> {
    /// HTTP method.
    pub method: &'a Method,
    /// Path, percent-encoded.
    pub path: &'a str,
    /// Query, percent-encoded.
    pub query: &'a str,
    /// Body.
    pub body: &'a [u8],
    /// The caller.
    pub caller: &'a Caller,
}

/// An authorized operation with its parsed body.
#[derive(Clone, Debug)]
pub struct Operation {
    kind: OperationKind,
    version: ApiVersion,
    /// Percent-encoded path, for the link to the next page.
    path: String,
    /// How far the answer lags if this is a read; absent if the settings decide.
    staleness: Option<Staleness>,
}

#[derive(Clone, Debug)]
enum OperationKind {
    ListIdentities { subscription: String, group: Option<String>, page: Page },
    GetIdentity(IdentityId),
    ListAssociatedResources(IdentityId),
    PutIdentity(IdentityId, IdentityBody),
    PatchIdentity(IdentityId, IdentityPatch),
    DeleteIdentity(IdentityId),
    ListCredentials(IdentityId, Page),
    GetCredential(IdentityId, String),
    PutCredential(IdentityId, String, CredentialBody),
    DeleteCredential(IdentityId, String),
    Role(RoleOperation),
    Resource(ResourceOperation),
}

/// A successful response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArmAnswer {
    /// HTTP status.
    pub status: u16,
    /// JSON; absent if ARM sends no body.
    pub body: Option<Value>,
    /// The `Location` header, which is a path.
    pub location: Option<String>,
}

impl ArmAnswer {
    fn ok(body: Value) -> Self {
        Self { status: 200, body: Some(body), location: None }
    }

    fn created(body: Value) -> Self {
        Self { status: 201, body: Some(body), location: None }
    }

    /// A resource that Microsoft.ManagedIdentity created: it says where, which is its ID.
    fn created_at(id: String, body: Value) -> Self {
        Self { location: Some(id), ..Self::created(body) }
    }

    fn deleted(was_there: bool) -> Self {
        Self { status: if was_there { 200 } else { 204 }, ..Self::default() }
    }
}

impl Operation {
    /// The operation, whose answer is as old as a fault rule asks for if it is a read. A write does not change.
    #[must_use]
    pub fn with_staleness(self, staleness: Option<Staleness>) -> Self {
        Self { staleness, ..self }
    }

    fn is_read(&self) -> bool {
        match &self.kind {
            OperationKind::ListIdentities { .. }
            | OperationKind::GetIdentity(_)
            | OperationKind::ListAssociatedResources(_)
            | OperationKind::ListCredentials(..)
            | OperationKind::GetCredential(..) => true,
            OperationKind::Role(role) => role.is_read(),
            _ => false,
        }
    }

    /// The identity whose credential this operation writes, if any: only one such write at a time is allowed.
    pub fn credential_write(&self) -> Option<&IdentityId> {
        match &self.kind {
            OperationKind::PutCredential(identity, ..) | OperationKind::DeleteCredential(identity, _) => Some(identity),
            _ => None,
        }
    }
}

/// Checks whether the operation would succeed now, without changing anything.
pub fn check(state: &State, operation: &Operation, now: Timestamp) -> Result<(), ArmError> {
    match &operation.kind {
        OperationKind::PutCredential(identity, name, body) => credentials::check_put(state, identity, name, body, now),
        OperationKind::DeleteCredential(identity, name) => credentials::check_delete(state, identity, name),
        OperationKind::PutIdentity(identity, body) => identities::check_put(state, identity, body, now),
        OperationKind::PatchIdentity(identity, _) => identities::check_patch(state, identity),
        OperationKind::DeleteIdentity(identity) => identities::check_delete(state, identity),
        OperationKind::Role(role) => authorization::check(state, role, now),
        OperationKind::Resource(resource) => resources::check(state, resource),
        _ => Ok(()),
    }
}

/// Applies the operation. `base_url` (scheme and authority) is the start of links to next pages.
pub fn apply(state: &mut State, operation: Operation, base_url: &str, now: Timestamp) -> Result<ArmAnswer, ArmError> {
    apply_lagging(state, operation, base_url, now, now)
}

/// The same, with a time of its own (`lag_now`) for how far reads lag.
pub(crate) fn apply_lagging(
    state: &mut State,
    operation: Operation,
    base_url: &str,
    now: Timestamp,
    lag_now: Timestamp,
) -> Result<ArmAnswer, ArmError> {
    check(state, &operation, now)?;
    state.record_changes(lag_now);
    // A write sees the present state, a read may see an earlier one.
    let seen = if operation.is_read() { state.next_read(operation.staleness, lag_now) } else { lag_now };
    let answer = answer(state, operation, base_url, seen, now);
    state.record_changes(lag_now);
    answer
}

fn answer(
    state: &mut State,
    operation: Operation,
    base_url: &str,
    seen: Timestamp,
    now: Timestamp,
) -> Result<ArmAnswer, ArmError> {
    let Operation { kind, version, path, .. } = operation;
    let next_page = |link: Option<String>| link.map(|token| paging::link(base_url, &path, version, &token));
    match kind {
        OperationKind::ListIdentities { subscription, group, page } => {
            let (values, next) = identities::list(state.at(seen), &subscription, group.as_deref(), &page, version);
            Ok(ArmAnswer::ok(list(values, next_page(next))))
        }
        OperationKind::GetIdentity(id) => identities::get(state.at(seen), &id, version).map(ArmAnswer::ok),
        OperationKind::ListAssociatedResources(id) => {
            identities::associated_resources(state.at(seen), &id).map(ArmAnswer::ok)
        }
        OperationKind::PutIdentity(id, body) => Ok(identities::put(state, &id, body, version, now)),
        OperationKind::PatchIdentity(id, patch) => identities::patch(state, &id, patch, version).map(ArmAnswer::ok),
        OperationKind::DeleteIdentity(id) => Ok(identities::delete(state, &id, now)),
        OperationKind::ListCredentials(id, page) => {
            let (values, next) = credentials::list(state.at(seen), &id, &page)?;
            Ok(ArmAnswer::ok(list(values, next_page(next))))
        }
        OperationKind::GetCredential(id, name) => credentials::get(state.at(seen), &id, &name).map(ArmAnswer::ok),
        OperationKind::PutCredential(id, name, body) => credentials::put(state, &id, &name, body, now),
        OperationKind::DeleteCredential(id, name) => credentials::delete(state, &id, &name),
        OperationKind::Role(role) => {
            let link = |token: &str, filter: &str| paging::filtered_link(base_url, &path, version, token, filter);
            authorization::apply(state, role, seen, now, link)
        }
        OperationKind::Resource(resource) => resources::apply(state, resource, version, base_url, now),
    }
}

fn list(values: Vec<Value>, next_link: Option<String>) -> Value {
    let mut body = serde_json::Map::new();
    body.insert("value".to_owned(), Value::Array(values));
    if let Some(link) = next_link {
        body.insert("nextLink".to_owned(), Value::String(link));
    }
    Value::Object(body)
}

#[cfg(test)]
pub(in crate::state) mod fixtures;
#[cfg(test)]
mod governance_tests;
#[cfg(test)]
mod late_reads_tests;
#[cfg(test)]
mod tests;
