//! The ARM client for user-assigned identities and their federated identity credentials.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use azure_core::credentials::TokenCredential;
use azure_core::error::ErrorKind;
use azure_core::http::headers::{HeaderName, Headers, USER_AGENT};
use azure_core::http::policies::auth::BearerTokenAuthorizationPolicy;
use azure_core::http::policies::{Policy, PolicyResult};
use azure_core::http::{Context, Method, Pipeline, PipelineSendOptions, RawResponse, Request, StatusCode};
use serde::Deserialize;
use serde_json::json;
use url::Url;
use uuid::Uuid;

use super::Cloud;
use super::error::{ArmError, ArmErrorCause, Operation, chain};
use super::http::{Connection, ConnectionError};
use super::listed_credential::ListedCredential;
use super::metrics::AzureMetrics;
use super::paging::Pages;
use super::rate_limited::{NoResponse, RateLimiter};
use super::response::{decode, unreadable};
use super::token_refresh::RejectedToken;
use ensign_api::ArmId;
use ensign_core::acceptance::scopes::AllowedScopes;
use ensign_core::assess::AzureIdentity;
use ensign_core::credentials::ownership::Credential;
use ensign_runtime::redact::redact;

/// The API version of every request.
const API_VERSION: &str = "2024-11-30";
/// Deadline of one call, the token for it included.
const CALL_DEADLINE: Duration = Duration::from_secs(30);
/// More pages than an identity's 20 credentials can ever fill.
const MAX_PAGES: u32 = 40;
/// A longer `Retry-After` of ARM counts as a mistake.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);
/// Both carry the ID of a request: the first one to ARM's response, the second one to Azure's activity log.
const REQUEST_ID_HEADERS: [&str; 2] = ["x-ms-client-request-id", "x-ms-correlation-request-id"];

/// A client for identities and their federated identity credentials. It never retries, because the controller requeues.
#[derive(Clone, Debug)]
pub struct ArmClient {
    pub(super) endpoint: Url,
    pipeline: Pipeline,
    rate_limiter: Option<RateLimiter>,
    scopes: AllowedScopes,
    metrics: AzureMetrics,
    /// The ID of every request; by default each one gets a new ID.
    request_id: Option<Uuid>,
}

impl ArmClient {
    /// A client for `cloud` that signs in with `credential` and names the cluster in its user agent.
    pub fn new(
        cloud: &Cloud,
        connection: &Connection,
        credential: Arc<dyn TokenCredential>,
        cluster_tag: &str,
    ) -> Result<Self, ConnectionError> {
        let scope = format!("{}/.default", cloud.arm_audience);
        let bearer: Arc<dyn Policy> = Arc::new(BearerTokenAuthorizationPolicy::new(credential, [scope]));
        let user_agent: Arc<dyn Policy> =
            Arc::new(UserAgent(format!("ensign/{} ({cluster_tag})", env!("CARGO_PKG_VERSION"))));
        let pipeline = Pipeline::new(
            Some(env!("CARGO_PKG_NAME")),
            Some(env!("CARGO_PKG_VERSION")),
            connection.client_options()?,
            Vec::new(),
            vec![user_agent, bearer],
            None,
        );
        let endpoint = cloud.arm_endpoint.clone();
        let (scopes, metrics) = (AllowedScopes::default(), AzureMetrics::default());
        Ok(Self { endpoint, pipeline, rate_limiter: None, scopes, metrics, request_id: None })
    }

    /// The same client, limited to these scopes: it sends no request about anything outside of them.
    #[must_use]
    pub fn bounded(self, scopes: AllowedScopes) -> Self {
        Self { scopes, ..self }
    }

    /// The same client, with a rate limit on every request.
    #[must_use]
    pub fn paced(self, rate_limiter: RateLimiter) -> Self {
        Self { rate_limiter: Some(rate_limiter), ..self }
    }

    /// The same client, with every request counted in these metrics.
    #[must_use]
    pub fn counted(self, metrics: AzureMetrics) -> Self {
        Self { metrics, ..self }
    }

    /// The same client, with this ID on every request, so that its caller can recognize them.
    #[must_use]
    pub fn identified(&self, request_id: Uuid) -> Self {
        Self { request_id: Some(request_id), ..self.clone() }
    }

