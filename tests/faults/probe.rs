//! Numbers every effect of the controller, and causes a fault at one moment of one of them.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use ensign_controller::{Phase, Probe, SideEffect};
use tokio::sync::Notify;

use super::lock::lock;
use super::pause::PauseSwitch;
use super::snapshot::without_hashes;

/// What happens at a moment.
#[derive(Clone)]
pub enum Strike {
    /// The process crashes.
    Crash,
    /// The process is paused.
    Pause(Arc<PauseSwitch>),
    /// A function runs on a thread that may block, and the controller continues.
    Do(Arc<dyn Fn() + Send + Sync>),
}

/// The probe of one plan; it outlives the controllers that it crashes.
#[derive(Default)]
pub struct FaultProbe {
    /// The plan's prefix of names, which points omit.
    prefix: String,
    counts: Mutex<BTreeMap<SideEffect, u32>>,
    points: Mutex<Vec<String>>,
    strikes: Mutex<Vec<(String, Phase, Strike)>>,
    struck: AtomicU64,
    seen: AtomicU64,
    crashing: AtomicBool,
    crashed: Notify,
}

impl FaultProbe {
    pub fn new(prefix: String) -> Self {
        Self { prefix, ..Self::default() }
    }

    /// Strikes once, when a point that begins with this text reaches the moment.
    pub fn strike_at(&self, point: &str, moment: Phase, strike: Strike) {
        lock(&self.strikes).push((point.to_owned(), moment, strike));
    }

    /// Every point that was reached, in order.
    pub fn points(&self) -> Vec<String> {
        lock(&self.points).clone()
    }

    /// How many strikes there were.
    pub fn struck(&self) -> u64 {
        self.struck.load(Ordering::SeqCst)
    }

    pub fn activity(&self) -> u64 {
        self.seen.load(Ordering::SeqCst)
    }

    /// Whether a crashed controller has not been replaced yet.
    pub fn is_down(&self) -> bool {
        self.crashing.load(Ordering::SeqCst)
    }

    /// Crashes the controller now.
    pub fn crash_now(&self) {
        self.crashing.store(true, Ordering::SeqCst);
        self.crashed.notify_one();
    }

    /// Waits for a crash.
    pub async fn crash(&self) {
        self.crashed.notified().await;
    }

    /// A new controller starts.
    pub fn begin(&self) {
        self.crashing.store(false, Ordering::SeqCst);
    }

    fn number(&self, effect: &SideEffect, moment: Phase) -> String {
        let mut counts = lock(&self.counts);
        let count = counts.entry(effect.clone()).or_default();
        *count += u32::from(moment == Phase::Before);
        let object = effect.object.replace(&self.prefix, "").replace("system:serviceaccount:", "");
        format!("{} {} #{count}", effect.act, without_hashes(&object))
    }

    fn due(&self, point: &str, moment: Phase) -> Option<Strike> {
        let mut strikes = lock(&self.strikes);
        let at = strikes.iter().position(|(wanted, when, _)| point.starts_with(wanted.as_str()) && *when == moment)?;
        self.struck.fetch_add(1, Ordering::SeqCst);
        Some(strikes.remove(at).2)
    }
}

impl Probe for FaultProbe {
    fn reached<'a>(&'a self, effect: &'a SideEffect, moment: Phase) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async move {
            if self.crashing.load(Ordering::SeqCst) {
                // Another task of a controller that has crashed.
                std::future::pending::<()>().await;
            }
            self.seen.fetch_add(1, Ordering::SeqCst);
            let point = self.number(effect, moment);
            if moment == Phase::Before {
                lock(&self.points).push(point.clone());
            }
            match self.due(&point, moment) {
                None => {}
                Some(Strike::Pause(pause_switch)) => pause_switch.pause_here(),
                Some(Strike::Do(act)) => {
                    let done = tokio::task::spawn_blocking(move || act()).await;
                    done.expect("the function of a plan succeeds");
                }
                Some(Strike::Crash) => {
                    self.crash_now();
                    std::future::pending::<()>().await;
                }
            }
        })
    }
}
