//! Creating, updating and deleting custom role definitions.

use serde::Deserialize;

use super::definitions::{does_not_exist, show};
use crate::state::arm::scope::Scope;
use crate::state::arm::{ArmAnswer, ArmError, governance, names};
use crate::state::model::State;
use crate::state::roles::{Permission, RoleDefinition, builtin};
use crate::state::text::read_object;

const TYPE: &str = "Microsoft.Authorization/roleDefinitions";

/// The body of a PUT.
#[derive(Clone, Debug)]
pub(super) struct DefinitionBody {
    role_name: String,
    description: Option<String>,
    permissions: Vec<Permission>,
    assignable_scopes: Vec<Scope>,
}

#[derive(Deserialize)]
struct Wire {
    properties: Option<WireProperties>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireProperties {
    role_name: Option<String>,
    description: Option<String>,
    permissions: Option<Vec<WirePermission>>,
    assignable_scopes: Option<Vec<String>>,
}

/// A block of permissions, whose lists may be null. Members that the emulator does not know are ignored, as in Azure.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WirePermission {
    actions: Option<Vec<String>>,
    not_actions: Option<Vec<String>>,
    data_actions: Option<Vec<String>>,
    not_data_actions: Option<Vec<String>>,
}

impl From<WirePermission> for Permission {
    fn from(wire: WirePermission) -> Self {
        Self {
            actions: wire.actions.unwrap_or_default(),
            not_actions: wire.not_actions.unwrap_or_default(),
            data_actions: wire.data_actions.unwrap_or_default(),
            not_data_actions: wire.not_data_actions.unwrap_or_default(),
        }
    }
}

impl DefinitionBody {
    /// Reads a body. Azure's texts for what is missing are not known.
    pub(super) fn read(name: &str, body: &[u8]) -> Result<Self, ArmError> {
        if !names::is_guid(name) {
            let message =
                format!("The role definition ID '{name}' is not valid. The role definition ID must be a GUID.");
            return Err(ArmError::new(400, "InvalidRoleDefinitionId", message));
        }
        let wire: Wire = read_object(body).map_err(|error| ArmError::content(&error))?;
        let bad = |message: &str| ArmError::new(400, "InvalidRoleDefinition", message);
        let properties = wire.properties.ok_or_else(|| bad("The request was incorrectly formatted."))?;
        let role_name = properties.role_name.filter(|name| !name.trim().is_empty());
        let role_name = role_name.ok_or_else(|| bad("The role name must not be empty."))?;
        let scopes = properties.assignable_scopes.unwrap_or_default();
        if scopes.is_empty() {
            return Err(bad("The role must have at least one assignable scope."));
        }
        let scope = |text: &String| {
            // A custom role cannot have the root scope (Microsoft's docs on custom roles).
            Scope::parse(text).filter(|_| text != "/").ok_or_else(|| {
                ArmError::new(400, "InvalidAssignableScope", format!("The assignable scope '{text}' is not valid."))
            })
        };
        Ok(Self {
            role_name,
            description: properties.description,
            permissions: properties.permissions.unwrap_or_default().into_iter().map(Permission::from).collect(),
            assignable_scopes: scopes.iter().map(scope).collect::<Result<_, _>>()?,
        })
    }

    /// Where the role may be assigned. Who writes it needs the permission at all of them.
    pub(super) fn assignable_scopes(&self) -> &[Scope] {
        &self.assignable_scopes
    }
}

pub(super) fn check_put(state: &State, scope: &Scope, name: &str, body: &DefinitionBody) -> Result<(), ArmError> {
    governance::allow_write(state, &resource(scope, name), TYPE)?;
    if is_builtin(name) {
        let message = "Built-in roles cannot be changed.";
        return Err(ArmError::new(400, "RoleDefinitionUpdateNotPermitted", message));
    }
    // Names are unique in the tenant, wherever the roles can be assigned (azure-powershell issue 4365; the status is in
    // azure-sdk-for-net's tests).
    let others = builtin().iter().chain(state.role_definitions.values());
    let mut twins = others.filter(|other| !other.name.eq_ignore_ascii_case(name));
    if twins.any(|other| other.role_name.eq_ignore_ascii_case(&body.role_name)) {
        let message = "A custom role with the same name already exists in this directory. Use a different name.";
        return Err(ArmError::new(409, "RoleDefinitionWithSameNameExists", message));
    }
    Ok(())
}

