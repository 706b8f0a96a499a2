//! The one way to ARM: no request leaves but through [`Gate::send`].
//!
//! ```text
//! a request ─► is its URL within --azure-allowed-scopes?
//!           ─► its API version
//!           ─► pauses and rate limits, if the client has any
//!           ─► is sent within a deadline; again with a new token, or with another API version
//!           ─► is counted
//! ```
//!
//! The URL is what is judged, not what the caller says that it is about: what ARM is asked is in the URL alone.

use std::time::Duration;

use azure_core::error::ErrorKind;
use azure_core::http::{Context, Method, Pipeline, PipelineSendOptions, RawResponse, Request, StatusCode};
use uuid::Uuid;

use super::arm_url::{ArmUrl, version_of, with_version};
use super::error::{ArmErrorCause, Operation, chain};
use super::metrics::AzureMetrics;
use super::rate_limited::{NoResponse, RateLimiter};
use super::response::refused;
use super::token_refresh::RejectedToken;
use super::versions::Versions;
use ensign_api::ArmId;
use ensign_core::acceptance::scopes::AllowedScopes;
use ensign_core::api_versions;
use ensign_core::roles::RoleScope;
use ensign_core::scheduling::rate_limiter::Provider;

/// Deadline of one call, the token for it included.
const CALL_DEADLINE: Duration = Duration::from_secs(30);
/// Both carry the ID of a request: the first one to ARM's response, the second one to Azure's activity log.
const REQUEST_ID_HEADERS: [&str; 2] = ["x-ms-client-request-id", "x-ms-correlation-request-id"];

/// Of the ID of a resource group, split at its slashes: nothing, subscriptions, ID, resourcegroups, name.
const GROUP_SEGMENTS: usize = 5;

/// What every request passes on its way to ARM. Copies share pauses, limits, metrics and API versions.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    /// Used in this file only.
    pipeline: Pipeline,
    versions: Versions,
    pub(super) rate_limiter: Option<RateLimiter>,
    pub(super) scopes: AllowedScopes,
    /// Where roles may be assigned although it is outside of `scopes`.
    pub(super) role_scopes: Vec<RoleScope>,
    pub(super) metrics: AzureMetrics,
}

/// How a request is limited and counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pass<'a> {
    /// What is done, and for which identity. A list of identities is for none of them.
    pub(super) about: Option<(Operation, &'a ArmId)>,
    /// Number of the page, for a list; the first one is 0.
    pub(super) page: u32,
    pub(super) request_id: Uuid,
    /// The oldest API version that understands the whole request.
    pub(super) at_least: Option<&'static str>,
}

impl Gate {
    pub(super) fn new(pipeline: Pipeline, versions: Versions) -> Self {
        let (scopes, metrics) = (AllowedScopes::default(), AzureMetrics::default());
        Self { pipeline, versions, rate_limiter: None, scopes, role_scopes: Vec::new(), metrics }
    }

    /// The API version that requests to this provider have now.
    pub(super) fn version(&self, provider: Provider) -> String {
        self.versions.of(provider)
    }

    /// Sends a request if it may be sent now. A response without a success status is an error.
    pub(super) async fn send(&self, pass: Pass<'_>, request: Request) -> Result<RawResponse, ArmErrorCause> {
        let response = self.send_if_allowed(pass, request).await;
        if let Some((operation, _)) = pass.about {
            self.metrics.answered(operation, &response);
        }
        response
    }

    async fn send_if_allowed(&self, pass: Pass<'_>, request: Request) -> Result<RawResponse, ArmErrorCause> {
        let url = ArmUrl::read(request.url());
        let Some(url) = url.filter(|url| self.allows(url, request.method())) else {
            return Err(ArmErrorCause::OutOfScope(request.url().path().to_owned()));
        };
        let response = self.ask(pass, url.provider, request);
        let (Some(rate_limiter), Some((operation, identity))) = (&self.rate_limiter, pass.about) else {
            return response.await;
        };
        let limited = rate_limiter.send(identity, (operation.kind(), pass.page), response);
        limited.await.map_err(|error| match error {
            NoResponse::NotSent(deferral) => ArmErrorCause::NotSent(deferral),
            NoResponse::Failed(cause) => cause,
        })
    }

    /// Whether the scopes contain what the URL names.
    fn allows(&self, url: &ArmUrl, method: Method) -> bool {
        self.scopes.contain(&url.scope)
            || (url.provider == Provider::Authorization && self.allows_role(&url.scope, method))
    }

    fn allows_role(&self, scope: &str, method: Method) -> bool {
        let is_within = |inner: &str, outer: &str| {
            inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        // Roles are read by resource group, even if only something in it is allowed.
        let is_read_of_group = method == Method::Get && scope.split('/').count() == GROUP_SEGMENTS;
        let within_group = || self.role_scopes.iter().any(|allowed| is_within(allowed.key(), scope));
        self.role_scopes.iter().any(|allowed| is_within(scope, allowed.key()))
            || (is_read_of_group && (self.scopes.any_within(scope) || within_group()))
    }

    /// Sends a request; once more if ARM lists an API version that will do instead.
    async fn ask(
        &self,
        pass: Pass<'_>,
        provider: Provider,
        mut request: Request,
    ) -> Result<RawResponse, ArmErrorCause> {
        for header in REQUEST_ID_HEADERS {
            request.insert_header(header, pass.request_id.to_string());
        }
        let version = version_of(request.url()).unwrap_or_else(|| self.versions.of(provider));
        *request.url_mut() = with_version(request.url(), &version);
        let answer = self.exchange_in_time(&mut request).await;
        let Err(ArmErrorCause::Refused { code, message, .. }) = &answer else { return answer };
        if !api_versions::is_unsupported(code) {
            return answer;
        }
        match self.versions.instead_of(provider, &version, message) {
            Some(other) if pass.at_least.is_none_or(|oldest| other.as_str() >= oldest) => {
                *request.url_mut() = with_version(request.url(), &other);
                self.exchange_in_time(&mut request).await
            }
            _ => answer,
        }
    }

    async fn exchange_in_time(&self, request: &mut Request) -> Result<RawResponse, ArmErrorCause> {
        let response = match tokio::time::timeout(CALL_DEADLINE, self.exchange(request)).await {
            Err(_) => return Err(ArmErrorCause::Deadline(CALL_DEADLINE)),
            Ok(Err(error)) if matches!(error.kind(), ErrorKind::Credential) => {
                return Err(ArmErrorCause::Credential(chain(&error)));
            }
            Ok(Err(error)) => return Err(ArmErrorCause::Transport(chain(&error))),
            Ok(Ok(response)) => response,
        };
        if response.status().is_success() { Ok(response) } else { Err(refused(&response)) }
    }

    /// Sends the request, and again with a new token if ARM rejects the one that it carried: ARM does nothing else with
    /// such a request.
    async fn exchange(&self, request: &mut Request) -> azure_core::Result<RawResponse> {
        let response = self.send_with(Context::new(), request).await?;
        let refused = response.status() == StatusCode::Unauthorized;
        match RejectedToken::of(request).filter(|_| refused) {
            Some(refused) => self.send_with(Context::new().with_value(refused), request).await,
            None => Ok(response),
        }
    }

    async fn send_with(&self, context: Context<'_>, request: &mut Request) -> azure_core::Result<RawResponse> {
        let options = PipelineSendOptions { skip_checks: true, ..PipelineSendOptions::default() };
        self.pipeline.send(&context, request, Some(options)).await
    }
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
