//! How a reconcile ended, and what that means for its key.

use std::time::Duration;

use crate::cache::snapshot::CacheView;
use crate::engine::key::Key;
use crate::metrics::{Ended, Subject};
use ensign_core::assess::{Assessment, Observed};
use ensign_core::failure::Failure;
use ensign_core::scheduling::rate_limiter::Deferral;

/// After a write of the identity itself comes what is under it, or the other way round: as soon as the cache has what the
/// controller itself wrote, so that nothing is written or told twice.
const NEXT: Duration = Duration::from_millis(200);

/// How a reconcile ended.
pub(crate) enum ReconcileOutcome {
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
        Key::Missed(_) => Subject::Uninjected,
    }
}

/// How it ended, for metrics.
pub(crate) fn ended(outcome: &ReconcileOutcome) -> Ended {
    match outcome {
        ReconcileOutcome::Nothing | ReconcileOutcome::InStep => Ended::Done,
        ReconcileOutcome::Again(_)
        | ReconcileOutcome::Behind
        | ReconcileOutcome::Paced(_)
        | ReconcileOutcome::Held(_)
        | ReconcileOutcome::RegistrationWaits(_) => Ended::Waiting,
        ReconcileOutcome::Retry | ReconcileOutcome::AzureFailed(_) => Ended::Failed,
    }
}

/// How a reconcile of an identity ended, by what was decided and what Azure said.
pub(crate) fn outcome(gathered: &CacheView, assessment: &Assessment, observed: &Observed) -> ReconcileOutcome {
    match (&observed.postponed, observed.decisive_failure()) {
        // The failure is that of another request, which began the pause.
        (Some(Deferral::Held { wait, .. }), _) => return ReconcileOutcome::Held(*wait),
        (_, Some(failure)) => return ReconcileOutcome::AzureFailed(failure.clone()),
        (Some(Deferral::Paced { wait }), None) => return ReconcileOutcome::Paced(*wait),
        (None, None) => {}
    }
    if assessment.identity_step.is_some() {
        // The last credential is gone: now the identity itself.
        return ReconcileOutcome::Paced(NEXT);
    }
    if !(assessment.steps.is_empty() && assessment.role_steps.is_empty()) {
        // Something changed while it was looked at, or Azure stored something else than it was given.
        return ReconcileOutcome::Behind;
    }
    match gathered.id {
        Some(_) => ReconcileOutcome::InStep,
        None => ReconcileOutcome::Nothing,
    }
}

/// How a reconcile ended that wrote the identity itself, or would have.
pub(crate) fn of_identity_write(assessment: &Assessment, observed: &Observed) -> ReconcileOutcome {
    match (&observed.postponed, &observed.identity_write) {
        (Some(Deferral::Held { wait, .. }), _) => ReconcileOutcome::Held(*wait),
        (_, Some(failure)) => ReconcileOutcome::AzureFailed(failure.clone()),
        (Some(Deferral::Paced { wait }), None) => ReconcileOutcome::Paced(*wait),
        // Azure stored something else than it was given.
        (None, None) if assessment.identity_step.is_some() => ReconcileOutcome::Behind,
        (None, None) => ReconcileOutcome::Paced(NEXT),
    }
}
