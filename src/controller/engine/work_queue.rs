//! The work queue: each key once, never worked on twice at a time, delays on an injected clock, and fair to all sources.
//!
//! A key waits in the line of the source that added it: the namespace that an event came from, or none. Sources take
//! turns, so that one that keeps adding keys delays only its own: with `n` sources that have keys waiting, every nth turn
//! belongs to each of them. A key that several sources added waits in the line of each, and is taken in the first turn of
//! any of them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use ensign_runtime::clock::SharedClock;

/// Capacity that is kept when the queue is empty.
const MIN_CAPACITY: usize = 256;

/// A queue of keys. Delayed keys wait in the line of the default source.
pub(crate) struct WorkQueue<K, S> {
    state: Mutex<State<K, S>>,
    changed: Notify,
    clock: SharedClock,
}

struct State<K, S> {
    /// Keys that are ready, by source, in the order in which they were added.
    lines: BTreeMap<S, BTreeMap<u64, K>>,
    /// Sources that have a line, the one whose turn it is first.
    turns: VecDeque<S>,
    /// The lines in which each ready key waits, with its position.
    waiting: HashMap<K, Vec<(S, u64)>>,
    working: HashSet<K>,
    /// Keys that were added while they were being worked on.
    again: HashMap<K, BTreeSet<S>>,
    /// Delayed keys by deadline; the counter keeps equal deadlines apart.
    delayed: BTreeMap<(Instant, u64), K>,
    deadlines: HashMap<K, (Instant, u64)>,
    counter: u64,
}

impl<K: Clone + Eq + Hash, S: Clone + Ord + Default> WorkQueue<K, S> {
    pub(crate) fn new(clock: SharedClock) -> Self {
        let state = State {
            lines: BTreeMap::new(),
            turns: VecDeque::new(),
            waiting: HashMap::new(),
            working: HashSet::new(),
            again: HashMap::new(),
            delayed: BTreeMap::new(),
            deadlines: HashMap::new(),
            counter: 0,
        };
        Self { state: Mutex::new(state), changed: Notify::new(), clock }
    }

    /// Adds a key for as soon as possible.
    pub(crate) fn add(&self, key: K, source: S) {
        self.lock().add(key, source);
        self.changed.notify_one();
    }

