//! Who asks: what ARM makes of an access token whose signature has been verified.

use k8s_openapi::jiff::Timestamp;

use super::ArmError;
use crate::emulator::state::entra::AccessClaims;
use crate::emulator::state::model::{ArmRights, State};
use crate::emulator::state::text::entra_time;
use crate::emulator::state::{ADMINISTRATOR, names_arm};

/// A caller of ARM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The principal's client ID.
    pub client_id: String,
    /// The principal's object ID.
    pub object_id: String,
    /// The tenant that gave the token.
    pub tenant_id: String,
    /// What it may do.
    pub rights: ArmRights,
}

/// No usable `Authorization` header.
pub fn missing() -> ArmError {
    ArmError::new(401, "AuthenticationFailed", "Authentication failed. The 'Authorization' header is missing.")
}

/// A token that this authority did not give, or that was changed since.
pub fn invalid() -> ArmError {
    ArmError::new(401, "InvalidAuthenticationToken", "The access token is invalid.")
}

/// The caller that verified claims name.
///
/// # Errors
/// When the token is for somebody else than ARM, or its time has passed.
pub fn caller(state: &State, claims: &AccessClaims, arm_url: &str, now: Timestamp) -> Result<Caller, ArmError> {
    let audience = &claims.aud;
    if !names_arm(audience, arm_url) {
        return Err(ArmError::new(
            401,
            "InvalidAuthenticationTokenAudience",
            format!(
                "The access token has been obtained for wrong audience or resource '{audience}'. It should exactly match with one of the allowed audiences 'https://management.core.windows.net/','https://management.core.windows.net','https://management.azure.com/','https://management.azure.com','{arm_url}/','{arm_url}'."
            ),
        ));
    }
    if claims.exp <= now.as_second() {
        let expiry = Timestamp::from_second(claims.exp).map(entra_time).unwrap_or_default();
        let message = format!(
            "The access token expiry UTC time '{expiry}' is earlier than current UTC time '{}'.",
            entra_time(now)
        );
        return Err(ArmError::new(401, "ExpiredAuthenticationToken", message));
    }
    let rights = if claims.oid == ADMINISTRATOR {
        ArmRights::All
    } else {
        // The token of an identity that was deleted since still says who asks, but has no rights.
        state.identity_by_principal_id(&claims.oid).map_or(ArmRights::None, |identity| identity.arm_rights)
    };
    Ok(Caller { client_id: claims.appid.clone(), object_id: claims.oid.clone(), tenant_id: claims.tid.clone(), rights })
}
