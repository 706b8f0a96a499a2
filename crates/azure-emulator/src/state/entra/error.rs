//! Entra's errors, in its own words.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::state::text::{entra_precise_time, entra_time, redact};

const CHECK: &str = "Check your federated identity credential Subject, Audience and Issuer against the presented assertion. https://learn.microsoft.com/entra/workload-id/workload-identity-federation";

/// Why an issuer's document can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IssuerFailure {
    /// No connection, or no response in time.
    Unreachable,
    /// A response that is not 200.
    Status,
    /// A document that is invalid, too large, or of another issuer.
    Document,
}

/// An error of the token endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("AADSTS{code}: {message}")]
pub struct EntraError {
    /// HTTP status.
    pub status: u16,
    /// OAuth's error code.
    pub error: &'static str,
    /// The number behind `AADSTS`.
    pub code: u32,
    /// The message.
    pub message: String,
}

impl EntraError {
    /// An error about the client: 401.
    pub(super) fn client(code: u32, message: impl Into<String>) -> Self {
        Self { status: 401, error: "invalid_client", code, message: message.into() }
    }

    /// An error about the request: 400.
    pub fn request(code: u32, message: impl Into<String>) -> Self {
        Self { status: 400, error: "invalid_request", code, message: message.into() }
    }

    /// An error that a fault rule asks for.
    pub fn scripted(status: u16, code: u32, message: impl Into<String>) -> Self {
        let error = match status {
            401 => "invalid_client",
            429 | 500.. => "temporarily_unavailable",
            _ => "invalid_request",
        };
        Self { status, error, code, message: message.into() }
    }

    /// The body of the response.
    pub fn body(&self, now: Timestamp, trace_id: &str, correlation_id: &str) -> Value {
        let time = entra_time(now);
        let Self { code, error, message, .. } = self;
        let message = redact(message);
        json!({
            "error": error,
            "error_description": format!(
                "AADSTS{code}: {message} Trace ID: {trace_id} Correlation ID: {correlation_id} Timestamp: {time}"
            ),
            "error_codes": [code],
            "timestamp": time,
            "trace_id": trace_id,
            "correlation_id": correlation_id,
            "error_uri": format!("https://login.microsoftonline.com/error?code={code}"),
        })
    }

    /// The tenant does not exist.
    pub fn tenant_not_found(tenant: &str) -> Self {
        Self::request(
            90002,
            format!(
                "Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud. Check with your subscription administrator, this may happen if there are no active subscriptions for the tenant."
            ),
        )
    }

    pub(super) fn missing_parameter(name: &str) -> Self {
        Self::request(900_144, format!("The request body must contain the following parameter: '{name}'."))
    }

    pub(super) fn grant_type(grant_type: &str) -> Self {
        let message = format!("The app requested an unsupported grant type '{grant_type}'.");
        Self { error: "unsupported_grant_type", ..Self::request(70003, message) }
    }

    /// 70011 is the error of other grants.
    pub(super) fn scope(scope: &str) -> Self {
        let message = format!(
            "The provided value for scope {scope} is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier (application ID URI)."
        );
        Self { error: "invalid_scope", ..Self::request(1_002_012, message) }
    }

    /// No application in the tenant has this resource.
    pub(super) fn resource_not_found(resource: &str, tenant: &str) -> Self {
        let message = format!(
            "The resource principal named {resource} was not found in the tenant named {tenant}. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant. You might have sent your authentication request to the wrong tenant."
        );
        Self { error: "invalid_resource", ..Self::request(500_011, message) }
    }

    pub(super) fn client_not_found(client_id: &str, tenant: &str) -> Self {
        let message = format!(
            "Application with identifier '{client_id}' was not found in the directory '{tenant}'. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant. You may have sent your authentication request to the wrong tenant."
        );
        Self { error: "unauthorized_client", ..Self::request(700_016, message) }
    }

    pub(super) fn assertion_missing() -> Self {
        Self::client(
            7_000_216,
            "'client_assertion', 'client_secret' or 'request' is required for the 'client_credentials' grant type.",
        )
    }

    pub(super) fn secret_invalid() -> Self {
        Self::client(7_000_215, "Invalid client secret provided.")
    }

    pub(super) fn malformed_assertion() -> Self {
        Self::request(50027, "JWT token is invalid or malformed.")
    }

    pub(super) fn no_credentials(client_id: &str, name: &str) -> Self {
        let message = format!("The client '{client_id}'({name}) has no configured federated identity credentials.");
        Self::client(70025, message)
    }

    pub(super) fn disabled(client_id: &str, name: &str) -> Self {
        let message = format!("Application '{client_id}'({name}) is disabled.");
        Self { error: "unauthorized_client", ..Self::request(7_000_112, message) }
    }

    pub(super) fn no_issuer(issuer: &str) -> Self {
        Self::no_match(700_211, &format!(" issuer '{issuer}'."))
    }

    pub(super) fn no_audience(audience: &str) -> Self {
        Self::no_match(700_212, &format!(" audience '{audience}'."))
    }

    pub(super) fn no_subject(subject: &str) -> Self {
        Self::no_match(700_213, &format!(" subject '{subject}'."))
    }

    pub(super) fn subject_case(subject: &str) -> Self {
        let found = format!(
            " subject '{subject}'. The subject matches with case-insensitive comparison, but not with case-sensitive comparison."
        );
        Self::no_match(7_002_138, &found)
    }

    fn no_match(code: u32, found: &str) -> Self {
        Self::client(
            code,
            format!("No matching federated identity record found for presented assertion{found} {CHECK}"),
        )
    }

    pub(super) fn out_of_time(now: Timestamp, from: Option<Timestamp>, to: Option<Timestamp>) -> Self {
        // Without a time, Entra shows the epoch.
        let text = |time: Option<Timestamp>| entra_precise_time(time.unwrap_or(Timestamp::UNIX_EPOCH));
        Self::client(
            700_024,
            format!(
                "Client assertion is not within its valid time range. Current time: {}, assertion valid from {}, expiry time of assertion {}. Review the documentation at https://learn.microsoft.com/entra/identity-platform/certificate-credentials .",
                entra_precise_time(now),
                text(from),
                text(to)
            ),
        )
    }

    pub(super) fn issued_by_entra() -> Self {
        Self::client(700_222, "AAD-issued tokens may not be used for federated identity flows.")
    }

    /// The key that signed is not among those that the issuer publishes.
    pub(super) fn unknown_key(key_id: &str, issuer: &str) -> Self {
        let message = format!(
            "The certificate with identifier {key_id} used to sign the federated credential could not be found in the metadata of identity provider {issuer}. Please validate that your Identity Provider's metadata exposes the key used to sign the incoming token."
        );
        Self::client(7_000_272, message)
    }

    pub(super) fn signature() -> Self {
        Self::client(700_027, "Client assertion failed signature validation.")
    }

    /// The issuer's discovery document or key set can't be read.
    ///
    /// Three codes were seen with this text: 90061 (azure-workload-identity issue 605), 50166 (issues 642 and 1130) and
    /// 501661 (AKS issue 4029). When Azure returns which is not known, so the choice here is arbitrary.
    pub fn issuer_unreadable(why: IssuerFailure) -> Self {
        let code = match why {
            IssuerFailure::Unreachable => 90061,
            IssuerFailure::Status => 50166,
            IssuerFailure::Document => 501_661,
        };
        Self::request(code, "Request to External OIDC endpoint failed.")
    }

    /// The issuer's key set is invalid.
    pub fn issuer_keys() -> Self {
        Self::request(900_612, "Failed to parse provider signing keys.")
    }
}