    /// Waits for a key; no other worker gets it before [`WorkQueue::done`].
    pub(crate) async fn next(&self) -> K {
        loop {
            let changed = self.changed.notified();
            let earliest = {
                let mut state = self.lock();
                state.release(self.clock.monotonic());
                if let Some(key) = state.take() {
                    if !state.waiting.is_empty() {
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

    /// Returns a key; it is ready again at once if it was added meanwhile, and after `again` otherwise.
    pub(crate) fn done(&self, key: K, again: Option<Duration>) {
        let deadline = again.map(|delay| self.clock.monotonic() + delay);
        self.lock().done(key, deadline);
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State<K, S>> {
        self.state.lock()
    }
}

impl<K: Clone + Eq + Hash, S: Clone + Ord + Default> State<K, S> {
    fn add(&mut self, key: K, source: S) {
        if self.working.contains(&key) {
            self.again.entry(key).or_default().insert(source);
            return;
        }
        let places = self.waiting.entry(key.clone()).or_default();
        if places.iter().any(|(known, _)| *known == source) {
            return;
        }
        if let Some(at) = self.deadlines.remove(&key) {
            self.delayed.remove(&at);
        }
        self.counter += 1;
        places.push((source.clone(), self.counter));
        if !self.lines.contains_key(&source) {
            self.turns.push_back(source.clone());
        }
        self.lines.entry(source).or_default().insert(self.counter, key);
    }

    fn delay(&mut self, key: K, deadline: Instant) {
        if self.waiting.contains_key(&key) {
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
            self.add(key, S::default());
        }
    }

    /// Takes the first key of the source whose turn it is, out of every line.
    fn take(&mut self) -> Option<K> {
        loop {
            let source = self.turns.pop_front()?;
            let Some((_, key)) = self.lines.get_mut(&source).and_then(BTreeMap::pop_first) else {
                // Its keys were taken in the turns of others.
                self.lines.remove(&source);
                continue;
            };
            for (other, number) in self.waiting.remove(&key).unwrap_or_default() {
                if let Some(line) = self.lines.get_mut(&other) {
                    line.remove(&number);
                }
            }
            if self.lines.get(&source).is_some_and(|line| !line.is_empty()) {
                self.turns.push_back(source);
            } else {
                self.lines.remove(&source);
            }
            if self.waiting.is_empty() {
                // When work began, it held every key.
                self.waiting.shrink_to(MIN_CAPACITY);
            }
            self.working.insert(key.clone());
            return Some(key);
        }
    }

    fn done(&mut self, key: K, deadline: Option<Instant>) {
        self.working.remove(&key);
        if let Some(sources) = self.again.remove(&key) {
            for source in sources {
                self.add(key.clone(), source);
            }
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
    use ensign_runtime::clock::Clock;

    /// A clock that only a test moves.
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

    fn nothing_is_ready(queue: &WorkQueue<&'static str, u8>) -> bool {
        let mut next = std::pin::pin!(queue.next());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        next.as_mut().poll(&mut context).is_pending()
    }

    async fn requeue(queue: &WorkQueue<&'static str, u8>, key: &'static str, seconds: u64) {
        queue.add(key, 0);
        assert_eq!(queue.next().await, key);
        queue.done(key, Some(Duration::from_secs(seconds)));
    }

    #[tokio::test]
    async fn a_key_that_was_added_twice_is_taken_once() {
        let queue = WorkQueue::<_, u8>::new(FakeClock::new());
        queue.add("a", 0);
        queue.add("a", 0);
        assert_eq!(queue.next().await, "a");
        queue.done("a", None);
        assert!(nothing_is_ready(&queue));
    }

    #[tokio::test]
    async fn a_key_is_never_worked_on_twice_at_a_time_and_is_taken_again_afterwards() {
        let queue = WorkQueue::<_, u8>::new(FakeClock::new());
        queue.add("a", 0);
        assert_eq!(queue.next().await, "a");
        queue.add("a", 0);
        assert!(nothing_is_ready(&queue));
        queue.done("a", Some(Duration::from_secs(60)));
        assert_eq!(queue.next().await, "a");
    }

    #[tokio::test]
    async fn a_delayed_key_is_ready_after_its_delay() {
        let clock = FakeClock::new();
        let queue = WorkQueue::<_, u8>::new(clock.clone());
        requeue(&queue, "a", 60).await;
        assert!(nothing_is_ready(&queue));
        clock.pass(Duration::from_secs(59));
        assert!(nothing_is_ready(&queue));
        clock.pass(Duration::from_secs(1));
        assert_eq!(queue.next().await, "a");
    }

    #[tokio::test]
    async fn adding_a_delayed_key_replaces_its_delay() {
        let clock = FakeClock::new();
        let queue = WorkQueue::<_, u8>::new(clock.clone());
        requeue(&queue, "a", 60).await;
        queue.add("a", 0);
        assert_eq!(queue.next().await, "a");
        queue.done("a", None);
        clock.pass(Duration::from_secs(600));
        assert!(nothing_is_ready(&queue), "one key, one deadline");
    }

    #[tokio::test]
    async fn two_workers_get_two_keys() {
        let queue = WorkQueue::<_, u8>::new(FakeClock::new());
        queue.add("a", 0);
        queue.add("b", 0);
        assert_eq!((queue.next().await, queue.next().await), ("a", "b"));
    }

    /// Takes every key that is ready now.
    async fn rest(queue: &WorkQueue<&'static str, u8>) -> Vec<&'static str> {
        let mut taken = Vec::new();
        while !queue.lock().waiting.is_empty() {
            let key = queue.next().await;
            queue.done(key, None);
            taken.push(key);
        }
        taken
    }

    #[tokio::test]
    async fn the_capacity_for_a_flood_is_not_kept() {
        let queue = WorkQueue::<_, u8>::new(FakeClock::new());
        for key in 0..100 * MIN_CAPACITY {
            queue.add(key, 0);
        }
        for _ in 0..100 * MIN_CAPACITY {
            let key = queue.next().await;
            queue.done(key, None);
        }
        assert!(queue.lock().waiting.capacity() <= 4 * MIN_CAPACITY);
    }

    #[tokio::test]
    async fn sources_take_turns() {
        let queue = WorkQueue::<_, u8>::new(FakeClock::new());
        for key in ["a1", "a2", "a3"] {
            queue.add(key, 1);
        }
        queue.add("b1", 2);
        queue.add("c1", 3);
        queue.add("b2", 2);
        assert_eq!(rest(&queue).await, ["a1", "b1", "c1", "a2", "b2", "a3"]);
    }

    #[tokio::test]
    async fn a_key_that_two_sources_added_is_taken_once_in_the_first_turn_of_either() {
        let queue = WorkQueue::<_, u8>::new(FakeClock::new());
        for key in ["flood 1", "flood 2", "shared"] {
            queue.add(key, 1);
        }
        queue.add("shared", 2);
        assert_eq!(rest(&queue).await, ["flood 1", "shared", "flood 2"]);
    }

    #[tokio::test]
    async fn a_key_that_was_added_while_it_was_worked_on_waits_in_the_lines_of_its_sources() {
        let queue = WorkQueue::<_, u8>::new(FakeClock::new());
        queue.add("a", 1);
        assert_eq!(queue.next().await, "a");
        queue.add("a", 2);
        queue.add("x", 1);
        queue.add("y", 1);
        queue.done("a", None);
        assert_eq!(rest(&queue).await, ["x", "a", "y"]);
    }

    /// A tenant floods the queue before each turn; how many turns a quiet tenant waits for ten keys.
    #[test]
    fn a_flood_takes_at_most_every_second_turn() {
        let turns = |flood: usize| {
            let mut state = WorkQueue::<usize, u8>::new(FakeClock::new()).state.into_inner();
            let mut fresh = 1000;
            let mut pour = |state: &mut State<usize, u8>| {
                for _ in 0..flood {
                    fresh += 1;
                    state.add(fresh, 1);
                }
            };
            pour(&mut state);
            (0..10).for_each(|key| state.add(key, 2));
            let mut turns = 0;
            let mut left = 10;
            while left > 0 {
                pour(&mut state);
                turns += 1;
                let key = state.take().unwrap();
                left -= usize::from(key < 10);
                state.done(key, None);
            }
            turns
        };
        assert_eq!(turns(0), 10);
        assert!(turns(500) <= 2 * turns(0), "{} turns beside a flood", turns(500));
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(256))]

        /// Sources add keys, some of them the same ones, and keys are taken meanwhile. A key is taken after at most as many
        /// turns as there are sources, for itself and for each key before it in its own line.
        #[test]
        fn no_key_waits_longer_than_the_turns_of_other_sources(
            steps in proptest::collection::vec((0_u8..6, 0_u16..60, proptest::bool::weighted(0.3)), 1..400),
        ) {
            let mut state = WorkQueue::<u16, u8>::new(FakeClock::new()).state.into_inner();
            let mut taken = 0_usize;
            // For each source and key: the turn by which it has to have come.
            let mut due: HashMap<(u8, u16), usize> = HashMap::new();
            let mut waiting: HashSet<u16> = HashSet::new();
            let mut ends = steps.iter().map(|(source, key, takes)| (Some((*source, *key)), *takes)).collect::<Vec<_>>();
            ends.extend(std::iter::repeat_n((None, true), 400));
            for (added, takes) in ends {
                if let Some((source, key)) = added {
                    state.add(key, source);
                    waiting.insert(key);
                    let before = state.lines[&source].len();
                    due.entry((source, key)).or_insert(taken + 6 * before);
                }
                if !takes {
                    continue;
                }
                let Some(key) = state.take() else {
                    proptest::prop_assert!(waiting.is_empty(), "a key was lost");
                    continue;
                };
                taken += 1;
                proptest::prop_assert!(waiting.remove(&key), "a key was taken twice");
                for ((source, late), by) in &due {
                    proptest::prop_assert!(taken <= *by, "{late} of {source} is late");
                }
                due.retain(|(_, other), _| *other != key);
                state.done(key, None);
            }
            proptest::prop_assert!(state.lines.is_empty() && state.waiting.is_empty() && state.turns.is_empty());
        }
    }
}
