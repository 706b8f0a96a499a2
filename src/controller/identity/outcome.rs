//! How a pass over an identity ended, by what was decided and what Azure said.

use std::time::Duration;

pub(crate) use crate::engine::outcome::ReconcileOutcome;
use ensign_api::ArmId;
use ensign_core::assess::{Assessment, Observed};
use ensign_core::scheduling::rate_limiter::Deferral;

/// After a write of the identity itself comes what is under it, or the other way round: as soon as the cache has what this
/// process wrote, so that nothing is written or reported twice.
const NEXT: Duration = Duration::from_millis(200);

/// How a pass ended that did not write the identity itself.
pub(super) fn of_pass(id: Option<&ArmId>, plan: &Assessment, observed: &Observed) -> ReconcileOutcome {
    match (&observed.postponed, observed.decisive_failure()) {
        // The failure is that of another request, which began the pause.
        (Some(Deferral::Held { wait, .. }), _) => return ReconcileOutcome::Paused(*wait),
        (_, Some(failure)) => return ReconcileOutcome::AzureFailed(failure.clone()),
        (Some(Deferral::Paced { wait }), None) => return ReconcileOutcome::RateLimited(*wait),
        (None, None) => {}
    }
    if plan.identity_step.is_some() {
        // The last credential is deleted: now the identity itself.
        return ReconcileOutcome::RateLimited(NEXT);
    }
    if !(plan.steps.is_empty() && plan.role_steps.is_empty()) {
        // Something changed meanwhile, or Azure stored something else than it was sent.
        return ReconcileOutcome::Behind;
    }
    if id.is_some() { ReconcileOutcome::InSync } else { ReconcileOutcome::Nothing }
}

/// How a pass ended that wrote the identity itself, or would have.
pub(super) fn of_identity_write(plan: &Assessment, observed: &Observed) -> ReconcileOutcome {
    match (&observed.postponed, &observed.identity_write) {
        (Some(Deferral::Held { wait, .. }), _) => ReconcileOutcome::Paused(*wait),
        (_, Some(failure)) => ReconcileOutcome::AzureFailed(failure.clone()),
        (Some(Deferral::Paced { wait }), None) => ReconcileOutcome::RateLimited(*wait),
        // Azure stored something else than it was sent.
        (None, None) if plan.identity_step.is_some() => ReconcileOutcome::Behind,
        (None, None) => ReconcileOutcome::RateLimited(NEXT),
    }
}
