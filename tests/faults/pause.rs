//! Stops a controller as a whole where it is, as the kernel stops a process, and lets it go on later.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use tokio::sync::Notify;

use super::lock::lock;

/// Freezes the one thread that a controller runs on.
#[derive(Default)]
pub struct PauseSwitch {
    wanted: Mutex<bool>,
    resumed: Condvar,
    told: Notify,
    frozen: AtomicBool,
}

impl PauseSwitch {
    /// Asks for the freeze, which comes as soon as the controller's runtime gets to it.
    pub fn pause(&self) {
        *lock(&self.wanted) = true;
        self.told.notify_one();
    }

    pub fn resume(&self) {
        *lock(&self.wanted) = false;
        self.resumed.notify_all();
    }

    pub fn is_paused(&self) -> bool {
        self.frozen.load(Ordering::SeqCst)
    }

    /// Freezes the thread that calls it at this very moment.
    pub fn pause_here(&self) {
        *lock(&self.wanted) = true;
        self.block();
    }

    /// On the controller's runtime: obeys.
    pub async fn run(&self) {
        loop {
            self.told.notified().await;
            self.block();
        }
    }

    fn block(&self) {
        let mut wanted = lock(&self.wanted);
        self.frozen.store(true, Ordering::SeqCst);
        while *wanted {
            wanted = self.resumed.wait(wanted).unwrap_or_else(PoisonError::into_inner);
        }
        self.frozen.store(false, Ordering::SeqCst);
    }
}
