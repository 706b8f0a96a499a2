//! How a reconcile of an identity ended, judged by the plan and by Azure's responses.

use std::time::Duration;

pub(crate) use crate::engine::outcome::ReconcileOutcome;
use ensign_api::ArmId;
use ensign_core::assess::{Assessment, Observed};
use ensign_core::scheduling::rate_limiter::Deferral;

/// Delay between a write of the identity itself and the writes under it, in either order: until the cache has what this
/// process wrote, so that nothing is written or reported twice.
const NEXT_WRITES: Duration = Duration::from_millis(200);

/// How a reconcile ended that did not write the identity itself.
pub(super) fn of_pass(id: Option<&ArmId>, plan: &Assessment, observed: &Observed) -> ReconcileOutcome {
    match (&observed.postponed, observed.decisive_failure()) {
        // The failure belongs to an earlier request, which caused the pause.
        (Some(Deferral::Paused { wait, .. }), _) => return ReconcileOutcome::Paused(*wait),
        (_, Some(failure)) => return ReconcileOutcome::AzureFailed(failure.clone()),
        (Some(Deferral::RateLimited { wait }), None) => return ReconcileOutcome::RateLimited(*wait),
        (None, None) => {}
    }
    if plan.identity_write.is_some() {
        // The last credential was deleted; the identity itself is next.
        return ReconcileOutcome::RateLimited(NEXT_WRITES);
    }
    if !(plan.credential_writes.is_empty() && plan.role_writes.is_empty()) {
        // Something changed meanwhile, or Azure stored something other than what was sent.
        return ReconcileOutcome::Behind;
    }
    if id.is_some() { ReconcileOutcome::InSync } else { ReconcileOutcome::Nothing }
}

/// How a reconcile ended that wrote the identity itself, or tried to.
pub(super) fn of_identity_write(plan: &Assessment, observed: &Observed) -> ReconcileOutcome {
    match (&observed.postponed, &observed.identity_write_failure) {
        (Some(Deferral::Paused { wait, .. }), _) => ReconcileOutcome::Paused(*wait),
        (_, Some(failure)) => ReconcileOutcome::AzureFailed(failure.clone()),
        (Some(Deferral::RateLimited { wait }), None) => ReconcileOutcome::RateLimited(*wait),
        // Azure stored something other than what was sent.
        (None, None) if plan.identity_write.is_some() => ReconcileOutcome::Behind,
        (None, None) => ReconcileOutcome::RateLimited(NEXT_WRITES),
    }
}