pub(super) fn check_delete(state: &State, scope: &Scope, name: &str) -> Result<(), ArmError> {
    if find(state, scope, name).is_none() && !is_builtin(name) {
        return Ok(());
    }
    governance::allow_delete(state, &resource(scope, name))?;
    if is_builtin(name) {
        return Err(ArmError::new(400, "RoleDefinitionDeleteNotPermitted", "Built-in roles cannot be deleted."));
    }
    if state.role_assignments.values().any(|assignment| assignment.role.eq_ignore_ascii_case(name)) {
        let message = "There are existing role assignments referencing role.";
        return Err(ArmError::new(400, "RoleDefinitionHasAssignments", message));
    }
    Ok(())
}

/// Creates or updates. The answer is 201 in both cases: the specification has no other.
pub(super) fn put(state: &mut State, scope: &Scope, name: &str, body: DefinitionBody) -> ArmAnswer {
    let key = name.to_lowercase();
    let role = RoleDefinition {
        name: state.role_definitions.get(&key).map_or_else(|| name.to_owned(), |before| before.name.clone()),
        role_name: body.role_name,
        description: body.description.unwrap_or_default(),
        builtin: false,
        permissions: body.permissions,
        assignable_scopes: body.assignable_scopes.iter().map(ToString::to_string).collect(),
    };
    let shown = show(scope, &role);
    state.role_definitions.insert(key, role);
    ArmAnswer::created(shown)
}

pub(super) fn delete(state: &mut State, scope: &Scope, name: &str) -> Result<ArmAnswer, ArmError> {
    if find(state, scope, name).is_none() {
        return Ok(ArmAnswer::deleted(false));
    }
    let removed = state.role_definitions.remove(&name.to_lowercase());
    removed.map(|role| ArmAnswer::ok(show(scope, &role))).ok_or_else(|| does_not_exist(404, name))
}

fn find<'a>(state: &'a State, scope: &Scope, name: &str) -> Option<&'a RoleDefinition> {
    let there = state.role_definitions.get(&name.to_lowercase())?;
    there.is_assignable(&scope.to_string()).then_some(there)
}

fn is_builtin(name: &str) -> bool {
    builtin().iter().any(|role| role.name.eq_ignore_ascii_case(name))
}

