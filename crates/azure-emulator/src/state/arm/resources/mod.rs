//! ARM's own types, as far as the Azure CLI and the clients need them: tenants, subscriptions, resource groups, the
//! registration of resource providers, and tags at a scope. Unlike identities and roles, they never lag.

mod groups;
mod providers;
mod subscriptions;
mod tags;

use axum::http::Method;
use k8s_openapi::jiff::Timestamp;

use super::governance::{self, authorize};
use super::versions::ApiVersion;
use super::{ArmAnswer, ArmError, ArmRequest, Operation, OperationKind};
use crate::state::model::{IdentityId, State};
use groups::GroupBody;
use tags::TagsPatch;

/// The versions of ARM's own types (Azure/bicep issue 17091, an error message of 2025).
const KNOWN: [&str; 60] = [
    "2024-10-01-preview",
    "2024-11-01",
    "2024-08-01",
    "2024-07-01",
    "2024-06-01-preview",
    "2024-03-01",
    "2023-07-01",
    "2023-07-01-preview",
    "2023-03-01-preview",
    "2022-12-01",
    "2022-11-01-preview",
    "2022-09-01",
    "2022-06-01",
    "2022-05-01",
    "2022-03-01-preview",
    "2022-01-01",
    "2021-04-01",
    "2021-01-01",
    "2020-10-01",
    "2020-09-01",
    "2020-08-01",
    "2020-07-01",
    "2020-06-01",
    "2020-05-01",
    "2020-01-01",
    "2019-11-01",
    "2019-10-01",
    "2019-09-01",
    "2019-08-01",
    "2019-07-01",
    "2019-06-01",
    "2019-05-10",
    "2019-05-01",
    "2019-03-01",
    "2018-11-01",
    "2018-09-01",
    "2018-08-01",
    "2018-07-01",
    "2018-06-01",
    "2018-05-01",
    "2018-02-01",
    "2018-01-01",
    "2017-12-01",
    "2017-08-01",
    "2017-06-01",
    "2017-05-10",
    "2017-05-01",
    "2017-03-01",
    "2016-09-01",
    "2016-07-01",
    "2016-06-01",
    "2016-02-01",
    "2015-11-01",
    "2015-01-01",
    "2014-04-01-preview",
    "2014-04-01",
    "2014-01-01",
    "2013-03-01",
    "2014-02-26",
    "2014-04",
];

/// An operation on one of ARM's own types.
#[derive(Clone, Debug)]
pub(super) struct ResourceOperation {
    method: Method,
    /// Empty for what is above subscriptions.
    subscription: String,
    kind: ResourceKind,
}

#[derive(Clone, Debug)]
enum ResourceKind {
    ListTenants {
        tenant: String,
    },
    ListSubscriptions {
        tenant: String,
        sees_all: bool,
        scopes: Vec<String>,
    },
    GetSubscription,
    ListGroups,
    GetGroup(String),
    GroupExists(String),
    PutGroup(String, GroupBody),
    DeleteGroup(String),
    /// How the deletion of a resource group, which happens at once, went on.
    DeletionResult,
    GetProvider(String),
    RegisterProvider(String),
    GetTags(IdentityId),
    PatchTags(IdentityId, TagsPatch),
}

impl ResourceOperation {
    /// The subscription, if there is one, and the HTTP method.
    pub(super) fn about(&self) -> (&str, &Method) {
        (&self.subscription, &self.method)
    }
}

