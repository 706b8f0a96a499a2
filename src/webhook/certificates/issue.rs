//! Issues CAs and leaf certificates.

use k8s_openapi::jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use time::OffsetDateTime;

use super::fault::Fault;
use ensign_core::scheduling::ca_rotation::{AUTHORITY_VALIDITY, BACKDATED, LEAF_VALIDITY, Validity};

/// Certificates can't be issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The time is out of range for certificates.
    #[error("cannot write the time {at} into a certificate")]
    Time {
        /// The time.
        at: Timestamp,
    },
    /// The generator failed.
    #[error("cannot issue a certificate for the names {names:?} (--tls-san)")]
    Generate {
        /// The names.
        names: Vec<String>,
        /// The generator's error.
        #[source]
        source: rcgen::Error,
    },
    /// A new certificate can't be served.
    #[error("cannot serve a certificate that was just issued")]
    Unusable {
        /// Why.
        #[source]
        source: Fault,
    },
}

/// A certificate and its key, PEM.
pub(super) struct Issued {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// A new CA.
pub(super) fn ca(now: Timestamp) -> Result<Issued, IssueError> {
    let failed = |source| IssueError::Generate { names: Vec::new(), source };
    let key = KeyPair::generate().map_err(failed)?;
    let mut params = CertificateParams::default();
    // Clients select an issuer by its name, so two CAs in one bundle must not have the same name.
    let distinction = key.public_key_raw().iter().rev().take(4).fold(0, |number, byte| number << 8 | u32::from(*byte));
    params.distinguished_name = common_name(&format!("ensign-webhook-ca-{}-{distinction:08x}", now.as_second()));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, Validity { since: now - BACKDATED, until: now + AUTHORITY_VALIDITY })?;
    let certificate = params.self_signed(&key).map_err(failed)?;
    Ok(Issued { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// A new leaf for the names, signed by a CA that is valid until `ca_expiry`.
pub(super) fn leaf(
    ca: &str,
    ca_key: &[u8],
    ca_expiry: Timestamp,
    names: &[String],
    now: Timestamp,
) -> Result<Issued, IssueError> {
    let failed = |source| IssueError::Generate { names: names.to_vec(), source };
    let ca_key = KeyPair::from_pem(&String::from_utf8_lossy(ca_key)).map_err(failed)?;
    let issuer = Issuer::from_ca_cert_pem(ca, ca_key).map_err(failed)?;
    let mut params = CertificateParams::new(names).map_err(failed)?;
    params.distinguished_name = common_name("ensign-webhook");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    // A leaf is not trusted for longer than the CA that signed it.
    let until = (now + LEAF_VALIDITY).min(ca_expiry);
    set_validity(&mut params, Validity { since: now - BACKDATED, until })?;
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = params.signed_by(&key, &issuer).map_err(failed)?;
    Ok(Issued { certificate: certificate.pem(), key: key.serialize_pem() })
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn set_validity(params: &mut CertificateParams, validity: Validity) -> Result<(), IssueError> {
    let time = |at: Timestamp| OffsetDateTime::from_unix_timestamp(at.as_second()).map_err(|_| IssueError::Time { at });
    params.not_before = time(validity.since)?;
    params.not_after = time(validity.until)?;
    Ok(())
}
