//! What went wrong with a request to Azure, as far as decisions go.

use std::time::Duration;

use ensign_api::conditions::{Reason, Severity, Verdict};

/// A failed request to Azure, put into Ensign's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The reason that a condition gets.
    pub reason: Reason,
    /// What failed, and who has to do what.
    pub message: String,
    /// How long Azure asked to wait.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// Whether Azure said that the identity does not exist. 403 and every unclear answer are not that.
    pub fn is_gone(&self) -> bool {
        self.reason == Reason::IdentityNotFound
    }

    /// Whether the failure passes by itself, so that what was confirmed before still stands.
    pub fn is_transient(&self) -> bool {
        self.reason.severity() == Severity::Retrying
    }

    /// The failure as a condition that does not hold.
    pub fn verdict(&self) -> Verdict {
        Verdict::bad(self.reason, self.message.clone())
    }
}
