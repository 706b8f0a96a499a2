//! What ARM's refusals mean.

use std::time::Duration;

use super::pace;
use crate::api::ArmId;
use crate::api::conditions::Reason;
use crate::decide::failure::Failure;
use crate::decide::pace::{Kind, Refusal};
use crate::mutants::{self, Mutant};

/// Longest part of a foreign message that reaches a status, in characters.
const MAX_FOREIGN_MESSAGE: usize = 400;

/// What was being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// GET of the identity.
    ReadIdentity,
    /// LIST of its credentials.
    ListCredentials,
    /// PUT of a credential.
    PutCredential,
    /// DELETE of a credential.
    DeleteCredential,
}

impl Operation {
    fn describe(self) -> &'static str {
        match self {
            Self::ReadIdentity => "reading identity",
            Self::ListCredentials => "listing the federated identity credentials of",
            Self::PutCredential => "writing a federated identity credential under",
            Self::DeleteCredential => "deleting a federated identity credential under",
        }
    }

    /// What it is to Azure's limits.
    pub(super) fn kind(self) -> Kind {
        match self {
            Self::ReadIdentity => Kind::Get,
            Self::ListCredentials => Kind::List,
            Self::PutCredential | Self::DeleteCredential => Kind::Write,
        }
    }

    /// The action that a role has to allow.
    fn action(self) -> &'static str {
        match self {
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
    /// Ensign got no token for itself.
    #[error("no token for the controller's own identity")]
    Credential(#[source] azure_core::Error),
    /// No answer in time, or no connection.
    #[error("no answer")]
    Transport(#[source] azure_core::Error),
    /// No answer in time.
    #[error("no answer within {} s", .0.as_secs())]
    Deadline(Duration),
    /// The request was not sent.
    #[error("not sent; it may go out in {} s", .0.wait().as_secs())]
    NotSent(Refusal),
}

impl ArmError {
    /// Why the request was not even sent, if it was not.
    pub fn not_sent(&self) -> Option<&Refusal> {
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
                    Reason::Throttled => pace::scope(code).message(id),
                    Reason::ConcurrentWrites | Reason::AzureUnavailable => {
                        format!("{doing} {id}: {cure}")
                    }
                    _ => format!("{doing} {id}: {cure} ({code}: {})", shorten(message)),
                };
                (reason, text, *retry_after)
            }
            ArmErrorCause::Unreadable(_) => {
                (Reason::AzureUnavailable, format!("{doing} {id}: Azure's answer can't be understood; retrying"), None)
            }
            ArmErrorCause::Credential(error) => {
                let text = format!("the controller gets no token for its own identity: {}", entra_message(error));
                (Reason::CredentialUnavailable, text, None)
            }
            ArmErrorCause::Transport(_) | ArmErrorCause::Deadline(_) => {
                (Reason::AzureUnavailable, format!("{doing} {id}: Azure can't be reached; retrying"), None)
            }
            ArmErrorCause::NotSent(Refusal::Held { wait, reason, message }) => (*reason, message.clone(), Some(*wait)),
            ArmErrorCause::NotSent(Refusal::Paced { wait }) => {
                (Reason::Throttled, format!("{doing} {id}: waits for its turn"), Some(*wait))
            }
        };
        Failure { reason, message, retry_after }
    }

    fn refusal(&self, status: u16, code: &str, message: &str, own_client_id: Option<&str>) -> (Reason, String) {
        let has_envelope = !code.is_empty();
        let says = |text: &str| message.to_ascii_lowercase().contains(text);
        match (status, code) {
            (429, _) => (Reason::Throttled, String::new()),
            (409, "ConcurrentFederatedIdentityCredentialsWritesForSingleManagedIdentity") => {
                (Reason::ConcurrentWrites, "somebody else is writing under the same identity; retrying".to_owned())
            }
            (400 | 409, _) if says("issuer and subject combination already exists") => {
                (Reason::ConcurrentWrites, "somebody else has just written the same trust; looking again".to_owned())
            }
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
            // A new identity's first credential may come before its service principal.
            (400..=499, _) if says("ms graph resource not found") => {
                (Reason::AzureUnavailable, "Azure has not finished creating the identity; retrying".to_owned())
            }
            (401, _) => (Reason::CredentialUnavailable, "Azure does not accept the controller's token".to_owned()),
            (400..=499, _) if has_envelope && status != 408 => (Reason::AzureRefused, "Azure refuses it".to_owned()),
            _ => (Reason::AzureUnavailable, "Azure answers with an error of its own; retrying".to_owned()),
        }
    }

    fn forbidden(&self, own_client_id: Option<&str>) -> String {
        let assignee = own_client_id.unwrap_or("<client ID of the controller>");
        format!(
            "the controller's own identity lacks {}: an Azure administrator has to run `az role assignment create --assignee {assignee} --role \"Managed Identity Contributor\" --scope {}`",
            self.operation.action(),
            self.identity
        )
    }
}

/// Entra's message without its trace ID and time, which differ each time.
fn entra_message(error: &azure_core::Error) -> String {
    let text = error.to_string();
    let stable = text.split(" Trace ID:").next().unwrap_or_default();
    shorten(stable)
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
        ArmError { operation, identity, cause }.failure(Some("c0ffee"))
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
            (404, "SubscriptionNotFound", "…", Reason::AzureRefused),
            (403, "", "<html>proxy</html>", Reason::AzureUnavailable),
            (401, "AuthenticationFailed", "…", Reason::CredentialUnavailable),
            (405, "MethodNotAllowed", "Support for federated identity credentials not enabled.", Reason::AzureRefused),
            (429, "SubscriptionRequestsThrottled", "…", Reason::Throttled),
            (400, "BadRequest", "MS Graph resource not found", Reason::AzureUnavailable),
            (500, "InternalServerError", "…", Reason::AzureUnavailable),
            (503, "", "", Reason::AzureUnavailable),
        ];
        for (status, code, message, reason) in cases {
            assert_eq!(failure(Operation::PutCredential, status, code, message).reason, reason, "{status} {code}");
        }
    }

    #[test]
    fn a_missing_role_is_said_with_the_command_that_grants_it() {
        let message = failure(Operation::PutCredential, 403, "AuthorizationFailed", "no").message;
        assert!(message.contains("federatedIdentityCredentials/write"), "{message}");
        assert!(message.contains("az role assignment create --assignee c0ffee"), "{message}");
    }

    #[test]
    fn a_throttled_answer_gives_the_same_text_each_time() {
        let one = failure(Operation::ListCredentials, 429, "X", "Please try again after '10' seconds.");
        let other = failure(Operation::ListCredentials, 429, "X", "Please try again after '7' seconds.");
        assert_eq!(one.message, other.message);
    }
}
