//! The webhook's certificates as data: reading, checking and changing them.
//!
//! ```text
//! Secret   ca.crt        the CAs that clients trust; the first one signs new leaves
//!          ca.key        key of the first CA
//!          next-ca.key   key of the last CA, if it is to replace the first one
//!          tls.crt       the leaf that the replicas serve
//!          tls.key       its key
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::jiff::Timestamp;
use rustls::RootCertStore;
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;

use super::fault::Fault;
use super::issue::{self, IssueError};
use ensign_core::scheduling::ca_rotation::{RENEW_LEAF_BEFORE, Validity};

/// Entry with the CAs that clients have to trust, PEM.
pub const CA_CERTIFICATE_KEY: &str = "ca.crt";
/// Entry with the key of the CA that signs leaves, PEM.
pub const CA_PRIVATE_KEY_KEY: &str = "ca.key";
/// Entry with the key of the next CA, PEM.
pub const NEXT_CA_PRIVATE_KEY_KEY: &str = "next-ca.key";
/// Entry with the served certificate, PEM.
pub const CERTIFICATE_KEY: &str = "tls.crt";
/// Entry with its key, PEM.
pub const PRIVATE_KEY_KEY: &str = "tls.key";

/// The entries of the Secret, PEM. Its debug form hides the keys.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Bundle {
    ca_certificate: Vec<u8>,
    ca_key: Vec<u8>,
    next_ca_key: Vec<u8>,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bundle").field("ca.crt", &String::from_utf8_lossy(&self.ca_certificate)).finish_non_exhaustive()
    }
}

/// A bundle that can be served.
#[derive(Clone, Debug)]
pub struct Usable {
    /// For the TLS server.
    pub certified: Arc<CertifiedKey>,
    /// When the leaf is valid.
    pub leaf: Validity,
    /// When the signing CA is valid.
    pub authority: Validity,
    /// Why it should be replaced although it can be served: [`Fault::LacksName`] or [`Fault::EndsSoon`].
    pub wanting: Option<Fault>,
}

impl Bundle {
    /// Reads the entries of a Secret; absent ones are empty.
    pub fn read(data: Option<&BTreeMap<String, ByteString>>) -> Self {
        let entry = |key: &str| data.and_then(|data| data.get(key)).map(|bytes| bytes.0.clone()).unwrap_or_default();
        Self {
            ca_certificate: entry(CA_CERTIFICATE_KEY),
            ca_key: entry(CA_PRIVATE_KEY_KEY),
            next_ca_key: entry(NEXT_CA_PRIVATE_KEY_KEY),
            certificate: entry(CERTIFICATE_KEY),
            key: entry(PRIVATE_KEY_KEY),
        }
    }

    /// External certificates: a leaf with its key, and the CA that signed it.
    pub fn of_others(ca_certificate: Vec<u8>, certificate: Vec<u8>, key: Vec<u8>) -> Self {
        Self { ca_certificate, certificate, key, ..Self::default() }
    }

    /// Writes the entries into a Secret's data and leaves other entries alone.
    pub fn write(&self, data: &mut BTreeMap<String, ByteString>) {
        for (key, value) in [
            (CA_CERTIFICATE_KEY, &self.ca_certificate),
            (CA_PRIVATE_KEY_KEY, &self.ca_key),
            (CERTIFICATE_KEY, &self.certificate),
            (PRIVATE_KEY_KEY, &self.key),
        ] {
            data.insert(key.to_owned(), ByteString(value.clone()));
        }
        if self.next_ca_key.is_empty() {
            data.remove(NEXT_CA_PRIVATE_KEY_KEY);
        } else {
            data.insert(NEXT_CA_PRIVATE_KEY_KEY.to_owned(), ByteString(self.next_ca_key.clone()));
        }
    }

    /// The CAs that clients have to trust, PEM.
    pub fn ca_certificate(&self) -> &[u8] {
        &self.ca_certificate
    }

    /// Whether the certificates are external: there is a leaf with its key, but no CA key to sign another one.
    pub fn is_foreign(&self, provider: &CryptoProvider) -> bool {
        self.ca_key.is_empty() && self.next_ca_key.is_empty() && self.certified_key(provider).is_ok()
    }

