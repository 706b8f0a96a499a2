//! The signing key of the emulated Entra authority.

use std::sync::OnceLock;

use jsonwebtoken::jwk::{AlgorithmParameters, Jwk};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rcgen::{KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::state::entra::AccessClaims;

/// Generating an RSA key takes time and nothing is secret here, so all emulators of the process share one.
static KEY: OnceLock<Signer> = OnceLock::new();

/// Signs the issued tokens, and verifies them.
#[derive(Clone)]
pub(crate) struct Signer {
    private: EncodingKey,
    public: DecodingKey,
    key_id: String,
    jwk: Value,
}

/// The signing key can't be generated or used.
#[derive(Debug, thiserror::Error)]
pub enum SigningFailed {
    /// No key pair could be generated.
    #[error("cannot generate an RSA key pair")]
    Generate(#[from] rcgen::Error),
    /// The key pair can't be used for tokens.
    #[error("cannot use the RSA key pair to sign")]
    Use(#[from] jsonwebtoken::errors::Error),
    /// The key pair is not an RSA key pair.
    #[error("the generated key pair is not an RSA key pair")]
    NotRsa,
}

impl Signer {
    /// The process's signer.
    pub(crate) fn of_process() -> Result<Self, SigningFailed> {
        if let Some(signer) = KEY.get() {
            return Ok(signer.clone());
        }
        let generated = Self::generate()?;
        Ok(KEY.get_or_init(|| generated).clone())
    }

    fn generate() -> Result<Self, SigningFailed> {
        let pair = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?;
        let private = EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes())?;
        let AlgorithmParameters::RSA(parameters) = Jwk::from_encoding_key(&private, Algorithm::RS256)?.algorithm else {
            return Err(SigningFailed::NotRsa);
        };
        let key_id = Uuid::new_v5(&Uuid::NAMESPACE_OID, parameters.n.as_bytes()).simple().to_string();
        let jwk = json!({
            "kty": "RSA", "use": "sig", "alg": "RS256", "kid": key_id, "n": parameters.n, "e": parameters.e,
        });
        let public = DecodingKey::from_rsa_components(&parameters.n, &parameters.e)?;
        Ok(Self { private, public, key_id, jwk })
    }

    pub(super) fn public_key(&self) -> &Value {
        &self.jwk
    }

    pub(super) fn sign(&self, claims: &AccessClaims) -> Result<String, SigningFailed> {
        let header = Header { kid: Some(self.key_id.clone()), ..Header::new(Algorithm::RS256) };
        Ok(jsonwebtoken::encode(&header, claims, &self.private)?)
    }

    /// The claims of a token that this authority signed. Its times and audience are not checked.
    pub(super) fn verify(&self, token: &str, authority: &str) -> Option<AccessClaims> {
        let mut validation = Validation::new(Algorithm::RS256);
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let claims = jsonwebtoken::decode::<AccessClaims>(token, &self.public, &validation).ok()?.claims;
        (claims.iss == format!("{authority}/{}/v2.0", claims.tid)).then_some(claims)
    }
}
