//! What API servers know of the webhook's certificates: whom they trust, and what time it is for them.

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

/// The registration can't be seen.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// It does not exist.
    #[error("MutatingWebhookConfiguration {0:?} does not exist; name the right one with --webhook-configuration")]
    Absent(String),
    /// The API server did not answer.
    #[error("cannot get MutatingWebhookConfiguration {0:?}: no answer within {DEADLINE:?}")]
    TimedOut(String),
    /// The API server refused, or could not be reached.
    #[error("cannot get MutatingWebhookConfiguration {name:?}")]
    Kubernetes {
        /// Its name.
        name: String,
        /// What the API server said.
        #[source]
        source: Box<kube::Error>,
    },
}

/// Whether every API server that asks the webhook has been told to trust this authority. Where nobody has been told to ask
/// the webhook, nobody has to trust it.
pub async fn is_trusted(client: &Client, name: &str, authority: &CertificateDer<'_>) -> Result<bool, TrustError> {
    let api: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let found = timeout(DEADLINE, api.get_opt(name)).await.map_err(|_| TrustError::TimedOut(name.to_owned()))?;
    let found = found.map_err(|source| TrustError::Kubernetes { name: name.to_owned(), source: Box::new(source) })?;
    let found = found.ok_or_else(|| TrustError::Absent(name.to_owned()))?;
    let mut ours = found.webhooks.iter().flatten().filter(|entry| ENTRIES.contains(&entry.name.as_str()));
    Ok(ours.all(|entry| {
        let bundle = entry.client_config.ca_bundle.as_ref().map(|bundle| bundle.0.as_slice()).unwrap_or_default();
        certificates(bundle, CA_CERTIFICATE_KEY).is_ok_and(|trusted| trusted.contains(authority))
    }))
}

/// The time by the clock of the API server, which is the one that judges certificates; `None` if it does not say.
pub async fn api_server_time(client: &Client) -> Option<Timestamp> {
    let request = http::Request::get("/version").body(Body::empty()).ok()?;
    // Whatever it answers, it says when.
    let response = timeout(DEADLINE, client.send(request)).await.ok()?.ok()?;
    let date = response.headers().get(http::header::DATE)?.to_str().ok()?;
    rfc2822::DateTimeParser::new().parse_timestamp(date).ok()
}
