//! The one table of ARM's errors, in two parts: errors that their code or their text identifies, and what a status means if
//! neither does.
//!
//! In each part the first row that matches decides, so the specific ones come first. The codes are those of Resource Manager's
//! front end (learn.microsoft.com, common deployment errors), of Microsoft.ManagedIdentity and of Microsoft.Authorization.

use super::operation::Operation;
use super::row::{Codes, Cure, Operations, Refused, Row};
use ensign_api::MAX_CREDENTIALS_PER_IDENTITY;
use ensign_api::conditions::Reason;

const ROLES: Operations = Operations::Only(&Operation::OF_ROLES);
const IDENTITIES: Operations = Operations::Only(&Operation::ALL);
const PUT_IDENTITY: Operations = Operations::Only(&[Operation::PutIdentity]);
const PUT_CREDENTIAL: Operations = Operations::Only(&[Operation::PutCredential]);

/// Errors that their code or their text identifies, in a response or within the details of one. For operations on roles, what
/// is not found is the role or its scope: nothing there is known of the identity itself.
pub(super) static BY_CODE_OR_TEXT: &[&[Row]] = &[THROTTLED, OF_ROLES, OF_IDENTITIES, OF_SUBSCRIPTIONS, OF_ANYTHING];

/// What a response means if its code and its text are not known.
pub(super) static BY_STATUS: &[Row] = {
    use Codes::Envelope;
    use Cure::{Of, Text};
    use Operations::Any;
    &[
        Row::new(ROLES, 403..=403, Envelope, Reason::Forbidden, Of(may_not_assign)),
        Row::new(Any, 403..=403, Envelope, Reason::Forbidden, Of(lacks_a_role)),
        Row::new(
            Any,
            401..=401,
            Codes::Any,
            Reason::CredentialUnavailable,
            Text(
                "Azure accepts neither the controller's token nor a new one: check the tenant, the cloud and the clock",
            ),
        ),
        Row::new(Any, 400..=499, Envelope, Reason::AzureRefused, Text("Azure rejected the request"))
            .when(|refused| refused.status != 408),
    ]
};

/// Its words are those of the scope that is throttled.
static THROTTLED: &[Row] =
    &[Row::new(Operations::Any, 429..=429, Codes::Any, Reason::Throttled, Cure::Text(""))
        .when(|refused| !refused.inner)];

static OF_ROLES: &[Row] = {
    use Codes::Only;
    use Cure::{Of, Text};
    &[
        Row::new(
            ROLES,
            400..=404,
            Only(&["PrincipalNotFound"]),
            Reason::PermissionsPending,
            Text("the new identity has not replicated in Entra yet; retrying"),
        ),
        Row::new(
            ROLES,
            409..=409,
            Only(&["RoleAssignmentExists"]),
            Reason::ConcurrentWrites,
            Text("another client has just created the same role assignment; checking again"),
        ),
        Row::new(
            ROLES,
            400..=404,
            Only(&["RoleDefinitionDoesNotExist"]),
            Reason::RoleNotFound,
            Text(
                "Azure does not know the role in that scope: a cluster operator has to correct its name or GUID in spec.roleAssignments",
            ),
        ),
        Row::new(
            ROLES,
            400..=404,
            Only(&["RoleAssignmentScopeNotAssignableToRoleDefinition"]),
            Reason::RoleNotFound,
            Text(
                "the custom role is not assignable in that scope: an Azure administrator has to add the scope to the role's assignable scopes, or a cluster operator has to name another role in spec.roleAssignments",
            ),
        ),
        Row::new(
            ROLES,
            404..=404,
            Only(&["RoleNameAmbiguous"]),
            Reason::RoleNotFound,
            Text("a cluster operator has to name the role by its GUID in spec.roleAssignments"),
        ),
        Row::new(
            ROLES,
            400..=599,
            Only(&["RoleAssignmentLimitExceeded"]),
            Reason::QuotaExceeded,
            Text(
                "the subscription's limit of role assignments is reached: an Azure administrator has to remove some, or a cluster operator has to name a scope in another subscription",
            ),
        ),
        Row::new(
            ROLES,
            400..=404,
            Only(&[
                "ResourceGroupNotFound",
                "ResourceNotFound",
                "ParentResourceNotFound",
                "SubscriptionNotFound",
                "InvalidSubscriptionId",
            ]),
            Reason::RoleScopeNotFound,
            Text(
                "the scope of a role does not exist: an Azure administrator has to create it, or a cluster operator has to correct it in spec.roleAssignments",
            ),
        ),
        Row::new(ROLES, 403..=403, Only(&["AuthorizationFailed"]), Reason::Forbidden, Of(may_not_assign)),
    ]
};

