//! The way of every request to ARM: it goes out when Azure's limits and its wishes for a pause allow it.
//!
//! Nothing waits here. A request that may not go out is refused on the spot with the time after which it may, so that
//! whoever asked can do something else meanwhile.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::error::ArmErrorCause;
use ensign_api::ArmId;
use ensign_core::failure::Failure;
use ensign_core::scheduling::rate_limiter::{Deferral, Pacer, RateLimits, RequestKind, Scope};
use ensign_runtime::clock::SharedClock;

/// How long a pause lasts where Azure asks for one without saying how long.
const UNNAMED_PAUSE: Duration = Duration::from_secs(5);

/// The limits and pauses of one process; clones share them.
#[derive(Clone)]
pub struct RateLimiter(Arc<Inner>);

struct Inner {
    pacer: Mutex<Pacer>,
    clock: SharedClock,
    origin: Instant,
}

impl RateLimiter {
    /// Nothing has gone out yet.
    pub fn new(limits: RateLimits, clock: SharedClock) -> Self {
        let origin = clock.monotonic();
        Self(Arc::new(Inner { pacer: Mutex::new(Pacer::new(limits)), clock, origin }))
    }

    /// How many requests of a kind, of so many that are wanted, may go out under an identity now, at least one; takes
    /// nothing.
    pub fn room(&self, id: &ArmId, kind: RequestKind, wanted: usize) -> Result<usize, Deferral> {
        let count = u32::try_from(wanted).unwrap_or(u32::MAX);
        let room = self.0.pacer.lock().room(id, kind, count, self.now())?;
        Ok(usize::try_from(room).unwrap_or(wanted).min(wanted))
    }

    /// Whether so many requests of a kind may go out under an identity now that are of use together only; takes nothing.
    pub fn all(&self, id: &ArmId, kind: RequestKind, wanted: usize) -> Result<(), Deferral> {
        self.0.pacer.lock().all(id, kind, u32::try_from(wanted).unwrap_or(u32::MAX), self.now())
    }

    /// Nothing goes out under the identity for so long after this failure.
    pub fn hold(&self, id: &ArmId, pause: Duration, failure: &Failure) {
        self.0.pacer.lock().hold(id, self.now() + pause, failure.reason, &failure.message);
    }

    /// Sends a request, which is one of its kind or a page of a list, if it may go out; hears what Azure says of too many.
    pub(super) async fn pass<T>(
        &self,
        id: &ArmId,
        (kind, page): (RequestKind, u32),
        request: impl Future<Output = Result<T, ArmErrorCause>>,
    ) -> Result<T, Passed> {
        self.0.pacer.lock().ask(id, kind, page, self.now()).map_err(Passed::NotSent)?;
        request.await.map_err(|cause| {
            if let Some((scope, pause)) = throttled(&cause) {
                let until = self.now() + pause.unwrap_or(UNNAMED_PAUSE);
                self.0.pacer.lock().throttled(id, kind, scope, until);
            }
            Passed::Failed(cause)
        })
    }

    fn now(&self) -> Duration {
        self.0.clock.monotonic().saturating_duration_since(self.0.origin)
    }
}

impl fmt::Debug for RateLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pace").finish_non_exhaustive()
    }
}

/// Why a request did not succeed.
#[derive(Debug)]
pub(super) enum Passed {
    NotSent(Deferral),
    Failed(ArmErrorCause),
}

/// What Azure wants fewer requests to, and for how long.
fn throttled(cause: &ArmErrorCause) -> Option<(Scope, Option<Duration>)> {
    match cause {
        ArmErrorCause::Refused { status: 429, code, retry_after, .. } => Some((scope(code), *retry_after)),
        _ => None,
    }
}

/// The scope of an answer that there are too many requests.
pub(super) fn scope(code: &str) -> Scope {
    match code {
        "SubscriptionRequestsThrottled" => Scope::Subscription,
        "TenantRequestsThrottled" => Scope::Tenant,
        _ => Scope::Identity,
    }
}