    /// Reads the identity.
    pub async fn get_identity(&self, id: &ArmId) -> Result<AzureIdentity, ArmError> {
        let call = self.call(Operation::ReadIdentity, id);
        let response = self.send(call, Request::new(self.url(id, &[]), Method::Get)).await?;
        call.decode::<IdentityBody>(&response).map(IdentityBody::into_identity)
    }

    /// Lists every federated identity credential of the identity, other people's included: all pages, or an error.
    pub async fn list_credentials(&self, id: &ArmId) -> Result<Vec<Credential>, ArmError> {
        let list = self.call(Operation::ListCredentials, id);
        let mut pages = Pages::new(self.url(id, &["federatedIdentityCredentials"]), MAX_PAGES);
        let mut credentials = Vec::new();
        while let Some((page, url)) = pages.next().map_err(|cause| list.error(cause))? {
            let call = Call { page, ..list };
            let response = self.send(call, Request::new(url, Method::Get)).await?;
            let page: Vec<ListedCredential> = pages.read(&response).map_err(|cause| call.error(cause))?;
            credentials.extend(page.into_iter().map(|ListedCredential(credential)| credential));
        }
        Ok(credentials)
    }

    /// Creates or replaces a federated identity credential; returns what Azure stored.
    pub async fn put_credential(&self, id: &ArmId, credential: &Credential) -> Result<Credential, ArmError> {
        let call = self.call(Operation::PutCredential, id);
        let url = self.url(id, &["federatedIdentityCredentials", &credential.name]);
        let mut request = Request::new(url, Method::Put);
        let Credential { issuer, subject, audiences, .. } = credential;
        let body = json!({"properties": {"issuer": issuer, "subject": subject, "audiences": audiences}});
        request.insert_header("content-type", "application/json");
        request.set_body(body.to_string());
        let response = self.send(call, request).await?;
        call.decode::<CredentialBody>(&response).map(CredentialBody::into_credential)
    }

    /// Deletes a federated identity credential. Succeeds if it does not exist, but not if something between here and ARM
    /// responded with a page of its own.
    pub async fn delete_credential(&self, id: &ArmId, name: &str) -> Result<(), ArmError> {
        let call = self.call(Operation::DeleteCredential, id);
        let url = self.url(id, &["federatedIdentityCredentials", name]);
        let response = self.send(call, Request::new(url, Method::Delete)).await?;
        is_confirmed_deletion(call, &response)
    }

    /// The URL of the identity, or of something below it. Every segment is percent-encoded.
    pub(super) fn url(&self, id: &ArmId, under: &[&str]) -> Url {
        self.url_of(id.segments().into_iter().chain(under.iter().copied()))
    }

    /// The URL with these path segments.
    pub(super) fn url_of<'a>(&self, segments: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.endpoint.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.clear().extend(segments);
        }
        url.query_pairs_mut().append_pair("api-version", API_VERSION);
        url
    }

    pub(super) fn call<'a>(&self, operation: Operation, identity: &'a ArmId) -> Call<'a> {
        Call { operation, identity, page: 0, request_id: self.request_id.unwrap_or_else(Uuid::new_v4) }
    }

    pub(super) async fn send(&self, call: Call<'_>, request: Request) -> Result<RawResponse, ArmError> {
        let response = self.send_if_allowed(call, request).await;
        self.metrics.answered(call.operation, &response);
        response.map_err(|cause| call.error(cause))
    }

    async fn send_if_allowed(&self, call: Call<'_>, request: Request) -> Result<RawResponse, ArmErrorCause> {
        if !self.scopes.allow(call.identity) {
            return Err(ArmErrorCause::OutOfScope);
        }
        let response = self.ask(call.request_id, request);
        let Some(rate_limiter) = &self.rate_limiter else { return response.await };
        let limited = rate_limiter.send(call.identity, (call.operation.kind(), call.page), response);
        limited.await.map_err(|error| match error {
            NoResponse::NotSent(deferral) => ArmErrorCause::NotSent(deferral),
            NoResponse::Failed(cause) => cause,
        })
    }

    /// Sends a request within its deadline. A response without a success status is an error.
    pub(super) async fn ask(&self, request_id: Uuid, mut request: Request) -> Result<RawResponse, ArmErrorCause> {
        for header in REQUEST_ID_HEADERS {
            request.insert_header(header, request_id.to_string());
        }
        let response = match tokio::time::timeout(CALL_DEADLINE, self.exchange(&mut request)).await {
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

/// ARM's own response to a deletion has no body, or a JSON one.
pub(super) fn is_confirmed_deletion(call: Call<'_>, response: &RawResponse) -> Result<(), ArmError> {
    let body: &[u8] = response.body().as_ref();
    if body.is_empty() { Ok(()) } else { call.decode::<serde::de::IgnoredAny>(response).map(|_| ()) }
}

/// A request, as errors and metrics describe it.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    operation: Operation,
    identity: &'a ArmId,
    /// Number of the page, for a list; the first one is 0.
    page: u32,
    request_id: Uuid,
}

impl Call<'_> {
    pub(super) fn error(self, cause: ArmErrorCause) -> ArmError {
        let Self { operation, request_id, .. } = self;
        ArmError { operation, identity: self.identity.clone(), request_id, cause }
    }

    pub(super) fn unreadable(self, problem: &str) -> ArmError {
        self.error(unreadable(problem))
    }

    pub(super) fn decode<'de, T: Deserialize<'de>>(self, response: &'de RawResponse) -> Result<T, ArmError> {
        decode(response).map_err(|cause| self.error(cause))
    }
}

