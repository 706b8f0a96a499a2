//! Looks up role definitions; lists, creates and deletes role assignments.

use azure_core::http::{Method, RawResponse, Request};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::client::{ArmClient, Call};
use super::error::{ArmError, ArmErrorCause, Operation};
use super::paging::{Page, Pages};
use ensign_api::ArmId;
use ensign_api::arm_id::is_guid;
use ensign_core::roles::{ActionBlock, Assignment, Lookup, RoleDefinition, RoleScope};

/// More pages than the assignments of one principal in one resource group can fill.
const MAX_PAGES: u32 = 40;
const PROVIDER: [&str; 2] = ["providers", "Microsoft.Authorization"];

impl ArmClient {
    /// Looks up a role for an identity. It is an error if no role or several roles have the name.
    pub async fn role_definition(&self, id: &ArmId, lookup: &Lookup) -> Result<RoleDefinition, ArmError> {
        let call = self.call(Operation::ReadRole, id);
        if lookup.is_by_guid() {
            let url = self.role_url(&lookup.root, &["roleDefinitions", &lookup.role], None);
            let response = self.send(call, Request::new(url, Method::Get)).await?;
            return call.decode::<DefinitionBody>(&response)?.into_definition(call);
        }
        let filter = format!("roleName eq '{}'", lookup.role.replace('\'', "''"));
        let url = self.role_url(&lookup.root, &["roleDefinitions"], Some(&filter));
        let response = self.send(call, Request::new(url, Method::Get)).await?;
        let found: Vec<DefinitionBody> = call.decode::<Page<DefinitionBody>>(&response)?.value;
        // Azure applies the filter; check that it did.
        let mut named = found.into_iter().filter(|role| role.properties.role_name.to_lowercase() == lookup.role);
        match (named.next(), named.next()) {
            (Some(role), None) => role.into_definition(call),
            (Some(_), Some(_)) => Err(call.refuse(404, "RoleNameAmbiguous", "several roles have the name")),
            (None, _) => Err(call.refuse(404, "RoleDefinitionDoesNotExist", "no role has the name")),
        }
    }

    /// Lists a principal's assignments in a scope and below: all pages, or an error. Assignments that it inherits from
    /// above are included.
    pub async fn role_assignments(
        &self,
        id: &ArmId,
        root: &RoleScope,
        principal: &str,
    ) -> Result<Vec<Assignment>, ArmError> {
        let call = self.call(Operation::ReadRoleAssignments, id);
        if !is_guid(principal) {
            return Err(call.unreadable("the identity's principal ID is not a GUID"));
        }
        let first = self.role_url(root, &["roleAssignments"], Some(&format!("principalId eq '{principal}'")));
        let mut pages = Pages::new(first, MAX_PAGES);
        let mut assignments = Vec::new();
        while let Some((_, url)) = pages.next().map_err(|cause| call.error(cause))? {
            let response = self.send(call, Request::new(url, Method::Get)).await?;
            // One that can't be read is somebody else's.
            let page: Vec<Value> = pages.read(&response).map_err(|cause| call.error(cause))?;
            let readable = page.into_iter().filter_map(|entry| serde_json::from_value::<AssignmentBody>(entry).ok());
            assignments.extend(readable.filter_map(|body| body.into_assignment(call).ok()));
        }
        Ok(assignments)
    }

