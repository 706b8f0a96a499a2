//! Reads an issuer's discovery document and keys as Entra does: over https, without redirects, within a deadline.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use reqwest::{Certificate, Client, Url, redirect};
use serde::Deserialize;

use crate::state::entra::keys::{self, PublishedKey};
use crate::state::entra::{EntraError, IssuerFailure};
use ensign_runtime::error_chain;

const DEADLINE: Duration = Duration::from_secs(5);
const MAX_DOCUMENT_BYTES: usize = 512 * 1024;
const CACHED_FOR: Duration = Duration::from_secs(30);

/// The issuers of presented tokens.
pub(crate) struct Issuers {
    client: Mutex<Client>,
    cas: Mutex<Vec<Certificate>>,
    cache: Mutex<HashMap<String, (Instant, Vec<PublishedKey>)>>,
}

/// A CA certificate for issuers can't be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use a CA certificate for token issuers (--issuer-ca-file): it must be PEM")]
pub struct InvalidCertificate(#[from] reqwest::Error);

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

impl Issuers {
    pub(crate) fn new() -> Result<Self, InvalidCertificate> {
        let client = client(&[])?;
        Ok(Self { client: Mutex::new(client), cas: Mutex::default(), cache: Mutex::default() })
    }

    /// Trusts the CA certificates of a PEM bundle in addition to the system's.
    pub(crate) fn trust(&self, pem: &str) -> Result<(), InvalidCertificate> {
        let mut cas = self.cas.lock();
        let all: Vec<_> = cas.iter().cloned().chain(Certificate::from_pem_bundle(pem.as_bytes())?).collect();
        *self.client.lock() = client(&all)?;
        *cas = all;
        Ok(())
    }

    pub(super) fn forget(&self) {
        self.cache.lock().clear();
    }

    /// The issuer's keys, if they were read recently.
    pub(super) fn cached(&self, issuer: &str) -> Option<Vec<PublishedKey>> {
        let cache = self.cache.lock();
        cache.get(issuer).filter(|(read, _)| read.elapsed() < CACHED_FOR).map(|(_, keys)| keys.clone())
    }

    /// Reads the issuer's keys.
    pub(super) async fn fetch(&self, issuer: &str) -> Result<Vec<PublishedKey>, EntraError> {
        let read = tokio::time::timeout(DEADLINE, self.read(issuer)).await;
        let keys = read.map_err(|_| EntraError::issuer_unreadable(IssuerFailure::Unreachable))??;
        self.cache.lock().insert(issuer.to_owned(), (Instant::now(), keys.clone()));
        Ok(keys)
    }

    async fn read(&self, issuer: &str) -> Result<Vec<PublishedKey>, EntraError> {
        let well_known = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let discovery: Discovery =
            serde_json::from_slice(&self.get(&well_known).await?).map_err(|error| invalid(&well_known, &error))?;
        if discovery.issuer != issuer {
            return Err(invalid(&well_known, &format!("it names the issuer {:?}", discovery.issuer)));
        }
        keys::read(&self.get(&discovery.jwks_uri).await?)
    }

    async fn get(&self, url: &str) -> Result<Vec<u8>, EntraError> {
        let parsed = Url::parse(url).map_err(|error| unreachable(url, &error))?;
        if parsed.scheme() != "https" {
            return Err(unreachable(url, &"it is not https"));
        }
        let client = self.client.lock().clone();
        let mut response =
            client.get(parsed).send().await.map_err(|error| unreachable(url, &error_chain::line(&error)))?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(failed(url, &format!("it returns {}", response.status()), IssuerFailure::Status));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(url, &error_chain::line(&error)))? {
            if body.len() + chunk.len() > MAX_DOCUMENT_BYTES {
                return Err(invalid(url, &"it is too large"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

/// Entra does not tell its clients why. The emulator logs it.
fn failed(url: &str, reason: &dyn std::fmt::Display, why: IssuerFailure) -> EntraError {
    tracing::warn!(url, %reason, "cannot read an issuer's document");
    EntraError::issuer_unreadable(why)
}

fn unreachable(url: &str, reason: &dyn std::fmt::Display) -> EntraError {
    failed(url, reason, IssuerFailure::Unreachable)
}

fn invalid(url: &str, reason: &dyn std::fmt::Display) -> EntraError {
    failed(url, reason, IssuerFailure::Document)
}

fn client(cas: &[Certificate]) -> Result<Client, reqwest::Error> {
    Client::builder()
        .tls_certs_merge(cas.iter().cloned())
        .https_only(true)
        .redirect(redirect::Policy::none())
        .no_proxy()
        .timeout(DEADLINE)
        .build()
}
