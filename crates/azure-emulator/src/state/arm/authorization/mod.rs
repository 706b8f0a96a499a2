//! Microsoft.Authorization: role definitions and role assignments; lists locks and deny assignments.

mod assignments;
mod definition_writes;
mod definitions;
mod deny_assignments;
mod locks;

use axum::http::Method;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::governance::{self, authorize};
use super::paging::Page;
use super::scope::Scope;
use super::versions::ApiVersion;
use super::{ArmAnswer, ArmError, ArmRequest, Operation, names};
use crate::state::model::State;
use crate::state::text::query_parameter;
use assignments::{AssignmentBody, AssignmentFilter};
use definition_writes::DefinitionBody;
use definitions::DefinitionFilter;

/// An operation on roles.
#[derive(Clone, Debug)]
pub(super) struct RoleOperation {
    scope: Scope,
    kind: RoleKind,
    /// The filter of a list, for the link to its next page.
    filter: String,
    /// Object ID of the caller.
    caller: String,
}

#[derive(Clone, Debug)]
enum RoleKind {
    GetDefinition(String),
    ListDefinitions(DefinitionFilter),
    PutDefinition(String, DefinitionBody),
    DeleteDefinition(String),
    ListLocks,
    ListDenyAssignments,
    GetAssignment(String),
    ListAssignments(AssignmentFilter, Page),
    PutAssignment(String, AssignmentBody),
    DeleteAssignment(String),
}

impl RoleOperation {
    /// The subscription, if the scope is in one, and the HTTP method.
    pub(super) fn about(&self) -> (&str, Method) {
        let method = match self.kind {
            RoleKind::PutAssignment(..) | RoleKind::PutDefinition(..) => Method::PUT,
            RoleKind::DeleteAssignment(_) | RoleKind::DeleteDefinition(_) => Method::DELETE,
            _ => Method::GET,
        };
        (self.scope.subscription().unwrap_or_default(), method)
    }

    pub(super) fn is_read(&self) -> bool {
        self.about().1 == Method::GET
    }
}

/// Splits a path into the scope and what is below Microsoft.Authorization, if the path contains that.
pub(super) fn split(segments: &[String]) -> Option<(&[String], &[String])> {
    let is = |at: usize, keyword: &str| segments.get(at).is_some_and(|segment| segment.eq_ignore_ascii_case(keyword));
    let at = (0..segments.len())
        .rev()
        .find(|at| is(*at, "providers") && is(at + 1, "Microsoft.Authorization") && segments.len() > at + 2)?;
    Some((&segments[..at], &segments[at + 2..]))
}

/// Checks a request in ARM's order.
pub(super) fn plan(
    state: &State,
    request: &ArmRequest<'_>,
    (above, below): (&[String], &[String]),
) -> Result<Operation, ArmError> {
    let version = ApiVersion::of_authorization(request.query, below.first().map_or("", String::as_str))?;
    let shown = || format!("/{}", above.join("/"));
    let scope = Scope::from_segments(above.to_vec()).ok_or_else(|| {
        let message = format!("The scope '{}' is invalid.", shown());
        ArmError::new(400, "InvalidScope", message)
    })?;
    let group = if scope.subscription().is_some() {
        let subscription = super::plan::subscription(state, request, above)?;
        scope.resource_group().map(|group| (subscription.resource_groups.contains_key(&group.to_lowercase()), group))
    } else {
        None
    };
    let (action, kind) = kind(request, below)?;
    let path = request.path.trim_end_matches('/');
    let action_name = format!("Microsoft.Authorization/{action}");
    authorize(state, request.caller, &action_name, path)?;
    if let RoleKind::PutDefinition(_, body) = &kind {
        for assignable in body.assignable_scopes() {
            authorize(state, request.caller, &action_name, &assignable.to_string())?;
        }
    }
    if let Some((false, group)) = group {
        let message = format!("Resource group '{group}' could not be found.");
        return Err(ArmError::front(404, "ResourceGroupNotFound", message));
    }
    let disabled = scope.subscription().and_then(|id| state.subscription(id)).filter(|_| !action.ends_with("/read"));
    if let Some(subscription) = disabled {
        governance::enabled(subscription)?;
    }
    if let Some(key) = scope.identity().filter(|key| !state.identities.contains_key(key)) {
        let name = key.rsplit('/').next().unwrap_or_default();
        let resource = format!("userAssignedIdentities/{name}");
        return Err(ArmError::resource_not_found(&resource, scope.resource_group().unwrap_or_default()));
    }
    let filter = query_parameter(request.query, "$filter").unwrap_or_default();
    let role = RoleOperation { scope, kind, filter, caller: request.caller.object_id.clone() };
    Ok(Operation { kind: super::OperationKind::Role(role), version, path: path.to_owned(), staleness: None })
}

