//! Time that passes only when a plan says so.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ensign_runtime::clock::Clock;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

/// A clock that stands until it is moved, and knows who waits for it.
pub struct FakeClock {
    wall: Timestamp,
    start: Instant,
    passed: Arc<watch::Sender<Duration>>,
    /// The wall clock jumps; the monotonic one never does.
    skew: Mutex<SignedDuration>,
    sleepers: Mutex<BTreeSet<(Instant, u64)>>,
    counter: Mutex<u64>,
}

impl FakeClock {
    pub fn new() -> Self {
        Self {
            wall: Timestamp::now(),
            start: Instant::now(),
            passed: Arc::new(watch::channel(Duration::ZERO).0),
            skew: Mutex::default(),
            sleepers: Mutex::default(),
            counter: Mutex::default(),
        }
    }

    /// The clock of another machine: the same time passes, but its wall clock jumps by itself.
    pub fn beside(&self) -> Self {
        Self { wall: self.wall, start: self.start, passed: self.passed.clone(), ..Self::new() }
    }

    /// The time that has passed.
    pub fn passed(&self) -> Duration {
        *self.passed.borrow()
    }

    pub fn advance(&self, time: Duration) {
        self.passed.send_modify(|passed| *passed += time);
    }

    /// How far away the earliest moment is that somebody waits for.
    pub fn next_wake(&self) -> Option<Duration> {
        let sleepers = lock(&self.sleepers);
        sleepers.first().map(|(deadline, _)| deadline.saturating_duration_since(self.monotonic()))
    }

    /// Sets the wall clock off by this much.
    pub fn skew(&self, by: SignedDuration) {
        *lock(&self.skew) = by;
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        let passed = SignedDuration::try_from(self.passed()).expect("a test is short");
        self.wall + passed + *lock(&self.skew)
    }

    fn monotonic(&self) -> Instant {
        self.start + self.passed()
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let mut passed = self.passed.subscribe();
        Box::pin(async move {
            let number = {
                let mut counter = lock(&self.counter);
                *counter += 1;
                *counter
            };
            lock(&self.sleepers).insert((deadline, number));
            let _awake = Awake(self, (deadline, number));
            let _ = passed.wait_for(|passed| self.start + *passed >= deadline).await;
        })
    }
}

/// Takes a sleeper off the list, also when its future is dropped.
struct Awake<'a>(&'a FakeClock, (Instant, u64));

impl Drop for Awake<'_> {
    fn drop(&mut self) {
        lock(&self.0.sleepers).remove(&self.1);
    }
}

pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
