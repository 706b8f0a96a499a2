//! A clock that advances only when a test advances it.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ensign_runtime::clock::Clock;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

/// A simulated clock, which knows the deadlines that are waited for.
pub struct FakeClock {
    wall: Timestamp,
    start: Instant,
    passed: Arc<watch::Sender<Duration>>,
    /// How far off the wall clock is; the monotonic one is never off.
    skew: Mutex<SignedDuration>,
    sleepers: Mutex<BTreeSet<(Instant, u64)>>,
    sleeps: AtomicU64,
}

impl FakeClock {
    pub fn new() -> Arc<Self> {
        let passed = Arc::new(watch::Sender::new(Duration::ZERO));
        Arc::new(Self::with(Timestamp::now(), Instant::now(), passed))
    }

    /// The clock of another machine: it advances together with this one, but its wall clock can be off by itself.
    pub fn on_another_machine(&self) -> Arc<Self> {
        Arc::new(Self::with(self.wall, self.start, self.passed.clone()))
    }

    fn with(wall: Timestamp, start: Instant, passed: Arc<watch::Sender<Duration>>) -> Self {
        let (skew, sleepers) = (Mutex::default(), Mutex::default());
        Self { wall, start, passed, skew, sleepers, sleeps: AtomicU64::new(0) }
    }

    /// How much time has passed.
    pub fn passed(&self) -> Duration {
        *self.passed.borrow()
    }

    pub fn advance(&self, time: Duration) {
        self.passed.send_modify(|passed| *passed += time);
    }

    /// The time until the earliest deadline that is waited for.
    pub fn next_wake(&self) -> Option<Duration> {
        let sleepers = self.sleepers();
        sleepers.first().map(|(deadline, _)| deadline.saturating_duration_since(self.monotonic()))
    }

    /// How many waits have begun; it changes whenever there is progress.
    pub fn sleeps(&self) -> u64 {
        self.sleeps.load(Ordering::SeqCst)
    }

    /// Sets the wall clock off by this much.
    pub fn skew(&self, by: SignedDuration) {
        *self.skew.lock().unwrap_or_else(PoisonError::into_inner) = by;
    }

    fn sleepers(&self) -> MutexGuard<'_, BTreeSet<(Instant, u64)>> {
        self.sleepers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        let passed = SignedDuration::try_from(self.passed()).expect("less than the age of the universe");
        self.wall + passed + *self.skew.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn monotonic(&self) -> Instant {
        self.start + self.passed()
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let mut passed = self.passed.subscribe();
        Box::pin(async move {
            let sleeper = (deadline, self.sleeps.fetch_add(1, Ordering::SeqCst));
            self.sleepers().insert(sleeper);
            let _sleeping = Sleeping { clock: self, sleeper };
            let _ = passed.wait_for(|passed| self.start + *passed >= deadline).await;
        })
    }
}

/// Removes a sleeper from the list, also when its future is dropped.
struct Sleeping<'a> {
    clock: &'a FakeClock,
    sleeper: (Instant, u64),
}

impl Drop for Sleeping<'_> {
    fn drop(&mut self) {
        self.clock.sleepers().remove(&self.sleeper);
    }
}
