//! The ARM client for user-assigned identities and their federated identity credentials.

use std::collections::BTreeMap;
use std::sync::Arc;

use azure_core::credentials::TokenCredential;
use azure_core::error::ErrorKind;
use azure_core::http::headers::USER_AGENT;
use azure_core::http::policies::auth::BearerTokenAuthorizationPolicy;
use azure_core::http::policies::{Policy, PolicyResult};
use azure_core::http::{ClientOptions, Context, Method, Pipeline, RawResponse, Request};
use serde::Deserialize;
use serde_json::json;
use url::Url;
use uuid::Uuid;

use super::Cloud;
use super::error::{ArmError, ArmErrorCause, Operation};
use super::gate::{Gate, Pass};
use super::http::{Connection, ConnectionError};
use super::listed_credential::ListedCredential;
use super::metrics::AzureMetrics;
use super::paging::Pages;
use super::rate_limited::RateLimiter;
use super::response::{decode, unreadable};
use super::versions::Versions;
use ensign_api::ArmId;
use ensign_core::acceptance::scopes::AllowedScopes;
use ensign_core::assess::AzureIdentity;
use ensign_core::credentials::ownership::Credential;
use ensign_core::roles::RoleScope;
use ensign_core::scheduling::rate_limiter::Provider;

/// More pages than an identity's 20 credentials can ever fill.
const MAX_PAGES: u32 = 40;

/// A client for identities and their federated identity credentials. It never retries, because the controller requeues.
#[derive(Clone, Debug)]
pub struct ArmClient {
    pub(super) endpoint: Url,
    gate: Gate,
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
        Ok(Self::with_options(cloud, connection.client_options()?, credential, cluster_tag))
    }

    pub(super) fn with_options(
        cloud: &Cloud,
        options: ClientOptions,
        credential: Arc<dyn TokenCredential>,
        cluster_tag: &str,
    ) -> Self {
        let scope = format!("{}/.default", cloud.arm_audience);
        let bearer: Arc<dyn Policy> = Arc::new(BearerTokenAuthorizationPolicy::new(credential, [scope]));
        let user_agent: Arc<dyn Policy> =
            Arc::new(UserAgent(format!("ensign/{} ({cluster_tag})", env!("CARGO_PKG_VERSION"))));
        let pipeline = Pipeline::new(
            Some(env!("CARGO_PKG_NAME")),
            Some(env!("CARGO_PKG_VERSION")),
            options,
            Vec::new(),
            vec![user_agent, bearer],
            None,
        );
        let gate = Gate::new(pipeline, Versions::new(&cloud.api_versions));
        Self { endpoint: cloud.arm_endpoint.clone(), gate, request_id: None }
    }

    /// The same client, limited to these scopes: it sends no request whose URL names anything outside of them.
    #[must_use]
    pub fn bounded(mut self, scopes: AllowedScopes) -> Self {
        self.gate.scopes = scopes;
        self
    }

    /// The same client, which may also read and write the roles in these scopes.
    #[must_use]
    pub fn with_role_scopes(mut self, scopes: Vec<RoleScope>) -> Self {
        self.gate.role_scopes = scopes;
        self
    }

    /// The same client, with a rate limit on every request.
    #[must_use]
    pub fn paced(mut self, rate_limiter: RateLimiter) -> Self {
        self.gate.rate_limiter = Some(rate_limiter);
        self
    }

    /// The same client, with every request counted in these metrics.
    #[must_use]
    pub fn counted(mut self, metrics: AzureMetrics) -> Self {
        self.gate.metrics = metrics;
        self
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

    /// The URL with these path segments. The gate adds the API version.
    pub(super) fn url_of<'a>(&self, segments: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.endpoint.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.clear().extend(segments);
        }
        url
    }

    pub(super) fn call<'a>(&self, operation: Operation, identity: &'a ArmId) -> Call<'a> {
        Call { operation, identity, page: 0, request_id: self.next_request_id(), at_least: None }
    }

    /// The API version that requests to this provider have now.
    pub(super) fn version(&self, provider: Provider) -> String {
        self.gate.version(provider)
    }

    pub(super) async fn send(&self, call: Call<'_>, request: Request) -> Result<RawResponse, ArmError> {
        let Call { operation, identity, page, request_id, at_least } = call;
        let pass = Pass { about: Some((operation, identity)), page, request_id, at_least };
        self.gate.send(pass, request).await.map_err(|cause| call.error(cause))
    }

    /// Sends a request that is about no particular identity.
    pub(super) async fn send_about_scope(&self, request: Request) -> Result<RawResponse, ArmErrorCause> {
        let pass = Pass { about: None, page: 0, request_id: self.next_request_id(), at_least: None };
        self.gate.send(pass, request).await
    }

    fn next_request_id(&self) -> Uuid {
        self.request_id.unwrap_or_else(Uuid::new_v4)
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
    /// The oldest API version that understands the whole request.
    pub(super) at_least: Option<&'static str>,
}

impl Call<'_> {
    pub(super) fn error(self, cause: ArmErrorCause) -> ArmError {
        let Self { operation, request_id, .. } = self;
        ArmError { operation, identity: Box::new(self.identity.clone()), request_id, cause }
    }

    /// What Ensign concludes itself, in the form of an error response.
    pub(super) fn refuse(self, status: u16, code: &str, message: &str) -> ArmError {
        let (code, message, details) = (code.to_owned(), message.to_owned(), Vec::new());
        self.error(ArmErrorCause::Refused { status, code, message, details, retry_after: None })
    }

    pub(super) fn unreadable(self, problem: &str) -> ArmError {
        self.error(unreadable(problem))
    }

    pub(super) fn decode<'de, T: Deserialize<'de>>(self, response: &'de RawResponse) -> Result<T, ArmError> {
        decode(response).map_err(|cause| self.error(cause))
    }
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
