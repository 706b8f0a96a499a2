//! Entra's token endpoint for workload identity federation.
//!
//! A decision has three steps, because the second one needs the issuer: [`examine`] checks everything that depends on the
//! request and the state; the caller fetches the issuer's keys; [`keys::verify`] checks the signature and [`grant`] returns
//! the claims.

mod assertion;
mod error;
pub mod keys;
mod request;
mod resources;

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use assertion::Assertion;
pub use error::{EntraError, IssuerFailure};
pub use request::TokenRequest;

use super::has_propagated;
use super::model::{Credential, Identity, State};

/// Tolerated clock difference, in seconds.
const CLOCK_SKEW_SECONDS: i64 = 300;

/// A request that passed every check but that of its signature.
#[derive(Clone, Debug)]
pub struct TrustedCredential {
    /// The tenant, as its GUID is written in the state.
    pub tenant_id: String,
    /// The identity's client ID.
    pub client_id: String,
    /// The audience of the requested token.
    pub resource: String,
    /// The workload's token.
    pub assertion: Assertion,
}

/// The claims of an issued token: those of a managed identity's token, except for `iss`, which is this authority.
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

/// Checks everything that depends on the request and the state. `authority` is the emulator's own URL, without a trailing
/// slash.
pub fn examine(
    state: &State,
    tenant: &str,
    request: &TokenRequest,
    authority: &str,
    now: Timestamp,
) -> Result<TrustedCredential, EntraError> {
    if !state.has_tenant(tenant) {
        return Err(EntraError::tenant_not_found(tenant));
    }
    request.check_grant_type()?;
    let client_id = request.client_id()?;
    let resource = request.resource()?;
    let identity = identity(state, tenant, client_id)?;
    if identity.entra.disabled {
        return Err(EntraError::disabled(&identity.client_id, &identity.id.name));
    }
    let assertion = Assertion::read(request.assertion()?)?;
    check_match(state, identity, &assertion, now)?;
    assertion.check_times(now)?;
    if assertion.issuer.starts_with(&format!("{authority}/")) || is_entra(&assertion.issuer) {
        return Err(EntraError::issued_by_entra());
    }
    if !resources::exists(state, &resource, authority) {
        return Err(EntraError::resource_not_found(&resource, state.tenant_of(&identity.id)));
    }
    Ok(TrustedCredential {
        tenant_id: state.tenant_of(&identity.id).to_owned(),
        client_id: identity.client_id.clone(),
        resource,
        assertion,
    })
}

/// The claims for a candidate with a verified signature.
///
/// # Errors
/// When the identity has been deleted in the meantime, or this exchange is one of those that fail for no reason.
pub fn grant(
    state: &mut State,
    candidate: &TrustedCredential,
    authority: &str,
    now: Timestamp,
) -> Result<AccessClaims, EntraError> {
    state.exchanges += 1;
    let percent = u64::from(state.settings.directory.spurious_mismatch_percent);
    // Evenly spread: with 2 %, each fiftieth.
    if state.exchanges * percent / 100 > (state.exchanges - 1) * percent / 100 {
        return Err(EntraError::no_subject(&candidate.assertion.subject));
    }
    let identity = identity(state, &candidate.tenant_id, &candidate.client_id)?;
    let principal = Principal {
        tenant_id: &candidate.tenant_id,
        client_id: &identity.client_id,
        object_id: &identity.principal_id,
        arm_id: Some(identity.id.in_answers()),
    };
    Ok(principal.claims(state, &candidate.resource, authority, now))
}

/// The principal of a token.
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
    let known = known_credentials(state, identity, now);
    if known.is_empty() && identity.raw_credentials.is_empty() {
        // Also for some minutes after the first credential was written.
        return Err(EntraError::no_credentials(&identity.client_id, &identity.id.name));
    }
    find_match(&known, assertion)
}

/// The credentials that Entra has learned of: a new one is unknown at first, a changed one has its former content.
fn known_credentials<'a>(state: &'a State, identity: &'a Identity, now: Timestamp) -> Vec<&'a Credential> {
    let seconds = state.settings.propagation_seconds;
    let learned = |credential: &&Credential| has_propagated(credential.written_at, now, seconds);
    let id = identity.id.key();
    let known = |(key, credential): (&'a String, &'a Credential)| {
        // As long as the credential was there, whatever its content.
        let former = || state.identities.earlier(&id).map_while(|former| former?.credentials.get(key)).find(learned);
        Some(credential).filter(learned).or_else(former).filter(|_| !identity.entra.unlearned.contains(key))
    };
    identity.credentials.iter().filter_map(known).collect()
}

fn find_match(credentials: &[&Credential], assertion: &Assertion) -> Result<(), EntraError> {
    let same_issuer: Vec<_> = credentials.iter().filter(|credential| credential.issuer == assertion.issuer).collect();
    if same_issuer.is_empty() {
        return Err(EntraError::no_issuer(&assertion.issuer));
    }
    let same_subject: Vec<_> =
        same_issuer.iter().filter(|credential| credential.subject == assertion.subject).collect();
    if same_subject.is_empty() {
        let folded = assertion.subject.to_lowercase();
        let only_case = same_issuer.iter().any(|credential| credential.subject.to_lowercase() == folded);
        let error = if only_case { EntraError::subject_case } else { EntraError::no_subject };
        return Err(error(&assertion.subject));
    }
    let has_audience = |credential: &Credential| match &assertion.audiences[..] {
        [audience] => credential.audiences.contains(audience),
        _ => false,
    };
    if same_subject.into_iter().any(|credential| has_audience(credential)) {
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
