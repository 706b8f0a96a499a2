//! A clock that stands while anybody works and goes on to the next deadline once everybody waits: what remains of a run is
//! the time that its limits cost.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ensign_runtime::clock::Clock;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;
use tower::{Layer, Service};

/// What happens within one happens at its end: each stillness takes real time, and ten thousand would take very much. A wait
/// can be too long by as much, and a whole run too.
const STEP: Duration = Duration::from_millis(500);

/// Time that passes only when it is let.
pub struct SimulatedClock {
    start: Instant,
    epoch: Timestamp,
    passed: watch::Sender<Duration>,
    deadlines: Mutex<BTreeMap<u64, Instant>>,
    sleeps: AtomicU64,
}

impl SimulatedClock {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            epoch: Timestamp::now(),
            passed: watch::channel(Duration::ZERO).0,
            deadlines: Mutex::default(),
            sleeps: AtomicU64::new(0),
        })
    }

    /// How much time has passed.
    pub fn passed(&self) -> Duration {
        *self.passed.borrow()
    }

    /// How often somebody began to wait; it changes whenever anything goes on.
    pub fn sleeps(&self) -> u64 {
        self.sleeps.load(Ordering::SeqCst)
    }

    /// Goes on to the next deadline that somebody waits for, if anybody does, and to the end of that step.
    pub fn go_on(&self) -> bool {
        let Some(next) = self.deadlines().values().min().copied() else { return false };
        let steps = next.saturating_duration_since(self.start).as_nanos().div_ceil(STEP.as_nanos());
        let passed = STEP * u32::try_from(steps).unwrap_or(u32::MAX);
        self.passed.send_if_modified(|now| {
            let later = passed > *now;
            *now = passed.max(*now);
            later
        })
    }

    fn deadlines(&self) -> MutexGuard<'_, BTreeMap<u64, Instant>> {
        self.deadlines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Timestamp {
        self.epoch.checked_add(self.passed()).unwrap_or(self.epoch)
    }

    fn monotonic(&self) -> Instant {
        self.start + self.passed()
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let number = self.sleeps.fetch_add(1, Ordering::SeqCst);
        self.deadlines().insert(number, deadline);
        let sleep = Sleep { clock: self, number };
        let mut passed = self.passed.subscribe();
        Box::pin(async move {
            let sleep = sleep;
            let _ = passed.wait_for(|passed| sleep.clock.start + *passed >= deadline).await;
        })
    }
}

/// Somebody waits, until this is dropped.
struct Sleep<'a> {
    clock: &'a SimulatedClock,
    number: u64,
}

impl Drop for Sleep<'_> {
    fn drop(&mut self) {
        self.clock.deadlines().remove(&self.number);
    }
}

/// Counts requests that have no answer yet.
#[derive(Clone, Default)]
pub struct UnderWay {
    now: Arc<AtomicI64>,
    all: Arc<AtomicU64>,
}

impl UnderWay {
    /// How many wait for their answer, and how many there ever were.
    pub fn counts(&self) -> (i64, u64) {
        (self.now.load(Ordering::SeqCst), self.all.load(Ordering::SeqCst))
    }
}

impl<S> Layer<S> for UnderWay {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner, count: self.clone() }
    }
}

/// A service whose requests are counted.
#[derive(Clone)]
pub struct Counted<S> {
    inner: S,
    count: UnderWay,
}

impl<R, S: Service<R>> Service<R> for Counted<S>
where
    S::Future: Send + 'static,
    S::Response: 'static,
    S::Error: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let begun = Begun(self.count.now.clone());
        self.count.now.fetch_add(1, Ordering::SeqCst);
        self.count.all.fetch_add(1, Ordering::SeqCst);
        let answer = self.inner.call(request);
        Box::pin(async move {
            let begun = begun;
            let answer = answer.await;
            drop(begun);
            answer
        })
    }
}

struct Begun(Arc<AtomicI64>);

impl Drop for Begun {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
