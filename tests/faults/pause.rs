//! Pauses a controller as a whole, like a process that the kernel stops, and resumes it later.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use tokio::sync::Notify;

use super::lock::lock;

/// Pauses the single thread that a controller runs on.
#[derive(Default)]
pub struct PauseSwitch {
    wanted: Mutex<bool>,
    resumed: Condvar,
    requested: Notify,
    paused: AtomicBool,
}

impl PauseSwitch {
    /// Requests the pause, which begins as soon as the controller's runtime polls [`Self::run`].
    pub fn pause(&self) {
        *lock(&self.wanted) = true;
        self.requested.notify_one();
    }

    pub fn resume(&self) {
        *lock(&self.wanted) = false;
        self.resumed.notify_all();
    }

    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::SeqCst)
    }

    /// Pauses the calling thread immediately.
    pub fn pause_here(&self) {
        *lock(&self.wanted) = true;
        self.block();
    }

    /// Runs on the controller's runtime and executes requested pauses.
    pub async fn run(&self) {
        loop {
            self.requested.notified().await;
            self.block();
        }
    }

    fn block(&self) {
        let mut wanted = lock(&self.wanted);
        self.paused.store(true, Ordering::SeqCst);
        while *wanted {
            wanted = self.resumed.wait(wanted).unwrap_or_else(PoisonError::into_inner);
        }
        self.paused.store(false, Ordering::SeqCst);
    }
}
