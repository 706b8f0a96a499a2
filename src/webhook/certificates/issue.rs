//! Makes authorities and leaves.

use k8s_openapi::jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use time::OffsetDateTime;

use super::bundle::Fault;
use ensign_core::scheduling::ca_rotation::{AUTHORITY_VALIDITY, BACKDATED, LEAF_VALIDITY, Validity};

/// Certificates can't be made.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The time is outside of what certificates can say.
    #[error("the time {at} can't be written into a certificate")]
    Time {
        /// The time.
        at: Timestamp,
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

/// A certificate and its key, PEM.
pub(super) struct Issued {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// A new authority.
pub(super) fn authority(now: Timestamp) -> Result<Issued, IssueError> {
    let failed = |source| IssueError::Generate { names: Vec::new(), source };
    let key = KeyPair::generate().map_err(failed)?;
    let mut params = CertificateParams::default();
    // Clients pick an issuer by its name, so that two authorities in one bundle must not share one.
    let distinction = key.public_key_raw().iter().rev().take(4).fold(0, |number, byte| number << 8 | u32::from(*byte));
    params.distinguished_name = common_name(&format!("ensign-webhook-ca-{}-{distinction:08x}", now.as_second()));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, Validity { since: now - BACKDATED, until: now + AUTHORITY_VALIDITY })?;
    let certificate = params.self_signed(&key).map_err(failed)?;
    Ok(Issued { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// A new leaf for the names, signed by an authority that is valid until `authority_ends`.
pub(super) fn leaf(
    authority: &str,
    authority_key: &[u8],
    authority_ends: Timestamp,
    names: &[String],
    now: Timestamp,
) -> Result<Issued, IssueError> {
    let failed = |source| IssueError::Generate { names: names.to_vec(), source };
    let authority_key = KeyPair::from_pem(&String::from_utf8_lossy(authority_key)).map_err(failed)?;
    let issuer = Issuer::from_ca_cert_pem(authority, authority_key).map_err(failed)?;
    let mut params = CertificateParams::new(names).map_err(failed)?;
    params.distinguished_name = common_name("ensign-webhook");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    // Nobody trusts a leaf for longer than the authority that signed it.
    let until = (now + LEAF_VALIDITY).min(authority_ends);
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
