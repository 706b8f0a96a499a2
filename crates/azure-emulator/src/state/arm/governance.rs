//! Checks that do not depend on a request's body: authorization, deny assignments, the subscription, locks and policies.

use serde_json::{Map, Value, json};

use super::{ArmError, Caller};
use crate::state::model::{ArmRights, DenyAssignment, DenyPolicy, LockLevel, State, Subscription, is_within};

/// Rejects an action that the caller is not authorized for, or that a deny assignment forbids.
pub(super) fn authorize(state: &State, caller: &Caller, action: &str, scope: &str) -> Result<(), ArmError> {
    let allowed = match &caller.rights {
        ArmRights::All => true,
        ArmRights::Read => action.ends_with("/read"),
        ArmRights::Actions(actions) => actions.iter().any(|allowed| allowed.eq_ignore_ascii_case(action)),
        ArmRights::None => false,
    };
    let Caller { client_id, object_id, .. } = caller;
    if allowed || caller.grants.iter().any(|grant| grant.allows(action, scope)) {
        let Some(denied) = state.deny_assignments.iter().find(|denied| denied.covers(action, scope)) else {
            return Ok(());
        };
        let DenyAssignment { name, id, scope: at, .. } = denied;
        let message = format!(
            "The client '{client_id}' with object id '{object_id}' has permission to perform action '{action}' on scope '{scope}'; however, the access is denied because of the deny assignment with name '{name}' and Id '{id}' at scope '{at}'."
        );
        return Err(ArmError::front(403, "DenyAssignmentAuthorizationFailed", message));
    }
    let unless = match action {
        "Microsoft.Authorization/roleAssignments/write" | "Microsoft.Authorization/roleAssignments/delete" => {
            " or an ABAC condition not fulfilled"
        }
        _ => "",
    };
    Err(ArmError::front(
        403,
        "AuthorizationFailed",
        format!(
            "The client '{client_id}' with object id '{object_id}' does not have authorization{unless} to perform action '{action}' over scope '{scope}' or the scope is invalid. If access was recently granted, please refresh your credentials."
        ),
    ))
}

/// Rejects a write in a subscription that is disabled.
pub(super) fn enabled(subscription: &Subscription) -> Result<(), ArmError> {
    if !subscription.conditions.disabled {
        return Ok(());
    }
    let message = format!(
        "The subscription '{}' is disabled and therefore marked as read only. You cannot perform any write actions on this subscription until it is re-enabled.",
        subscription.id
    );
    Err(ArmError::front(409, "ReadOnlyDisabledSubscription", message))
}

/// Rejects a new resource of a provider that the subscription is not registered for (nforgeio/neonKUBE issue 1670).
pub(super) fn registered(subscription: &Subscription, namespace: &str) -> Result<(), ArmError> {
    let missing = &subscription.conditions.unregistered_providers;
    if !missing.iter().any(|missing| missing.eq_ignore_ascii_case(namespace)) {
        return Ok(());
    }
    let message = format!(
        "The subscription is not registered to use namespace '{namespace}'. See https://aka.ms/rps-not-found for how to register subscriptions."
    );
    let error = ArmError::front(409, "MissingSubscriptionRegistration", message);
    let detail = error.clone().with("target", json!(namespace)).as_detail();
    Err(error.with("details", json!([detail])))
}

/// Rejects a write of a resource with a read-only lock, or one that a policy denies.
pub(super) fn allow_write(state: &State, resource: &str, resource_type: &str) -> Result<(), ArmError> {
    let lock = state.locks.iter().find(|lock| lock.level == LockLevel::ReadOnly && lock.covers(resource));
    if let Some(lock) = lock {
        return Err(locked(resource, "write", &lock.scope));
    }
    match state.deny_policies.iter().find(|policy| policy.covers(resource, resource_type)) {
        None => Ok(()),
        Some(policy) => Err(disallowed(policy, resource, resource_type)),
    }
}

fn disallowed(policy: &DenyPolicy, resource: &str, resource_type: &str) -> ArmError {
    let name = resource.rsplit('/').next().unwrap_or(resource);
    let DenyPolicy { name: policy_name, scope, wrapped, .. } = policy;
    let at =
        |kind: &str| format!("{}/providers/Microsoft.Authorization/{kind}/{policy_name}", scope.trim_end_matches('/'));
    let (assignment, definition) = (at("policyAssignments"), at("policyDefinitions"));
    let reference = |id: &str| format!("{{\"name\":\"{policy_name}\",\"id\":\"{id}\"}}");
    let message = format!(
        "Resource '{name}' was disallowed by policy. Policy identifiers: '[{{\"policyAssignment\":{},\"policyDefinition\":{}}}]'.",
        reference(&assignment),
        reference(&definition)
    );
    let mut info = Map::new();
    let mut put = |name: &str, value: &str| info.insert(name.to_owned(), Value::from(value));
    put("policyDefinitionId", &definition);
    put("policyDefinitionName", policy_name);
    put("policyDefinitionDisplayName", policy_name);
    put("policyDefinitionEffect", "deny");
    put("policyAssignmentId", &assignment);
    put("policyAssignmentName", policy_name);
    put("policyAssignmentDisplayName", policy_name);
    put("policyAssignmentScope", scope);
    let expression = json!({
        "result": "True", "expressionKind": "Field", "expression": "type", "path": "type",
        "expressionValue": resource_type, "targetValue": resource_type, "operator": "Equals",
    });
    info.insert("evaluationDetails".to_owned(), json!({"evaluatedExpressions": [expression]}));
    let error = ArmError::front(403, "RequestDisallowedByPolicy", message)
        .with("target", json!(name))
        .with("additionalInfo", json!([{"type": "PolicyViolation", "info": info}]));
    if !wrapped {
        return error;
    }
    let message = "Resource validation failed, see details for more information.";
    ArmError::front(400, "ResourceValidationFailed", message).with("details", json!([error.as_detail()]))
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
    ArmError::front(409, "ScopeLocked", message)
}
