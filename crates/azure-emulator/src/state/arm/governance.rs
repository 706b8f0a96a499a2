//! Authorization, locks and policies.

use super::{ArmError, Caller};
use crate::state::model::{ArmRights, LockLevel, State, is_within};

/// Rejects an action that the caller is not authorized for.
pub(super) fn authorize(caller: &Caller, action: &str, scope: &str) -> Result<(), ArmError> {
    let allowed = match &caller.rights {
        ArmRights::All => true,
        ArmRights::Read => action.ends_with("/read"),
        ArmRights::Actions(actions) => actions.iter().any(|allowed| allowed.eq_ignore_ascii_case(action)),
        ArmRights::None => false,
    };
    if allowed || caller.grants.iter().any(|grant| grant.allows(action, scope)) {
        return Ok(());
    }
    let Caller { client_id, object_id, .. } = caller;
    let unless = match action {
        "Microsoft.Authorization/roleAssignments/write" | "Microsoft.Authorization/roleAssignments/delete" => {
            " or an ABAC condition not fulfilled"
        }
        _ => "",
    };
    Err(ArmError::new(
        403,
        "AuthorizationFailed",
        format!(
            "The client '{client_id}' with object id '{object_id}' does not have authorization{unless} to perform action '{action}' over scope '{scope}' or the scope is invalid. If access was recently granted, please refresh your credentials."
        ),
    ))
}

/// Rejects a write of a resource with a read-only lock, or one that a policy denies.
pub(super) fn allow_write(state: &State, resource: &str, resource_type: &str) -> Result<(), ArmError> {
    let lock = state.locks.iter().find(|lock| lock.level == LockLevel::ReadOnly && lock.covers(resource));
    if let Some(lock) = lock {
        return Err(locked(resource, "write", &lock.scope));
    }
    match state.deny_policies.iter().find(|policy| policy.covers(resource, resource_type)) {
        None => Ok(()),
        Some(policy) => {
            let name = resource.rsplit('/').next().unwrap_or(resource);
            let (policy, scope) = (&policy.name, policy.scope.trim_end_matches('/'));
            Err(ArmError::new(
                403,
                "RequestDisallowedByPolicy",
                format!(
                    "Resource '{name}' was disallowed by policy. Policy identifiers: '[{{\"policyAssignment\":{{\"name\":\"{policy}\",\"id\":\"{scope}/providers/Microsoft.Authorization/policyAssignments/{policy}\"}}}}]'."
                ),
            ))
        }
    }
}

/// Rejects the deletion of a resource that is locked, or has something locked below it.
pub(super) fn allow_delete(state: &State, resource: &str) -> Result<(), ArmError> {
    match state.locks.iter().find(|lock| lock.covers(resource) || is_within(&lock.scope, resource)) {
        None => Ok(()),
        Some(lock) => Err(locked(resource, "delete", &lock.scope)),
    }
}

fn locked(resource: &str, operation: &str, scope: &str) -> ArmError {
    let message = format!(
        "The scope '{resource}' cannot perform {operation} operation because following scope(s) are locked: '{scope}'. Please remove the lock and try again."
    );
    ArmError::new(409, "ScopeLocked", message)
}