/// What a path refers to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target<'a> {
    Tenants,
    Subscriptions,
    Subscription,
    Groups,
    Group(&'a str),
    Deletion,
    Provider(&'a str),
    Registration(&'a str),
    /// The tags of the resource with these segments.
    Tags(&'a [String]),
}

/// Reads a path, if it is about one of ARM's own types.
pub(super) fn target(segments: &[String]) -> Option<Target<'_>> {
    let is = |at: usize, keyword: &str| segments.get(at).is_some_and(|segment| segment.eq_ignore_ascii_case(keyword));
    let at_tags = segments.len().checked_sub(4).filter(|at| {
        is(*at, "providers") && is(at + 1, "Microsoft.Resources") && is(at + 2, "tags") && is(at + 3, "default")
    });
    match segments {
        [_] if is(0, "tenants") => Some(Target::Tenants),
        _ if !is(0, "subscriptions") => None,
        [_] => Some(Target::Subscriptions),
        [_, _] => Some(Target::Subscription),
        [_, _, _] if is(2, "resourceGroups") => Some(Target::Groups),
        [_, _, _, group] if is(2, "resourceGroups") => Some(Target::Group(group)),
        [_, _, _, _] if is(2, "operationresults") => Some(Target::Deletion),
        [_, _, _, namespace] if is(2, "providers") => Some(Target::Provider(namespace)),
        [_, _, _, namespace, _] if is(2, "providers") && is(4, "register") => Some(Target::Registration(namespace)),
        _ => at_tags.and_then(|at| segments.get(..at)).map(Target::Tags),
    }
}

/// Checks a request in ARM's order: version, subscription, rights, content.
pub(super) fn plan(
    state: &State,
    request: &ArmRequest<'_>,
    segments: &[String],
    target: &Target<'_>,
) -> Result<Operation, ArmError> {
    let version = ApiVersion::of_resources(request.query, &KNOWN)?;
    let (action, kind) = kind(request, target)?;
    let mut subscription = String::new();
    if !matches!(target, Target::Tenants | Target::Subscriptions) {
        let found = super::plan::subscription(state, request, segments)?;
        subscription.clone_from(&found.id);
        if !action.is_empty() {
            authorize(state, request.caller, action, request.path.trim_end_matches('/'))?;
        }
        if !matches!(*request.method, Method::GET | Method::HEAD) {
            governance::enabled(found)?;
        }
    }
    let operation = ResourceOperation { method: request.method.clone(), subscription, kind };
    let path = request.path.trim_end_matches('/').to_owned();
    Ok(Operation { kind: OperationKind::Resource(operation), version, path, staleness: None })
}

/// The action that a request needs, empty if any caller of the tenant may send it, and what it does.
fn kind(request: &ArmRequest<'_>, target: &Target<'_>) -> Result<(&'static str, ResourceKind), ArmError> {
    const GROUP_READ: &str = "Microsoft.Resources/subscriptions/resourceGroups/read";
    let tenant = || request.caller.tenant_id.clone();
    Ok(match (target, request.method) {
        (Target::Tenants, &Method::GET) => ("", ResourceKind::ListTenants { tenant: tenant() }),
        (Target::Subscriptions, &Method::GET) => ("", subscriptions::listing(request.caller)),
        (Target::Subscription, &Method::GET) => {
            ("Microsoft.Resources/subscriptions/read", ResourceKind::GetSubscription)
        }
        (Target::Groups, &Method::GET) => (GROUP_READ, groups::listing(request.query)?),
        (Target::Group(group), &Method::GET) => (GROUP_READ, ResourceKind::GetGroup((*group).to_owned())),
        (Target::Group(group), &Method::HEAD) => (GROUP_READ, ResourceKind::GroupExists((*group).to_owned())),
        (Target::Group(group), &Method::PUT) => {
            let body = GroupBody::read(group, request.body)?;
            (
                "Microsoft.Resources/subscriptions/resourceGroups/write",
                ResourceKind::PutGroup((*group).to_owned(), body),
            )
        }
        (Target::Group(group), &Method::DELETE) => {
            ("Microsoft.Resources/subscriptions/resourceGroups/delete", ResourceKind::DeleteGroup((*group).to_owned()))
        }
        (Target::Deletion, &Method::GET) => ("", ResourceKind::DeletionResult),
        (Target::Provider(namespace), &Method::GET) => {
            ("Microsoft.Resources/subscriptions/providers/read", ResourceKind::GetProvider((*namespace).to_owned()))
        }
        (Target::Registration(namespace), &Method::POST) => {
            (providers::register_action(namespace)?, ResourceKind::RegisterProvider((*namespace).to_owned()))
        }
        (Target::Tags(resource), &Method::GET) => {
            ("Microsoft.Resources/tags/read", ResourceKind::GetTags(tags::resource(resource)?))
        }
        (Target::Tags(resource), &Method::PATCH) => {
            let patch = TagsPatch::read(request.body)?;
            ("Microsoft.Resources/tags/write", ResourceKind::PatchTags(tags::resource(resource)?, patch))
        }
        _ => {
            let message = format!("The requested resource does not support http method '{}'.", request.method);
            return Err(ArmError::front(405, "MethodNotAllowed", message));
        }
    })
}

/// Checks whether the operation would succeed now, without changing anything.
pub(super) fn check(state: &State, operation: &ResourceOperation) -> Result<(), ArmError> {
    let subscription = &operation.subscription;
    match &operation.kind {
        ResourceKind::PutGroup(group, body) => groups::check_put(state, subscription, group, body),
        ResourceKind::DeleteGroup(group) => groups::check_delete(state, subscription, group),
        ResourceKind::PatchTags(id, _) => tags::check_patch(state, id),
        _ => Ok(()),
    }
}

/// Applies the operation. `base_url` is the start of the link to its result.
pub(super) fn apply(
    state: &mut State,
    operation: ResourceOperation,
    version: ApiVersion,
    base_url: &str,
    now: Timestamp,
) -> Result<ArmAnswer, ArmError> {
    let ResourceOperation { subscription, kind, .. } = operation;
    match kind {
        ResourceKind::ListTenants { tenant } => Ok(ArmAnswer::ok(subscriptions::tenants(&tenant))),
        ResourceKind::ListSubscriptions { tenant, sees_all, scopes } => {
            Ok(ArmAnswer::ok(subscriptions::list(state, &tenant, sees_all, &scopes)))
        }
        ResourceKind::GetSubscription => Ok(ArmAnswer::ok(subscriptions::get(state, &subscription))),
        ResourceKind::ListGroups => Ok(ArmAnswer::ok(groups::list(state, &subscription))),
        ResourceKind::GetGroup(group) => groups::get(state, &subscription, &group).map(ArmAnswer::ok),
        ResourceKind::GroupExists(group) => {
            groups::get(state, &subscription, &group).map(|_| ArmAnswer { status: 204, ..ArmAnswer::default() })
        }
        ResourceKind::PutGroup(group, body) => Ok(groups::put(state, &subscription, &group, body)),
        ResourceKind::DeleteGroup(group) => {
            groups::delete(state, &subscription, &group, now);
            // As in Azure, `Location` is the URL at which the client polls for the end of the deletion.
            let result = format!(
                "{base_url}/subscriptions/{subscription}/operationresults/{}?api-version={}",
                state.next_guid("operation"),
                version.name()
            );
            Ok(ArmAnswer { status: 202, body: None, location: Some(result) })
        }
        ResourceKind::DeletionResult => Ok(ArmAnswer { status: 200, ..ArmAnswer::default() }),
        ResourceKind::GetProvider(namespace) => providers::get(state, &subscription, &namespace).map(ArmAnswer::ok),
        ResourceKind::RegisterProvider(namespace) => {
            providers::register(state, &subscription, &namespace).map(ArmAnswer::ok)
        }
        ResourceKind::GetTags(id) => tags::get(state, &id).map(ArmAnswer::ok),
        ResourceKind::PatchTags(id, patch) => tags::patch(state, &id, patch).map(ArmAnswer::ok),
    }
}

#[cfg(test)]
mod tests;
