//! Stops a controller as a whole where it is, as the kernel stops a process, and lets it go on later.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use tokio::sync::Notify;

use super::clock::lock;

/// Freezes the one thread that a controller runs on.
#[derive(Default)]
pub struct Freezer {
    wanted: Mutex<bool>,
    thawed: Condvar,
    told: Notify,
    frozen: AtomicBool,
}

impl Freezer {
    /// Asks for the freeze, which comes as soon as the controller's runtime gets to it.
    pub fn freeze(&self) {
        *lock(&self.wanted) = true;
        self.told.notify_one();
    }

    pub fn thaw(&self) {
        *lock(&self.wanted) = false;
        self.thawed.notify_all();
    }

    pub fn is_frozen(&self) -> bool {
        self.frozen.load(Ordering::SeqCst)
    }

    /// Freezes the thread that calls it at this very moment.
    pub fn freeze_here(&self) {
        *lock(&self.wanted) = true;
        self.stay();
    }

    /// On the controller's runtime: obeys.
    pub async fn obey(&self) {
        loop {
            self.told.notified().await;
            self.stay();
        }
    }

    fn stay(&self) {
        let mut wanted = lock(&self.wanted);
        self.frozen.store(true, Ordering::SeqCst);
        while *wanted {
            wanted = self.thawed.wait(wanted).unwrap_or_else(PoisonError::into_inner);
        }
        self.frozen.store(false, Ordering::SeqCst);
    }
}
