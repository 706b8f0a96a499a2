//! `/_emulator/`: state, log, faults and the administrator's token.

use axum::http::Method;
use serde_json::{Value, json};

use super::exchange::{Incoming, Reply};
use super::faults::{FaultAction, FaultPlan, FaultRule};
use super::log::LogFilter;
use super::shared::Shared;
use crate::state::StateDocument;
use crate::state::arm::ArmError;
use crate::state::text::{query_parameter, read_object, redact};

pub(super) fn answer(shared: &Shared, incoming: &Incoming) -> Reply {
    let path = incoming.path.trim_matches('/');
    let path = path.strip_prefix("_emulator").unwrap_or(path).trim_start_matches('/');
    let result = match (path, &incoming.method) {
        ("state", &Method::GET) => Ok(state(shared)),
        ("state", &Method::PUT) => put_state(shared, &incoming.body),
        ("state/reset", &Method::POST) => reset(shared),
        ("log", &Method::GET) => log(shared, &incoming.query),
        ("log", &Method::DELETE) => {
            shared.log.lock().clear();
            Ok(Reply::empty(204))
        }
        ("faults", &Method::GET) => Ok(faults(shared)),
        ("faults", &Method::PUT) => put_faults(shared, &incoming.body),
        ("faults", &Method::DELETE) => {
            *shared.faults.lock() = FaultPlan::default();
            Ok(Reply::empty(204))
        }
        ("arm-token", &Method::GET) => arm_token(shared),
        ("state" | "state/reset" | "log" | "faults" | "arm-token", method) => {
            Err(ArmError::new(405, "MethodNotAllowed", format!("/_emulator/{path} does not support {method}.")))
        }
        _ => Err(ArmError::new(404, "NotFound", "Known: state, state/reset, log, faults and arm-token.")),
    };
    result.unwrap_or_else(|error| Reply::json(error.status, &error.envelope()).error_code(error.code))
}

fn bad(message: impl Into<String>) -> ArmError {
    ArmError::new(400, "BadRequest", redact(&message.into()))
}

fn state(shared: &Shared) -> Reply {
    Reply::json(200, &json!(StateDocument::from(&*shared.state.lock())))
}

fn put_state(shared: &Shared, body: &[u8]) -> Result<Reply, ArmError> {
    let document = read_object(body).map_err(|error| bad(format!("not a state document: {error}")))?;
    shared.set_state(document).map_err(|error| bad(error.to_string()))?;
    Ok(state(shared))
}

fn reset(shared: &Shared) -> Result<Reply, ArmError> {
    shared.set_state(shared.initial.clone()).map_err(|error| bad(error.to_string()))?;
    Ok(state(shared))
}

fn log(shared: &Shared, query: &str) -> Result<Reply, ArmError> {
    let since = query_parameter(query, "since")
        .map(|since| since.parse().map_err(|_| bad(format!("since={since} is not a number"))))
        .transpose()?;
    let filter = LogFilter {
        method: query_parameter(query, "method"),
        kind: query_parameter(query, "kind"),
        path: query_parameter(query, "path"),
        since,
    };
    Ok(Reply::json(200, &json!(shared.log.lock().list(&filter))))
}

fn faults(shared: &Shared) -> Reply {
    Reply::json(200, &json!(shared.faults.lock().rules()))
}

fn put_faults(shared: &Shared, body: &[u8]) -> Result<Reply, ArmError> {
    let rules: Vec<FaultRule> =
        serde_json::from_slice(body).map_err(|error| bad(format!("not a list of fault rules: {error}")))?;
    let senseless =
        |rule: &&FaultRule| matches!(&rule.action, FaultAction::Answer(answer) if !(200..600).contains(&answer.status));
    if let Some(rule) = rules.iter().find(senseless) {
        return Err(bad(format!("a status from 200 to 599 is needed: {}", json!(rule))));
    }
    *shared.faults.lock() = FaultPlan::new(rules);
    Ok(faults(shared))
}

fn arm_token(shared: &Shared) -> Result<Reply, ArmError> {
    let (token, expires_on): (String, i64) =
        shared.administrator_token().map_err(|error| ArmError::new(500, "InternalServerError", error.to_string()))?;
    let body: Value = json!({"access_token": token, "expires_on": expires_on});
    Ok(Reply::json(200, &body).with("cache-control", "no-store"))
}
