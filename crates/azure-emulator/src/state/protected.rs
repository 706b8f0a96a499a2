//! Resources whose data requires a role: `/protected/` followed by the ARM ID of a blob or a secret.
//!
//! Azure serves data under the host names of accounts and vaults. Here the path identifies the resource, so that no names
//! have to resolve. Access is decided as in Azure, by the data actions of role assignments at the resource or above.

use k8s_openapi::jiff::Timestamp;

use super::arm::ArmError;
use super::arm::scope::Scope;
use super::entra::AccessClaims;
use super::model::State;
use super::text::{entra_time, percent_decode};

/// A kind of access to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read.
    Read,
    /// Create or replace.
    Write,
    /// Delete.
    Delete,
}

/// A data service.
struct Service {
    /// The resource type, in lower case.
    kind: &'static str,
    audience: &'static str,
    /// The data actions for reading, writing and deleting.
    actions: [&'static str; 3],
    /// Error code and message without permission.
    denied: (&'static str, &'static str),
}

const SERVICES: [Service; 2] = [
    Service {
        kind: "microsoft.storage/storageaccounts/blobservices/containers/blobs",
        audience: "https://storage.azure.com",
        actions: [
            "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read",
            "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/write",
            "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/delete",
        ],
        denied: (
            "AuthorizationPermissionMismatch",
            "This request is not authorized to perform this operation using this permission.",
        ),
    },
    Service {
        kind: "microsoft.keyvault/vaults/secrets",
        audience: "https://vault.azure.net",
        actions: [
            "Microsoft.KeyVault/vaults/secrets/getSecret/action",
            "Microsoft.KeyVault/vaults/secrets/setSecret/action",
            "Microsoft.KeyVault/vaults/secrets/delete",
        ],
        denied: ("Forbidden", "Caller is not authorized to perform action on resource."),
    },
];

/// The data action that allows the requested access to the token's principal.
///
/// # Errors
/// When the resource does not exist, the token has another audience or has expired, or no role assignment allows access.
pub fn decide(
    state: &State,
    path: &str,
    access: Access,
    claims: &AccessClaims,
    now: Timestamp,
) -> Result<&'static str, ArmError> {
    let decoded: Vec<String> = path.trim_matches('/').split('/').map(percent_decode).collect();
    let not_found = || ArmError::new(404, "ResourceNotFound", "There is no such resource: a blob or a secret is.");
    let scope = Scope::from_segments(decoded).ok_or_else(not_found)?;
    let service = SERVICES.iter().find(|service| scope.kind() == service.kind).ok_or_else(not_found)?;
    let group = scope.resource_group().unwrap_or_default().to_lowercase();
    let subscription = scope.subscription().and_then(|id| state.subscription(id)).ok_or_else(not_found)?;
    if !subscription.resource_groups.contains_key(&group) {
        return Err(not_found());
    }
    if claims.aud.trim_end_matches('/') != service.audience || !claims.tid.eq_ignore_ascii_case(&subscription.tenant_id)
    {
        let message = format!("The access token is for {:?}, not for {}.", claims.aud, service.audience);
        return Err(ArmError::new(401, "InvalidAuthenticationInfo", message));
    }
    if claims.exp <= now.as_second() {
        let message = format!("The access token has expired; it is {}.", entra_time(now));
        return Err(ArmError::new(401, "InvalidAuthenticationInfo", message));
    }
    let action = service.actions[access as usize];
    // The token of a principal that has been deleted allows nothing, even if its role assignments still exist.
    let exists = state.identity_by_principal_id(&claims.oid).is_some();
    let resource = scope.to_string();
    if exists && state.grants(&claims.oid, now).iter().any(|grant| grant.allows_data(action, &resource)) {
        return Ok(action);
    }
    let (code, message) = service.denied;
    Err(ArmError::new(403, code, message))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::state::arm::fixtures::{GROUP, SUBSCRIPTION, TENANT, now, state};
    use crate::state::entra::Principal;

    const PRINCIPAL: &str = "11111111-0000-4000-8000-000000000001";

