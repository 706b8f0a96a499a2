//! Failed requests to Azure Resource Manager: facts in, a condition's reason and its words out.
//!
//! [`REFUSALS`] is the one table of Azure's errors. A new error is a row there; the first row that matches decides.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::acceptance::scopes;
use crate::failure::Failure;
use crate::scheduling::rate_limiter::{Deferral, RequestKind, Scope};
use ensign_api::conditions::Reason;
use ensign_api::{ArmId, MAX_CREDENTIALS_PER_IDENTITY};

/// Longest part of a foreign message that reaches a status, in characters.
const MAX_FOREIGN_MESSAGE: usize = 400;

/// A request to ARM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// LIST or GET of a role definition.
    ReadRole,
    /// LIST or GET of the identity's role assignments.
    ReadRoleAssignments,
    /// PUT of a role assignment.
    PutRoleAssignment,
    /// DELETE of a role assignment.
    DeleteRoleAssignment,
    /// GET of the identity.
    ReadIdentity,
    /// LIST of its credentials.
    ListCredentials,
    /// PUT of a credential.
    PutCredential,
    /// DELETE of a credential.
    DeleteCredential,
    /// PUT of the identity.
    PutIdentity,
    /// DELETE of the identity.
    DeleteIdentity,
}

impl Operation {
    /// The start of a message: what was being done, to be followed by the identity's resource ID.
    pub fn describe(self) -> &'static str {
        match self {
            Self::ReadRole => "looking up a role for",
            Self::ReadRoleAssignments => "listing the role assignments of",
            Self::PutRoleAssignment => "assigning a role to",
            Self::DeleteRoleAssignment => "removing a role assignment of",
            Self::ReadIdentity => "reading identity",
            Self::ListCredentials => "listing the federated identity credentials of",
            Self::PutCredential => "writing a federated identity credential under",
            Self::DeleteCredential => "deleting a federated identity credential under",
            Self::PutIdentity => "writing identity",
            Self::DeleteIdentity => "deleting identity",
        }
    }

    /// Its name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadRole => "read_role",
            Self::ReadRoleAssignments => "read_role_assignments",
            Self::PutRoleAssignment => "put_role_assignment",
            Self::DeleteRoleAssignment => "delete_role_assignment",
            Self::ReadIdentity => "read_identity",
            Self::ListCredentials => "list_credentials",
            Self::PutCredential => "put_credential",
            Self::DeleteCredential => "delete_credential",
            Self::PutIdentity => "put_identity",
            Self::DeleteIdentity => "delete_identity",
        }
    }

    /// Which of Azure's rate limits it counts against.
    pub fn kind(self) -> RequestKind {
        match self {
            // The published list limits are those of identities; the limits of Microsoft.Authorization are not published.
            Self::ReadIdentity | Self::ReadRole | Self::ReadRoleAssignments => RequestKind::Get,
            Self::ListCredentials => RequestKind::List,
            Self::PutCredential
            | Self::DeleteCredential
            | Self::PutIdentity
            | Self::DeleteIdentity
            | Self::PutRoleAssignment
            | Self::DeleteRoleAssignment => RequestKind::Write,
        }
    }

    /// Every operation on roles.
    pub const OF_ROLES: [Self; 4] =
        [Self::ReadRole, Self::ReadRoleAssignments, Self::PutRoleAssignment, Self::DeleteRoleAssignment];

    /// Every operation on identities and what is under them.
    pub const ALL: [Self; 6] = [
        Self::ReadIdentity,
        Self::ListCredentials,
        Self::PutCredential,
        Self::DeleteCredential,
        Self::PutIdentity,
        Self::DeleteIdentity,
    ];

    /// The Azure RBAC action that a role has to allow for it.
    pub fn action(self) -> &'static str {
        match self {
            Self::ReadRole => "Microsoft.Authorization/roleDefinitions/read",
            Self::ReadRoleAssignments => "Microsoft.Authorization/roleAssignments/read",
            Self::PutRoleAssignment => "Microsoft.Authorization/roleAssignments/write",
            Self::DeleteRoleAssignment => "Microsoft.Authorization/roleAssignments/delete",
            Self::ReadIdentity => "Microsoft.ManagedIdentity/userAssignedIdentities/read",
            Self::ListCredentials => {
                "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials/read"
            }
            Self::PutCredential => {
                "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials/write"
            }
            Self::DeleteCredential => {
                "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials/delete"
            }
            Self::PutIdentity => "Microsoft.ManagedIdentity/userAssignedIdentities/write",
            Self::DeleteIdentity => "Microsoft.ManagedIdentity/userAssignedIdentities/delete",
        }
    }
}