    /// The next CA, if one is prepared.
    pub fn successor(&self) -> Option<CertificateDer<'static>> {
        let cas = certificates(&self.ca_certificate, CA_CERTIFICATE_KEY).ok()?;
        if self.next_ca_key.is_empty() || cas.len() < 2 { None } else { cas.last().cloned() }
    }

    /// Whether former CAs are still trusted.
    pub fn has_predecessors(&self) -> bool {
        pem_blocks(&self.ca_certificate).len() > 1 + usize::from(self.successor().is_some())
    }

    /// Checks the bundle as clients that use these names would at `now`.
    pub fn check(&self, names: &[String], now: Timestamp, provider: &CryptoProvider) -> Result<Usable, Fault> {
        if self.certificate.is_empty() && self.key.is_empty() && self.ca_certificate.is_empty() {
            return Err(Fault::Empty);
        }
        let certified = self.certified_key(provider)?;
        let unreadable = |entry| Fault::Unreadable { entry };
        let (end_entity, chain) = certified.cert.split_first().ok_or(unreadable(CERTIFICATE_KEY))?;
        let parsed = ParsedCertificate::try_from(end_entity).map_err(|_| unreadable(CERTIFICATE_KEY))?;
        let leaf = validity(end_entity, CERTIFICATE_KEY)?;
        let mut cas = Vec::new();
        for ca in certificates(&self.ca_certificate, CA_CERTIFICATE_KEY)? {
            cas.push((validity(&ca, CA_CERTIFICATE_KEY)?, ca));
        }
        let authority = cas.first().map(|(validity, _)| *validity).ok_or(unreadable(CA_CERTIFICATE_KEY))?;
        // Unlike rustls, API servers check the validity of the CAs that they trust.
        let verify = |at: Timestamp| {
            let valid = cas.iter().filter(|(validity, _)| validity.contains(at));
            let mut roots = RootCertStore::empty();
            for (_, ca) in valid {
                roots.add(ca.clone()).map_err(|_| unreadable(CA_CERTIFICATE_KEY))?;
            }
            if roots.is_empty() {
                return Err(Fault::AuthorityNotValidNow);
            }
            let algorithms = provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&parsed, &roots, chain, unix_time(at), algorithms)
                .map_err(|error| fault(&error))
        };
        if !leaf.contains(now) {
            return Err(Fault::NotValidNow);
        }
        verify(now)?;
        let is_for =
            |name: &str| ServerName::try_from(name).is_ok_and(|name| verify_server_name(&parsed, &name).is_ok());
        let wanting = match names.iter().find(|name| !is_for(name)) {
            Some(name) => Some(Fault::LacksName { name: name.clone() }),
            None => verify(now + RENEW_LEAF_BEFORE).err().map(|_| Fault::EndsSoon),
        };
        Ok(Usable { certified: Arc::new(certified), leaf, authority, wanting })
    }

    /// A bundle that can be served instead of this one. In order of preference: a new leaf signed by its CA, one signed by
    /// its next CA, the bundle that was served last (clients still trust it), a new CA.
    pub fn repaired(
        &self,
        served: Option<&Self>,
        names: &[String],
        now: Timestamp,
        provider: &CryptoProvider,
    ) -> Result<(Self, Usable), IssueError> {
        let signed = [self.with_new_leaf(names, now), self.switched(names, now)];
        let kept = served.filter(|served| !served.ca_key.is_empty()).cloned();
        for candidate in signed.into_iter().flatten().chain(kept) {
            if let Some(usable) = candidate.flawless(names, now, provider) {
                return Ok((candidate, usable));
            }
        }
        let fresh = issue::ca(now)?;
        let fresh =
            Self { ca_certificate: fresh.certificate.into_bytes(), ca_key: fresh.key.into_bytes(), ..Self::default() };
        let fresh = fresh.with_new_leaf(names, now)?;
        let usable = fresh.check(names, now, provider).map_err(|source| IssueError::Unusable { source })?;
        Ok((fresh, usable))
    }

    /// The bundle for the TLS server, if nothing is wrong with it.
    pub fn flawless(&self, names: &[String], now: Timestamp, provider: &CryptoProvider) -> Option<Usable> {
        self.check(names, now, provider).ok().filter(|usable| usable.wanting.is_none())
    }

    /// The bundle with a new leaf, signed by its own CA.
    pub fn with_new_leaf(&self, names: &[String], now: Timestamp) -> Result<Self, IssueError> {
        let blocks = pem_blocks(&self.ca_certificate);
        let ca = blocks.first().map(String::as_str).unwrap_or_default();
        // If it can't be read, the generator fails too.
        let ca_expiry = certificates(ca.as_bytes(), CA_CERTIFICATE_KEY)
            .and_then(|cas| validity(&cas[0], CA_CERTIFICATE_KEY))
            .map_or(Timestamp::MAX, |validity| validity.until);
        let leaf = issue::leaf(ca, &self.ca_key, ca_expiry, names, now)?;
        Ok(Self { certificate: leaf.certificate.into_bytes(), key: leaf.key.into_bytes(), ..self.clone() })
    }

    /// The bundle with a next CA, which is trusted but does not sign yet.
    pub fn prepared(&self, now: Timestamp) -> Result<Self, IssueError> {
        let next = issue::ca(now)?;
        let mut blocks = pem_blocks(&self.ca_certificate);
        blocks.push(next.certificate);
        Ok(Self { ca_certificate: blocks.concat().into_bytes(), next_ca_key: next.key.into_bytes(), ..self.clone() })
    }

    /// The bundle with a leaf that the next CA has signed. The former CA stays trusted, but no longer signs.
    pub fn switched(&self, names: &[String], now: Timestamp) -> Result<Self, IssueError> {
        let mut blocks = pem_blocks(&self.ca_certificate);
        let successor = blocks.pop();
        let blocks: Vec<String> = successor.into_iter().chain(blocks).collect();
        let switched = Self {
            ca_certificate: blocks.concat().into_bytes(),
            ca_key: self.next_ca_key.clone(),
            next_ca_key: Vec::new(),
            ..self.clone()
        };
        switched.with_new_leaf(names, now)
    }

    /// The bundle with the signing CA only.
    #[must_use]
    pub fn pruned(&self) -> Self {
        let first = pem_blocks(&self.ca_certificate).into_iter().next().unwrap_or_default();
        Self { ca_certificate: first.into_bytes(), next_ca_key: Vec::new(), ..self.clone() }
    }

    /// The leaf and its key, if they match.
    fn certified_key(&self, provider: &CryptoProvider) -> Result<CertifiedKey, Fault> {
        let chain = certificates(&self.certificate, CERTIFICATE_KEY)?;
        let unreadable = || Fault::Unreadable { entry: PRIVATE_KEY_KEY };
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| unreadable())?;
        let key = provider.key_provider.load_private_key(key).map_err(|_| unreadable())?;
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(|_| Fault::KeyMismatch)?;
        Ok(certified)
    }
}

