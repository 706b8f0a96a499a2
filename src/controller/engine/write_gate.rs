//! Whether the controller may write now. Every write to Azure and to Kubernetes passes here.
//!
//! A write is rejected shortly before leadership ends, and abandoned if leadership ends while it is in flight: before
//! another process can hold the lease. No write begins once the controller is stopping, so that it can release the lease
//! soon.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use ensign_runtime::clock::SharedClock;

/// A write was not sent, or its response was not awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// Nothing was sent.
    #[error("not written: the controller is stopping")]
    Stopping,
    /// Nothing was sent.
    #[error("not written: this controller does not lead, or its lease is about to expire")]
    NotLeading,
    /// It may have been applied.
    #[error("leadership ended before the response; the outcome is unknown")]
    Abandoned,
}

/// Whether the controller may write.
#[derive(Clone)]
pub(crate) struct WriteGate(Arc<Inner>);

struct Inner {
    clock: SharedClock,
    least: Duration,
    authority: watch::Sender<Authority>,
    writes: watch::Sender<Writes>,
}

#[derive(Clone, Copy)]
enum Authority {
    Unlimited,
    Until(Instant),
    Over,
}

#[derive(Default)]
struct Writes {
    closed: bool,
    in_flight: usize,
}

impl WriteGate {
    /// A gate that is always open: there is no election.
    pub(crate) fn unlimited(clock: SharedClock) -> Self {
        Self::new(clock, Duration::ZERO, Authority::Unlimited)
    }

    /// A gate that is shut until this process leads. With less than `least` of its leadership left, no write begins.
    pub(crate) fn shut(clock: SharedClock, least: Duration) -> Self {
        Self::new(clock, least, Authority::Over)
    }

    fn new(clock: SharedClock, least: Duration, authority: Authority) -> Self {
        let (authority, writes) = (watch::Sender::new(authority), watch::Sender::new(Writes::default()));
        Self(Arc::new(Inner { clock, least, authority, writes }))
    }

    /// Leadership lasts until this moment, unless it is extended again.
    pub(crate) fn open_until(&self, end: Instant) {
        self.0.authority.send_replace(Authority::Until(end));
    }

    /// Leadership is over.
    pub(crate) fn shut_now(&self) {
        self.0.authority.send_replace(Authority::Over);
    }

    /// Rejects new writes and waits for those in flight.
    pub(crate) async fn close(&self) {
        self.0.writes.send_modify(|writes| writes.closed = true);
        // It fails only if the sender is dropped, and the sender is part of self.
        let _ = self.0.writes.subscribe().wait_for(|writes| writes.in_flight == 0).await;
    }

    /// How long the controller may still act if leadership is not extended.
    pub(crate) fn remaining(&self) -> Duration {
        match *self.0.authority.borrow() {
            Authority::Unlimited => Duration::MAX,
            Authority::Until(end) => end.saturating_duration_since(self.0.clock.monotonic()),
            Authority::Over => Duration::ZERO,
        }
    }

    /// Lets one write through.
    pub(crate) fn write<T>(&self, write: impl Future<Output = T>) -> impl Future<Output = Result<T, Refused>> {
        // Requests are large.
        let mut write = Box::pin(write);
        async move {
            let _in_flight = self.begin()?;
            let mut over = pin!(self.over());
            // The time is checked before every step: after a pause of the process its timers fire late.
            poll_fn(|context| {
                let leads = !self.remaining().is_zero() && over.as_mut().poll(context).is_pending();
                if !leads {
                    return Poll::Ready(Err(Refused::Abandoned));
                }
                write.as_mut().poll(context).map(Ok)
            })
            .await
        }
    }

    fn begin(&self) -> Result<InFlight<'_>, Refused> {
        if self.remaining() <= self.0.least {
            return Err(Refused::NotLeading);
        }
        let begun = self.0.writes.send_if_modified(|writes| {
            writes.in_flight += usize::from(!writes.closed);
            !writes.closed
        });
        if begun { Ok(InFlight(&self.0.writes)) } else { Err(Refused::Stopping) }
    }

    /// Waits until leadership is over.
    async fn over(&self) {
        let mut authority = self.0.authority.subscribe();
        loop {
            let now = *authority.borrow_and_update();
            match now {
                Authority::Over => return,
                Authority::Until(end) if self.0.clock.monotonic() >= end => return,
                Authority::Until(end) => {
                    tokio::select! {
                        () = self.0.clock.sleep_until(end) => {}
                        _ = authority.changed() => {}
                    }
                }
                Authority::Unlimited => {
                    let _ = authority.changed().await;
                }
            }
        }
    }
}

