//! The caller of ARM, from an access token with a verified signature.

use k8s_openapi::jiff::Timestamp;

use super::super::{ADMINISTRATOR, names_arm};
use super::ArmError;
use crate::state::entra::AccessClaims;
use crate::state::model::{ArmRights, State};
use crate::state::roles::Grant;
use crate::state::text::entra_time;

/// A caller of ARM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The principal's client ID.
    pub client_id: String,
    /// The principal's object ID.
    pub object_id: String,
    /// The tenant that issued the token.
    pub tenant_id: String,
    /// What it may do.
    pub rights: ArmRights,
    /// What role assignments grant it in addition.
    pub grants: Vec<Grant>,
}

/// The `Authorization` header is missing or unusable.
pub fn missing() -> ArmError {
    ArmError::front(401, "AuthenticationFailed", "Authentication failed. The 'Authorization' header is missing.")
}

/// The token was not issued by this authority, or has been modified.
pub fn invalid() -> ArmError {
    ArmError::front(401, "InvalidAuthenticationToken", "The access token is invalid.")
}

/// The caller in verified claims.
///
/// # Errors
/// When the token's audience is not ARM, or it has expired.
pub fn caller(state: &State, claims: &AccessClaims, arm_url: &str, now: Timestamp) -> Result<Caller, ArmError> {
    let audience = &claims.aud;
    if !names_arm(audience, arm_url) {
        return Err(ArmError::front(
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
        return Err(ArmError::front(401, "ExpiredAuthenticationToken", message));
    }
    let rights = if claims.oid == ADMINISTRATOR {
        ArmRights::All
    } else {
        // The token of a deleted identity still identifies the caller, but grants nothing.
        state.identity_by_principal_id(&claims.oid).map_or(ArmRights::None, |identity| identity.arm_rights.clone())
    };
    Ok(Caller {
        client_id: claims.appid.clone(),
        object_id: claims.oid.clone(),
        tenant_id: claims.tid.clone(),
        rights,
        grants: state.grants(&claims.oid, now),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::arm::fixtures::{TENANT, now, orders, state};
    use crate::state::entra::Principal;

    const ARM: &str = "https://127.0.0.1:1";

    fn claims(audience: &str, object_id: &str) -> AccessClaims {
        let principal = Principal { tenant_id: TENANT, client_id: "client", object_id, arm_id: None };
        principal.claims(&orders(), audience, "https://authority", now())
    }

    #[test]
    fn a_token_for_another_resource_is_rejected() {
        for audience in
            ["https://vault.azure.net", "https://management.azure.com.evil", "", "https://management.azure.com//"]
        {
            let error = caller(&orders(), &claims(audience, ADMINISTRATOR), ARM, now()).unwrap_err();
            assert_eq!((error.status, error.code.as_str()), (401, "InvalidAuthenticationTokenAudience"), "{audience}");
        }
        for audience in ["https://management.azure.com", "https://management.core.windows.net/", ARM] {
            assert!(caller(&orders(), &claims(audience, ADMINISTRATOR), ARM, now()).is_ok(), "{audience}");
        }
    }

    #[test]
    fn an_expired_token_is_rejected() {
        let claims = claims("https://management.azure.com", ADMINISTRATOR);
        let later = Timestamp::from_second(claims.exp).unwrap();
        let error = caller(&orders(), &claims, ARM, later).unwrap_err();
        assert_eq!((error.status, error.code.as_str()), (401, "ExpiredAuthenticationToken"));
    }

    #[test]
    fn rights_are_the_identitys_current_ones() {
        let rights = |document: serde_json::Value, object_id: &str| {
            caller(&state(document), &claims("https://management.azure.com", object_id), ARM, now()).unwrap().rights
        };
        let principal = "11111111-0000-4000-8000-000000000001";
        let reads = ArmRights::Actions(["a/b/read".to_owned()].into());
        for (given, expected) in [
            (serde_json::json!("all"), ArmRights::All),
            (serde_json::json!("read"), ArmRights::Read),
            (serde_json::json!("none"), ArmRights::None),
            (serde_json::json!({"actions": ["a/b/read"]}), reads),
        ] {
            let identity = serde_json::json!({"name": "orders", "principalId": principal, "armRights": given});
            assert_eq!(rights(serde_json::json!({"identities": [identity]}), principal), expected);
        }
        assert_eq!(rights(serde_json::json!({}), principal), ArmRights::None, "a deleted identity");
        assert_eq!(rights(serde_json::json!({}), ADMINISTRATOR), ArmRights::All);
    }
}
