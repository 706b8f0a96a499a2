//! From a request to an authorized operation.

use axum::http::Method;

use super::credential_body::CredentialBody;
use super::governance::{self, authorize};
use super::paging::Page;
use super::versions::ApiVersion;
use super::{ArmError, ArmRequest, Operation, OperationKind, authorization, identities, names, resources};
use crate::state::model::{IdentityId, State, Subscription};
use crate::state::text::percent_decode;

const NAMESPACE: &str = "Microsoft.ManagedIdentity";
const IDENTITIES: &str = "Microsoft.ManagedIdentity/userAssignedIdentities";
const CREDENTIALS: &str = "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials";

/// What a path refers to, below a subscription.
enum Target {
    Subscription,
    Group,
    Identity(IdentityId),
    AssociatedResources(IdentityId),
    Credentials(IdentityId),
    Credential(IdentityId, String),
}

impl Target {
    fn is_about_credentials(&self) -> bool {
        matches!(self, Self::Credentials(_) | Self::Credential(..))
    }

    /// The identity that it is, or that it belongs to.
    fn identity(&self) -> Option<&IdentityId> {
        match self {
            Self::Subscription | Self::Group => None,
            Self::Identity(id) | Self::AssociatedResources(id) | Self::Credentials(id) | Self::Credential(id, _) => {
                Some(id)
            }
        }
    }
}

/// Checks a request in ARM's order: subscription, type, version, rights, resource group, content.
pub fn plan(state: &State, request: &ArmRequest<'_>) -> Result<Operation, ArmError> {
    let segments: Vec<String> = request.path.trim_matches('/').split('/').map(percent_decode).collect();
    if let Some(parts) = authorization::split(&segments) {
        return authorization::plan(state, request, parts);
    }
    if let Some(target) = resources::target(&segments) {
        return resources::plan(state, request, &segments, &target);
    }
    let wanted = ApiVersion::wanted(request.query)?;
    let subscription = subscription(state, request, &segments)?;
    let (group, target) = target(&segments, subscription)?;
    let version = version(state, &wanted, subscription, group.as_deref(), &target)?;
    let (resource_type, verb) = action(&target, request.method)?;
    authorize(state, request.caller, &format!("{resource_type}/{verb}"), request.path.trim_end_matches('/'))?;
    if matches!(verb, "write" | "delete") {
        governance::enabled(subscription)?;
    }
    if let Some(group) = &group
        && !subscription.resource_groups.contains_key(&group.to_lowercase())
    {
        let message = format!("Resource group '{group}' could not be found.");
        return Err(ArmError::front(404, "ResourceGroupNotFound", message));
    }
    if matches!((&target, verb), (Target::Identity(_), "write")) {
        governance::registered(subscription, NAMESPACE)?;
    }
    let kind = kind(target, request, version, group, &subscription.id)?;
    Ok(Operation { kind, version, path: request.path.trim_end_matches('/').to_owned(), staleness: None })
}

fn version(
    state: &State,
    wanted: &str,
    subscription: &Subscription,
    group: Option<&str>,
    target: &Target,
) -> Result<ApiVersion, ArmError> {
    let existing = target.identity().and_then(|id| state.identities.get(&id.key())).map(|found| &found.location);
    let groups = group.and_then(|group| subscription.resource_groups.get(&group.to_lowercase()));
    let location = existing.or(groups.map(|group| &group.location)).map_or("", String::as_str);
    let resource_type = if target.is_about_credentials() {
        "userAssignedIdentities/federatedIdentityCredentials"
    } else {
        "userAssignedIdentities"
    };
    let version = ApiVersion::of_identities(wanted, location, resource_type)?;
    if target.is_about_credentials() && !version.has_credentials() {
        let known: Vec<_> = ApiVersion::all_with_credentials().collect();
        return Err(ArmError::front(
            404,
            "InvalidResourceType",
            format!(
                "The resource type '{resource_type}' could not be found in the namespace '{NAMESPACE}' for api version '{}'. The supported api-versions are '{}'.",
                version.name(),
                known.join(",")
            ),
        ));
    }
    if matches!(target, Target::AssociatedResources(_)) && !version.has_associated_resources() {
        let message = format!("The API version '{wanted}' does not have listAssociatedResources.");
        return Err(ArmError::front(404, "InvalidResourceType", message));
    }
    Ok(version)
}

pub(super) fn subscription<'a>(
    state: &'a State,
    request: &ArmRequest<'_>,
    segments: &[String],
) -> Result<&'a Subscription, ArmError> {
    let id = segments.get(1).map_or("", String::as_str);
    if !names::is_guid(id) {
        let message = format!("The provided subscription identifier '{id}' is malformed or invalid.");
        return Err(ArmError::front(400, "InvalidSubscriptionId", message));
    }
    let subscription = state.subscription(id).ok_or_else(|| {
        ArmError::front(404, "SubscriptionNotFound", format!("The subscription '{id}' could not be found."))
    })?;
    let (theirs, ours) = (&request.caller.tenant_id, &subscription.tenant_id);
    if theirs.eq_ignore_ascii_case(ours) {
        return Ok(subscription);
    }
    Err(ArmError::front(
        401,
        "InvalidAuthenticationTokenTenant",
        format!(
            "The access token is from the wrong issuer 'https://sts.windows.net/{theirs}/'. It must match the tenant 'https://sts.windows.net/{ours}/' associated with this subscription. Please use the authority (URL) 'https://login.windows.net/{ours}' to get the token. Note, if the subscription is transferred to another tenant there is no impact to the services, but information about new tenant could take time to propagate (up to an hour). If you just transferred your subscription and see this error message, please try back later."
        ),
    ))
}

