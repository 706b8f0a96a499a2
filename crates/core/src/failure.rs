//! A failed request to Azure, as the decisions see it.

use std::time::Duration;

use ensign_api::conditions::{Reason, Severity, Verdict};

/// A failed request to Azure, classified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The reason for the condition.
    pub reason: Reason,
    /// What failed, and who has to do what.
    pub message: String,
    /// How long Azure asked to wait.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// Whether Azure reported that the identity does not exist. A 403 or an ambiguous response does not count.
    pub fn is_gone(&self) -> bool {
        self.reason == Reason::IdentityNotFound
    }

    /// Whether Ensign retries without anyone's help, so that what Azure confirmed before still holds.
    pub fn is_transient(&self) -> bool {
        self.reason.severity() == Severity::Retrying
    }

    /// The failure as a false condition.
    pub fn verdict(&self) -> Verdict {
        Verdict::bad(self.reason, self.message.clone())
    }
}