fn kind(request: &ArmRequest<'_>, below: &[String]) -> Result<(&'static str, RoleKind), ArmError> {
    let filter = || query_parameter(request.query, "$filter").unwrap_or_default();
    let below: Vec<&str> = below.iter().map(String::as_str).collect();
    let (of, name) = match below[..] {
        [of] => (of, None),
        [of, name] => (of, Some(name.to_owned())),
        _ => (below.first().copied().unwrap_or_default(), None),
    };
    let of = of.to_lowercase();
    if below.len() > 2 || !matches!(of.as_str(), "roledefinitions" | "roleassignments" | "locks" | "denyassignments") {
        let message = format!(
            "The resource type '{}' could not be found in the namespace 'Microsoft.Authorization'.",
            below.first().copied().unwrap_or_default()
        );
        return Err(ArmError::new(404, "InvalidResourceType", message));
    }
    Ok(match (of.as_str(), name, request.method) {
        ("roledefinitions", None, &Method::GET) => {
            ("roleDefinitions/read", RoleKind::ListDefinitions(DefinitionFilter::read(&filter())?))
        }
        ("roledefinitions", Some(name), &Method::GET) => ("roleDefinitions/read", RoleKind::GetDefinition(name)),
        ("roledefinitions", Some(name), &Method::PUT) => {
            let body = DefinitionBody::read(&name, request.body)?;
            ("roleDefinitions/write", RoleKind::PutDefinition(name, body))
        }
        ("roledefinitions", Some(name), &Method::DELETE) => {
            ("roleDefinitions/delete", RoleKind::DeleteDefinition(name))
        }
        ("locks", None, &Method::GET) => ("locks/read", RoleKind::ListLocks),
        ("denyassignments", None, &Method::GET) => ("denyAssignments/read", RoleKind::ListDenyAssignments),
        ("roleassignments", None, &Method::GET) => {
            let page = Page::from_query(request.query, false)?;
            ("roleAssignments/read", RoleKind::ListAssignments(AssignmentFilter::read(&filter())?, page))
        }
        ("roleassignments", Some(name), &Method::GET) => ("roleAssignments/read", RoleKind::GetAssignment(name)),
        ("roleassignments", Some(name), &Method::PUT) => {
            let body = AssignmentBody::read(&name, request.body)?;
            ("roleAssignments/write", RoleKind::PutAssignment(name, body))
        }
        ("roleassignments", Some(name), &Method::DELETE) if names::is_guid(&name) => {
            ("roleAssignments/delete", RoleKind::DeleteAssignment(name))
        }
        ("roleassignments", Some(name), &Method::DELETE) => return Err(assignments::invalid_id(&name)),
        _ => {
            let message = format!("The requested resource does not support http method '{}'.", request.method);
            return Err(ArmError::new(405, "MethodNotAllowed", message));
        }
    })
}

/// Checks whether the operation would succeed now, without changing anything.
pub(super) fn check(state: &State, operation: &RoleOperation, now: Timestamp) -> Result<(), ArmError> {
    match &operation.kind {
        RoleKind::PutAssignment(name, body) => assignments::check_put(state, &operation.scope, name, body, now),
        RoleKind::DeleteAssignment(name) => assignments::check_delete(state, &operation.scope, name),
        RoleKind::PutDefinition(name, body) => definition_writes::check_put(state, &operation.scope, name, body),
        RoleKind::DeleteDefinition(name) => definition_writes::check_delete(state, &operation.scope, name),
        _ => Ok(()),
    }
}

/// Applies the operation. A read sees the state as of `seen`. `link` makes the link to a list's next page from its token
/// and filter.
pub(super) fn apply(
    state: &mut State,
    operation: RoleOperation,
    seen: Timestamp,
    now: Timestamp,
    link: impl Fn(&str, &str) -> String,
) -> Result<ArmAnswer, ArmError> {
    let RoleOperation { scope, kind, filter, caller } = operation;
    match kind {
        RoleKind::GetDefinition(name) => definitions::get(state.at(seen), &scope, &name).map(ArmAnswer::ok),
        RoleKind::ListDefinitions(filter) => {
            Ok(ArmAnswer::ok(super::list(definitions::list(state.at(seen), &scope, &filter), None)))
        }
        RoleKind::GetAssignment(name) => assignments::get(state.at(seen), &scope, &name).map(ArmAnswer::ok),
        RoleKind::ListAssignments(wanted, page) => {
            let (values, next): (Vec<Value>, _) = assignments::list(state.at(seen), &scope, &wanted, &page);
            Ok(ArmAnswer::ok(super::list(values, next.map(|token| link(&token, &filter)))))
        }
        RoleKind::PutAssignment(name, body) => Ok(assignments::put(state, &scope, &name, body, caller, now)),
        RoleKind::DeleteAssignment(name) => Ok(assignments::delete(state, &scope, &name)),
        RoleKind::PutDefinition(name, body) => Ok(definition_writes::put(state, &scope, &name, body)),
        RoleKind::DeleteDefinition(name) => definition_writes::delete(state, &scope, &name),
        RoleKind::ListDenyAssignments => Ok(ArmAnswer::ok(super::list(deny_assignments::list(state, &scope), None))),
        RoleKind::ListLocks => Ok(ArmAnswer::ok(super::list(locks::list(state, &scope), None))),
    }
}

#[cfg(test)]
mod tests;
