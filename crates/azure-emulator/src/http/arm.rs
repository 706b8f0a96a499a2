//! ARM over HTTP: bearer tokens, headers, and the duration of writes.

use std::time::{Duration, Instant};

use super::exchange::{Incoming, Reply};
use super::log::LogKind;
use super::shared::Shared;
use crate::state::arm::{self, ArmAnswer, ArmError, ArmRequest, Caller, bearer};
use crate::state::text::redact;
use crate::state::{IdentityId, Staleness};

/// How often a write checks whether it has taken long enough.
const LATENCY_STEP: Duration = Duration::from_millis(5);

/// The header of what ARM's front end rejects itself.
const FAILURE_CAUSE: &str = "x-ms-failure-cause";

/// Answers a request. If it is a read, `staleness` says how old the answer is; otherwise the settings do.
pub(super) async fn answer(shared: &Shared, incoming: &Incoming, staleness: Option<Staleness>) -> Reply {
    let mut principal_id = None;
    let reply = match authenticate(shared, incoming) {
        Err(error) => error_reply(shared, &error),
        Ok(caller) => {
            let answered = operate(shared, incoming, &caller, staleness).await;
            principal_id = Some(caller.object_id);
            answered.map_or_else(|error| error_reply(shared, &error), success)
        }
    };
    // As in recordings of 2025. Older ones have the names without "global", and other numbers.
    let remaining = match incoming.kind {
        LogKind::ArmRead => ("x-ms-ratelimit-remaining-subscription-global-reads", "16499"),
        _ if incoming.method == http::Method::DELETE => {
            ("x-ms-ratelimit-remaining-subscription-global-deletes", "11999")
        }
        _ => ("x-ms-ratelimit-remaining-subscription-global-writes", "11999"),
    };
    let rejected_by_front = reply.headers.contains_key(FAILURE_CAUSE);
    let correlation_id = incoming.header("x-ms-correlation-request-id").unwrap_or(&incoming.id);
    let mut reply = reply
        .with("x-ms-request-id", &incoming.id)
        .with("x-ms-correlation-request-id", correlation_id)
        .with("cache-control", "no-cache")
        .with("pragma", "no-cache")
        .with("expires", "-1")
        .with("strict-transport-security", "max-age=31536000; includeSubDomains")
        .with("x-content-type-options", "nosniff");
    if principal_id.is_some() && !rejected_by_front {
        reply = reply.with(remaining.0, remaining.1);
    }
    if let Some(id) = incoming.header("x-ms-client-request-id") {
        reply = reply.with("x-ms-client-request-id", id);
    }
    Reply { principal_id, ..reply }
}

fn success(answer: ArmAnswer) -> Reply {
    let reply = match answer.body {
        Some(body) => Reply::json(answer.status, &body),
        None => Reply::empty(answer.status),
    };
    // Azure lets clients wait for 15 seconds before they ask how a deletion went on; here all is done at once.
    let reply = if answer.status == 202 { reply.with("retry-after", "1") } else { reply };
    match answer.location {
        Some(location) => reply.with("location", &location),
        None => reply,
    }
}

fn error_reply(shared: &Shared, error: &ArmError) -> Reply {
    // A token that a client has put in the wrong place is not repeated.
    let shown = ArmError { message: redact(&error.message), ..error.clone() };
    let mut reply = Reply::json(error.status, &shown.envelope()).error_code(error.code.clone());
    if let Some(seconds) = error.retry_after {
        reply = reply.with("retry-after", &seconds.to_string());
    }
    if error.front {
        reply = reply.with(FAILURE_CAUSE, "gateway");
    }
    if error.status == 401 {
        let authority = format!("{}/{}", shared.base_url, shared.state.lock().tenant_id);
        let challenge = format!(
            "Bearer authorization_uri=\"{authority}\", error=\"invalid_token\", error_description=\"{}\"",
            shown.message.replace('"', "'")
        );
        reply = reply.with("www-authenticate", &challenge);
    }
    reply
}

fn authenticate(shared: &Shared, incoming: &Incoming) -> Result<Caller, ArmError> {
    let header = incoming.header("authorization").ok_or_else(bearer::missing)?;
    let (scheme, token) = header.split_once(' ').ok_or_else(bearer::missing)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(bearer::missing());
    }
    let claims = shared.signer.verify(token.trim(), &shared.base_url).ok_or_else(bearer::invalid)?;
    bearer::caller(&shared.state.lock(), &claims, &shared.base_url, shared.clock.now())
}

async fn operate(
    shared: &Shared,
    incoming: &Incoming,
    caller: &Caller,
    staleness: Option<Staleness>,
) -> Result<ArmAnswer, ArmError> {
    let request = ArmRequest {
        method: &incoming.method,
        path: &incoming.path,
        query: &incoming.query,
        body: &incoming.body,
        caller,
    };
    let (operation, write) = {
        let mut state = shared.state.lock();
        let operation = arm::plan(&state, &request)?.with_staleness(staleness);
        if let Some(limits) = &mut *shared.limits.lock() {
            limits.admit(&operation, caller)?;
        }
        arm::check(&state, &operation, shared.clock.now())?;
        let write = match operation.credential_write() {
            None => None,
            Some(identity) if state.begin_credential_write(identity) => {
                Some(CredentialWrite { shared, identity: identity.clone() })
            }
            Some(identity) => return Err(ArmError::concurrent_credential_writes(identity)),
        };
        (operation, write)
    };
    if let Some(write) = &write {
        write.wait().await;
    }
    let origin = incoming.origin(&shared.base_url);
    let (now, lag_now) = (shared.clock.now(), shared.lag_clock.lock().now());
    arm::apply_lagging(&mut shared.state.lock(), operation, &origin, now, lag_now)
}

/// A write of a credential in progress, until it is dropped.
struct CredentialWrite<'a> {
    shared: &'a Shared,
    identity: IdentityId,
}

impl CredentialWrite<'_> {
    /// Waits as long as the settings require. They may change meanwhile, so that a test can end a write at will.
    async fn wait(&self) {
        let started = Instant::now();
        loop {
            let latency = Duration::from_millis(self.shared.state.lock().settings.write_latency_ms);
            let left = latency.saturating_sub(started.elapsed());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(LATENCY_STEP)).await;
        }
    }
}

impl Drop for CredentialWrite<'_> {
    fn drop(&mut self) {
        self.shared.state.lock().end_credential_write(&self.identity);
    }
}
