//! How a plan waits: for stillness, for a fact, for a moment of its clock.

use std::time::{Duration, Instant};

use super::harness::{Checked, Harness};
use super::lock::lock;

/// No fact takes longer on the real clock, however busy the machine.
const TIMEOUT: Duration = Duration::from_secs(60);
/// A controller does nothing when nothing happened for this long, on a machine that lets everybody run at once.
const QUIET: Duration = Duration::from_millis(60);
/// How many times as long as this thread somebody else may have to wait for a processor.
const UNFAIR: u32 = 4;
/// A request to Azure that is not answered for so long waits for something that a plan holds back.
const STUCK: Duration = Duration::from_millis(400);
/// A watch that is open brings what was written within this time, on a machine that lets everybody run at once.
const BEHIND: Duration = Duration::from_millis(600);
const POLL: Duration = Duration::from_millis(5);

/// What is going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activity {
    /// Controllers that start, and their requests to Kubernetes that are under way.
    busy: usize,
    /// Requests to Azure that are under way.
    asking: u64,
    /// A watch still has to bring what was written.
    behind: bool,
    /// Stands while nothing happens.
    counted: u64,
}

impl Harness {
    /// Waits until the controllers do nothing, then lets time pass until `goal` holds.
    pub fn eventually(&self, what: &str, goal: impl Fn(&Self) -> Checked) -> Checked {
        let (begun, from) = (Instant::now(), self.clock.passed());
        let patience = *lock(&self.patience);
        loop {
            self.wait_until_idle(Instant::now())?;
            let Err(missing) = goal(self) else { return Ok(()) };
            if begun.elapsed() > 5 * TIMEOUT {
                return Err(format!("{what}: not after {} s on the real clock: {missing}", begun.elapsed().as_secs()));
            }
            let used = self.clock.passed().saturating_sub(from);
            match self.next_wake().filter(|wake| used + *wake <= patience) {
                Some(wake) => self.advance(wake),
                // What still comes comes on the real clock: an answer, a watch.
                None if begun.elapsed() < *lock(&self.real_time_limit) => std::thread::sleep(POLL),
                None => {
                    let (used, most) = (used.as_secs(), patience.as_secs());
                    return Err(format!("{what}: not after {used} of {most} s of the plan's clock: {missing}"));
                }
            }
        }
    }

    /// Waits for something that others than the controllers do: the plan's clock stands.
    pub fn eventually_in_real_time(&self, what: &str, fact: impl Fn(&Self) -> bool) -> Checked {
        let begun = Instant::now();
        while !fact(self) {
            if begun.elapsed() > TIMEOUT {
                return Err(format!("waited {} s in vain for {what}", TIMEOUT.as_secs()));
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Lets time pass.
    pub fn advance(&self, time: Duration) {
        let (arrived, _) = self.azure.requests();
        lock(&self.moments).push((arrived, self.clock.passed()));
        self.clock.advance(time);
    }

    /// Lets this much time pass, stopping wherever somebody waits for a moment in it.
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

    /// How far away the earliest moment is that a controller waits for. One that is frozen waits for nothing.
    pub fn next_wake(&self) -> Option<Duration> {
        self.replicas()
            .iter()
            .filter(|replica| replica.is_alive())
            .filter_map(|replica| replica.clock.next_wake())
            .min()
    }

    /// Waits until nothing happens.
    pub fn wait_until_idle(&self, begun: Instant) -> Checked {
        let mut last = self.activity();
        let mut since = Instant::now();
        // On a machine that is busy with other things, whoever has something to do waits for a processor first, as this does.
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
