//! The webhook's certificates as data: read, judged, made.
//!
//! ```text
//! Secret   ca.crt   certificates that clients trust; the first one is the issuer of new leaves
//!          ca.key   key of that first one
//!          tls.crt  the leaf that the replicas serve
//!          tls.key  its key
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::RootCertStore;
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;

/// Entry with the certificates that clients have to trust, PEM.
pub const CA_CERTIFICATE_KEY: &str = "ca.crt";
/// Entry with the key that signs leaves, PEM.
pub const CA_PRIVATE_KEY_KEY: &str = "ca.key";
/// Entry with the certificate that is served, PEM.
pub const CERTIFICATE_KEY: &str = "tls.crt";
/// Entry with its key, PEM.
pub const PRIVATE_KEY_KEY: &str = "tls.key";

const SECONDS_PER_DAY: u64 = 24 * 60 * 60;
const CA_VALIDITY: Duration = Duration::from_secs(10 * 365 * SECONDS_PER_DAY);
const LEAF_VALIDITY: Duration = Duration::from_secs(90 * SECONDS_PER_DAY);
/// A leaf with less than this left is replaced.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * SECONDS_PER_DAY);
/// Certificates are valid from a little before they were made, for clients whose clocks are behind.
const BACKDATED: Duration = Duration::from_secs(60 * 60);

/// The four entries of the Secret, PEM. Its debug form hides the keys.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Bundle {
    ca_certificate: Vec<u8>,
    ca_key: Vec<u8>,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bundle").field("ca.crt", &String::from_utf8_lossy(&self.ca_certificate)).finish_non_exhaustive()
    }
}

/// What keeps a bundle from being served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Nothing is there.
    #[error("it is empty")]
    Empty,
    /// An entry is missing or no PEM.
    #[error("its entry {entry} is missing or not PEM")]
    Unreadable {
        /// The entry.
        entry: &'static str,
    },
    /// The leaf and its key don't belong together.
    #[error("its tls.key does not belong to tls.crt")]
    KeyMismatch,
    /// The leaf was not signed by what clients trust.
    #[error("its tls.crt is not signed by ca.crt")]
    NotSigned,
    /// The leaf is expired, or not valid yet.
    #[error("its tls.crt is not valid at this time")]
    NotValidNow,
    /// The leaf is not for a name that clients use.
    #[error("its tls.crt is not for {name}")]
    LacksName {
        /// The name.
        name: String,
    },
    /// The leaf ends soon.
    #[error("its tls.crt ends in less than {} days", RENEW_BEFORE.as_secs() / SECONDS_PER_DAY)]
    EndsSoon,
    /// The leaf is refused for another reason.
    #[error("its tls.crt is refused: {why}")]
    Refused {
        /// The verifier's words.
        why: String,
    },
}

/// Certificates can't be made.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The time is outside of what certificates can say.
    #[error("the clock's time {now} can't be written into a certificate")]
    Time {
        /// The time.
        now: Timestamp,
    },
    /// The generator refused.
    #[error("cannot make a certificate for the names {names:?} (--tls-san)")]
    Generate {
        /// The names.
        names: Vec<String>,
        /// The generator's reason.
        #[source]
        source: rcgen::Error,
    },
    /// What was made can't be served.
    #[error("a certificate that was just made can't be served")]
    Unusable {
        /// Why.
        #[source]
        source: Fault,
    },
}

/// A bundle that can be served.
#[derive(Debug)]
pub struct Usable {
    /// For the TLS server.
    pub certified: Arc<CertifiedKey>,
    /// Why it should be replaced all the same: [`Fault::LacksName`] or [`Fault::EndsSoon`].
    pub wanting: Option<Fault>,
}

impl Bundle {
    /// Reads the entries of a Secret; absent ones are empty.
    pub fn read(data: Option<&BTreeMap<String, ByteString>>) -> Self {
        let entry = |key: &str| data.and_then(|data| data.get(key)).map(|bytes| bytes.0.clone()).unwrap_or_default();
        Self {
            ca_certificate: entry(CA_CERTIFICATE_KEY),
            ca_key: entry(CA_PRIVATE_KEY_KEY),
            certificate: entry(CERTIFICATE_KEY),
            key: entry(PRIVATE_KEY_KEY),
        }
    }

    /// Writes the entries of a Secret and leaves its others alone.
    pub fn write(&self, data: &mut BTreeMap<String, ByteString>) {
        for (key, value) in [
            (CA_CERTIFICATE_KEY, &self.ca_certificate),
            (CA_PRIVATE_KEY_KEY, &self.ca_key),
            (CERTIFICATE_KEY, &self.certificate),
            (PRIVATE_KEY_KEY, &self.key),
        ] {
            data.insert(key.to_owned(), ByteString(value.clone()));
        }
    }

    /// The certificates that clients have to trust, PEM.
    pub fn ca_certificate(&self) -> &[u8] {
        &self.ca_certificate
    }

