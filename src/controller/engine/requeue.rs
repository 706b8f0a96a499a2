//! How long a key waits before it is reconciled again.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::key::Key;
use ensign_api::conditions::Reason;
use ensign_core::scheduling::backoff::{self, Spread};
use ensign_core::scheduling::rate_limiter::RateLimits;
use ensign_core::scheduling::resync::{self, Sharers};
use ensign_runtime::clock::SharedClock;

/// The delays of all keys of one process.
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

    /// The delay of a key whose reconcile has failed.
    pub(crate) fn failed(&self, key: &Key, reason: Reason, retry_after: Option<Duration>) -> Duration {
        let attempt = {
            let mut counts = self.failures.lock();
            let count = counts.entry(key.clone()).or_default();
            let before = *count;
            *count = count.saturating_add(1);
            before
        };
        let share = self.spread.share(&key.to_string(), attempt.into());
        backoff::delay(reason, attempt, retry_after, share)
    }

    /// Resets the key's backoff.
    pub(crate) fn succeeded(&self, key: &Key) {
        self.failures.lock().remove(key);
    }

    /// The delay of a key that is in sync, until its next drift check.
    pub(crate) fn in_sync(&self, key: &Key, sharers: Sharers, now: Instant) -> Duration {
        let period = resync::period(self.resync, sharers, &self.limits);
        let share = self.spread.share(&key.to_string(), 0);
        resync::next_look(period, now.saturating_duration_since(self.origin), share)
    }
}
