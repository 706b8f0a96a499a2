//! How long a key waits before it is looked at again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::key::Key;
use ensign_api::conditions::Reason;
use ensign_core::scheduling::backoff::{self, Spread};
use ensign_core::scheduling::rate_limiter::RateLimits;
use ensign_core::scheduling::resync::{self, Sharers};
use ensign_runtime::clock::SharedClock;

/// Requeues of all keys of one process.
pub(crate) struct Requeues {
    resync: Duration,
    limits: RateLimits,
    spread: Spread,
    origin: Instant,
    /// Failures in a row, by key.
    failures: Mutex<HashMap<Key, u32>>,
}

impl Requeues {
    pub(crate) fn new(resync: Duration, limits: RateLimits, spread: Spread, clock: &SharedClock) -> Self {
        Self { resync, limits, spread, origin: clock.monotonic(), failures: Mutex::default() }
    }

    /// The wait of a key that has failed once more.
    pub(crate) fn failed(&self, key: &Key, reason: Reason, retry_after: Option<Duration>) -> Duration {
        let attempt = {
            let mut counts = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
            let count = counts.entry(key.clone()).or_default();
            let before = *count;
            *count = count.saturating_add(1);
            before
        };
        let share = self.spread.share(&key.to_string(), attempt.into());
        backoff::delay(reason, attempt, retry_after, share)
    }

    /// Nothing is wrong with the key any more.
    pub(crate) fn succeeded(&self, key: &Key) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// The wait of a key that is as it should be.
    pub(crate) fn steady(&self, key: &Key, sharers: Sharers, now: Instant) -> Duration {
        let period = resync::period(self.resync, sharers, &self.limits);
        let share = self.spread.share(&key.to_string(), 0);
        resync::next_look(period, now.saturating_duration_since(self.origin), share)
    }
}
