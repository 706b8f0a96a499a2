//! The work queue: each key once, never twice at a time, and delays on an injected clock.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::runtime::clock::SharedClock;

/// A queue of keys.
pub(super) struct Queue<K> {
    state: Mutex<State<K>>,
    changed: Notify,
    clock: SharedClock,
}

struct State<K> {
    ready: VecDeque<K>,
    waiting: HashSet<K>,
    working: HashSet<K>,
    /// Keys that were added while they were worked on.
    again: HashSet<K>,
    /// Delayed keys by deadline; the counter keeps equal deadlines apart.
    delayed: BTreeMap<(Instant, u64), K>,
    deadlines: HashMap<K, (Instant, u64)>,
    counter: u64,
}

impl<K: Clone + Eq + Hash> Queue<K> {
    pub(super) fn new(clock: SharedClock) -> Self {
        let state = State {
            ready: VecDeque::new(),
            waiting: HashSet::new(),
            working: HashSet::new(),
            again: HashSet::new(),
            delayed: BTreeMap::new(),
            deadlines: HashMap::new(),
            counter: 0,
        };
        Self { state: Mutex::new(state), changed: Notify::new(), clock }
    }

    /// Adds a key for as soon as possible.
    pub(super) fn add(&self, key: K) {
        self.lock().add(key);
        self.changed.notify_one();
    }

    /// Waits for a key; nobody else gets it before [`Queue::done`].
    pub(super) async fn next(&self) -> K {
        loop {
            let changed = self.changed.notified();
            let earliest = {
                let mut state = self.lock();
                state.release(self.clock.monotonic());
                if let Some(key) = state.take() {
                    if !state.ready.is_empty() {
                        self.changed.notify_one();
                    }
                    return key;
                }
                state.delayed.keys().next().map(|(deadline, _)| *deadline)
            };
            match earliest {
                Some(deadline) => {
                    tokio::select! {
                        () = changed => {}
                        () = self.clock.sleep_until(deadline) => {}
                    }
                }
                None => changed.await,
            }
        }
    }

    /// Gives a key back; it comes again at once if it was added meanwhile, and after `again` otherwise.
    pub(super) fn done(&self, key: K, again: Option<Duration>) {
        let deadline = again.map(|delay| self.clock.monotonic() + delay);
        self.lock().done(key, deadline);
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State<K>> {
        // The state is whole after every method, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    fn add(&mut self, key: K) {
        if self.working.contains(&key) {
            self.again.insert(key);
        } else if self.waiting.insert(key.clone()) {
            if let Some(at) = self.deadlines.remove(&key) {
                self.delayed.remove(&at);
            }
            self.ready.push_back(key);
        }
    }

    fn delay(&mut self, key: K, deadline: Instant) {
        if self.waiting.contains(&key) {
            return;
        }
        if let Some(at) = self.deadlines.get(&key).copied() {
            if at.0 <= deadline {
                return;
            }
            self.delayed.remove(&at);
        }
        self.counter += 1;
        let at = (deadline, self.counter);
        self.delayed.insert(at, key.clone());
        self.deadlines.insert(key, at);
    }

    fn release(&mut self, now: Instant) {
        while let Some(entry) = self.delayed.first_entry().filter(|entry| entry.key().0 <= now) {
            let key = entry.remove();
            self.deadlines.remove(&key);
            self.add(key);
        }
    }

    fn take(&mut self) -> Option<K> {
        let key = self.ready.pop_front()?;
        self.waiting.remove(&key);
        self.working.insert(key.clone());
        Some(key)
    }

    fn done(&mut self, key: K, deadline: Option<Instant>) {
        self.working.remove(&key);
        if self.again.remove(&key) {
            self.add(key);
        } else if let Some(deadline) = deadline {
            self.delay(key, deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::sync::Arc;

    use k8s_openapi::jiff::Timestamp;
    use tokio::sync::watch;

    use super::*;
    use crate::runtime::clock::Clock;

    /// A clock that stands until a test moves it.
    struct FakeClock {
        start: Instant,
        passed: watch::Sender<Duration>,
    }

    impl FakeClock {
        fn new() -> Arc<Self> {
            Arc::new(Self { start: Instant::now(), passed: watch::channel(Duration::ZERO).0 })
        }

        fn pass(&self, time: Duration) {
            self.passed.send_modify(|passed| *passed += time);
        }
    }

    impl Clock for FakeClock {
        fn now(&self) -> Timestamp {
            Timestamp::UNIX_EPOCH
        }

        fn monotonic(&self) -> Instant {
            self.start + *self.passed.borrow()
        }

        fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
            let mut passed = self.passed.subscribe();
            Box::pin(async move {
                let _ = passed.wait_for(|passed| self.start + *passed >= deadline).await;
            })
        }
    }

    fn nothing_is_ready(queue: &Queue<&'static str>) -> bool {
        let mut next = std::pin::pin!(queue.next());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        next.as_mut().poll(&mut context).is_pending()
    }

    async fn come_back(queue: &Queue<&'static str>, key: &'static str, seconds: u64) {
        queue.add(key);
        assert_eq!(queue.next().await, key);
        queue.done(key, Some(Duration::from_secs(seconds)));
    }

    #[tokio::test]
    async fn a_key_that_was_added_twice_comes_once() {
        let queue = Queue::new(FakeClock::new());
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        queue.done("a", None);
        assert!(nothing_is_ready(&queue));
    }

    #[tokio::test]
    async fn a_key_is_never_worked_on_twice_at_a_time_and_comes_again_afterwards() {
        let queue = Queue::new(FakeClock::new());
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        queue.add("a");
        assert!(nothing_is_ready(&queue));
        queue.done("a", Some(Duration::from_secs(60)));
        assert_eq!(queue.next().await, "a");
    }

    #[tokio::test]
    async fn a_delayed_key_comes_when_the_clock_says_so() {
        let clock = FakeClock::new();
        let queue = Queue::new(clock.clone());
        come_back(&queue, "a", 60).await;
        assert!(nothing_is_ready(&queue));
        clock.pass(Duration::from_secs(59));
        assert!(nothing_is_ready(&queue));
        clock.pass(Duration::from_secs(1));
        assert_eq!(queue.next().await, "a");
    }

    #[tokio::test]
    async fn adding_a_delayed_key_now_brings_it_now_and_not_once_more_later() {
        let clock = FakeClock::new();
        let queue = Queue::new(clock.clone());
        come_back(&queue, "a", 60).await;
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        queue.done("a", None);
        clock.pass(Duration::from_secs(600));
        assert!(nothing_is_ready(&queue), "one key, one deadline");
    }

    #[tokio::test]
    async fn two_workers_get_two_keys() {
        let queue = Queue::new(FakeClock::new());
        queue.add("a");
        queue.add("b");
        assert_eq!((queue.next().await, queue.next().await), ("a", "b"));
    }
}
