//! The HTTP client under every request to Azure.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use azure_core::http::{ClientOptions, RetryOptions, Transport};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest life of one request, body included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// How Azure is reached.
#[derive(Clone, Debug, Default)]
pub struct Connection {
    /// A PEM file with certificates to trust besides the system's.
    pub extra_ca: Option<PathBuf>,
}

/// The HTTP client can't be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The file with extra certificates can't be read.
    #[error("cannot read the certificates in {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The client refused what it was given.
    #[error("cannot set up the HTTPS client for Azure")]
    Client(#[source] reqwest::Error),
}

impl Connection {
    /// Options for every Azure client: no redirects, deadlines, and no retries of its own, since the controller
    /// requeues instead.
    pub(super) fn client_options(&self) -> Result<ClientOptions, ConnectionError> {
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .https_only(true);
        if let Some(path) = &self.extra_ca {
            for certificate in read_certificates(path)? {
                builder = builder.add_root_certificate(certificate);
            }
        }
        let client = builder.build().map_err(ConnectionError::Client)?;
        Ok(ClientOptions {
            transport: Some(Transport::new(Arc::new(client))),
            retry: RetryOptions::none(),
            ..ClientOptions::default()
        })
    }
}

fn read_certificates(path: &Path) -> Result<Vec<reqwest::Certificate>, ConnectionError> {
    let pem = std::fs::read(path).map_err(|source| ConnectionError::Read { path: path.to_owned(), source })?;
    reqwest::Certificate::from_pem_bundle(&pem).map_err(ConnectionError::Client)
}