static OF_IDENTITIES: &[Row] = {
    use Codes::Only;
    use Cure::{Of, Text};
    use Operations::Any;
    &[
        Row::new(
            Any, 409..=409, Only(&["ConcurrentFederatedIdentityCredentialsWritesForSingleManagedIdentity"]),
            Reason::ConcurrentWrites, Text("another client is writing under the same identity; retrying"),
        ),
        Row::new(
            Any, 409..=409, Only(&["AnotherOperationInProgress", "OperationInProgress"]),
            Reason::ConcurrentWrites, Text("another operation on the same resource is in progress; retrying"),
        ),
        Row::new(
            Any, 400..=409, Codes::Any, Reason::ConcurrentWrites,
            Text("another client has just written a credential with the same issuer and subject; checking again"),
        )
        .when(|refused| bad_or_conflict(refused) && refused.says("issuer and subject combination already exists")),
        // The plan keeps to the limit; another client has just used the last slot.
        Row::new(PUT_CREDENTIAL, 400..=409, Codes::Any, Reason::QuotaExceeded, Of(all_slots_taken))
            .when(|refused| bad_or_conflict(refused) && says_full(refused)),
        Row::new(
            Any, 400..=499, Codes::Any, Reason::QuotaExceeded,
            Text("Entra's quota of directory objects is used up, and deleted identities count for another 30 days: an Entra administrator has to delete what is unused and wait, or has to have the tenant's quota raised"),
        )
        .when(is_directory_quota),
        Row::new(
            PUT_IDENTITY, 400..=499, Codes::Any, Reason::QuotaExceeded,
            Text("the quota of identities is reached there: delete unused identities, or an Azure administrator has to raise the quota"),
        )
        .when(is_quota),
        Row::new(PUT_IDENTITY, 404..=404, Only(&["ResourceGroupNotFound"]), Reason::ResourceGroupNotFound, Of(no_resource_group)),
        Row::new(PUT_IDENTITY, 409..=409, Only(&["ResourceGroupBeingDeleted"]), Reason::ResourceGroupNotFound, Of(no_resource_group)),
        Row::new(
            Any, 409..=409, Only(&["ResourceGroupBeingDeleted"]), Reason::AzureUnavailable,
            Text("the resource group is being deleted in Azure; checking again"),
        ),
        Row::new(
            Any, 409..=409, Only(&["InvalidResourceLocation"]), Reason::LocationMismatch,
            Text("an identity of this name exists in another region: a cluster operator has to name its region, or another identity, in a new object"),
        ),
        Row::new(
            PUT_IDENTITY, 400..=409, Only(&["LocationNotAvailableForResourceType", "RequestDisallowedByAzure"]), Reason::RegionNotSupported,
            Text("Azure creates no identities for this subscription in that region: a cluster operator has to name another region in a new object"),
        ),
        Row::new(
            Any, 400..=499, Codes::Any, Reason::RegionNotSupported,
            Text("federated identity credentials are not supported in the identity's region: a cluster operator has to name an identity in another region"),
        )
        .when(|refused| refused.says("support for federated identity credentials not enabled")),
        // A new identity's first credential may be written before its service principal is known everywhere: as 404 (code
        // NotFound) in public logs, and as 400.
        Row::new(
            Any, 400..=499, Codes::Any, Reason::AzureUnavailable,
            Text("Azure has not finished creating the identity; retrying"),
        )
        .when(|refused| refused.says("ms graph resource not found")),
        Row::new(
            IDENTITIES, 404..=404, Only(&["ResourceNotFound", "ParentResourceNotFound", "ResourceGroupNotFound", "NotFound"]),
            Reason::IdentityNotFound,
            Text("the identity does not exist in Azure: create it, or correct spec.existing.resourceID in a new ManagedIdentity"),
        ),
        Row::new(IDENTITIES, 404..=404, Codes::Any, Reason::IdentityNotFound, Text("the identity does not exist in Azure"))
            .when(|refused| refused.says("parent user-assigned identity doesn't exist")),
    ]
};