/// The certificates of a PEM file; at least one.
pub(super) fn certificates(pem: &[u8], entry: &'static str) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let unreadable = Fault::Unreadable { entry };
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    certificates.ok().filter(|certificates| !certificates.is_empty()).ok_or(unreadable)
}

/// Each certificate of a PEM file, as text.
fn pem_blocks(pem: &[u8]) -> Vec<String> {
    let (mut blocks, mut block) = (Vec::new(), None::<String>);
    for line in String::from_utf8_lossy(pem).lines().map(str::trim) {
        if line == "-----BEGIN CERTIFICATE-----" {
            block = Some(String::new());
        }
        if let Some(text) = &mut block {
            text.push_str(line);
            text.push('\n');
        }
        if line == "-----END CERTIFICATE-----" {
            blocks.extend(block.take());
        }
    }
    blocks
}

fn validity(certificate: &CertificateDer<'_>, entry: &'static str) -> Result<Validity, Fault> {
    let unreadable = || Fault::Unreadable { entry };
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|_| unreadable())?;
    let time = |at: x509_parser::time::ASN1Time| Timestamp::from_second(at.timestamp()).map_err(|_| unreadable());
    Ok(Validity { since: time(parsed.validity().not_before)?, until: time(parsed.validity().not_after)? })
}

fn fault(error: &rustls::Error) -> Fault {
    use rustls::CertificateError as Certificate;
    let rustls::Error::InvalidCertificate(invalid) = error else {
        return Fault::Refused { why: error.to_string() };
    };
    match invalid {
        Certificate::Expired
        | Certificate::ExpiredContext { .. }
        | Certificate::NotValidYet
        | Certificate::NotValidYetContext { .. } => Fault::NotValidNow,
        Certificate::UnknownIssuer | Certificate::BadSignature => Fault::NotSigned,
        other => Fault::Refused { why: other.to_string() },
    }
}

fn unix_time(at: Timestamp) -> UnixTime {
    // No certificate is valid before 1970, nor at 0.
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(u64::try_from(at.as_second()).unwrap_or_default()))
}