fn target(segments: &[String], subscription: &Subscription) -> Result<(Option<String>, Target), ArmError> {
    let not_found = || {
        let message = format!("No HTTP resource was found that matches the request path '/{}'.", segments.join("/"));
        ArmError::front(404, "InvalidResourceType", message)
    };
    let below: Vec<&str> = segments.iter().skip(2).map(String::as_str).collect();
    let (group, below) = match &below[..] {
        [groups, group, rest @ ..] if groups.eq_ignore_ascii_case("resourceGroups") => {
            (Some((*group).to_owned()), rest)
        }
        rest => (None, rest),
    };
    let [providers, namespace, kind, rest @ ..] = below else {
        return Err(not_found());
    };
    if !providers.eq_ignore_ascii_case("providers") {
        return Err(not_found());
    }
    if !namespace.eq_ignore_ascii_case("Microsoft.ManagedIdentity") {
        let message = format!("The resource namespace '{namespace}' is invalid.");
        return Err(ArmError::front(404, "InvalidResourceNamespace", message));
    }
    if !kind.eq_ignore_ascii_case("userAssignedIdentities") {
        let message =
            format!("The resource type '{kind}' could not be found in the namespace 'Microsoft.ManagedIdentity'.");
        return Err(ArmError::front(404, "InvalidResourceType", message));
    }
    let identity = |group: &str, name: &str| IdentityId {
        subscription: subscription.id.clone(),
        resource_group: group.to_owned(),
        name: name.to_owned(),
    };
    let is_credentials = |text: &str| text.eq_ignore_ascii_case("federatedIdentityCredentials");
    let target = match (group.as_deref(), rest) {
        (None, []) => Target::Subscription,
        (Some(_), []) => Target::Group,
        (Some(group), [name]) => Target::Identity(identity(group, name)),
        (Some(group), [name, kind]) if kind.eq_ignore_ascii_case("listAssociatedResources") => {
            Target::AssociatedResources(identity(group, name))
        }
        (Some(group), [name, kind]) if is_credentials(kind) => Target::Credentials(identity(group, name)),
        (Some(group), [name, kind, credential]) if is_credentials(kind) => {
            Target::Credential(identity(group, name), (*credential).to_owned())
        }
        _ => return Err(not_found()),
    };
    Ok((group, target))
}

fn action(target: &Target, method: &Method) -> Result<(&'static str, &'static str), ArmError> {
    let resource_type = match target {
        Target::Subscription | Target::Group | Target::Identity(_) | Target::AssociatedResources(_) => IDENTITIES,
        Target::Credentials(_) | Target::Credential(..) => CREDENTIALS,
    };
    let verb = match (target, method) {
        (Target::AssociatedResources(_), &Method::POST) => "listAssociatedResources/action",
        (
            Target::Subscription
            | Target::Group
            | Target::Identity(_)
            | Target::Credentials(_)
            | Target::Credential(..),
            &Method::GET,
        ) => "read",
        (Target::Identity(_), &Method::PUT | &Method::PATCH) | (Target::Credential(..), &Method::PUT) => "write",
        (Target::Identity(_) | Target::Credential(..), &Method::DELETE) => "delete",
        _ => {
            let message = format!("The requested resource does not support http method '{method}'.");
            return Err(ArmError::front(405, "MethodNotAllowed", message));
        }
    };
    Ok((resource_type, verb))
}

fn kind(
    target: Target,
    request: &ArmRequest<'_>,
    version: ApiVersion,
    group: Option<String>,
    subscription: &str,
) -> Result<OperationKind, ArmError> {
    let method = request.method;
    Ok(match target {
        Target::Subscription | Target::Group => {
            let page = Page::from_query(request.query, false)?;
            OperationKind::ListIdentities { subscription: subscription.to_owned(), group, page }
        }
        Target::Identity(id) if method == Method::PUT => {
            let body = identities::read_body(&id, request.body)?;
            OperationKind::PutIdentity(id, body)
        }
        Target::Identity(id) if method == Method::PATCH => {
            OperationKind::PatchIdentity(id, identities::read_patch(request.body)?)
        }
        Target::Identity(id) if method == Method::DELETE => OperationKind::DeleteIdentity(id),
        Target::Identity(id) => OperationKind::GetIdentity(id),
        Target::AssociatedResources(id) => OperationKind::ListAssociatedResources(id),
        Target::Credentials(id) => OperationKind::ListCredentials(id, Page::from_query(request.query, true)?),
        Target::Credential(id, name) if method == Method::PUT => {
            let body = CredentialBody::read(version, &name, request.body)?;
            OperationKind::PutCredential(id, name, body)
        }
        Target::Credential(id, name) if method == Method::DELETE => OperationKind::DeleteCredential(id, name),
        Target::Credential(id, name) => OperationKind::GetCredential(id, name),
    })
}
