//! A CA that is generated for one run, and the server certificate that it signs.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};

/// The server's TLS configuration, and the CA that clients must trust.
pub(super) struct Certificates {
    pub(super) ca_pem: String,
    pub(super) server: ServerConfig,
}

/// The certificates can't be created.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A key or certificate could not be generated.
    #[error("cannot generate the emulator's certificates")]
    Generate(#[from] rcgen::Error),
    /// The TLS library rejects them.
    #[error("cannot use the generated certificate to serve TLS")]
    Serve(#[from] rustls::Error),
}

/// Generates a CA and a certificate for the loopback addresses.
pub(super) fn generate() -> Result<Certificates, CertificateError> {
    // Backdated, because the clocks of clients in containers may be behind.
    let now = OffsetDateTime::now_utc();
    let validity = |params: &mut CertificateParams, days: i64| {
        params.not_before = now - Duration::days(1);
        params.not_after = now + Duration::days(days);
    };
    let mut ca = CertificateParams::new(Vec::new())?;
    validity(&mut ca, 3650);
    ca.distinguished_name = common_name("Ensign Azure emulator CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let ca_key = KeyPair::generate()?;
    let ca_certificate = ca.self_signed(&ca_key)?;
    let issuer = Issuer::new(ca, ca_key);

    let names = ["127.0.0.1", "localhost", "::1"].map(str::to_owned);
    let mut leaf = CertificateParams::new(names)?;
    validity(&mut leaf, 365);
    leaf.distinguished_name = common_name("localhost");
    leaf.use_authority_key_identifier_extension = true;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let leaf_key = KeyPair::generate()?;
    let leaf = leaf.signed_by(&leaf_key, &issuer)?;

    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf_key.serialize_der()));
    let mut server = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![leaf.der().clone()], key)?;
    // HTTP/1.1 only, so that an intentionally dropped connection fails one request and not others that share it.
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Certificates { ca_pem: ca_certificate.pem(), server })
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}