/// How a request to ARM failed.
#[derive(Debug, thiserror::Error)]
pub enum ArmErrorCause {
    /// ARM answered with an error.
    #[error("HTTP {status} {code}: {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// ARM's error code; empty when the response was not ARM's error envelope.
        code: String,
        /// ARM's message.
        message: String,
        /// How long ARM asked to wait.
        retry_after: Option<Duration>,
    },
    /// The response could not be parsed.
    #[error("the response could not be parsed: {0}")]
    Unreadable(String),
    /// Nothing was sent: the identity is outside the scopes that the controller is limited to.
    #[error("not sent: the identity is outside --azure-allowed-scopes")]
    OutOfScope,
    /// Ensign got no token for itself. Only the text of the SDK's error is kept: the error holds the whole response, which may
    /// contain a token.
    #[error("no token for the controller's own identity: {0}")]
    Credential(String),
    /// No connection, or no response.
    #[error("no response: {0}")]
    Transport(String),
    /// No response in time.
    #[error("no response within {} s", .0.as_secs())]
    Deadline(Duration),
    /// Not sent: a rate limit or a pause that Azure asked for is in effect.
    #[error("not sent; may be sent in {} s", .0.wait().as_secs())]
    NotSent(Deferral),
}

/// The failure as a condition reports it. The text is the same for the same problem, so that status does not churn.
pub fn judge(operation: Operation, id: &ArmId, cause: &ArmErrorCause, own_client_id: Option<&str>) -> Failure {
    let doing = operation.describe();
    let (reason, message, retry_after) = match cause {
        ArmErrorCause::Refused { status, code, message, retry_after } => {
            let request = Refused { operation, id, status: *status, code, message, own_client_id };
            let (reason, text) = request.judge();
            (reason, text, *retry_after)
        }
        ArmErrorCause::Unreadable(_) => {
            (Reason::AzureUnavailable, format!("{doing} {id}: Azure's response could not be parsed; retrying"), None)
        }
        ArmErrorCause::OutOfScope => (Reason::ScopeNotAllowed, scopes::outside(id), None),
        ArmErrorCause::Credential(error) => {
            let text = format!("the controller gets no token for its own identity: {}", stable(error));
            (Reason::CredentialUnavailable, text, None)
        }
        ArmErrorCause::Transport(_) | ArmErrorCause::Deadline(_) => {
            (Reason::AzureUnavailable, format!("{doing} {id}: Azure can't be reached; retrying"), None)
        }
        ArmErrorCause::NotSent(Deferral::Paused { wait, reason, message }) => (*reason, message.clone(), Some(*wait)),
        ArmErrorCause::NotSent(Deferral::RateLimited { wait }) => {
            (Reason::Throttled, format!("{doing} {id}: waiting for Azure rate-limit budget"), Some(*wait))
        }
    };
    Failure { reason, message, retry_after }
}

/// Which of Azure's limits a 429 is about, by its error code.
pub fn throttled_scope(code: &str) -> Scope {
    match code {
        "SubscriptionRequestsThrottled" => Scope::Subscription,
        "TenantRequestsThrottled" => Scope::Tenant,
        _ => Scope::Identity,
    }
}

