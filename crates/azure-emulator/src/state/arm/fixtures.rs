//! A state for tests, and short ways to send requests to it.
#![allow(clippy::needless_pass_by_value, reason = "tests pass literals")]

use std::collections::BTreeSet;

use axum::http::Method;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::super::{
    ADMINISTRATOR, ArmRights, Defaults, DirectorySettings, ReadSettings, Settings, State, StateDocument,
};
use super::{ArmAnswer, ArmError, ArmRequest, Caller};
use crate::state::roles::RoleSettings;

pub(in crate::state) const TENANT: &str = "7e000000-0000-4000-8000-000000000001";
pub(in crate::state) const SUBSCRIPTION: &str = "50b00000-0000-4000-8000-000000000001";
pub(in crate::state) const GROUP: &str = "Shop-RG";

pub(in crate::state) fn now() -> Timestamp {
    Timestamp::from_second(1_768_695_376).unwrap()
}

pub(in crate::state) fn defaults() -> Defaults {
    Defaults {
        tenant_id: TENANT.to_owned(),
        subscription_id: SUBSCRIPTION.to_owned(),
        resource_group: GROUP.to_owned(),
        location: "eastus".to_owned(),
        settings: Settings {
            propagation_seconds: 0,
            token_lifetime_seconds: 3600,
            write_latency_ms: 0,
            credential_page_size: 20,
            identity_page_size: 100,
            regions_without_credentials: BTreeSet::from(["malaysiasouth".to_owned()]),
            roles: RoleSettings::default(),
            directory: DirectorySettings::default(),
            reads: ReadSettings::default(),
        },
    }
}

/// The state of a document, with the defaults above.
pub(in crate::state) fn state(document: Value) -> State {
    serde_json::from_value::<StateDocument>(document).unwrap().into_state(&defaults(), now()).unwrap()
}

/// A state with one identity named `orders`.
pub(in crate::state) fn orders() -> State {
    state(json!({"identities": [{"name": "orders"}]}))
}

/// The path of the identities, or of something below.
pub(in crate::state) fn identities(below: &str) -> String {
    format!(
        "/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.ManagedIdentity/userAssignedIdentities{below}"
    )
}

/// The path of a credential of `orders`.
pub(in crate::state) fn credential(name: &str) -> String {
    identities(&format!("/orders/federatedIdentityCredentials/{name}"))
}

/// The body of a credential.
pub(in crate::state) fn trust(issuer: &str, subject: &str) -> Value {
    json!({"properties": {"issuer": issuer, "subject": subject, "audiences": ["api://AzureADTokenExchange"]}})
}

/// A caller of the tenant.
pub(in crate::state) fn caller(rights: ArmRights) -> Caller {
    Caller {
        client_id: "client".to_owned(),
        object_id: ADMINISTRATOR.to_owned(),
        tenant_id: TENANT.to_owned(),
        rights,
        grants: Vec::new(),
    }
}

/// Sends a request with all rights and a current version. A query in the path is appended to the version.
pub(in crate::state) fn ask(state: &mut State, method: Method, path: &str, body: Value) -> Result<ArmAnswer, ArmError> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let query = format!("api-version=2024-11-30&{query}");
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    ask_as(state, &caller(ArmRights::All), &method, path, &query, &body)
}

/// Sends a request with everything specified.
pub(in crate::state) fn ask_as(
    state: &mut State,
    caller: &Caller,
    method: &Method,
    path: &str,
    query: &str,
    body: &[u8],
) -> Result<ArmAnswer, ArmError> {
    let operation = super::plan(state, &ArmRequest { method, path, query, body, caller })?;
    super::apply(state, operation, "https://arm.test", now())
}