static OF_SUBSCRIPTIONS: &[Row] = {
    use Codes::Only;
    use Cure::{Of, Text};
    use Operations::Any;
    &[
        Row::new(
            Any,
            400..=409,
            Only(&["ReadOnlyDisabledSubscription", "SubscriptionDisabled"]),
            Reason::SubscriptionDisabled,
            Of(disabled),
        ),
        Row::new(Any, 400..=409, Codes::Any, Reason::SubscriptionDisabled, Of(disabled))
            .when(|refused| refused.says("is disabled and therefore marked as read only")),
        Row::new(
            Any,
            400..=409,
            Only(&["DisallowedOperation", "DisallowedProvider"]),
            Reason::SubscriptionDisabled,
            Text(
                "the subscription's type does not allow managed identities: a cluster operator has to name an identity in another subscription",
            ),
        ),
        Row::new(
            Any,
            400..=409,
            Only(&[
                "MissingSubscriptionRegistration",
                "SubscriptionNotRegistered",
                "InvalidSubscriptionRegistrationState",
                "MissingRegistrationForLocation",
                "MissingRegistrationForType",
            ]),
            Reason::ProviderNotRegistered,
            Of(not_registered),
        ),
        // It may belong to another tenant or cloud: nothing in it is known to be deleted.
        Row::new(
            Any,
            400..=404,
            Only(&["SubscriptionNotFound", "InvalidSubscriptionId"]),
            Reason::SubscriptionNotFound,
            Text(
                "Azure does not know the subscription: a cluster operator has to correct spec.existing.resourceID in a new ManagedIdentity, or an administrator of Ensign has to correct --azure-cloud",
            ),
        ),
        Row::new(
            Any,
            401..=401,
            Only(&["InvalidAuthenticationTokenTenant"]),
            Reason::TenantMismatch,
            Text(
                "the subscription belongs to another Entra tenant than the controller's own identity: a cluster operator has to name an identity in a subscription of that tenant",
            ),
        ),
    ]
};

static OF_ANYTHING: &[Row] = {
    use Codes::Only;
    use Cure::{Of, Text};
    use Operations::Any;
    &[
        Row::new(
            Any,
            401..=401,
            Only(&["InvalidAuthenticationTokenAudience"]),
            Reason::CredentialUnavailable,
            Text(
                "the controller's token is for another audience than this Azure Resource Manager: an administrator of Ensign has to correct --azure-cloud",
            ),
        ),
        Row::new(
            Any,
            401..=401,
            Only(&["ExpiredAuthenticationToken"]),
            Reason::CredentialUnavailable,
            Text(
                "Azure counts the controller's token as expired, and a new one too: check the clock of the controller's node",
            ),
        ),
        Row::new(Any, 400..=409, Only(&["ScopeLocked"]), Reason::ResourceLocked, Of(locked)),
        Row::new(
            Any,
            400..=409,
            Only(&["RequestDisallowedByPolicy"]),
            Reason::PolicyDenied,
            Text("an Azure Policy forbids it: an Azure administrator has to exempt the identity"),
        ),
        Row::new(
            Any,
            400..=409,
            Only(&["DenyAssignmentAuthorizationFailed"]),
            Reason::DeniedByAssignment,
            Of(deny_assignment),
        ),
        Row::new(Any, 400..=409, Codes::Any, Reason::DeniedByAssignment, Of(deny_assignment))
            .when(|refused| refused.says("because of the deny assignment")),
        Row::new(
            Any,
            403..=403,
            Only(&["LinkedAuthorizationFailed"]),
            Reason::Forbidden,
            Text(
                "the controller's own identity lacks an action in a linked scope, both of which Azure's message names: an Azure administrator has to assign a role with that action there",
            ),
        ),
        Row::new(Any, 403..=403, Only(&["AuthorizationFailed"]), Reason::Forbidden, Of(lacks_a_role)),
        // Not Azure's: Ensign does not send such a request.
        Row::new(
            PUT_IDENTITY,
            400..=400,
            Only(&["IsolationScopeNotSupported"]),
            Reason::APIVersionNotSupported,
            Text(
                "isolationScope: Regional needs a newer API version than this Azure supports: a cluster operator has to set isolationScope to None in a new object",
            ),
        ),
        Row::new(
            Any,
            400..=404,
            Only(&["NoRegisteredProviderFound", "InvalidApiVersionParameter", "InvalidResourceType"]),
            Reason::APIVersionNotSupported,
            Of(api_version),
        ),
    ]
};

fn bad_or_conflict(refused: Refused<'_>) -> bool {
    refused.inner || matches!(refused.status, 400 | 409)
}

fn all_slots_taken(_: Refused<'_>) -> String {
    format!(
        "the identity has {MAX_CREDENTIALS_PER_IDENTITY} federated identity credentials, Azure's limit: delete a binding, remove a credential in Azure, or use another identity"
    )
}

