//! What API servers use to judge the webhook's certificates: the CAs that they trust, and their clock.

use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::fmt::rfc2822;
use kube::Client;
use kube::api::Api;
use kube::client::Body;
use rustls::pki_types::CertificateDer;
use tokio::time::timeout;

use super::bundle::{CA_CERTIFICATE_KEY, certificates};
use ensign_core::webhook_configuration::ENTRIES;

const DEADLINE: Duration = Duration::from_secs(10);

/// The webhook configuration can't be read.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// It does not exist.
    #[error("MutatingWebhookConfiguration {0:?} does not exist; set --webhook-configuration to its name")]
    Absent(String),
    /// The API server did not answer.
    #[error("cannot get MutatingWebhookConfiguration {0:?}: no answer within {DEADLINE:?}")]
    TimedOut(String),
    /// The API server rejected the request, or could not be reached.
    #[error("cannot get MutatingWebhookConfiguration {name:?}")]
    Kubernetes {
        /// Its name.
        name: String,
        /// The error.
        #[source]
        source: Box<kube::Error>,
    },
}

/// Whether API servers are configured to trust this CA wherever they are configured to call the webhook. If they don't call
/// it at all, there is nothing to trust.
pub async fn is_trusted(client: &Client, name: &str, ca: &CertificateDer<'_>) -> Result<bool, TrustError> {
    let api: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let found = timeout(DEADLINE, api.get_opt(name)).await.map_err(|_| TrustError::TimedOut(name.to_owned()))?;
    let found = found.map_err(|source| TrustError::Kubernetes { name: name.to_owned(), source: Box::new(source) })?;
    let found = found.ok_or_else(|| TrustError::Absent(name.to_owned()))?;
    let mut ours = found.webhooks.iter().flatten().filter(|entry| ENTRIES.contains(&entry.name.as_str()));
    Ok(ours.all(|entry| {
        let bundle = entry.client_config.ca_bundle.as_ref().map(|bundle| bundle.0.as_slice()).unwrap_or_default();
        certificates(bundle, CA_CERTIFICATE_KEY).is_ok_and(|trusted| trusted.contains(ca))
    }))
}

/// The time on the API server, which decides whether certificates are valid; `None` if it is not known.
pub async fn api_server_time(client: &Client) -> Option<Timestamp> {
    let request = http::Request::get("/version").body(Body::empty()).ok()?;
    // Every response has a date, whatever its status.
    let response = timeout(DEADLINE, client.send(request)).await.ok()?.ok()?;
    let date = response.headers().get(http::header::DATE)?.to_str().ok()?;
    rfc2822::DateTimeParser::new().parse_timestamp(date).ok()
}