fn refused(response: &RawResponse) -> ArmErrorCause {
    let envelope: Envelope = serde_json::from_slice(response.body().as_ref()).unwrap_or_default();
    ArmErrorCause::Refused {
        status: response.status().into(),
        code: redact(&envelope.error.code),
        message: redact(&envelope.error.message),
        retry_after: retry_after(response.headers()),
    }
}

/// `Retry-After` in seconds or as a date, up to a limit.
fn retry_after(headers: &Headers) -> Option<Duration> {
    let text = headers.get_optional_str(&HeaderName::from_static("retry-after"))?.trim();
    let seconds = if let Ok(seconds) = text.parse::<u64>() {
        seconds
    } else {
        let until = azure_core::time::parse_rfc7231(text).ok()?;
        u64::try_from((until - azure_core::time::OffsetDateTime::now_utc()).whole_seconds()).unwrap_or(0)
    };
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}

/// Replaces the SDK's `User-Agent`, so that operators see which cluster sends a request.
#[derive(Debug)]
struct UserAgent(String);

#[async_trait::async_trait]
impl Policy for UserAgent {
    async fn send(&self, context: &Context, request: &mut Request, next: &[Arc<dyn Policy>]) -> PolicyResult {
        request.insert_header(USER_AGENT, self.0.clone());
        match next.split_first() {
            Some((first, rest)) => first.send(context, request, rest).await,
            None => Err(azure_core::Error::with_message(ErrorKind::Other, "the pipeline ends before its transport")),
        }
    }
}

#[derive(Default, Deserialize)]
struct Envelope {
    #[serde(default)]
    error: EnvelopeError,
}

#[derive(Default, Deserialize)]
struct EnvelopeError {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
pub(super) struct IdentityBody {
    id: String,
    location: String,
    #[serde(default)]
    tags: Option<BTreeMap<String, String>>,
    properties: IdentityProperties,
}

impl IdentityBody {
    pub(super) fn into_identity(self) -> AzureIdentity {
        let IdentityProperties { client, principal, tenant, isolation_scope } = self.properties;
        AzureIdentity {
            arm_id: self.id,
            client_id: client,
            principal_id: principal,
            tenant_id: tenant,
            location: self.location,
            tags: self.tags.unwrap_or_default(),
            isolation_scope,
        }
    }
}

#[derive(Deserialize)]
struct IdentityProperties {
    #[serde(rename = "clientId")]
    client: String,
    #[serde(rename = "principalId")]
    principal: String,
    #[serde(rename = "tenantId")]
    tenant: String,
    #[serde(default, rename = "isolationScope")]
    isolation_scope: Option<String>,
}

#[derive(Deserialize)]
struct CredentialBody {
    name: String,
    properties: CredentialProperties,
}

#[derive(Deserialize)]
struct CredentialProperties {
    issuer: String,
    subject: String,
    audiences: Vec<String>,
}

impl CredentialBody {
    fn into_credential(self) -> Credential {
        let CredentialProperties { issuer, subject, audiences } = self.properties;
        Credential { name: self.name, issuer, subject, audiences }
    }
}
