//! Checks that the webhook responds at the API server's endpoint.
//!
//! The request over TLS trusts only the CA bundle that is about to be registered: a response proves that a replica is running,
//! that its certificate is valid for the name that the API server will use, and that this CA has signed it. It needs no
//! permissions in Kubernetes, and works for a Service as well as for a URL.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::{Certificate, Client, Url};

use ensign_core::webhook_configuration::{Endpoint, MUTATE_PODS_PATH, with_path};

/// Well below the API server's own timeout.
const DEADLINE: Duration = Duration::from_secs(3);

/// How the webhook is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WebhookProbe {
    /// The address of the webhook, instead of what DNS resolves its name to.
    pub address: Option<SocketAddr>,
}

/// The webhook does not respond.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeError {
    /// The CA bundle holds no certificates.
    #[error("the CA bundle is malformed")]
    CaBundle(#[source] reqwest::Error),
    /// The endpoint is not a URL.
    #[error("{0} is not a URL (--webhook-url)")]
    Endpoint(String),
    /// There was no response, or none from the webhook.
    #[error("requesting {url}")]
    Request {
        url: Url,
        #[source]
        source: reqwest::Error,
    },
    /// The response was an error of the server.
    #[error("{url} responded with status {status}")]
    Status { url: Url, status: u16 },
}

/// Sends a request to the webhook at the endpoint, trusting only `ca_bundle` (PEM).
pub(crate) async fn check(endpoint: &Endpoint, probe: &WebhookProbe, ca_bundle: &[u8]) -> Result<(), ProbeError> {
    let url = match endpoint {
        Endpoint::Url(url) => with_path(url),
        Endpoint::Service { namespace, name } => format!("https://{name}.{namespace}.svc{MUTATE_PODS_PATH}"),
    };
    let mut url = Url::parse(&url).map_err(|_| ProbeError::Endpoint(url))?;
    let trusted = Certificate::from_pem_bundle(ca_bundle).map_err(ProbeError::CaBundle)?;
    // Like the API server: no proxy, no redirects, TLS 1.3.
    let mut client = Client::builder()
        .tls_certs_only(trusted)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .pool_max_idle_per_host(0)
        .timeout(DEADLINE);
    if let (Some(address), Some(host)) = (probe.address, url.host_str().map(str::to_owned)) {
        // It fails only for URLs that can't have a port, and this one has a host.
        let _ = url.set_port(Some(address.port()));
        client = client.resolve(&host, address);
    }
    let failed = |source: reqwest::Error| ProbeError::Request { url: url.clone(), source: source.without_url() };
    let client = client.build().map_err(failed)?;
    let response = client.get(url.clone()).send().await.map_err(failed)?;
    // A webhook accepts only POST, so that 405 is expected.
    if response.status().is_server_error() {
        return Err(ProbeError::Status { status: response.status().as_u16(), url });
    }
    Ok(())
}