/// An error response.
#[derive(Clone, Copy)]
struct Refused<'a> {
    operation: Operation,
    id: &'a ArmId,
    status: u16,
    /// Empty where the response was not ARM's error envelope, such as a proxy's page.
    code: &'a str,
    message: &'a str,
    own_client_id: Option<&'a str>,
}

/// A row of the table: an error response that it describes, and what it means.
struct Row {
    operations: Operations,
    statuses: RangeInclusive<u16>,
    codes: Codes,
    /// What else has to hold.
    also: Option<fn(Refused<'_>) -> bool>,
    reason: Reason,
    cure: Cure,
}

enum Operations {
    Any,
    Only(&'static [Operation]),
}

enum Codes {
    /// Also of a response that is not ARM's envelope.
    Any,
    /// Any code, but one of ARM's envelope.
    Envelope,
    Only(&'static [&'static str]),
}

/// What failed and who has to do what.
enum Cure {
    Text(&'static str),
    Of(fn(Refused<'_>) -> String),
}

impl Row {
    const fn new(
        operations: Operations,
        statuses: RangeInclusive<u16>,
        codes: Codes,
        reason: Reason,
        cure: Cure,
    ) -> Self {
        Self { operations, statuses, codes, also: None, reason, cure }
    }

    const fn when(self, also: fn(Refused<'_>) -> bool) -> Self {
        Self { also: Some(also), ..self }
    }

    fn matches(&self, refused: Refused<'_>) -> bool {
        let operation = match self.operations {
            Operations::Any => true,
            Operations::Only(these) => these.contains(&refused.operation),
        };
        let code = match self.codes {
            Codes::Any => true,
            Codes::Envelope => !refused.code.is_empty(),
            Codes::Only(these) => these.contains(&refused.code),
        };
        operation && code && self.statuses.contains(&refused.status) && self.also.is_none_or(|also| also(refused))
    }
}

impl Refused<'_> {
    fn judge(self) -> (Reason, String) {
        let row = REFUSALS.iter().find(|row| row.matches(self));
        let (reason, cure) = row.map_or((Reason::AzureUnavailable, &ERROR_OF_ITS_OWN), |row| (row.reason, &row.cure));
        let cure = match cure {
            Cure::Text(text) => (*text).to_owned(),
            Cure::Of(words) => words(self),
        };
        let (doing, id) = (self.operation.describe(), self.id);
        let text = match reason {
            Reason::Throttled => throttled_scope(self.code).message(id),
            // Azure's own words change from one response to the next.
            Reason::ConcurrentWrites | Reason::AzureUnavailable => format!("{doing} {id}: {cure}"),
            _ => format!("{doing} {id}: {cure} ({}: {})", shorten(self.code), shorten(self.message)),
        };
        (reason, text)
    }

    fn says(self, text: &str) -> bool {
        self.message.to_ascii_lowercase().contains(text)
    }
}

const ERROR_OF_ITS_OWN: Cure = Cure::Text("Azure returned a server error; retrying");
const ROLES: Operations = Operations::Only(&Operation::OF_ROLES);
const PUT_IDENTITY: Operations = Operations::Only(&[Operation::PutIdentity]);
const PUT_CREDENTIAL: Operations = Operations::Only(&[Operation::PutCredential]);

/// What Azure's error responses mean. The first row that matches decides; none that does is a server error, which passes.
///
/// For operations on roles, what is not found is the role or its scope: nothing there is known of the identity itself.
static REFUSALS: &[Row] = {
    use Codes::{Envelope, Only};
    use Cure::{Of, Text};
    use Operations::Any;
    &[
        Row::new(
            ROLES, 400..=404, Only(&["PrincipalNotFound"]), Reason::PermissionsPending,
            Text("the new identity has not replicated in Entra yet; retrying"),
        ),
        Row::new(
            ROLES, 409..=409, Only(&["RoleAssignmentExists"]), Reason::ConcurrentWrites,
            Text("another client has just created the same role assignment; checking again"),
        ),
        Row::new(
            ROLES, 400..=404, Only(&["RoleDefinitionDoesNotExist"]), Reason::RoleNotFound,
            Text("Azure does not know the role in that scope: a cluster operator has to correct its name or GUID in spec.roleAssignments"),
        ),
        Row::new(
            ROLES, 404..=404, Only(&["RoleNameAmbiguous"]), Reason::RoleNotFound,
            Text("a cluster operator has to name the role by its GUID in spec.roleAssignments"),
        ),
        Row::new(
            ROLES, 400..=599, Only(&["RoleAssignmentLimitExceeded"]), Reason::QuotaExceeded,
            Text("the subscription's limit of role assignments is reached: an Azure administrator has to remove some, or a cluster operator has to name a scope in another subscription"),
        ),
        Row::new(
            ROLES, 400..=404,
            Only(&["ResourceGroupNotFound", "ResourceNotFound", "ParentResourceNotFound", "SubscriptionNotFound", "InvalidSubscriptionId"]),
            Reason::RoleScopeNotFound,
            Text("the scope of a role does not exist: an Azure administrator has to create it, or a cluster operator has to correct it in spec.roleAssignments"),
        ),
        Row::new(ROLES, 404..=404, Envelope, Reason::AzureRefused, Text("Azure rejected the request")),
        Row::new(ROLES, 403..=403, Envelope, Reason::Forbidden, Of(may_not_assign))
            .when(|refused| !LOCKED.contains(&refused.code) && refused.code != DISALLOWED),
        Row::new(Any, 429..=429, Codes::Any, Reason::Throttled, Text("")),
        Row::new(
            Any, 409..=409, Only(&["ConcurrentFederatedIdentityCredentialsWritesForSingleManagedIdentity"]),
            Reason::ConcurrentWrites, Text("another client is writing under the same identity; retrying"),
        ),
        Row::new(
            Any, 400..=409, Codes::Any, Reason::ConcurrentWrites,
            Text("another client has just written a credential with the same issuer and subject; checking again"),
        )
        .when(|refused| matches!(refused.status, 400 | 409) && refused.says("issuer and subject combination already exists")),
        // The plan keeps to the limit; another client has just used the last slot.
        Row::new(PUT_CREDENTIAL, 400..=409, Codes::Any, Reason::QuotaExceeded, Of(all_slots_taken))
            .when(|refused| matches!(refused.status, 400 | 409) && says_full(refused)),
        Row::new(
            PUT_IDENTITY, 400..=499, Codes::Any, Reason::QuotaExceeded,
            Text("the quota of identities is reached there: delete unused identities, or an Azure administrator has to raise the quota"),
        )
        .when(is_quota),
        Row::new(PUT_IDENTITY, 404..=404, Only(&["ResourceGroupNotFound"]), Reason::ResourceGroupNotFound, Of(no_resource_group)),
        Row::new(
            Any, 409..=409, Only(&["InvalidResourceLocation"]), Reason::LocationMismatch,
            Text("an identity of this name exists in another region: a cluster operator has to name its region, or another identity, in a new object"),
        ),
        Row::new(
            Any, 403..=409, Only(LOCKED), Reason::ResourceLocked,
            Text("a lock forbids it: an Azure administrator has to remove the lock (see `az lock list`)"),
        )
        .when(|refused| matches!(refused.status, 403 | 409)),
        Row::new(
            Any, 403..=403, Only(&[DISALLOWED]), Reason::PolicyDenied,
            Text("an Azure Policy forbids it: an Azure administrator has to exempt the identity"),
        ),
        Row::new(Any, 403..=403, Envelope, Reason::Forbidden, Of(lacks_a_role)),
        // A new identity's first credential may be written before its service principal exists.
        Row::new(
            Any, 400..=499, Codes::Any, Reason::AzureUnavailable,
            Text("Azure has not finished creating the identity; retrying"),
        )
        .when(|refused| refused.says("ms graph resource not found")),
        Row::new(
            Any, 404..=404, Only(&["ResourceNotFound", "ParentResourceNotFound", "ResourceGroupNotFound", "NotFound"]),
            Reason::IdentityNotFound,
            Text("the identity does not exist in Azure: create it, or correct spec.existing.resourceID in a new ManagedIdentity"),
        ),
        Row::new(Any, 404..=404, Codes::Any, Reason::IdentityNotFound, Text("the identity does not exist in Azure"))
            .when(|refused| refused.says("parent user-assigned identity doesn't exist")),
        // It may be disabled, or belong to another tenant or cloud: nothing in it is known to be deleted.
        Row::new(
            Any, 400..=404, Only(&["SubscriptionNotFound", "InvalidSubscriptionId"]), Reason::SubscriptionNotFound,
            Text("Azure does not know the subscription: a cluster operator has to correct spec.existing.resourceID in a new ManagedIdentity, or an administrator of Ensign has to correct --azure-cloud"),
        ),
        Row::new(
            Any, 400..=499, Codes::Any, Reason::RegionNotSupported,
            Text("federated identity credentials are not supported in the identity's region: a cluster operator has to name an identity in another region"),
        )
        .when(|refused| refused.says("support for federated identity credentials not enabled")),
        Row::new(
            Any, 401..=401, Codes::Any, Reason::CredentialUnavailable,
            Text("Azure accepts neither the controller's token nor a new one: check the tenant, the cloud and the clock"),
        ),
        Row::new(Any, 400..=499, Envelope, Reason::AzureRefused, Text("Azure rejected the request"))
            .when(|refused| refused.status != 408),
    ]
};

const LOCKED: &[&str] = &["ScopeLocked", "ReadOnlyDisabledSubscription"];
const DISALLOWED: &str = "RequestDisallowedByPolicy";

fn all_slots_taken(_: Refused<'_>) -> String {
    format!(
        "the identity has {MAX_CREDENTIALS_PER_IDENTITY} federated identity credentials, Azure's limit: delete a binding, remove a credential in Azure, or use another identity"
    )
}

fn no_resource_group(refused: Refused<'_>) -> String {
    format!(
        "the resource group does not exist: an Azure administrator has to run `az group create --subscription {} --name {} --location <region>`, or a cluster operator has to name another group in a new object",
        refused.id.subscription(),
        refused.id.resource_group()
    )
}

fn lacks_a_role(refused: Refused<'_>) -> String {
    let assignee = refused.own_client_id.unwrap_or("<client ID of the controller>");
    let scope = match refused.operation {
        // There may be no identity yet to assign a role on.
        Operation::PutIdentity | Operation::DeleteIdentity => {
            format!("/subscriptions/{}/resourceGroups/{}", refused.id.subscription(), refused.id.resource_group())
        }
        _ => refused.id.to_string(),
    };
    format!(
        "the controller's own identity lacks {}: an Azure administrator has to run `az role assignment create --assignee {assignee} --role \"Managed Identity Contributor\" --scope {scope}`, or assign the smaller role that `ensign azure-role` prints",
        refused.operation.action(),
    )
}

fn may_not_assign(refused: Refused<'_>) -> String {
    let assignee = refused.own_client_id.unwrap_or("<client ID of the controller>");
    format!(
        "the controller's own identity, {assignee}, lacks {} there, or the condition on it does not allow this role: an Azure administrator has to run what `ensign azure-role --feature role-assignments` prints for the role and the scope",
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

/// A quota of identities, in likely words: no recording has any.
fn is_quota(refused: Refused<'_>) -> bool {
    refused.code.to_ascii_lowercase().contains("quota") || refused.says("quota") || refused.says("maximum number of")
}

/// Entra's message without its times and trace ID, which differ each time.
fn stable(message: &str) -> String {
    let end = [" Trace ID:", " Current time:"].iter().filter_map(|from| message.find(from)).min();
    shorten(&message[..end.unwrap_or(message.len())])
}

fn shorten(text: &str) -> String {
    let mut short: String = text.chars().filter(|c| !c.is_control()).take(MAX_FOREIGN_MESSAGE).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
#[path = "azure_failures_tests.rs"]
mod tests;
