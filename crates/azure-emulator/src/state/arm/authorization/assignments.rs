//! Role assignments.

use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::super::{ArmAnswer, ArmError};
use super::definitions::{self, equals, quoted, unsupported};
use crate::state::arm::paging::Page;
use crate::state::arm::scope::Scope;
use crate::state::arm::{governance, names};
use crate::state::model::{State, is_within};
use crate::state::reads::View;
use crate::state::roles::RoleAssignment;
use crate::state::text::read_object;
use crate::state::{ADMINISTRATOR, has_propagated};

const TYPE: &str = "Microsoft.Authorization/roleAssignments";
const TYPES: [&str; 5] = ["User", "Group", "ServicePrincipal", "ForeignGroup", "Device"];
const SERVICE_PRINCIPAL: &str = "ServicePrincipal";

/// The body of a PUT.
#[derive(Clone, Debug)]
pub(super) struct AssignmentBody {
    role: String,
    principal_id: String,
    principal_type: Option<String>,
    description: Option<String>,
    condition: Option<String>,
    condition_version: Option<String>,
}

#[derive(Deserialize)]
struct Wire {
    properties: Option<WireProperties>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireProperties {
    role_definition_id: Option<String>,
    principal_id: Option<String>,
    principal_type: Option<String>,
    description: Option<String>,
    condition: Option<String>,
    condition_version: Option<String>,
}

impl AssignmentBody {
    pub(super) fn read(name: &str, body: &[u8]) -> Result<Self, ArmError> {
        if !names::is_guid(name) {
            return Err(invalid_id(name));
        }
        let wire: Wire = read_object(body).map_err(|error| ArmError::content(&error))?;
        let bad = |message: String| ArmError::new(400, "InvalidCreateRoleAssignmentRequest", message);
        let properties = wire.properties.ok_or_else(|| bad("The request was incorrectly formatted.".to_owned()))?;
        let role_id = properties.role_definition_id.unwrap_or_default();
        let role = role_id.rsplit_once("/providers/Microsoft.Authorization/roleDefinitions/").map(|(_, role)| role);
        let role = role.filter(|role| names::is_guid(role)).ok_or_else(|| {
            let message = format!("The role definition ID '{role_id}' is not valid.");
            ArmError::new(400, "InvalidRoleDefinitionId", message)
        })?;
        let principal_id = properties.principal_id.unwrap_or_default();
        if !names::is_guid(&principal_id) {
            let message = format!("The Principal ID '{principal_id}' is not valid. Principal ID must be a GUID.");
            return Err(ArmError::new(400, "InvalidPrincipalId", message));
        }
        let known = |kind: &str| TYPES.into_iter().find(|known| known.eq_ignore_ascii_case(kind)).map(str::to_owned);
        let principal_type = match properties.principal_type.as_deref() {
            None | Some("") => None,
            Some(kind) => Some(known(kind).ok_or_else(|| bad(format!("The principal type '{kind}' is not valid.")))?),
        };
        if properties.condition.is_some() && properties.condition_version.as_deref() != Some("2.0") {
            return Err(bad("The condition version must be '2.0'.".to_owned()));
        }
        Ok(Self {
            role: role.to_owned(),
            principal_id,
            principal_type,
            description: properties.description,
            condition: properties.condition,
            condition_version: properties.condition_version,
        })
    }

    fn is_for(&self, assignment: &RoleAssignment, scope: &Scope) -> bool {
        assignment.is_at(scope)
            && assignment.role.eq_ignore_ascii_case(&self.role)
            && assignment.principal_id.eq_ignore_ascii_case(&self.principal_id)
    }
}

impl RoleAssignment {
    fn is_at(&self, scope: &Scope) -> bool {
        self.scope.eq_ignore_ascii_case(&scope.to_string())
    }
}

/// Which assignments to list.
#[derive(Clone, Debug, Default)]
pub(super) struct AssignmentFilter {
    /// Without those below the scope.
    at_scope: bool,
    principal_id: Option<String>,
}

impl AssignmentFilter {
    /// Reads `$filter`: `atScope()`, `principalId eq '…'` and `assignedTo('…')`, joined with `and`.
    pub(super) fn read(text: &str) -> Result<Self, ArmError> {
        let mut filter = Self::default();
        for term in text.split(" and ").map(str::trim).filter(|term| !term.is_empty()) {
            let assigned_to = || {
                let inner = term.get(..11).filter(|start| start.eq_ignore_ascii_case("assignedTo("))?;
                quoted(term[inner.len()..].strip_suffix(')')?)
            };
            match equals(term) {
                Some(("principalid", id)) => filter.principal_id = Some(id),
                None if term.eq_ignore_ascii_case("atScope()") => filter.at_scope = true,
                None => filter.principal_id = Some(assigned_to().ok_or_else(|| unsupported(text))?),
                Some(_) => return Err(unsupported(text)),
            }
        }
        Ok(filter)
    }

