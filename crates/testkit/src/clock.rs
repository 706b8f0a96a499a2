//! A clock that stands until a test moves it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ensign_runtime::clock::Clock;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

pub struct FakeClock {
    start: (Instant, Timestamp),
    passed: watch::Sender<Duration>,
}

impl FakeClock {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { start: (Instant::now(), Timestamp::now()), passed: watch::Sender::new(Duration::ZERO) })
    }

    pub fn pass(&self, time: Duration) {
        self.passed.send_modify(|passed| *passed += time);
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        self.start.1 + SignedDuration::try_from(*self.passed.borrow()).expect("less than the age of the universe")
    }

    fn monotonic(&self) -> Instant {
        self.start.0 + *self.passed.borrow()
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let mut passed = self.passed.subscribe();
        Box::pin(async move {
            let _ = passed.wait_for(|passed| self.start.0 + *passed >= deadline).await;
        })
    }
}