struct InFlight<'a>(&'a watch::Sender<Writes>);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|writes| writes.in_flight -= 1);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::Mutex;

    use k8s_openapi::jiff::Timestamp;
    use tokio::sync::oneshot;

    use super::*;
    use ensign_runtime::clock::Clock;

    /// A clock that only a test moves, and whose timers never fire: as after a pause of the process.
    struct FrozenTimers(Mutex<Instant>);

    impl FrozenTimers {
        fn pass(&self, seconds: u64) {
            *self.0.lock().unwrap() += Duration::from_secs(seconds);
        }
    }

    impl Clock for FrozenTimers {
        fn now(&self) -> Timestamp {
            Timestamp::UNIX_EPOCH
        }

        fn monotonic(&self) -> Instant {
            *self.0.lock().unwrap()
        }

        fn sleep_until(&self, _deadline: Instant) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
            Box::pin(std::future::pending())
        }
    }

    fn leading_for(seconds: u64) -> (Arc<FrozenTimers>, WriteGate) {
        let clock = Arc::new(FrozenTimers(Mutex::new(Instant::now())));
        let gate = WriteGate::shut(clock.clone(), Duration::from_secs(1));
        gate.open_until(clock.monotonic() + Duration::from_secs(seconds));
        (clock, gate)
    }

    #[tokio::test]
    async fn without_leadership_nothing_is_written() {
        let (_, gate) = leading_for(10);
        gate.shut_now();
        assert_eq!(gate.write(async { unreachable!("never polled") }).await, Err::<(), _>(Refused::NotLeading));
        gate.open_until(Instant::now() + Duration::from_secs(3600));
        assert_eq!(gate.write(async { 7 }).await, Ok(7));
    }

    #[tokio::test]
    async fn shortly_before_leadership_ends_no_write_begins() {
        let (clock, gate) = leading_for(10);
        clock.pass(8);
        assert_eq!(gate.write(async {}).await, Ok(()));
        clock.pass(1);
        assert_eq!(gate.write(async {}).await, Err(Refused::NotLeading));
    }

    #[tokio::test]
    async fn a_write_in_flight_is_abandoned_when_leadership_is_lost() {
        let (_, gate) = leading_for(10);
        let lost = async {
            tokio::task::yield_now().await;
            gate.shut_now();
        };
        let (written, ()) = tokio::join!(gate.write(std::future::pending::<()>()), lost);
        assert_eq!(written, Err(Refused::Abandoned));
    }

    #[tokio::test]
    async fn after_a_pause_a_write_takes_no_further_step_though_no_timer_fired() {
        let (clock, gate) = leading_for(10);
        let (answer, answered) = oneshot::channel();
        let thaw = async {
            tokio::task::yield_now().await;
            clock.pass(10);
            answer.send(()).unwrap();
        };
        let (written, ()) = tokio::join!(gate.write(answered), thaw);
        assert_eq!(written.map(|_| ()), Err(Refused::Abandoned));
    }

    #[tokio::test]
    async fn a_renewal_lets_a_write_in_flight_continue() {
        let (clock, gate) = leading_for(10);
        let (answer, answered) = oneshot::channel();
        let renewal = async {
            tokio::task::yield_now().await;
            clock.pass(9);
            gate.open_until(clock.monotonic() + Duration::from_secs(10));
            clock.pass(9);
            answer.send(()).unwrap();
        };
        let (written, ()) = tokio::join!(gate.write(answered), renewal);
        assert_eq!(written, Ok(Ok(())));
    }

    #[tokio::test]
    async fn closing_waits_for_writes_in_flight_and_rejects_others() {
        let gate = WriteGate::unlimited(ensign_runtime::clock::SystemClock::shared());
        let (answer, answered) = oneshot::channel();
        let closing = async {
            tokio::task::yield_now().await;
            let mut closed = pin!(gate.close());
            assert!(futures::poll!(closed.as_mut()).is_pending());
            assert_eq!(gate.write(async {}).await, Err(Refused::Stopping));
            answer.send(()).unwrap();
            closed.await;
        };
        let (written, ()) = tokio::join!(gate.write(answered), closing);
        assert_eq!(written, Ok(Ok(())));
    }
}