    fn account() -> String {
        format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.Storage/storageAccounts/data")
    }

    fn blob(container: &str) -> String {
        format!("{}/blobServices/default/containers/{container}/blobs/today", account())
    }

    #[allow(clippy::needless_pass_by_value, reason = "tests pass literals")]
    fn ask(assignments: Value, path: &str, access: Access, audience: &str) -> Result<&'static str, (u16, String)> {
        let identities = json!([{"name": "orders", "principalId": PRINCIPAL}]);
        let state =
            state(json!({"identities": identities, "roleAssignments": assignments, "rolePropagationSeconds": 60}));
        let principal = Principal { tenant_id: TENANT, client_id: "client", object_id: PRINCIPAL, arm_id: None };
        let claims = principal.claims(&state, audience, "https://authority", now());
        decide(&state, path, access, &claims, now()).map_err(|error| (error.status, error.code))
    }

    fn reader(scope: &str) -> Value {
        let long_ago = "2020-01-01T00:00:00Z";
        json!([{"role": "Storage Blob Data Reader", "identity": "orders", "scope": scope, "createdOn": long_ago}])
    }

    const STORAGE: &str = "https://storage.azure.com";

    #[test]
    fn without_a_role_assignment_access_is_denied() {
        let refused = Err((403, "AuthorizationPermissionMismatch".to_owned()));
        assert_eq!(ask(json!([]), &blob("orders"), Access::Read, STORAGE), refused);
    }

    #[test]
    fn an_assignment_applies_at_its_scope_and_below() {
        let container = format!("{}/blobServices/default/containers/orders", account());
        let group = format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/{}", GROUP.to_uppercase());
        for scope in ["/", &format!("/subscriptions/{SUBSCRIPTION}"), &group, &account(), &container] {
            assert!(ask(reader(scope), &blob("orders"), Access::Read, STORAGE).is_ok(), "{scope}");
        }
        let other = format!("{}/blobServices/default/containers/order", account());
        assert!(ask(reader(&other), &blob("orders"), Access::Read, STORAGE).is_err());
    }

    #[test]
    fn a_role_allows_its_data_actions_and_nothing_else() {
        let container = format!("{}/blobServices/default/containers/orders", account());
        assert!(ask(reader(&container), &blob("orders"), Access::Write, STORAGE).is_err());
        let owner = json!([{"role": "Owner", "identity": "orders", "scope": "/", "createdOn": "2020-01-01T00:00:00Z"}]);
        assert!(ask(owner, &blob("orders"), Access::Read, STORAGE).is_err(), "Owner has no data actions");
    }

    #[test]
    fn a_new_assignment_takes_effect_after_propagation() {
        let fresh = json!([{"role": "Storage Blob Data Reader", "identity": "orders", "scope": "/"}]);
        assert!(ask(fresh, &blob("orders"), Access::Read, STORAGE).is_err());
    }

    #[test]
    fn a_token_for_another_service_is_rejected() {
        let refused = ask(reader("/"), &blob("orders"), Access::Read, "https://vault.azure.net");
        assert_eq!(refused, Err((401, "InvalidAuthenticationInfo".to_owned())));
    }

    #[test]
    fn only_blobs_and_secrets_are_found() {
        for path in [account(), blob("orders").replace(GROUP, "other"), "/x".to_owned(), blob("..")] {
            assert_eq!(
                ask(reader("/"), &path, Access::Read, STORAGE).map_err(|(status, _)| status),
                Err(404),
                "{path}"
            );
        }
    }

    #[test]
    fn assignments_of_a_deleted_principal_allow_nothing() {
        let orphan = json!([{"role": "Storage Blob Data Reader", "principalId": PRINCIPAL, "scope": "/"}]);
        let state = state(json!({"roleAssignments": orphan}));
        let principal = Principal { tenant_id: TENANT, client_id: "client", object_id: PRINCIPAL, arm_id: None };
        let claims = principal.claims(&state, STORAGE, "https://authority", now());
        assert_eq!(decide(&state, &blob("orders"), Access::Read, &claims, now()).unwrap_err().status, 403);
    }
}
