//! Injectable time: the wall clock for timestamps, the monotonic clock for waiting.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;

/// A clock. Tests inject one that they control.
pub trait Clock: Send + Sync + 'static {
    /// The time of the wall clock.
    fn now(&self) -> Timestamp;
    /// Monotonic time.
    fn monotonic(&self) -> Instant;
    /// Waits until the monotonic clock has reached `deadline`.
    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// A shared clock.
pub type SharedClock = Arc<dyn Clock>;

/// The clocks of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl SystemClock {
    /// The clocks of the machine, shared.
    pub fn shared() -> SharedClock {
        Arc::new(Self)
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn monotonic(&self) -> Instant {
        Instant::now()
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(tokio::time::sleep_until(deadline.into()))
    }
}

/// The monotonic time after a duration from now.
pub fn deadline(clock: &dyn Clock, after: Duration) -> Instant {
    clock.monotonic() + after
}
