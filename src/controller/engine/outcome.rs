//! How a reconcile ended.

use std::time::Duration;

use ensign_core::failure::Failure;

/// How a reconcile ended.
#[derive(Debug)]
pub(crate) enum ReconcileOutcome {
    /// Nothing is left that concerns the key.
    Nothing,
    /// In sync; to be reconciled again after this time.
    Again(Duration),
    /// In sync; to be reconciled again at the next drift check.
    InSync,
    /// Something changed meanwhile: to be reconciled again as soon as the cache has it.
    Behind,
    /// Kubernetes rejected something.
    Retry,
    /// Azure failed, or rejected something.
    AzureFailed(Failure),
    /// All went well, but for requests to Azure that wait for rate-limit budget.
    RateLimited(Duration),
    /// A pause is in effect that began earlier.
    Paused(Duration),
    /// Injection can't be switched over yet.
    InjectionWaits(Duration),
}
