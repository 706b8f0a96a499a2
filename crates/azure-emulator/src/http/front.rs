//! The path of every request: read, inject a fault or dispatch, log, respond.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::http::{Method, Response, StatusCode};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::exchange::{Incoming, Reply};
use super::faults::{FaultAction, FaultAnswer, NamedAction, Stale};
use super::log::{LogEntry, LogKind};
use super::shared::Shared;
use super::{arm, control, discovery, graph, metadata, protected, token};
use crate::state::Staleness;
use crate::state::arm::ArmError;
use crate::state::entra::EntraError;
use crate::state::text::redact;

const MAX_BODY_BYTES: usize = 1024 * 1024;
const MAX_STATE_BYTES: usize = 16 * 1024 * 1024;
/// A client that sends its body more slowly is not served.
const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// Serves everything.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new().fallback(move |request: Request| {
        let shared = Arc::clone(&shared);
        async move {
            // A task of its own: as in Azure, a request continues when its client has disconnected.
            let answered = tokio::spawn(answer(shared, request)).await;
            answered.unwrap_or_else(|error| {
                tracing::error!(%error, "a request handler failed");
                internal_error().into_response()
            })
        }
    })
}

/// The result of a request.
enum RequestOutcome {
    Reply(Reply),
    /// The connection is closed without a response.
    Dropped(Option<Reply>),
}

async fn answer(shared: Arc<Shared>, request: Request) -> Response<Body> {
    let seq = shared.log.lock().arrive();
    let time = shared.clock.now();
    let (incoming, rejection) = read(request).await;
    let target = format!("{}?{}", incoming.path, incoming.query);
    let fault = shared.faults.lock().next(&incoming.method, &target, incoming.kind);
    let mut applied_status = None;
    let outcome = match rejection {
        Some(reply) => RequestOutcome::Reply(reply),
        None => run(&shared, &incoming, fault.as_ref(), &mut applied_status).await,
    };
    let (reply, dropped) = match outcome {
        RequestOutcome::Reply(reply) => (reply, false),
        RequestOutcome::Dropped(reply) => (reply.unwrap_or_else(|| Reply::empty(500)), true),
    };
    let text = |text: &str| redact(text).chars().take(2048).collect::<String>();
    let entry = LogEntry {
        seq,
        time,
        finished: shared.clock.now(),
        method: incoming.method.to_string(),
        path: text(&incoming.path),
        query: text(&incoming.query),
        kind: incoming.kind,
        status: (!dropped).then(|| reply.status.as_u16()),
        error_code: reply.error_code.clone(),
        request_id: incoming.id.clone(),
        client_request_id: incoming.client_request_id().map(text),
        user_agent: incoming.header("user-agent").map(text),
        principal_id: reply.principal_id.clone(),
        body: reply.shown.clone().or_else(|| sent(&incoming)).and_then(|body| redacted(&body)),
        applied_status: fault.as_ref().and(applied_status),
        fault: fault.map(|action| serde_json::to_string(&action).unwrap_or_default()),
    };
    tracing::debug!(seq, method = %entry.method, path = %entry.path, status = ?entry.status, code = ?entry.error_code, "request");
    shared.log.lock().add(entry);
    if dropped { drop_connection() } else { reply.into_response() }
}

/// Reads a whole request; the reply if it is rejected.
async fn read(request: Request) -> (Incoming, Option<Reply>) {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let kind = classify(&parts.method, &path);
    let limit = if kind == LogKind::Emulator { MAX_STATE_BYTES } else { MAX_BODY_BYTES };
    let (body, rejection) = match tokio::time::timeout(BODY_DEADLINE, to_bytes(body, limit)).await {
        Ok(Ok(body)) => (body, None),
        Ok(Err(_)) => {
            let message = format!("The request body is larger than {limit} bytes, or it was cut off.");
            (Bytes::new(), Some((413, "RequestEntityTooLarge", message)))
        }
        Err(_) => (Bytes::new(), Some((408, "RequestTimeout", "The request body did not arrive in time.".to_owned()))),
    };
    let rejection = rejection.map(|(status, code, message)| {
        Reply::json(status, &ArmError::new(status, code, message).envelope()).error_code(code)
    });
    let incoming = Incoming {
        method: parts.method,
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers,
        id: Uuid::new_v4().to_string(),
        path,
        body,
        kind,
    };
    (incoming, rejection)
}

fn classify(method: &Method, path: &str) -> LogKind {
    let path = path.trim_start_matches('/');
    let first = path.split('/').next().unwrap_or_default();
    if first == "_emulator" {
        LogKind::Emulator
    } else if first == "protected" {
        LogKind::Data
    } else if graph::is_at(&format!("/{path}")) {
        LogKind::Graph
    } else if ["subscriptions", "providers", "tenants"].iter().any(|known| first.eq_ignore_ascii_case(known)) {
        if matches!(*method, Method::GET | Method::HEAD) { LogKind::ArmRead } else { LogKind::ArmWrite }
    } else if path.to_lowercase().trim_end_matches('/').ends_with("/oauth2/v2.0/token") {
        LogKind::Token
    } else {
        LogKind::Discovery
    }
}

