//! Deny assignments, read-only: the state document sets them.

use serde_json::{Value, json};

use crate::state::arm::names;
use crate::state::arm::scope::Scope;
use crate::state::model::{DenyAssignment, State, is_within};

/// The deny assignments at, above and below a scope.
pub(super) fn list(state: &State, scope: &Scope) -> Vec<Value> {
    let at = scope.to_string();
    let listed = state.deny_assignments.iter();
    listed.filter(|denied| is_within(&at, &denied.scope) || is_within(&denied.scope, &at)).map(show).collect()
}

fn show(denied: &DenyAssignment) -> Value {
    let DenyAssignment { name, id, scope, actions } = denied;
    let guid = id.rsplit('/').next().filter(|last| names::is_guid(last)).unwrap_or(name);
    json!({
        "id": format!("{}/providers/Microsoft.Authorization/denyAssignments/{guid}", scope.trim_end_matches('/')),
        "name": guid,
        "type": "Microsoft.Authorization/denyAssignments",
        "properties": {
            "denyAssignmentName": name,
            "permissions": [{"actions": actions, "notActions": [], "dataActions": [], "notDataActions": []}],
            "scope": scope,
            "doNotApplyToChildScopes": false,
            "principals": [{"id": "00000000-0000-0000-0000-000000000000", "type": "SystemDefined", "displayName": "All Principals"}],
            "excludePrincipals": [],
            "isSystemProtected": true,
        },
    })
}