fn no_resource_group(refused: Refused<'_>) -> String {
    format!(
        "the resource group does not exist, or is being deleted: an Azure administrator has to run `az group create --subscription {} --name {} --location <region>`, or a cluster operator has to name another group in a new object",
        refused.id.subscription(),
        refused.id.resource_group()
    )
}

fn disabled(refused: Refused<'_>) -> String {
    format!(
        "subscription {} is disabled, and Azure accepts no writes there: whoever is responsible for its billing has to reactivate it, see https://learn.microsoft.com/azure/cost-management-billing/manage/subscription-disabled",
        refused.id.subscription()
    )
}

fn not_registered(refused: Refused<'_>) -> String {
    let provider = refused.operation.kind().provider().namespace();
    let namespace = namespace(refused.message).unwrap_or(provider);
    format!(
        "the subscription has not registered {namespace}: an Azure administrator has to run `az provider register --subscription {} --namespace {namespace}`, which takes a few minutes",
        refused.id.subscription()
    )
}

/// The namespace in `… to use namespace 'Microsoft.ManagedIdentity'. See …`, if it is fit for a command.
fn namespace(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("namespace '")?;
    let (name, _) = rest.split_once('\'')?;
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.');
    (is_plain && name.starts_with("Microsoft.") && name.len() <= 64).then_some(name)
}

fn locked(refused: Refused<'_>) -> String {
    format!(
        "a lock forbids it: an Azure administrator has to remove the lock (see `az lock list --subscription {} --resource-group {}`)",
        refused.id.subscription(),
        refused.id.resource_group()
    )
}

fn deny_assignment(refused: Refused<'_>) -> String {
    let (subscription, group) = (refused.id.subscription(), refused.id.resource_group());
    format!(
        "a deny assignment forbids it, and no role overrides one: the owner of the managed application, deployment stack, blueprint or cluster that created it, which Azure's message names, has to exclude {} or change its deny settings (see `az rest --method get --url \"/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Authorization/denyAssignments?api-version=2022-04-01\"`), or a cluster operator has to name an identity in another resource group",
        refused.own_client_id.unwrap_or("the controller's own identity")
    )
}

fn api_version(refused: Refused<'_>) -> String {
    let namespace = refused.operation.kind().provider().namespace();
    format!(
        "this Azure supports no API version of {namespace} that Ensign knows to work: an administrator of Ensign has to set --azure-api-version {namespace}=<a version that Azure's message lists>, or an Azure administrator has to register the provider or choose a region that has it"
    )
}

fn lacks_a_role(refused: Refused<'_>) -> String {
    let scope = match refused.operation {
        // There may be no identity yet to assign a role on.
        Operation::PutIdentity | Operation::DeleteIdentity => {
            format!("/subscriptions/{}/resourceGroups/{}", refused.id.subscription(), refused.id.resource_group())
        }
        _ => refused.id.to_string(),
    };
    format!(
        "the controller's own identity lacks {}: an Azure administrator has to run `az role assignment create --assignee {} --role \"Managed Identity Contributor\" --scope {scope}`, or assign the smaller role that `ensign azure-role` prints",
        refused.operation.action(),
        refused.assignee()
    )
}

fn may_not_assign(refused: Refused<'_>) -> String {
    format!(
        "the controller's own identity, {}, lacks {} there, or the condition on it does not allow this role: an Azure administrator has to run what `ensign azure-role --feature role-assignments` prints for the role and the scope",
        refused.assignee(),
        refused.operation.action()
    )
}

/// Azure's limit of credentials, in words that were seen or are likely: its code is not known. Concurrent writes are reported
/// as "too many", too.
fn says_full(refused: Refused<'_>) -> bool {
    refused.says("federated identity credential")
        && !refused.says("concurrent")
        && !refused.says("characters")
        && ["too many", "at most", "maximum", "limit"].iter().any(|text| refused.says(text))
}

/// Entra's quota, as it is or passed on by the provider of identities.
fn is_directory_quota(refused: Refused<'_>) -> bool {
    refused.code.eq_ignore_ascii_case("Directory_QuotaExceeded")
        || refused.says("directory_quotaexceeded")
        || refused.says("directory object quota limit")
}

/// A quota of identities, in likely words: no recording has any.
fn is_quota(refused: Refused<'_>) -> bool {
    refused.code.to_ascii_lowercase().contains("quota") || refused.says("quota") || refused.says("maximum number of")
}
