//! A request to Azure Resource Manager that failed: the facts. What they mean is decided in `ensign_core::azure_failures`.

use uuid::Uuid;

use ensign_api::ArmId;
use ensign_core::azure_failures;
pub use ensign_core::azure_failures::{ArmErrorCause, ErrorDetail, Operation};
use ensign_core::failure::Failure;
use ensign_core::scheduling::rate_limiter::Deferral;
use ensign_runtime::error_chain;
use ensign_runtime::redact::redact;

/// A request to ARM that failed.
#[derive(Debug, thiserror::Error)]
#[error("{} {identity} failed", operation.describe())]
pub struct ArmError {
    /// What was being done.
    pub operation: Operation,
    /// The identity that it was about.
    pub identity: Box<ArmId>,
    /// The ID that the request carried.
    pub request_id: Uuid,
    /// How it failed.
    #[source]
    pub cause: ArmErrorCause,
}

impl ArmError {
    /// Why the request was not even sent, if it was not.
    pub fn not_sent(&self) -> Option<&Deferral> {
        match &self.cause {
            ArmErrorCause::NotSent(deferral) => Some(deferral),
            _ => None,
        }
    }

    /// What it means; `own_client_id` is that of the controller's own identity, for the commands in messages.
    pub fn failure(&self, own_client_id: Option<&str>) -> Failure {
        azure_failures::judge(self.operation, &self.identity, &self.cause, own_client_id)
    }
}

/// An error with its sources, in one line without tokens.
pub(super) fn chain(error: &azure_core::Error) -> String {
    redact(&error_chain::line(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_sdks_error_is_told_in_one_line_with_its_causes_and_without_tokens() {
        let token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJl";
        let cause = std::io::Error::other(format!("refused {token}"));
        let error = azure_core::Error::with_error(azure_core::error::ErrorKind::Credential, cause, "failed");
        assert_eq!(chain(&error), "failed: refused [redacted]");
    }
}