    /// Matches assignments at the scope, above it (they apply there too) and, unless the filter excludes them, below.
    fn matches(&self, assignment: &RoleAssignment, scope: &str) -> bool {
        let inherited = is_within(scope, &assignment.scope);
        let below = is_within(&assignment.scope, scope) && !self.at_scope;
        (inherited || below)
            && self.principal_id.as_ref().is_none_or(|id| assignment.principal_id.eq_ignore_ascii_case(id))
    }
}

pub(super) fn invalid_id(name: &str) -> ArmError {
    let message = format!("The role assignment ID '{name}' is not valid. The role assignment ID must be a GUID.");
    ArmError::new(400, "InvalidRoleAssignmentId", message)
}

pub(super) fn check_put(
    state: &State,
    scope: &Scope,
    name: &str,
    body: &AssignmentBody,
    now: Timestamp,
) -> Result<(), ArmError> {
    governance::allow_write(state, &id(&scope.to_string(), name), TYPE)?;
    if state.role_definition(&body.role).is_none_or(|role| !role.is_assignable(&scope.to_string())) {
        return Err(definitions::does_not_exist(400, &digits(&body.role)));
    }
    check_principal(state, body, now)?;
    match state.role_assignments.get(&name.to_lowercase()) {
        Some(there) if body.is_for(there, scope) => return Ok(()),
        Some(_) => {
            let message = "Tenant ID, application ID, principal ID, and scope are not allowed to be updated.";
            return Err(ArmError::new(400, "RoleAssignmentUpdateNotPermitted", message));
        }
        None => {}
    }
    if let Some(twin) = state.role_assignments.values().find(|there| body.is_for(there, scope)) {
        let message = format!(
            "The role assignment already exists. The ID of the existing role assignment is {}.",
            digits(&twin.name)
        );
        return Err(ArmError::new(409, "RoleAssignmentExists", message));
    }
    let Some(subscription) = scope.subscription() else { return Ok(()) };
    let root = format!("/subscriptions/{subscription}");
    let there = state.role_assignments.values().filter(|there| is_within(&there.scope, &root)).count();
    if there >= state.settings.roles.limit {
        let message = "No more role assignments can be created.";
        return Err(ArmError::new(400, "RoleAssignmentLimitExceeded", message));
    }
    Ok(())
}

/// The directory learns of a new principal with a delay. In Azure, requests with the right principal type skip most of that
/// delay, but not all of it. Here they don't skip any of it, so that clients have to retry.
fn check_principal(state: &State, body: &AssignmentBody, now: Timestamp) -> Result<(), ArmError> {
    let lag = state.settings.roles.principal_replication_seconds;
    let known = body.principal_id.eq_ignore_ascii_case(ADMINISTRATOR)
        || state
            .identity_by_principal_id(&body.principal_id)
            .is_some_and(|identity| has_propagated(identity.created_at, now, lag));
    if !known {
        let message = format!(
            "Principal {} does not exist in the directory {}. Check that you have the correct principal ID. If you are creating this principal and then immediately assigning a role, this error might be related to a replication delay. In this case, set the role assignment principalType property to a value, such as ServicePrincipal, User, or Group.  See https://aka.ms/docs-principaltype",
            digits(&body.principal_id),
            state.tenant_id
        );
        return Err(ArmError::new(400, "PrincipalNotFound", message));
    }
    match body.principal_type.as_deref() {
        None | Some(SERVICE_PRINCIPAL) => Ok(()),
        Some(other) => {
            let message = format!(
                "The PrincipalId '{}' has type 'ServicePrincipal' , which is different from specified PrinciaplType '{other}'.",
                digits(&body.principal_id)
            );
            Err(ArmError::new(400, "UnmatchedPrincipalType", message))
        }
    }
}

pub(super) fn check_delete(state: &State, scope: &Scope, name: &str) -> Result<(), ArmError> {
    match find(state, scope, name) {
        Some(_) => governance::allow_delete(state, &id(&scope.to_string(), name)),
        None => Ok(()),
    }
}

pub(super) fn put(
    state: &mut State,
    scope: &Scope,
    name: &str,
    body: AssignmentBody,
    caller: String,
    now: Timestamp,
) -> ArmAnswer {
    let before = state.role_assignments.get(&name.to_lowercase());
    let AssignmentBody { role, principal_id, description, condition, condition_version, .. } = body;
    let assignment = RoleAssignment {
        name: before.map_or_else(|| name.to_owned(), |before| before.name.clone()),
        scope: before.map_or_else(|| scope.to_string(), |before| before.scope.clone()),
        role,
        principal_id,
        principal_type: SERVICE_PRINCIPAL.to_owned(),
        description,
        condition,
        condition_version,
        created_on: before.map_or(now, |before| before.created_on),
        updated_on: now,
        created_by: before.map_or(caller, |before| before.created_by.clone()),
    };
    let mut shown = show(&assignment);
    let replaced = state.role_assignments.insert(name.to_lowercase(), assignment).is_some();
    if replaced {
        return ArmAnswer::ok(shown);
    }
    // Only later responses say who created it.
    shown["properties"]["createdBy"] = Value::Null;
    ArmAnswer::created(shown)
}

pub(super) fn get(view: View<'_>, scope: &Scope, name: &str) -> Result<Value, ArmError> {
    let found = view.role_assignment(&name.to_lowercase()).filter(|there| there.is_at(scope));
    found.map(show).ok_or_else(|| {
        ArmError::new(404, "RoleAssignmentNotFound", format!("The role assignment '{name}' is not found."))
    })
}

pub(super) fn delete(state: &mut State, scope: &Scope, name: &str) -> ArmAnswer {
    if find(state, scope, name).is_none() {
        return ArmAnswer::deleted(false);
    }
    let removed = state.role_assignments.remove(&name.to_lowercase());
    ArmAnswer { status: 200, body: removed.as_ref().map(show), ..ArmAnswer::default() }
}

pub(super) fn list(
    view: View<'_>,
    scope: &Scope,
    filter: &AssignmentFilter,
    page: &Page,
) -> (Vec<Value>, Option<String>) {
    let at = scope.to_string();
    let listed = view.role_assignments().filter(|(_, assignment)| filter.matches(assignment, &at));
    page.cut(listed, view.state.settings.roles.page_size, show)
}

fn find<'a>(state: &'a State, scope: &Scope, name: &str) -> Option<&'a RoleAssignment> {
    state.role_assignments.get(&name.to_lowercase()).filter(|there| there.is_at(scope))
}