fn resource(scope: &Scope, name: &str) -> String {
    let scope = scope.to_string();
    format!("{}/providers/{TYPE}/{name}", scope.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use axum::http::Method;
    use serde_json::{Value, json};

    use super::*;
    use crate::state::ArmRights;
    use crate::state::arm::fixtures::{GROUP, SUBSCRIPTION, ask_as, caller, state};

    const ONE: &str = "c0500000-0000-4000-8000-000000000001";
    const TWO: &str = "c0500000-0000-4000-8000-000000000002";
    const READER: &str = "acdd72a7-3385-48ef-bd42-f606fba81ae7";

    fn group() -> String {
        format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}")
    }

    fn ask_with(
        state: &mut State,
        rights: ArmRights,
        method: &Method,
        below: &str,
        body: &Value,
    ) -> Result<ArmAnswer, ArmError> {
        let path = format!("{}/providers/Microsoft.Authorization/{below}", group());
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        ask_as(state, &caller(rights), method, &path, "api-version=2022-05-01-preview", &body)
    }

    fn ask(state: &mut State, method: &Method, below: &str, body: &Value) -> Result<ArmAnswer, ArmError> {
        ask_with(state, ArmRights::All, method, below, body)
    }

    fn role(name: &str) -> Value {
        json!({"properties": {
            "roleName": name,
            "description": "why",
            "type": "CustomRole",
            "permissions": [{"actions": ["a/b/read"], "notActions": null}],
            "assignableScopes": [group()],
        }})
    }

    fn put(state: &mut State, name: &str, body: &Value) -> Result<ArmAnswer, ArmError> {
        ask(state, &Method::PUT, &format!("roleDefinitions/{name}"), body)
    }

    #[track_caller]
    fn refused(result: Result<ArmAnswer, ArmError>, status: u16, code: &str) {
        let error = result.unwrap_err();
        assert_eq!((error.status, error.code.as_str()), (status, code), "{}", error.message);
    }

    #[test]
    fn a_role_is_created_then_updated_then_deleted_then_absent() {
        let mut state = state(json!({}));
        let created = put(&mut state, ONE, &role("Mine")).unwrap();
        assert_eq!(created.status, 201);
        let body = created.body.unwrap();
        assert_eq!((&body["name"], &body["properties"]["description"]), (&json!(ONE), &json!("why")));
        assert_eq!(body["properties"]["permissions"][0]["notActions"], json!([]));
        assert_eq!(put(&mut state, &ONE.to_uppercase(), &role("Renamed")).unwrap().status, 201);
        let path = format!("roleDefinitions/{ONE}");
        let read = ask(&mut state, &Method::GET, &path, &Value::Null).unwrap().body.unwrap();
        assert_eq!(read["properties"]["roleName"], "Renamed");
        let deleted = ask(&mut state, &Method::DELETE, &path, &Value::Null).unwrap();
        assert_eq!((deleted.status, &deleted.body.unwrap()["name"]), (200, &json!(ONE)));
        assert_eq!(ask(&mut state, &Method::DELETE, &path, &Value::Null).unwrap().status, 204);
        refused(ask(&mut state, &Method::GET, &path, &Value::Null), 404, "RoleDefinitionDoesNotExist");
    }

    #[test]
    fn a_name_is_given_once() {
        let mut state = state(json!({}));
        put(&mut state, ONE, &role("Mine")).unwrap();
        refused(put(&mut state, TWO, &role("mine")), 409, "RoleDefinitionWithSameNameExists");
        refused(put(&mut state, TWO, &role("Reader")), 409, "RoleDefinitionWithSameNameExists");
        put(&mut state, ONE, &role("Mine")).unwrap();
    }

    #[test]
    fn a_builtin_role_stays_as_it_is() {
        let mut state = state(json!({}));
        refused(put(&mut state, READER, &role("Mine")), 400, "RoleDefinitionUpdateNotPermitted");
        let path = format!("roleDefinitions/{READER}");
        refused(ask(&mut state, &Method::DELETE, &path, &Value::Null), 400, "RoleDefinitionDeleteNotPermitted");
    }

    #[test]
    fn a_role_that_is_assigned_is_not_deleted() {
        let definition = json!({"name": ONE, "roleName": "Mine", "permissions": []});
        let assignment = json!({"identity": "orders", "role": "Mine"});
        let mut state = state(json!({
            "identities": [{"name": "orders"}], "roleDefinitions": [definition], "roleAssignments": [assignment],
        }));
        let path = format!("roleDefinitions/{ONE}");
        refused(ask(&mut state, &Method::DELETE, &path, &Value::Null), 400, "RoleDefinitionHasAssignments");
    }

    #[test]
    fn an_invalid_body_is_refused() {
        let mut state = state(json!({}));
        refused(put(&mut state, "mine", &role("Mine")), 400, "InvalidRoleDefinitionId");
        refused(put(&mut state, ONE, &json!({})), 400, "InvalidRoleDefinition");
        refused(put(&mut state, ONE, &role(" ")), 400, "InvalidRoleDefinition");
        for (scopes, code) in [(json!([]), "InvalidRoleDefinition"), (json!(["/"]), "InvalidAssignableScope")] {
            let mut body = role("Mine");
            body["properties"]["assignableScopes"] = scopes;
            refused(put(&mut state, ONE, &body), 400, code);
        }
    }

    #[test]
    fn the_writer_needs_the_permission_at_every_assignable_scope() {
        let grant = json!({"name": TWO, "roleName": "Roles", "assignableScopes": [group()],
            "permissions": [{"actions": ["Microsoft.Authorization/roleDefinitions/write"]}]});
        let mut state = state(json!({
            "identities": [{"name": "orders"}],
            "roleDefinitions": [grant],
            "roleAssignments": [{"identity": "orders", "role": "Roles", "scope": group()}],
        }));
        let principal = state.identities.values().next().unwrap().principal_id.clone();
        let grants = state.grants(&principal, crate::state::arm::fixtures::now());
        let writer = crate::state::arm::Caller { grants, ..caller(ArmRights::None) };
        let mut write = |scope: String| {
            let mut body = role("Mine");
            body["properties"]["assignableScopes"] = json!([group(), scope]);
            let path = format!("{}/providers/Microsoft.Authorization/roleDefinitions/{ONE}", group());
            let body = body.to_string().into_bytes();
            ask_as(&mut state, &writer, &Method::PUT, &path, "api-version=2022-04-01", &body)
        };
        assert_eq!(write(group()).unwrap().status, 201);
        refused(write(format!("/subscriptions/{SUBSCRIPTION}")), 403, "AuthorizationFailed");
    }
}
