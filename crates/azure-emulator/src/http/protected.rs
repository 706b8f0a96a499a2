//! Protected resources over HTTP.

use axum::http::Method;
use serde_json::json;

use super::exchange::{Incoming, Reply};
use super::shared::Shared;
use crate::state::arm::{ArmError, bearer};
use crate::state::protected::{self, Access};

pub(super) fn answer(shared: &Shared, incoming: &Incoming) -> Reply {
    let mut principal_id = None;
    let reply = match decide(shared, incoming, &mut principal_id) {
        Ok(action) => Reply::json(200, &json!({"allowedBy": action})),
        Err(error) => Reply::json(error.status, &error.envelope())
            .with("x-ms-error-code", &error.code)
            .error_code(error.code.clone()),
    };
    Reply { principal_id, ..reply.with("x-ms-request-id", &incoming.id) }
}

fn decide(shared: &Shared, incoming: &Incoming, principal_id: &mut Option<String>) -> Result<&'static str, ArmError> {
    let access = match incoming.method {
        Method::GET => Access::Read,
        Method::PUT => Access::Write,
        Method::DELETE => Access::Delete,
        _ => return Err(ArmError::new(405, "UnsupportedHttpVerb", "The resource doesn't support this HTTP verb.")),
    };
    let header = incoming.header("authorization").ok_or_else(bearer::missing)?;
    let token = header.strip_prefix("Bearer ").ok_or_else(bearer::missing)?;
    let claims = shared.signer.verify(token.trim(), &shared.base_url).ok_or_else(bearer::invalid)?;
    *principal_id = Some(claims.oid.clone());
    let path = incoming.path.trim_start_matches('/').strip_prefix("protected").unwrap_or_default();
    protected::decide(&shared.state.lock(), path, access, &claims, shared.clock.now())
}
