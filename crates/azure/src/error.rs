//! What ARM's refusals mean.

use std::time::Duration;

use uuid::Uuid;

use super::{rate_limited, role_assignments};
use ensign_api::conditions::Reason;
use ensign_api::{ArmId, MAX_CREDENTIALS_PER_IDENTITY};
use ensign_core::acceptance::scopes;
use ensign_core::failure::Failure;
use ensign_core::mutants::{self, Mutant};
use ensign_core::scheduling::rate_limiter::{Deferral, RequestKind};
use ensign_runtime::error_chain;
use ensign_runtime::label_values;
use ensign_runtime::redact::redact;

/// Longest part of a foreign message that reaches a status, in characters.
const MAX_FOREIGN_MESSAGE: usize = 400;

/// What was being done.
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

label_values!(Operation {
    ReadRole => "read_role",
    ReadRoleAssignments => "read_role_assignments",
    PutRoleAssignment => "put_role_assignment",
    DeleteRoleAssignment => "delete_role_assignment",
    ReadIdentity => "read_identity",
    ListCredentials => "list_credentials",
    PutCredential => "put_credential",
    DeleteCredential => "delete_credential",
    PutIdentity => "put_identity",
    DeleteIdentity => "delete_identity",
});

impl Operation {
    fn describe(self) -> &'static str {
        match self {
            Self::ReadRole => "looking a role up for",
            Self::ReadRoleAssignments => "listing the role assignments of",
            Self::PutRoleAssignment => "assigning a role to",
            Self::DeleteRoleAssignment => "taking a role away from",
            Self::ReadIdentity => "reading identity",
            Self::ListCredentials => "listing the federated identity credentials of",
            Self::PutCredential => "writing a federated identity credential under",
            Self::DeleteCredential => "deleting a federated identity credential under",
            Self::PutIdentity => "writing identity",
            Self::DeleteIdentity => "deleting identity",
        }
    }

    /// What it is to Azure's limits.
    pub(super) fn kind(self) -> RequestKind {
        match self {
            // The limits on lists are those of identities; what Microsoft.Authorization takes is not published.
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

    /// The action that a role has to allow.
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

/// A request to ARM that failed.
#[derive(Debug, thiserror::Error)]
#[error("{} {identity} failed", operation.describe())]
pub struct ArmError {
    /// What was being done.
    pub operation: Operation,
    /// To which identity.
    pub identity: ArmId,
    /// The ID that the request carried.
    pub request_id: Uuid,
    /// How it failed.
    #[source]
    pub cause: ArmErrorCause,
}

/// How a request to ARM failed.
#[derive(Debug, thiserror::Error)]
pub enum ArmErrorCause {
    /// ARM answered with an error.
    #[error("HTTP {status} {code}: {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// ARM's error code; empty when the answer was not ARM's envelope.
        code: String,
        /// ARM's message.
        message: String,
        /// How long ARM asked to wait.
        retry_after: Option<Duration>,
    },
    /// The answer can't be understood.
    #[error("the answer can't be understood: {0}")]
    Unreadable(String),
    /// Nothing was sent: the identity lies outside of the scopes that the controller is limited to.
    #[error("it lies outside of --azure-allowed-scopes, so that nothing was sent")]
    OutOfScope,
    /// Ensign got no token for itself. The SDK's error is not kept: it has the whole answer, which may repeat a token.
    #[error("no token for the controller's own identity: {0}")]
    Credential(String),
    /// No answer in time, or no connection.
    #[error("no answer: {0}")]
    Transport(String),
    /// No answer in time.
    #[error("no answer within {} s", .0.as_secs())]
    Deadline(Duration),
    /// The request was not sent.
    #[error("not sent; it may go out in {} s", .0.wait().as_secs())]
    NotSent(Deferral),
}

impl ArmError {
    /// Why the request was not even sent, if it was not.
    pub fn not_sent(&self) -> Option<&Deferral> {
        match &self.cause {
            ArmErrorCause::NotSent(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// The failure in Ensign's words. It is the same text for the same problem, so that status does not churn.
    pub fn failure(&self, own_client_id: Option<&str>) -> Failure {
        let id = &self.identity;
        let doing = self.operation.describe();
        let (reason, message, retry_after) = match &self.cause {
            ArmErrorCause::Refused { status, code, message, retry_after } => {
                let (reason, cure) = self.refusal(*status, code, message, own_client_id);
                let text = match reason {
                    Reason::Throttled => rate_limited::scope(code).message(id),
                    Reason::ConcurrentWrites | Reason::AzureUnavailable => {
                        format!("{doing} {id}: {cure}")
                    }
                    _ => format!("{doing} {id}: {cure} ({}: {})", shorten(code), shorten(message)),
                };
                (reason, text, *retry_after)
            }
            ArmErrorCause::Unreadable(_) => {
                (Reason::AzureUnavailable, format!("{doing} {id}: Azure's answer can't be understood; retrying"), None)
            }
            ArmErrorCause::OutOfScope => (Reason::ScopeNotAllowed, scopes::outside(id), None),
            ArmErrorCause::Credential(said) => {
                let text = format!("the controller gets no token for its own identity: {}", stable(said));
                (Reason::CredentialUnavailable, text, None)
            }
            ArmErrorCause::Transport(_) | ArmErrorCause::Deadline(_) => {
                (Reason::AzureUnavailable, format!("{doing} {id}: Azure can't be reached; retrying"), None)
            }
            ArmErrorCause::NotSent(Deferral::Held { wait, reason, message }) => (*reason, message.clone(), Some(*wait)),
            ArmErrorCause::NotSent(Deferral::Paced { wait }) => {
                (Reason::Throttled, format!("{doing} {id}: waits for its turn"), Some(*wait))
            }
        };
        Failure { reason, message, retry_after }
    }

    fn refusal(&self, status: u16, code: &str, message: &str, own_client_id: Option<&str>) -> (Reason, String) {
        let has_envelope = !code.is_empty();
        let says = |text: &str| message.to_ascii_lowercase().contains(text);
        if let Some(of_roles) = role_assignments::refusal(self, status, code, own_client_id) {
            return of_roles;
        }
        match (status, code) {
            (429, _) => (Reason::Throttled, String::new()),
            (409, "ConcurrentFederatedIdentityCredentialsWritesForSingleManagedIdentity") => {
                (Reason::ConcurrentWrites, "somebody else is writing under the same identity; retrying".to_owned())
            }
            (400 | 409, _) if says("issuer and subject combination already exists") => {
                (Reason::ConcurrentWrites, "somebody else has just written the same trust; looking again".to_owned())
            }
            // The plan leaves the limit alone; somebody else has just taken the last slot.
            (400 | 409, _) if self.operation == Operation::PutCredential && says_full(message) => (
                Reason::QuotaExceeded,
                format!(
                    "all {MAX_CREDENTIALS_PER_IDENTITY} federated identity credentials of the identity are taken: delete a binding, remove a credential in Azure, or use another identity"
                ),
            ),
            (400..=499, _) if self.operation == Operation::PutIdentity && is_quota(code, message) => (
                Reason::QuotaExceeded,
                "Azure takes no more identities there: delete identities that nobody needs, or an Azure administrator has to raise the quota".to_owned(),
            ),
            (404, "ResourceGroupNotFound") if self.operation == Operation::PutIdentity => (
                Reason::ResourceGroupNotFound,
                format!(
                    "the resource group does not exist: an Azure administrator has to run `az group create --subscription {} --name {} --location <region>`, or a cluster operator has to name another group in a new object",
                    self.identity.subscription(),
                    self.identity.resource_group()
                ),
            ),
            (409, "InvalidResourceLocation") => (
                Reason::LocationMismatch,
                "an identity of the name exists in another region: a cluster operator has to name its region, or another identity, in a new object".to_owned(),
            ),
            (409 | 403, "ScopeLocked" | "ReadOnlyDisabledSubscription") => (
                Reason::ResourceLocked,
                "a lock forbids it: an Azure administrator has to remove the lock (see `az lock list`)".to_owned(),
            ),
            (403, "RequestDisallowedByPolicy") => (
                Reason::PolicyDenied,
                "an Azure Policy forbids it: an Azure administrator has to exempt the identity".to_owned(),
            ),
            (403, _) if has_envelope => (Reason::Forbidden, self.forbidden(own_client_id)),
            (404, "ResourceNotFound" | "ParentResourceNotFound" | "ResourceGroupNotFound" | "NotFound") => {
                (Reason::IdentityNotFound, "the identity does not exist in Azure: create it, or correct spec.existing.resourceID in a new ManagedIdentity".to_owned())
            }
            (404, _) if says("parent user-assigned identity doesn't exist") => {
                (Reason::IdentityNotFound, "the identity does not exist in Azure".to_owned())
            }
            (404, _) if mutants::active(Mutant::AnyNotFoundIsGone) => (Reason::IdentityNotFound, String::new()),
            // It may be disabled, or another tenant's or cloud's: nothing in it is known to be gone.
            (400..=404, "SubscriptionNotFound" | "InvalidSubscriptionId") => (
                Reason::SubscriptionNotFound,
                "Azure does not know the subscription: a cluster operator has to correct spec.existing.resourceID in a new ManagedIdentity, or whoever runs Ensign --azure-cloud".to_owned(),
            ),
            // A new identity's first credential may come before its service principal.
            (400..=499, _) if says("ms graph resource not found") => {
                (Reason::AzureUnavailable, "Azure has not finished creating the identity; retrying".to_owned())
            }
            (400..=499, _) if says("support for federated identity credentials not enabled") => (
                Reason::RegionNotSupported,
                "identities of its region take no federated identity credentials: a cluster operator has to name an identity in another region".to_owned(),
            ),
            (401, _) => (
                Reason::CredentialUnavailable,
                "Azure accepts neither the controller's token nor a new one: check the tenant, the cloud and the clock"
                    .to_owned(),
            ),
            (400..=499, _) if has_envelope && status != 408 => (Reason::AzureRefused, "Azure refuses it".to_owned()),
            _ => (Reason::AzureUnavailable, "Azure answers with an error of its own; retrying".to_owned()),
        }
    }

    fn forbidden(&self, own_client_id: Option<&str>) -> String {
        let assignee = own_client_id.unwrap_or("<client ID of the controller>");
        let scope = match self.operation {
            // There may be no identity yet that a role could be assigned at.
            Operation::PutIdentity | Operation::DeleteIdentity => {
                format!(
                    "/subscriptions/{}/resourceGroups/{}",
                    self.identity.subscription(),
                    self.identity.resource_group()
                )
            }
            _ => self.identity.to_string(),
        };
        format!(
            "the controller's own identity lacks {}: an Azure administrator has to run `az role assignment create --assignee {assignee} --role \"Managed Identity Contributor\" --scope {scope}`, or give it the smaller role that `ensign azure-role` prints",
            self.operation.action(),
        )
    }
}

/// Azure's limit, in words that were seen or may be: its code is not known. Concurrent writes are "too many", too.
fn says_full(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    let says = |text: &str| message.contains(text);
    says("federated identity credential")
        && !says("concurrent")
        && !says("characters")
        && (says("too many") || says("at most") || says("maximum") || says("limit"))
}

/// A quota of identities, in words that may be: none was seen.
fn is_quota(code: &str, message: &str) -> bool {
    let (code, message) = (code.to_ascii_lowercase(), message.to_ascii_lowercase());
    code.contains("quota") || message.contains("quota") || message.contains("maximum number of")
}

/// An error with its sources, in one line without tokens.
pub(super) fn chain(error: &azure_core::Error) -> String {
    redact(&error_chain::line(error))
}

/// Entra's message without its times and trace ID, which differ each time.
fn stable(said: &str) -> String {
    let end = [" Trace ID:", " Current time:"].iter().filter_map(|from| said.find(from)).min();
    shorten(&said[..end.unwrap_or(said.len())])
}

fn shorten(text: &str) -> String {
    let mut short: String = text.chars().filter(|c| !c.is_control()).take(MAX_FOREIGN_MESSAGE).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(operation: Operation, status: u16, code: &str, message: &str) -> Failure {
        let identity = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg/providers/Microsoft.ManagedIdentity/userAssignedIdentities/orders".parse().unwrap();
        let cause = ArmErrorCause::Refused { status, code: code.into(), message: message.into(), retry_after: None };
        ArmError { operation, identity, request_id: Uuid::nil(), cause }.failure(Some("c0ffee"))
    }

    #[test]
    fn every_known_refusal_has_its_reason() {
        let concurrent = "ConcurrentFederatedIdentityCredentialsWritesForSingleManagedIdentity";
        let cases = [
            (403, "AuthorizationFailed", "The client 'x' …", Reason::Forbidden),
            (403, "RequestDisallowedByPolicy", "…", Reason::PolicyDenied),
            (409, "ScopeLocked", "…", Reason::ResourceLocked),
            (409, concurrent, "…", Reason::ConcurrentWrites),
            (
                409,
                "Conflict",
                "Issuer and subject combination already exists for this Managed Identity.",
                Reason::ConcurrentWrites,
            ),
            (
                400,
                "BadRequest",
                "Issuer and subject combination already exists for this Managed Identity.",
                Reason::ConcurrentWrites,
            ),
            (404, "ResourceNotFound", "…", Reason::IdentityNotFound),
            (404, "ParentResourceNotFound", "…", Reason::IdentityNotFound),
            (404, "ResourceGroupNotFound", "…", Reason::IdentityNotFound),
            (404, "", "<html>not found</html>", Reason::AzureUnavailable),
            (404, "SubscriptionNotFound", "…", Reason::SubscriptionNotFound),
            (404, "InvalidSubscriptionId", "…", Reason::SubscriptionNotFound),
            (403, "", "<html>proxy</html>", Reason::AzureUnavailable),
            (401, "AuthenticationFailed", "…", Reason::CredentialUnavailable),
            (
                405,
                "MethodNotAllowed",
                "The request format was unexpected: Support for federated identity credentials not enabled.",
                Reason::RegionNotSupported,
            ),
            (
                400,
                "BadRequest",
                "Too many Federated Identity Credentials: a managed identity can have at most 20 Federated Identity Credentials.",
                Reason::QuotaExceeded,
            ),
            (
                409,
                "Conflict",
                "The maximum number of federated identity credentials is reached.",
                Reason::QuotaExceeded,
            ),
            (
                409,
                "Conflict",
                "Too many Federated Identity Credentials are written concurrently for the managed identity 'x'.",
                Reason::AzureRefused,
            ),
            (
                400,
                "BadRequest",
                "The subject of a Federated Identity Credential must not exceed the limit of 600 characters.",
                Reason::AzureRefused,
            ),
            (400, "BadRequest", "Federated identity credentials must have exactly one audience.", Reason::AzureRefused),
            (409, "ReadOnlyDisabledSubscription", "…", Reason::ResourceLocked),
            (429, "SubscriptionRequestsThrottled", "…", Reason::Throttled),
            (400, "BadRequest", "MS Graph resource not found", Reason::AzureUnavailable),
            (401, "", "<html>sign in</html>", Reason::CredentialUnavailable),
            (408, "RequestTimeout", "…", Reason::AzureUnavailable),
            (404, "NotFound", "The parent user-assigned identity doesn't exist.", Reason::IdentityNotFound),
            (500, "InternalServerError", "…", Reason::AzureUnavailable),
            (503, "", "", Reason::AzureUnavailable),
        ];
        for (status, code, message, reason) in cases {
            assert_eq!(failure(Operation::PutCredential, status, code, message).reason, reason, "{status} {code}");
        }
    }

    #[test]
    fn refusals_to_make_an_identity_have_reasons_of_their_own() {
        let cases = [
            (404, "ResourceGroupNotFound", "Resource group 'rg' could not be found.", Reason::ResourceGroupNotFound),
            (
                409,
                "InvalidResourceLocation",
                "The resource 'orders' already exists in location …",
                Reason::LocationMismatch,
            ),
            (400, "QuotaExceeded", "…", Reason::QuotaExceeded),
            (
                403,
                "Directory_QuotaExceeded",
                "The directory object quota limit … has been exceeded.",
                Reason::QuotaExceeded,
            ),
            (409, "Conflict", "The maximum number of user assigned identities is reached.", Reason::QuotaExceeded),
            (403, "RequestDisallowedByPolicy", "…", Reason::PolicyDenied),
            (403, "AuthorizationFailed", "The client 'x' …", Reason::Forbidden),
            (409, "ScopeLocked", "…", Reason::ResourceLocked),
            (404, "SubscriptionNotFound", "…", Reason::SubscriptionNotFound),
            (429, "SubscriptionRequestsThrottled", "…", Reason::Throttled),
            (500, "InternalServerError", "…", Reason::AzureUnavailable),
        ];
        for (status, code, message, reason) in cases {
            assert_eq!(failure(Operation::PutIdentity, status, code, message).reason, reason, "{status} {code}");
        }
        let gone = failure(Operation::PutIdentity, 404, "ResourceGroupNotFound", "…");
        assert!(!gone.is_gone() && gone.message.contains("az group create"), "{gone:?}");
    }

    #[test]
    fn a_role_to_make_an_identity_is_asked_for_at_its_resource_group() {
        let message = failure(Operation::PutIdentity, 403, "AuthorizationFailed", "no").message;
        assert!(
            message.contains("--scope /subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg`"),
            "{message}"
        );
    }

    #[test]
    fn a_missing_role_is_said_with_the_command_that_grants_it() {
        let message = failure(Operation::PutCredential, 403, "AuthorizationFailed", "no").message;
        assert!(message.contains("federatedIdentityCredentials/write"), "{message}");
        assert!(message.contains("az role assignment create --assignee c0ffee"), "{message}");
    }

    #[test]
    fn only_a_missing_identity_counts_as_gone() {
        let gone = |status, code| failure(Operation::DeleteCredential, status, code, "…").is_gone();
        assert!(gone(404, "ResourceNotFound"));
        for (status, code) in [
            (401, "AuthenticationFailed"),
            (403, "AuthorizationFailed"),
            (404, "SubscriptionNotFound"),
            (404, ""),
            (405, "MethodNotAllowed"),
            (409, "ScopeLocked"),
        ] {
            assert!(!gone(status, code), "{status} {code}");
        }
    }

    #[test]
    fn an_action_that_is_missing_is_named_for_each_operation() {
        for operation in Operation::ALL {
            let message = failure(operation, 403, "AuthorizationFailed", "no").message;
            assert!(message.contains(&format!("lacks {}:", operation.action())), "{message}");
        }
    }

    #[test]
    fn an_identity_outside_of_the_scopes_is_told_as_that() {
        let identity = failure(Operation::ReadIdentity, 500, "", "").message;
        let identity = identity.split(' ').find(|word| word.starts_with("/subscriptions")).unwrap();
        let identity = identity.trim_end_matches(':').parse().unwrap();
        let (operation, request_id) = (Operation::PutCredential, Uuid::nil());
        let error = ArmError { operation, identity, request_id, cause: ArmErrorCause::OutOfScope };
        assert_eq!(error.failure(None).reason, Reason::ScopeNotAllowed);
    }

    #[test]
    fn entras_times_and_ids_do_not_reach_a_status() {
        let said = "WorkloadIdentityCredential authentication failed. AADSTS700024: Client assertion is not within its valid time range. Current time: 2026-01-18T00:16:16.0000000Z, assertion valid from x. Trace ID: y";
        let told = stable(said);
        assert!(told.ends_with("valid time range."), "{told}");
        assert_eq!(stable("AADSTS70025: no. Trace ID: z"), "AADSTS70025: no.");
        assert_eq!(stable("connection refused"), "connection refused");
    }

    #[test]
    fn an_sdks_error_is_told_in_one_line_with_its_causes_and_without_tokens() {
        let token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJl";
        let cause = std::io::Error::other(format!("refused {token}"));
        let error = azure_core::Error::with_error(azure_core::error::ErrorKind::Credential, cause, "failed");
        assert_eq!(chain(&error), "failed: refused [redacted]");
    }

    #[test]
    fn a_throttled_answer_gives_the_same_text_each_time() {
        let one = failure(Operation::ListCredentials, 429, "X", "Please try again after '10' seconds.");
        let other = failure(Operation::ListCredentials, 429, "X", "Please try again after '7' seconds.");
        assert_eq!(one.message, other.message);
    }
}