async fn run(
    shared: &Shared,
    incoming: &Incoming,
    fault: Option<&FaultAction>,
    applied_status: &mut Option<u16>,
) -> RequestOutcome {
    match fault {
        Some(FaultAction::Answer(answer)) => {
            return RequestOutcome::Reply(scripted(incoming, answer, shared.clock.now()));
        }
        Some(FaultAction::Named(NamedAction::DropBefore)) => return RequestOutcome::Dropped(None),
        Some(FaultAction::Named(NamedAction::Html)) => {
            let page =
                "<!DOCTYPE html><html><head><title>Sign in</title></head><body>Sign in to continue.</body></html>";
            return RequestOutcome::Reply(Reply::text(200, "text/html; charset=utf-8", page));
        }
        Some(FaultAction::Delay(delay)) => tokio::time::sleep(Duration::from_millis(delay.delay_ms)).await,
        _ => {}
    }
    let staleness = match fault {
        Some(FaultAction::Stale(Stale { stale })) => Some(*stale),
        _ => None,
    };
    let reply = dispatch(shared, incoming, staleness).await;
    *applied_status = Some(reply.status.as_u16());
    match fault {
        Some(FaultAction::Named(NamedAction::ApplyThenDrop)) => RequestOutcome::Dropped(Some(reply)),
        Some(FaultAction::Named(NamedAction::ApplyThen500)) => {
            RequestOutcome::Reply(Reply { principal_id: reply.principal_id, shown: reply.shown, ..internal_error() })
        }
        Some(FaultAction::Named(NamedAction::TruncatedJson)) => {
            let half = reply.body.slice(..reply.body.len() / 2);
            RequestOutcome::Reply(Reply { body: half, ..reply })
        }
        _ => RequestOutcome::Reply(reply),
    }
}

async fn dispatch(shared: &Shared, incoming: &Incoming, staleness: Option<Staleness>) -> Reply {
    match incoming.kind {
        LogKind::Emulator => control::answer(shared, incoming),
        LogKind::ArmRead | LogKind::ArmWrite => arm::answer(shared, incoming, staleness).await,
        LogKind::Token => token::answer(shared, incoming).await,
        LogKind::Discovery if metadata::is_at(&incoming.path) => metadata::answer(shared, incoming),
        LogKind::Discovery => discovery::answer(shared, incoming),
        LogKind::Graph => graph::answer(shared, incoming),
        LogKind::Data => protected::answer(shared, incoming),
    }
}

/// A response from a fault rule, in the envelope of ARM or Entra.
fn scripted(incoming: &Incoming, answer: &FaultAnswer, now: Timestamp) -> Reply {
    let reply = match (&answer.text, answer.html) {
        (Some(text), false) => Reply::text(answer.status, "text/plain; charset=utf-8", text.clone()),
        (Some(text), true) => Reply::text(answer.status, "text/html; charset=utf-8", text.clone()),
        (None, true) => Reply::text(answer.status, "text/html; charset=utf-8", "<html><body>Not here.</body></html>"),
        (None, false) => {
            let code = answer.code.clone().unwrap_or_else(|| "InjectedFault".to_owned());
            Reply::json(answer.status, &scripted_body(incoming, answer, &code, now)).error_code(code)
        }
    };
    let reply = reply.with("x-ms-request-id", &incoming.id);
    match &answer.retry_after {
        Some(after) => reply.with("retry-after", after),
        None => reply,
    }
}

fn scripted_body(incoming: &Incoming, answer: &FaultAnswer, code: &str, now: Timestamp) -> Value {
    if let Some(body) = &answer.body {
        return body.clone();
    }
    let message = answer.message.clone().unwrap_or_else(|| "This answer was scripted.".to_owned());
    if matches!(incoming.kind, LogKind::Token | LogKind::Discovery) {
        return match code.strip_prefix("AADSTS").and_then(|number| number.parse().ok()) {
            Some(number) => EntraError::scripted(answer.status, number, message).body(now, &incoming.id, &incoming.id),
            None => json!({"error": code, "error_description": message}),
        };
    }
    let members = [
        ("target", answer.target.clone().map(Value::from)),
        ("details", answer.details.clone()),
        ("additionalInfo", answer.additional_info.clone()),
    ];
    let error = ArmError::new(answer.status, code, message);
    let given = members.into_iter().filter_map(|(name, value)| Some((name, value?)));
    given.fold(error, |error, (name, value)| error.with(name, value)).envelope()
}

fn internal_error() -> Reply {
    let error =
        ArmError::new(500, "InternalServerError", "The server encountered an internal error. Please try again.");
    Reply::json(500, &error.envelope()).error_code(error.code)
}

/// The JSON that was sent to ARM, if any.
fn sent(incoming: &Incoming) -> Option<Value> {
    match incoming.kind {
        LogKind::ArmRead | LogKind::ArmWrite => serde_json::from_slice(&incoming.body).ok(),
        _ => None,
    }
}

/// JSON without anything that looks like a token.
fn redacted(value: &Value) -> Option<Value> {
    serde_json::from_str(&redact(&value.to_string())).ok()
}

/// A body that fails before its first byte makes the server close the connection without sending anything.
fn drop_connection() -> Response<Body> {
    let failure = std::io::Error::new(std::io::ErrorKind::ConnectionAborted, "dropped by a fault rule");
    let mut response = Response::new(Body::from_stream(futures::stream::once(async { Err::<Bytes, _>(failure) })));
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
}