    /// Reads one assignment; `None` if it does not exist.
    pub async fn role_assignment(
        &self,
        id: &ArmId,
        scope: &RoleScope,
        name: &str,
    ) -> Result<Option<Assignment>, ArmError> {
        let call = self.call(Operation::ReadRoleAssignments, id);
        let url = self.role_url(scope, &["roleAssignments", name], None);
        match self.send(call, Request::new(url, Method::Get)).await {
            Ok(response) => call.decode::<AssignmentBody>(&response)?.into_assignment(call).map(Some),
            Err(ArmError { cause: ArmErrorCause::Refused { status: 404, code, .. }, .. }) if is_gone(&code) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates or updates an assignment for a service principal; returns what Azure stored.
    pub async fn put_role_assignment(
        &self,
        id: &ArmId,
        assignment: &Assignment,
        description: &str,
    ) -> Result<Assignment, ArmError> {
        let call = self.call(Operation::PutRoleAssignment, id);
        let scope = scope_of(call, assignment)?;
        let role = definition_id(&scope, &assignment.role);
        let body = json!({"properties": {
            "roleDefinitionId": role,
            "principalId": assignment.principal,
            // Without the type, Azure looks up the principal and does not find a new one.
            "principalType": "ServicePrincipal",
            "description": description,
        }});
        let mut request =
            Request::new(self.role_url(&scope, &["roleAssignments", &assignment.name], None), Method::Put);
        request.insert_header("content-type", "application/json");
        request.set_body(body.to_string());
        let response = self.send(call, request).await?;
        call.decode::<AssignmentBody>(&response)?.into_assignment(call)
    }

    /// Deletes an assignment. Succeeds if it or its scope does not exist, but not if something between here and ARM responded
    /// with a page of its own.
    pub async fn delete_role_assignment(&self, id: &ArmId, assignment: &Assignment) -> Result<(), ArmError> {
        let call = self.call(Operation::DeleteRoleAssignment, id);
        let scope = scope_of(call, assignment)?;
        let url = self.role_url(&scope, &["roleAssignments", &assignment.name], None);
        let response: RawResponse = match self.send(call, Request::new(url, Method::Delete)).await {
            Err(ArmError { cause: ArmErrorCause::Refused { status: 404, code, .. }, .. }) if is_gone(&code) => {
                return Ok(());
            }
            response => response?,
        };
        let body: &[u8] = response.body().as_ref();
        if body.is_empty() { Ok(()) } else { call.decode::<AssignmentBody>(&response).map(|_| ()) }
    }

    fn role_url(&self, scope: &RoleScope, under: &[&str], filter: Option<&str>) -> Url {
        let mut url = self.endpoint.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.clear().extend(scope.segments()).extend(PROVIDER).extend(under);
        }
        if let Some(filter) = filter {
            url.query_pairs_mut().append_pair("$filter", filter);
        }
        url
    }
}

/// The ID of a role definition, as assignments in the scope refer to it.
fn definition_id(scope: &RoleScope, role: &str) -> String {
    let mut segments = scope.segments();
    let subscription = match (segments.next(), segments.next()) {
        (Some(first), Some(id)) if first.eq_ignore_ascii_case("subscriptions") => format!("/subscriptions/{id}"),
        _ => String::new(),
    };
    format!("{subscription}/providers/Microsoft.Authorization/roleDefinitions/{role}")
}

fn scope_of(call: Call<'_>, assignment: &Assignment) -> Result<RoleScope, ArmError> {
    assignment.scope.parse().map_err(|_| call.unreadable("the assignment's scope is invalid"))
}

/// Whether a 404 means that the assignment or its scope does not exist.
fn is_gone(code: &str) -> bool {
    matches!(code, "RoleAssignmentNotFound" | "ResourceNotFound" | "ResourceGroupNotFound" | "ParentResourceNotFound")
}

#[derive(Deserialize)]
struct DefinitionBody {
    name: String,
    properties: DefinitionProperties,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DefinitionProperties {
    role_name: String,
    permissions: Vec<PermissionBody>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PermissionBody {
    #[serde(default)]
    actions: Vec<String>,
    #[serde(default)]
    not_actions: Vec<String>,
}

impl DefinitionBody {
    fn into_definition(self, call: Call<'_>) -> Result<RoleDefinition, ArmError> {
        if !is_guid(&self.name) {
            return Err(call.unreadable("the role definition's name is not a GUID"));
        }
        let block = |body: PermissionBody| ActionBlock { actions: body.actions, not_actions: body.not_actions };
        Ok(RoleDefinition {
            id: self.name.to_lowercase(),
            name: self.properties.role_name,
            blocks: self.properties.permissions.into_iter().map(block).collect(),
        })
    }
}

#[derive(Deserialize)]
struct AssignmentBody {
    name: String,
    properties: AssignmentProperties,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AssignmentProperties {
    scope: String,
    role_definition_id: String,
    principal_id: String,
    #[serde(default)]
    condition: Option<String>,
}

impl AssignmentBody {
    fn into_assignment(self, call: Call<'_>) -> Result<Assignment, ArmError> {
        let AssignmentProperties { scope, role_definition_id, principal_id, condition } = self.properties;
        // The ID may lack the subscription.
        let role = role_definition_id.rsplit('/').next().unwrap_or_default();
        if !is_guid(&self.name) || !is_guid(role) {
            return Err(call.unreadable("a role assignment's name or role is not a GUID"));
        }
        Ok(Assignment { name: self.name, scope, role: role.to_lowercase(), principal: principal_id, condition })
    }
}
