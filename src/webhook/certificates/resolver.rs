//! The certificate for new connections. Open ones keep theirs.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use k8s_openapi::jiff::Timestamp;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::bundle::Usable;
use ensign_runtime::latch::Latch;

/// When the served certificates expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// The certificate itself.
    pub leaf: Timestamp,
    /// The CA that signs such certificates.
    pub authority: Timestamp,
}

/// Holds the served certificate. Without one, handshakes fail.
#[derive(Debug)]
pub struct Resolver {
    usable: ArcSwapOption<Usable>,
    loaded: Latch,
    provider: Arc<CryptoProvider>,
}

impl Resolver {
    /// A resolver without a certificate.
    pub fn new(provider: Arc<CryptoProvider>) -> Arc<Self> {
        Arc::new(Self { usable: ArcSwapOption::empty(), loaded: Latch::default(), provider })
    }

    /// Serves this certificate from now on.
    pub fn load(&self, usable: &Usable) {
        self.usable.store(Some(Arc::new(usable.clone())));
        self.loaded.set();
    }

    /// The served certificate.
    pub fn current(&self) -> Option<Arc<CertifiedKey>> {
        self.usable.load().as_ref().map(|usable| Arc::clone(&usable.certified))
    }

    /// When the served certificates expire.
    pub fn expiry(&self) -> Option<Expiry> {
        let usable = self.usable.load();
        usable.as_ref().map(|usable| Expiry { leaf: usable.leaf.until, authority: usable.authority.until })
    }

    /// Waits for the first certificate.
    pub async fn loaded(&self) {
        self.loaded.wait().await;
    }

    /// The cryptography provider.
    pub fn provider(&self) -> &Arc<CryptoProvider> {
        &self.provider
    }

    /// TLS 1.3 with this certificate, for HTTP/1.1.
    pub fn server_config(self: &Arc<Self>) -> Result<ServerConfig, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // API servers keep connections open and don't resume sessions.
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current()
    }
}
