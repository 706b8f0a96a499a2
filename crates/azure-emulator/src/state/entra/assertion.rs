//! The token that a workload presents, read but not yet verified.

use std::fmt;

use jsonwebtoken::Algorithm;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::{CLOCK_SKEW_SECONDS, EntraError};

/// An assertion. Nothing in it is trusted before its signature is verified.
#[derive(Clone)]
pub struct Assertion {
    /// `iss`
    pub issuer: String,
    /// `sub`
    pub subject: String,
    /// `aud`, a string or an array
    pub audiences: Vec<String>,
    /// `kid` of the header
    pub key_id: Option<String>,
    issued_at: Option<i64>,
    not_before: Option<i64>,
    expires_at: i64,
    /// Header and claims, as signed.
    pub(super) signed: String,
    pub(super) signature: String,
}

impl fmt::Debug for Assertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Assertion")
            .field("issuer", &self.issuer)
            .field("subject", &self.subject)
            .field("audiences", &self.audiences)
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

impl Assertion {
    /// Reads a JSON Web Token signed with RS256. Any other algorithm is rejected before any key is used.
    pub fn read(token: &str) -> Result<Self, EntraError> {
        let malformed = |_| EntraError::malformed_assertion();
        if token.split('.').count() != 3 {
            return Err(EntraError::malformed_assertion());
        }
        let data = jsonwebtoken::dangerous::insecure_decode::<Value>(token).map_err(malformed)?;
        let (signed, signature) = token.rsplit_once('.').ok_or_else(EntraError::malformed_assertion)?;
        if data.header.alg != Algorithm::RS256 || data.header.crit.is_some() {
            return Err(EntraError::malformed_assertion());
        }
        let claims = data.claims;
        let text = |name: &str| claims.get(name).and_then(Value::as_str).map(str::to_owned);
        let audiences = match claims.get("aud") {
            Some(Value::String(audience)) => Some(vec![audience.clone()]),
            Some(Value::Array(audiences)) => {
                audiences.iter().map(|audience| audience.as_str().map(str::to_owned)).collect()
            }
            _ => None,
        };
        let (Some(issuer), Some(subject), Some(audiences), Some(expires_at)) =
            (text("iss"), text("sub"), audiences, seconds(&claims, "exp"))
        else {
            return Err(EntraError::malformed_assertion());
        };
        Ok(Self {
            issuer,
            subject,
            audiences,
            key_id: data.header.kid,
            issued_at: seconds(&claims, "iat"),
            not_before: seconds(&claims, "nbf"),
            expires_at,
            signed: signed.to_owned(),
            signature: signature.to_owned(),
        })
    }

    /// Rejects an assertion that has expired, is not valid yet, or was issued in the future.
    pub(super) fn check_times(&self, now: Timestamp) -> Result<(), EntraError> {
        let from = self.not_before.max(self.issued_at);
        let seconds = now.as_second();
        let too_early = from.is_some_and(|from| from > seconds.saturating_add(CLOCK_SKEW_SECONDS));
        let too_late = self.expires_at.saturating_add(CLOCK_SKEW_SECONDS) <= seconds;
        if too_early || too_late {
            let time = |seconds| Timestamp::from_second(seconds).ok();
            return Err(EntraError::out_of_time(now, from.and_then(time), time(self.expires_at)));
        }
        Ok(())
    }
}

/// A time claim: a number of seconds, with or without a fraction.
#[expect(clippy::cast_possible_truncation, reason = "a fraction is cut off; a number out of range saturates")]
fn seconds(claims: &Value, name: &str) -> Option<i64> {
    let value = claims.get(name)?;
    value.as_i64().or_else(|| value.as_f64().map(|seconds| seconds as i64))
}
