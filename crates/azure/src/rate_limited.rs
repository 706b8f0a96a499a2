//! Rate limiting of every request to ARM, by Azure's limits and by the pauses that Azure asks for.
//!
//! Nothing waits here. A request that is not allowed now fails immediately with the time after which it is, so that its
//! caller can do something else in the meantime.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::error::ArmErrorCause;
use ensign_api::ArmId;
use ensign_core::azure_failures::{pause, throttle};
use ensign_core::failure::Failure;
use ensign_core::scheduling::rate_limiter::{Deferral, Provider, RateLimits, RequestKind, RequestScheduler, Throttle};
use ensign_runtime::clock::SharedClock;

/// The pause when Azure asks for one without a duration.
const DEFAULT_PAUSE: Duration = Duration::from_secs(5);

/// The limits and pauses of one process; clones share them.
#[derive(Clone)]
pub struct RateLimiter(Arc<Inner>);

struct Inner {
    scheduler: Mutex<RequestScheduler>,
    clock: SharedClock,
    origin: Instant,
}

impl RateLimiter {
    /// A limiter before the first request.
    pub fn new(limits: RateLimits, clock: SharedClock) -> Self {
        let origin = clock.monotonic();
        Self(Arc::new(Inner { scheduler: Mutex::new(RequestScheduler::new(limits)), clock, origin }))
    }

    /// How many of the wanted requests of a kind may be sent for an identity now, at least one. Uses up nothing.
    pub fn room(&self, id: &ArmId, kind: RequestKind, wanted: usize) -> Result<usize, Deferral> {
        let count = u32::try_from(wanted).unwrap_or(u32::MAX);
        let room = self.0.scheduler.lock().room(id, kind, count, self.now())?;
        Ok(usize::try_from(room).unwrap_or(wanted).min(wanted))
    }

    /// Whether all of the wanted requests of a kind may be sent for an identity now. Uses up nothing.
    pub fn all(&self, id: &ArmId, kind: RequestKind, wanted: usize) -> Result<(), Deferral> {
        self.0.scheduler.lock().all(id, kind, u32::try_from(wanted).unwrap_or(u32::MAX), self.now())
    }

    /// Sends nothing for the identity during this pause after a failure.
    pub fn hold(&self, id: &ArmId, pause: Duration, failure: &Failure) {
        self.0.scheduler.lock().hold(id, self.now() + pause, failure.reason, &failure.message);
    }

    /// Sends a request, or a page of a list, if it is allowed now, and takes note if Azure throttles it.
    pub(super) async fn send<T>(
        &self,
        id: &ArmId,
        (kind, page): (RequestKind, u32),
        request: impl Future<Output = Result<T, ArmErrorCause>>,
    ) -> Result<T, NoResponse> {
        self.0.scheduler.lock().ask(id, kind, page, self.now()).map_err(NoResponse::NotSent)?;
        request.await.map_err(|cause| {
            if let Some((throttle, pause)) = throttled(kind.provider(), &cause) {
                let until = self.now() + pause.unwrap_or(DEFAULT_PAUSE);
                self.0.scheduler.lock().throttled(id, kind, throttle, until);
            }
            NoResponse::Failed(cause)
        })
    }

    fn now(&self) -> Duration {
        self.0.clock.monotonic().saturating_duration_since(self.0.origin)
    }
}

impl fmt::Debug for RateLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimiter").finish_non_exhaustive()
    }
}

/// Why a request did not succeed.
#[derive(Debug)]
pub(super) enum NoResponse {
    NotSent(Deferral),
    Failed(ArmErrorCause),
}

/// What Azure throttles, and for how long: as the header says, or else the text.
fn throttled(provider: Provider, cause: &ArmErrorCause) -> Option<(Throttle, Option<Duration>)> {
    match cause {
        ArmErrorCause::Refused { status: 429, code, message, retry_after, .. } => {
            Some((throttle(provider, code, message), retry_after.or_else(|| pause(message))))
        }
        _ => None,
    }
}
