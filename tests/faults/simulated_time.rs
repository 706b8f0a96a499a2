//! How a plan waits on its simulated clock: until nothing happens, for a condition, or for a time.

use std::time::{Duration, Instant};

use super::harness::{Checked, Harness};
use super::lock::lock;

/// No condition takes longer in real time, however busy the machine.
const TIMEOUT: Duration = Duration::from_secs(60);
/// A controller counts as idle after this long without activity, on a machine that is not busy.
const QUIET: Duration = Duration::from_millis(60);
/// How much longer than this thread another one may have to wait for a processor.
const UNFAIR: u32 = 4;
/// A request to Azure without a response for so long waits for something that the plan holds.
const STUCK: Duration = Duration::from_millis(400);
/// An open watch delivers a change within this time, on a machine that is not busy.
const BEHIND: Duration = Duration::from_millis(600);
const POLL: Duration = Duration::from_millis(5);

/// What is happening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activity {
    /// Controllers that are starting, and requests to Kubernetes in flight.
    busy: usize,
    /// Requests to Azure in flight.
    asking: u64,
    /// A watch has yet to deliver a change.
    behind: bool,
    /// Unchanged while nothing happens.
    counted: u64,
}

impl Harness {
    /// Waits until the controllers are idle, then advances the clock until `goal` holds.
    pub fn eventually(&self, what: &str, goal: impl Fn(&Self) -> Checked) -> Checked {
        let (begun, from) = (Instant::now(), self.clock.passed());
        let patience = *lock(&self.patience);
        loop {
            self.wait_until_idle(Instant::now())?;
            let Err(missing) = goal(self) else { return Ok(()) };
            if begun.elapsed() > 5 * TIMEOUT {
                return Err(format!("{what}: not after {} s of real time: {missing}", begun.elapsed().as_secs()));
            }
            let used = self.clock.passed().saturating_sub(from);
            match self.next_wake().filter(|wake| used + *wake <= patience) {
                Some(wake) => self.advance(wake),
                // What is still expected, such as a response or a watch, needs real time.
                None if begun.elapsed() < *lock(&self.real_time_limit) => std::thread::sleep(POLL),
                None => {
                    let (used, most) = (used.as_secs(), patience.as_secs());
                    return Err(format!("{what}: not after {used} of {most} s of the plan's clock: {missing}"));
                }
            }
        }
    }

    /// Waits for something that needs only real time: the plan's clock does not advance.
    pub fn eventually_in_real_time(&self, what: &str, fact: impl Fn(&Self) -> bool) -> Checked {
        let begun = Instant::now();
        while !fact(self) {
            if begun.elapsed() > TIMEOUT {
                return Err(format!("not within {} s of real time: {what}", TIMEOUT.as_secs()));
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Advances the clock.
    pub fn advance(&self, time: Duration) {
        let (arrived, _) = self.azure.requests();
        lock(&self.moments).push((arrived, self.clock.passed()));
        self.clock.advance(time);
    }

    /// Advances the clock by this much, stopping at every deadline that is waited for.
    pub fn advance_in_steps(&self, time: Duration) -> Checked {
        let end = self.clock.passed() + time;
        loop {
            self.wait_until_idle(Instant::now())?;
            let left = end.saturating_sub(self.clock.passed());
            if left.is_zero() {
                return Ok(());
            }
            self.advance(self.next_wake().map_or(left, |wake| wake.max(Duration::from_millis(1)).min(left)));
        }
    }

    /// The time until the earliest deadline that a controller waits for; a paused one does not count.
    pub fn next_wake(&self) -> Option<Duration> {
        self.replicas()
            .iter()
            .filter(|replica| replica.is_alive())
            .filter_map(|replica| replica.clock.next_wake())
            .min()
    }

    /// Waits until the controllers are idle.
    pub fn wait_until_idle(&self, begun: Instant) -> Checked {
        let mut last = self.activity();
        let mut since = Instant::now();
        // On a busy machine, other threads have to wait for a processor as this one does.
        let mut late = Duration::ZERO;
        loop {
            let asleep = Instant::now();
            std::thread::sleep(POLL);
            late = late.max(asleep.elapsed().saturating_sub(POLL));
            let now = self.activity();
            if now != last || now.busy > 0 {
                (last, since) = (now, Instant::now());
            }
            let quiet = match now {
                Activity { behind: true, .. } => BEHIND,
                Activity { asking: 1.., .. } => STUCK,
                _ => QUIET,
            };
            if since.elapsed() >= quiet + late * UNFAIR {
                return Ok(());
            }
            if begun.elapsed() > TIMEOUT {
                return Err(format!(
                    "still busy after {} s: {now:?}, last request {:?}",
                    TIMEOUT.as_secs(),
                    self.last_requests()
                ));
            }
        }
    }

    fn last_requests(&self) -> Vec<String> {
        self.replicas().iter().map(|replica| replica.gate.last_request()).collect()
    }

    fn activity(&self) -> Activity {
        let (arrived, answered) = self.azure.requests();
        let asking = arrived.saturating_sub(answered);
        let mut all =
            Activity { busy: 0, asking, behind: false, counted: arrived + answered + self.history.recorded() };
        for replica in self.replicas() {
            let (under_way, seen) = replica.gate.activity();
            all.counted += seen + replica.probe.activity();
            if replica.is_alive() {
                all.busy += under_way + usize::from(replica.is_starting());
                all.behind |= replica.gate.is_behind();
            }
        }
        all
    }
}
