//! Looks whether the webhook answers where the API server will ask it.
//!
//! A request over TLS that trusts nothing but the CA bundle which is about to be registered: the answer shows that a
//! replica is there, that its certificate is for the name that the API server will use, and that this CA has signed it.
//! It needs no right in Kubernetes, and works for a Service as for a URL.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::{Certificate, Client, Url};

use ensign_core::webhook_configuration::{Endpoint, MUTATE_PODS_PATH, with_path};

/// Well below the time that the API server would wait.
const DEADLINE: Duration = Duration::from_secs(3);

/// How the webhook is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WebhookProbe {
    /// Where to look for the webhook's name, instead of asking DNS.
    pub address: Option<SocketAddr>,
}

/// The webhook does not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeError {
    /// The CA bundle holds no certificates.
    #[error("the CA bundle can't be read")]
    CaBundle(#[source] reqwest::Error),
    /// The address makes no URL.
    #[error("{0} is not a URL (--webhook-url)")]
    Endpoint(String),
    /// There was no answer, or not from the webhook.
    #[error("asking {url}")]
    Request {
        url: Url,
        #[source]
        source: reqwest::Error,
    },
    /// Something answered that is not well.
    #[error("{url} answered with status {status}")]
    Status { url: Url, status: u16 },
}

/// Asks the webhook under the endpoint, trusting `ca_bundle` (PEM) alone.
pub(crate) async fn answers(endpoint: &Endpoint, probe: &WebhookProbe, ca_bundle: &[u8]) -> Result<(), ProbeError> {
    let url = match endpoint {
        Endpoint::Url(url) => with_path(url),
        Endpoint::Service { namespace, name } => format!("https://{name}.{namespace}.svc{MUTATE_PODS_PATH}"),
    };
    let mut url = Url::parse(&url).map_err(|_| ProbeError::Endpoint(url))?;
    let trusted = Certificate::from_pem_bundle(ca_bundle).map_err(ProbeError::CaBundle)?;
    // The API server uses no proxy on the way to a webhook, follows no redirect, and speaks TLS 1.3 too.
    let mut client = Client::builder()
        .tls_certs_only(trusted)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .pool_max_idle_per_host(0)
        .timeout(DEADLINE);
    if let (Some(address), Some(host)) = (probe.address, url.host_str().map(str::to_owned)) {
        // An error says that the URL can have no port, and this one has a host.
        let _ = url.set_port(Some(address.port()));
        client = client.resolve(&host, address);
    }
    let failed = |source: reqwest::Error| ProbeError::Request { url: url.clone(), source: source.without_url() };
    let client = client.build().map_err(failed)?;
    let answer = client.get(url.clone()).send().await.map_err(failed)?;
    // A webhook takes POST only, and says so.
    if answer.status().is_server_error() {
        return Err(ProbeError::Status { status: answer.status().as_u16(), url });
    }
    Ok(())
}
