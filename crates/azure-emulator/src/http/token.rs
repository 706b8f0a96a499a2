//! Entra's token endpoint over HTTP.

use axum::http::Method;
use serde_json::json;
use uuid::Uuid;

use super::exchange::{Incoming, Reply};
use super::shared::Shared;
use crate::state::entra::{self, AccessClaims, Assertion, EntraError, TokenRequest, TrustedCredential, keys};
use crate::state::text::percent_decode;

pub(super) async fn answer(shared: &Shared, incoming: &Incoming) -> Reply {
    let request = TokenRequest::from_form(&incoming.body);
    let mut shown = request.shown();
    if let (Some(assertion), Some(shown)) = (request.presented(), shown.as_object_mut()) {
        let Assertion { issuer, subject, audiences, .. } = assertion;
        shown.insert("assertion_claims".to_owned(), json!({"iss": issuer, "sub": subject, "aud": audiences}));
    }
    let issued = match check_form(incoming) {
        Ok(()) => issue(shared, incoming, &request).await,
        Err(error) => Err(error),
    };
    let reply = issued.unwrap_or_else(|error| error_reply(shared, incoming, &error));
    let reply = reply
        .with("x-ms-request-id", &incoming.id)
        .with("cache-control", "no-store, no-cache")
        .with("pragma", "no-cache");
    let reply = match incoming.header("client-request-id") {
        Some(id) => reply.with("client-request-id", id),
        None => reply,
    };
    Reply { shown: Some(shown), ..reply }
}

fn check_form(incoming: &Incoming) -> Result<(), EntraError> {
    if incoming.method != Method::POST {
        let message = "The endpoint only accepts POST requests. Received a request of another kind.";
        return Err(EntraError::request(900_561, message));
    }
    let form = incoming
        .header("content-type")
        .is_some_and(|value| value.trim_start().to_ascii_lowercase().starts_with("application/x-www-form-urlencoded"));
    if form {
        return Ok(());
    }
    Err(EntraError::request(900_144, "The request body must contain the following parameter: 'grant_type'."))
}

async fn issue(shared: &Shared, incoming: &Incoming, request: &TokenRequest) -> Result<Reply, EntraError> {
    let tenant = incoming.path.trim_start_matches('/').split('/').next().map(percent_decode).unwrap_or_default();
    let candidate = entra::examine(&shared.state.lock(), &tenant, request, &shared.base_url, shared.clock.now())?;
    verify(shared, &candidate).await?;
    let claims = entra::grant(&mut shared.state.lock(), &candidate, &shared.base_url, shared.clock.now())?;
    let token = shared.signer.sign(&claims).map_err(|_| EntraError {
        status: 500,
        error: "server_error",
        ..EntraError::request(90033, "A transient error has occurred. Please try again.")
    })?;
    Ok(granted(&claims, &token))
}

/// Verifies with the cached keys, or with fresh ones if the key is not among them.
async fn verify(shared: &Shared, candidate: &TrustedCredential) -> Result<(), EntraError> {
    let assertion = &candidate.assertion;
    if let Some(cached) = shared.issuers.cached(&assertion.issuer)
        && keys::knows(&cached, assertion)
    {
        return keys::verify(&cached, assertion);
    }
    let fetched = shared.issuers.fetch(&assertion.issuer).await?;
    keys::verify(&fetched, assertion)
}

fn granted(claims: &AccessClaims, token: &str) -> Reply {
    let lifetime = claims.exp - claims.iat;
    let mut body = json!({
        "token_type": "Bearer",
        "expires_in": lifetime,
        "ext_expires_in": lifetime,
        "access_token": token,
    });
    // For long-lived tokens Entra recommends a refresh at half of their lifetime.
    if let (true, Some(body)) = (lifetime > 7200, body.as_object_mut()) {
        body.insert("refresh_in".to_owned(), json!(lifetime / 2));
    }
    Reply { principal_id: Some(claims.oid.clone()), ..Reply::json(200, &body) }
}

fn error_reply(shared: &Shared, incoming: &Incoming, error: &EntraError) -> Reply {
    let correlation_id = incoming
        .client_request_id()
        .filter(|id| Uuid::try_parse(id).is_ok())
        .map_or_else(|| Uuid::new_v4().to_string(), str::to_owned);
    let body = error.body(shared.clock.now(), &incoming.id, &correlation_id);
    Reply::json(error.status, &body).error_code(format!("AADSTS{}", error.code))
}