fn id(scope: &str, name: &str) -> String {
    format!("{}/providers/{TYPE}/{name}", scope.trim_end_matches('/'))
}

/// A GUID without hyphens, as in some of Azure's messages.
fn digits(guid: &str) -> String {
    Uuid::try_parse(guid).map_or_else(|_| guid.to_owned(), |guid| guid.simple().to_string())
}

fn show(assignment: &RoleAssignment) -> Value {
    let scope = Scope::parse(&assignment.scope);
    let role = scope.map_or_else(String::new, |scope| definitions::id(&scope, &assignment.role));
    let mut properties = Map::new();
    let mut put = |name: &str, value: Value| properties.insert(name.to_owned(), value);
    put("roleDefinitionId", json!(role));
    put("principalId", json!(assignment.principal_id));
    put("principalType", json!(assignment.principal_type));
    put("scope", json!(assignment.scope));
    put("condition", json!(assignment.condition));
    put("conditionVersion", json!(assignment.condition_version));
    put("delegatedManagedIdentityResourceId", Value::Null);
    put("description", json!(assignment.description));
    put("createdOn", json!(assignment.created_on));
    put("updatedOn", json!(assignment.updated_on));
    put("createdBy", json!(assignment.created_by));
    put("updatedBy", json!(assignment.created_by));
    json!({"id": id(&assignment.scope, &assignment.name), "name": assignment.name, "type": TYPE, "properties": properties})
}