    /// Whether somebody else keeps certificates here: there is a leaf with its key, and no key to sign another.
    pub fn is_foreign(&self, provider: &CryptoProvider) -> bool {
        self.ca_key.is_empty() && self.certified_key(provider).is_ok()
    }

    /// Judges the bundle as clients that use the names would at `now`.
    pub fn check(&self, names: &[String], now: Timestamp, provider: &CryptoProvider) -> Result<Usable, Fault> {
        if self.certificate.is_empty() && self.key.is_empty() && self.ca_certificate.is_empty() {
            return Err(Fault::Empty);
        }
        let certified = self.certified_key(provider)?;
        let unreadable = |entry| Fault::Unreadable { entry };
        let (leaf, chain) = certified.cert.split_first().ok_or(unreadable(CERTIFICATE_KEY))?;
        let parsed = ParsedCertificate::try_from(leaf).map_err(|_| unreadable(CERTIFICATE_KEY))?;
        let mut roots = RootCertStore::empty();
        for authority in certificates(&self.ca_certificate, CA_CERTIFICATE_KEY)? {
            roots.add(authority).map_err(|_| unreadable(CA_CERTIFICATE_KEY))?;
        }
        let verify = |at| {
            let algorithms = provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&parsed, &roots, chain, unix_time(at), algorithms)
        };
        verify(now).map_err(|error| fault(&error))?;
        let is_for =
            |name: &str| ServerName::try_from(name).is_ok_and(|name| verify_server_name(&parsed, &name).is_ok());
        let wanting = match names.iter().find(|name| !is_for(name)) {
            Some(name) => Some(Fault::LacksName { name: name.clone() }),
            None => verify(now + RENEW_BEFORE).err().map(|_| Fault::EndsSoon),
        };
        Ok(Usable { certified: Arc::new(certified), wanting })
    }

    /// A bundle that can be served in place of this one: a new leaf under its own authority, or if that can't sign,
    /// what was served last, because clients trust it still, or if that can't be served either, a new authority.
    pub fn repaired(
        &self,
        served: Option<&Self>,
        names: &[String],
        now: Timestamp,
        provider: &CryptoProvider,
    ) -> Result<(Self, Usable), IssueError> {
        let flawless = |bundle: Self| {
            let usable = bundle.check(names, now, provider).ok().filter(|usable| usable.wanting.is_none())?;
            Some((bundle, usable))
        };
        if let Some(repaired) = self.with_new_leaf(names, now).ok().and_then(flawless) {
            return Ok(repaired);
        }
        if let Some(repaired) = served.filter(|served| !served.ca_key.is_empty()).cloned().and_then(flawless) {
            return Ok(repaired);
        }
        let fresh = Self::new_authority(names, now)?.with_new_leaf(names, now)?;
        let usable = fresh.check(names, now, provider).map_err(|source| IssueError::Unusable { source })?;
        Ok((fresh, usable))
    }

    fn with_new_leaf(&self, names: &[String], now: Timestamp) -> Result<Self, IssueError> {
        let failed = |source| IssueError::Generate { names: names.to_vec(), source };
        let authority_key = KeyPair::from_pem(&String::from_utf8_lossy(&self.ca_key)).map_err(failed)?;
        let authority_pem = String::from_utf8_lossy(&self.ca_certificate);
        let issuer = Issuer::from_ca_cert_pem(&authority_pem, authority_key).map_err(failed)?;

        let mut params = CertificateParams::new(names).map_err(failed)?;
        params.distinguished_name = common_name("ensign-webhook");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, now, LEAF_VALIDITY)?;
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.signed_by(&key, &issuer).map_err(failed)?;
        Ok(Self { certificate: certificate.pem().into_bytes(), key: key.serialize_pem().into_bytes(), ..self.clone() })
    }

    fn new_authority(names: &[String], now: Timestamp) -> Result<Self, IssueError> {
        let failed = |source| IssueError::Generate { names: names.to_vec(), source };
        let mut params = CertificateParams::default();
        // Clients pick an issuer by its name, so that two authorities in one bundle should not share one.
        params.distinguished_name = common_name(&format!("ensign-webhook-ca-{}", now.as_second()));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params, now, CA_VALIDITY)?;
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.self_signed(&key).map_err(failed)?;
        Ok(Self {
            ca_certificate: certificate.pem().into_bytes(),
            ca_key: key.serialize_pem().into_bytes(),
            ..Self::default()
        })
    }

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

fn certificates(pem: &[u8], entry: &'static str) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let unreadable = Fault::Unreadable { entry };
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    certificates.ok().filter(|certificates| !certificates.is_empty()).ok_or(unreadable)
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

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn set_validity(params: &mut CertificateParams, now: Timestamp, validity: Duration) -> Result<(), IssueError> {
    let start = OffsetDateTime::from_unix_timestamp(now.as_second()).map_err(|_| IssueError::Time { now })?;
    params.not_before = start - BACKDATED;
    params.not_after = start + validity;
    Ok(())
}

fn unix_time(at: Timestamp) -> UnixTime {
    // Before 1970 no certificate is valid, and neither is it at 0.
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(at.as_second()).unwrap_or_default()))
}
