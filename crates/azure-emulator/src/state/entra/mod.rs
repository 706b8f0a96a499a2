//! Entra's token endpoint for workload identity federation.
//!
//! The decision has three steps, because the middle one needs the issuer: [`examine`] says all that the request and
//! the state can say; the caller fetches the issuer's keys; [`keys::verify`] checks the signature and [`grant`] gives
//! the claims.

mod assertion;
mod error;
pub mod keys;
mod request;

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use assertion::Assertion;
pub use error::EntraError;
pub use request::TokenRequest;

use super::has_propagated;
use super::model::{Credential, Identity, State};

/// Clocks may differ by this many seconds.
const CLOCK_SKEW_SECONDS: i64 = 300;

/// A request that nothing but the issuer's keys can refuse any more.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The tenant, as its GUID is written in the state.
    pub tenant_id: String,
    /// The identity's client ID.
    pub client_id: String,
    /// The audience of the token that is asked for.
    pub resource: String,
    /// What the workload presents.
    pub assertion: Assertion,
}

/// The claims of a token that is given. They are those of a managed identity's token, `iss` apart, which is this
/// authority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the claims")]
pub struct AccessClaims {
    pub aud: String,
    pub iss: String,
    pub iat: i64,
    pub nbf: i64,
    pub exp: i64,
    pub appid: String,
    pub appidacr: String,
    pub azp: String,
    pub azpacr: String,
    pub idtyp: String,
    pub oid: String,
    pub sub: String,
    pub tid: String,
    pub uti: String,
    pub ver: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xms_mirid: Option<String>,
}

/// Refuses what the request's own words and the state can refuse. `authority` is the stand-in's own URL, without a
/// slash at its end.
pub fn examine(
    state: &State,
    tenant: &str,
    request: &TokenRequest,
    authority: &str,
    now: Timestamp,
) -> Result<Candidate, EntraError> {
    if !state.has_tenant(tenant) {
        return Err(EntraError::tenant_not_found(tenant));
    }
    request.check_grant_type()?;
    let client_id = request.client_id()?;
    let resource = request.resource()?;
    let identity = identity(state, tenant, client_id)?;
    let assertion = Assertion::read(request.assertion()?)?;
    check_match(state, identity, &assertion, now)?;
    assertion.check_times(now)?;
    if assertion.issuer.starts_with(&format!("{authority}/")) || is_entra(&assertion.issuer) {
        return Err(EntraError::issued_by_entra());
    }
    Ok(Candidate {
        tenant_id: state.tenant_of(&identity.id).to_owned(),
        client_id: identity.client_id.clone(),
        resource,
        assertion,
    })
}

/// The claims for a candidate whose signature was verified.
///
/// # Errors
/// When the identity was deleted while its issuer's keys were fetched.
pub fn grant(
    state: &State,
    candidate: &Candidate,
    authority: &str,
    now: Timestamp,
) -> Result<AccessClaims, EntraError> {
    let identity = identity(state, &candidate.tenant_id, &candidate.client_id)?;
    let principal = Principal {
        tenant_id: &candidate.tenant_id,
        client_id: &identity.client_id,
        object_id: &identity.principal_id,
        arm_id: Some(identity.id.in_answers()),
    };
    Ok(principal.claims(state, &candidate.resource, authority, now))
}

/// Whom a token is for.
#[derive(Clone, Debug)]
pub struct Principal<'a> {
    /// Tenant GUID.
    pub tenant_id: &'a str,
    /// Client ID.
    pub client_id: &'a str,
    /// Object ID.
    pub object_id: &'a str,
    /// The identity's ARM ID, if it is one.
    pub arm_id: Option<String>,
}

impl Principal<'_> {
    /// The claims of a token for `resource`.
    pub fn claims(self, state: &State, resource: &str, authority: &str, now: Timestamp) -> AccessClaims {
        let now = now.as_second();
        AccessClaims {
            aud: resource.to_owned(),
            iss: format!("{authority}/{}/v2.0", self.tenant_id),
            iat: now,
            nbf: now,
            exp: now + i64::from(state.settings.token_lifetime_seconds),
            appid: self.client_id.to_owned(),
            appidacr: "2".to_owned(),
            azp: self.client_id.to_owned(),
            azpacr: "2".to_owned(),
            idtyp: "app".to_owned(),
            oid: self.object_id.to_owned(),
            sub: self.object_id.to_owned(),
            tid: self.tenant_id.to_owned(),
            uti: uuid::Uuid::new_v4().simple().to_string(),
            ver: "2.0".to_owned(),
            xms_mirid: self.arm_id,
        }
    }
}

fn identity<'a>(state: &'a State, tenant: &str, client_id: &str) -> Result<&'a Identity, EntraError> {
    state
        .identity_by_client_id(client_id)
        .filter(|identity| state.tenant_of(&identity.id).eq_ignore_ascii_case(tenant))
        .ok_or_else(|| EntraError::client_not_found(client_id, tenant))
}

/// Issuer, then subject, then audience, each compared exactly.
fn check_match(state: &State, identity: &Identity, assertion: &Assertion, now: Timestamp) -> Result<(), EntraError> {
    if identity.credentials.is_empty() {
        return Err(EntraError::no_credentials(&identity.id.name));
    }
    let seconds = state.settings.propagation_seconds;
    let (seen, unseen): (Vec<_>, Vec<_>) =
        identity.credentials.values().partition(|credential| has_propagated(credential.written_at, now, seconds));
    let Err(refusal) = find_match(&seen, assertion) else {
        return Ok(());
    };
    // Only time keeps this assertion out.
    if find_match(&unseen, assertion).is_ok() { Err(EntraError::not_propagated(assertion)) } else { Err(refusal) }
}

fn find_match(credentials: &[&Credential], assertion: &Assertion) -> Result<(), EntraError> {
    let issued: Vec<_> = credentials.iter().filter(|credential| credential.issuer == assertion.issuer).collect();
    if issued.is_empty() {
        return Err(EntraError::no_issuer(&assertion.issuer));
    }
    let named: Vec<_> = issued.iter().filter(|credential| credential.subject == assertion.subject).collect();
    if named.is_empty() {
        let folded = assertion.subject.to_lowercase();
        let only_case = issued.iter().any(|credential| credential.subject.to_lowercase() == folded);
        let refuse = if only_case { EntraError::subject_case } else { EntraError::no_subject };
        return Err(refuse(&assertion.subject));
    }
    let meant = |credential: &Credential| match &assertion.audiences[..] {
        [audience] => credential.audiences.contains(audience),
        _ => false,
    };
    if named.into_iter().any(|credential| meant(credential)) {
        Ok(())
    } else {
        Err(EntraError::no_audience(&assertion.audiences.join(",")))
    }
}

fn is_entra(issuer: &str) -> bool {
    [
        "https://login.microsoftonline.com/",
        "https://login.microsoftonline.us/",
        "https://login.chinacloudapi.cn/",
        "https://login.partner.microsoftonline.cn/",
        "https://sts.windows.net/",
    ]
    .iter()
    .any(|authority| issuer.starts_with(authority))
}

#[cfg(test)]
mod tests;
