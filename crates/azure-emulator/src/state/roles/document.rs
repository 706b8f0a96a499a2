//! Roles as JSON.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::super::{ADMINISTRATOR, Defaults, InvalidDocument, State};
use super::{Permission, RoleAssignment, RoleDefinition, builtin};
use crate::state::arm::names::is_guid;
use crate::state::arm::scope::Scope;

/// A custom role definition as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are those of RoleDefinition")]
pub struct RoleDefinitionDocument {
    pub name: String,
    pub role_name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    pub permissions: Vec<Permission>,
    #[serde(default = "root")]
    pub assignable_scopes: Vec<String>,
}

/// A role assignment as JSON. The principal is given by object ID or as the name of an identity, the role by GUID or by
/// name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the fields are those of RoleAssignment")]
pub struct RoleAssignmentDocument {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// By default, the default resource group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    pub role: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal_id: Option<String>,
    /// Input only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition_version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_on: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_on: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
}

fn root() -> Vec<String> {
    vec!["/".to_owned()]
}

/// The custom roles of a document, by GUID in lower case.
pub(in crate::state) fn read_definitions(
    documents: Vec<RoleDefinitionDocument>,
) -> Result<BTreeMap<String, RoleDefinition>, InvalidDocument> {
    let mut roles = BTreeMap::new();
    for document in documents {
        if !is_guid(&document.name) {
            return Err(InvalidDocument(format!("role definition {:?} is not a GUID", document.name)));
        }
        let role = RoleDefinition {
            name: document.name,
            role_name: document.role_name,
            description: document.description,
            builtin: false,
            permissions: document.permissions,
            assignable_scopes: document.assignable_scopes,
        };
        let name = role.name.to_lowercase();
        let taken = builtin().iter().any(|one| one.name == name);
        if roles.insert(name.clone(), role).is_some() || taken {
            return Err(InvalidDocument(format!("two role definitions have the GUID {name}")));
        }
    }
    Ok(roles)
}

/// Adds the assignments of a document to a state that already has its identities and roles.
pub(in crate::state) fn read_assignments(
    state: &mut State,
    documents: Vec<RoleAssignmentDocument>,
    defaults: &Defaults,
    now: Timestamp,
) -> Result<(), InvalidDocument> {
    for document in documents {
        let assignment = assignment(state, document, defaults, now)?;
        let name = assignment.name.clone();
        if state.role_assignments.insert(name.to_lowercase(), assignment).is_some() {
            return Err(InvalidDocument(format!("two role assignments have the GUID {name}")));
        }
    }
    Ok(())
}

fn assignment(
    state: &mut State,
    document: RoleAssignmentDocument,
    defaults: &Defaults,
    now: Timestamp,
) -> Result<RoleAssignment, InvalidDocument> {
    let invalid = |problem: String| InvalidDocument(format!("a role assignment {problem}"));
    let group = || format!("/subscriptions/{}/resourceGroups/{}", defaults.subscription_id, defaults.resource_group);
    let scope = document.scope.unwrap_or_else(group);
    let scope = Scope::parse(&scope).ok_or_else(|| invalid(format!("has {scope:?} for a scope")))?.to_string();
    let named = |role: &&RoleDefinition| role.role_name.eq_ignore_ascii_case(&document.role);
    let role = state
        .role_definition(&document.role)
        .or_else(|| state.role_definitions.values().chain(builtin()).find(named))
        .map(|role| role.name.clone())
        .ok_or_else(|| invalid(format!("names the role {:?}, which is not in it", document.role)))?;
    let principal_id = match (document.principal_id, document.identity) {
        (Some(id), _) if is_guid(&id) => id,
        (None, Some(name)) => state
            .identities
            .values()
            .find(|identity| identity.id.name.eq_ignore_ascii_case(&name))
            .map(|identity| identity.principal_id.clone())
            .ok_or_else(|| invalid(format!("names the identity {name:?}, which is not in it")))?,
        _ => return Err(invalid("needs a principalId, a GUID, or an identity".to_owned())),
    };
    let name = match document.name {
        Some(name) if is_guid(&name) => name,
        Some(name) => return Err(invalid(format!("has the name {name:?}, which is not a GUID"))),
        None => state.next_guid(&format!("{scope}/{role}/{principal_id}")),
    };
    Ok(RoleAssignment {
        name,
        scope,
        role,
        principal_id,
        principal_type: document.principal_type.unwrap_or_else(|| "ServicePrincipal".to_owned()),
        description: document.description,
        condition: document.condition,
        condition_version: document.condition_version,
        created_on: document.created_on.unwrap_or(now),
        updated_on: document.updated_on.or(document.created_on).unwrap_or(now),
        created_by: document.created_by.unwrap_or_else(|| ADMINISTRATOR.to_owned()),
    })
}

pub(in crate::state) fn definition_documents(state: &State) -> Vec<RoleDefinitionDocument> {
    let shown = |role: &RoleDefinition| RoleDefinitionDocument {
        name: role.name.clone(),
        role_name: role.role_name.clone(),
        description: role.description.clone(),
        permissions: role.permissions.clone(),
        assignable_scopes: role.assignable_scopes.clone(),
    };
    state.role_definitions.values().map(shown).collect()
}

pub(in crate::state) fn assignment_documents(state: &State) -> Vec<RoleAssignmentDocument> {
    let shown = |assignment: &RoleAssignment| RoleAssignmentDocument {
        name: Some(assignment.name.clone()),
        scope: Some(assignment.scope.clone()),
        role: assignment.role.clone(),
        principal_id: Some(assignment.principal_id.clone()),
        identity: None,
        principal_type: Some(assignment.principal_type.clone()),
        description: assignment.description.clone(),
        condition: assignment.condition.clone(),
        condition_version: assignment.condition_version.clone(),
        created_on: Some(assignment.created_on),
        updated_on: Some(assignment.updated_on),
        created_by: Some(assignment.created_by.clone()),
    };
    state.role_assignments.values().map(shown).collect()
}
