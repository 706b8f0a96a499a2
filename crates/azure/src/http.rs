//! The HTTP client for every request to Azure, to Entra and to ARM.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use azure_core::http::{ClientOptions, RetryOptions, Transport};
use url::Url;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For one request and its response, including the body.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// How to connect to Azure.
#[derive(Clone, Debug, Default)]
pub struct Connection {
    /// A PEM file with CA certificates to trust in addition to the system's.
    pub extra_ca: Option<PathBuf>,
    /// The proxy, if any. The environment is not used.
    pub proxy: Option<ProxySettings>,
}

/// A proxy for every request to Azure.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxySettings {
    /// `http` or `https`, possibly with a user and a password.
    url: Url,
    /// Hosts that are reached without it, in the syntax of `NO_PROXY`.
    except: String,
}

/// The HTTP client can't be created.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The file with additional CA certificates can't be read.
    #[error("cannot read the certificates in {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file contains no certificate.
    #[error("{} contains no PEM certificate", .0.display())]
    NoCertificate(PathBuf),
    /// The client rejects its settings.
    #[error("cannot set up the HTTPS client for Azure")]
    Client(#[source] reqwest::Error),
}

impl ProxySettings {
    /// A proxy for all hosts but some. Errors do not show the URL, because it may contain a password.
    pub fn new(url: &str, except: &str) -> Result<Self, &'static str> {
        // As in curl, a host without a scheme means http.
        let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let url = Url::parse(&url).map_err(|_| "is not a URL")?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err("must be http://<host>[:<port>] or https://<host>[:<port>]");
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err("must have no path, query or fragment");
        }
        Ok(Self { url, except: except.to_owned() })
    }

    /// Whether it is used for no host at all. The HTTP client applies `*` to host names only, not to IP addresses.
    fn excepts_all(&self) -> bool {
        self.except.split(',').any(|host| host.trim() == "*")
    }

    /// The proxy's host and port, the only part that may be shown.
    pub fn address(&self) -> String {
        let port = self.url.port_or_known_default().unwrap_or_default();
        format!("{}:{port}", self.url.host_str().unwrap_or_default())
    }
}

impl fmt::Debug for ProxySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxySettings")
            .field("address", &self.address())
            .field("except", &self.except)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// The HTTP client: https only, with deadlines, without redirects.
    pub(super) fn http_client(&self) -> Result<reqwest::Client, ConnectionError> {
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .https_only(true)
            .no_proxy();
        if let Some(ProxySettings { url, except }) = self.proxy.as_ref().filter(|proxy| !proxy.excepts_all()) {
            let proxy = reqwest::Proxy::https(url.clone()).map_err(ConnectionError::Client)?;
            builder = builder.proxy(proxy.no_proxy(reqwest::NoProxy::from_string(except)));
        }
        if let Some(path) = &self.extra_ca {
            builder = builder.tls_certs_merge(read_certificates(path)?);
        }
        builder.build().map_err(ConnectionError::Client)
    }

    /// Options for every Azure client: without retries, because the controller requeues.
    pub(super) fn client_options(&self) -> Result<ClientOptions, ConnectionError> {
        Ok(ClientOptions {
            transport: Some(Transport::new(Arc::new(self.http_client()?))),
            retry: RetryOptions::none(),
            ..ClientOptions::default()
        })
    }
}

/// The certificates of a PEM file; a file without any is an error.
pub fn read_certificates(path: &Path) -> Result<Vec<reqwest::Certificate>, ConnectionError> {
    let pem = std::fs::read(path).map_err(|source| ConnectionError::Read { path: path.to_owned(), source })?;
    let certificates = reqwest::Certificate::from_pem_bundle(&pem).map_err(ConnectionError::Client)?;
    if certificates.is_empty() { Err(ConnectionError::NoCertificate(path.to_owned())) } else { Ok(certificates) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_a_host_with_an_optional_scheme() {
        let address = |text: &str| ProxySettings::new(text, "").map(|proxy| proxy.address());
        assert_eq!(address("proxy.example:3128"), Ok("proxy.example:3128".to_owned()));
        assert_eq!(address("http://proxy.example"), Ok("proxy.example:80".to_owned()));
        assert_eq!(address("https://user:pass@proxy.example/"), Ok("proxy.example:443".to_owned()));
    }

    #[test]
    fn an_invalid_proxy_is_rejected() {
        for text in ["", "socks5://proxy.example", "http://", "http://proxy.example/path", "http://a b", "ftp://x"] {
            assert!(ProxySettings::new(text, "").is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_proxys_password_is_never_shown() {
        let proxy = ProxySettings::new("http://user:canary@proxy.example:3128", "internal").unwrap();
        let shown = format!("{proxy:?} {}", proxy.address());
        assert!(shown.contains("proxy.example:3128") && !shown.contains("canary"), "{shown}");
        let connection = Connection { extra_ca: None, proxy: Some(proxy) };
        assert!(!format!("{connection:?}").contains("canary"));
    }

    #[test]
    fn a_file_without_certificates_is_rejected() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "no PEM at all").unwrap();
        assert!(matches!(read_certificates(file.path()), Err(ConnectionError::NoCertificate(_))));
        let missing = read_certificates(Path::new("/nowhere/ca.pem"));
        assert!(matches!(missing, Err(ConnectionError::Read { .. })));
    }
}
