//! How a reconcile ended, and what that means for its key.

use std::time::Duration;

use crate::cache::snapshot::Gathered;
use crate::engine::key::Key;
use crate::metrics::{Ended, Subject};
use ensign_core::assess::{Assessment, Observed};
use ensign_core::failure::Failure;
use ensign_core::scheduling::rate_limiter::Refusal;

/// After a write of the identity itself comes what is under it, or the other way round: as soon as the cache has what the
/// controller itself wrote, so that nothing is written or told twice.
const NEXT: Duration = Duration::from_millis(200);

/// How a reconcile ended.
pub(crate) enum Outcome {
    /// Nothing is left that concerns the key.
    Nothing,
    /// As it should be; time alone changes that.
    Again(Duration),
    /// In step with Azure; look again at the next resync.
    InStep,
    /// The cache was behind.
    Behind,
    /// Kubernetes has to come round first.
    Retry,
    /// Azure, or somebody who acts there, has to come round first.
    AzureFailed(Failure),
    /// All went well, but for requests to Azure that wait for their turn.
    Paced(Duration),
    /// A pause is on that began earlier.
    Held(Duration),
    /// The webhook can't be registered yet; look again after this time.
    RegistrationWaits(Duration),
}

/// What kind of thing a key is about, for metrics.
pub(crate) fn subject(key: &Key) -> Subject {
    match key {
        Key::Identity(_) | Key::Name(_) => Subject::Identity,
        Key::Webhook => Subject::Webhook,
        Key::Pod(_) => Subject::Pod,
        Key::Unlabelled => Subject::Unlabelled,
        Key::Missed(_) => Subject::Missed,
    }
}

/// How it ended, for metrics.
pub(crate) fn ended(outcome: &Outcome) -> Ended {
    match outcome {
        Outcome::Nothing | Outcome::InStep => Ended::Done,
        Outcome::Again(_) | Outcome::Behind | Outcome::Paced(_) | Outcome::Held(_) | Outcome::RegistrationWaits(_) => {
            Ended::Waiting
        }
        Outcome::Retry | Outcome::AzureFailed(_) => Ended::Failed,
    }
}

/// How a reconcile of an identity ended, by what was decided and what Azure said.
pub(crate) fn outcome(gathered: &Gathered, assessment: &Assessment, observed: &Observed) -> Outcome {
    match (&observed.postponed, observed.decisive_failure()) {
        // The failure is that of another request, which began the pause.
        (Some(Refusal::Held { wait, .. }), _) => return Outcome::Held(*wait),
        (_, Some(failure)) => return Outcome::AzureFailed(failure.clone()),
        (Some(Refusal::Paced { wait }), None) => return Outcome::Paced(*wait),
        (None, None) => {}
    }
    if assessment.identity_step.is_some() {
        // The last credential is gone: now the identity itself.
        return Outcome::Paced(NEXT);
    }
    if !(assessment.steps.is_empty() && assessment.role_steps.is_empty()) {
        // Something changed while it was looked at, or Azure stored something else than it was given.
        return Outcome::Behind;
    }
    match gathered.id {
        Some(_) => Outcome::InStep,
        None => Outcome::Nothing,
    }
}

/// How a reconcile ended that wrote the identity itself, or would have.
pub(crate) fn of_identity_write(assessment: &Assessment, observed: &Observed) -> Outcome {
    match (&observed.postponed, &observed.identity_write) {
        (Some(Refusal::Held { wait, .. }), _) => Outcome::Held(*wait),
        (_, Some(failure)) => Outcome::AzureFailed(failure.clone()),
        (Some(Refusal::Paced { wait }), None) => Outcome::Paced(*wait),
        // Azure stored something else than it was given.
        (None, None) if assessment.identity_step.is_some() => Outcome::Behind,
        (None, None) => Outcome::Paced(NEXT),
    }
}
