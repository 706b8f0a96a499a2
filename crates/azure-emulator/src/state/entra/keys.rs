//! An issuer's published keys, and verification with them.

use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;

use super::{Assertion, EntraError};

/// An RSA key for signatures in a JSON Web Key Set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedKey {
    key_id: String,
    modulus: String,
    exponent: String,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Key>,
}

#[derive(Deserialize)]
struct Key {
    kty: Option<String>,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    n: Option<String>,
    e: Option<String>,
}

/// Reads a JSON Web Key Set; keys of other types are ignored.
pub fn read(body: &[u8]) -> Result<Vec<PublishedKey>, EntraError> {
    let set: KeySet = serde_json::from_slice(body).map_err(|_| EntraError::issuer_keys())?;
    let keys: Vec<_> = set.keys.into_iter().filter_map(Key::into_published).collect();
    if keys.is_empty() { Err(EntraError::issuer_keys()) } else { Ok(keys) }
}

impl Key {
    fn into_published(self) -> Option<PublishedKey> {
        let usable = self.kty.as_deref() == Some("RSA")
            && self.usage.is_none_or(|usage| usage == "sig")
            && self.alg.is_none_or(|algorithm| algorithm == "RS256");
        let (Some(key_id), Some(modulus), Some(exponent)) = (self.kid, self.n, self.e) else {
            return None;
        };
        usable.then_some(PublishedKey { key_id, modulus, exponent })
    }
}

/// Whether the assertion's key is among these.
pub fn knows(keys: &[PublishedKey], assertion: &Assertion) -> bool {
    find(keys, assertion).is_some()
}

/// Verifies the assertion's signature.
///
/// # Errors
/// When the key is not published, or the signature is not valid for it.
pub fn verify(keys: &[PublishedKey], assertion: &Assertion) -> Result<(), EntraError> {
    let key = find(keys, assertion)
        .ok_or_else(|| EntraError::unknown_key(assertion.key_id.as_deref().unwrap_or_default(), &assertion.issuer))?;
    let key = DecodingKey::from_rsa_components(&key.modulus, &key.exponent).map_err(|_| EntraError::issuer_keys())?;
    let verified =
        jsonwebtoken::crypto::verify(&assertion.signature, assertion.signed.as_bytes(), &key, Algorithm::RS256);
    if matches!(verified, Ok(true)) { Ok(()) } else { Err(EntraError::signature()) }
}

fn find<'a>(keys: &'a [PublishedKey], assertion: &Assertion) -> Option<&'a PublishedKey> {
    let wanted = assertion.key_id.as_deref()?;
    keys.iter().find(|key| key.key_id == wanted)
}
