//! A signal that is set once and stays set.

use tokio::sync::watch;

/// Unset at first; once set, it stays set, and every current and later wait completes.
#[derive(Debug)]
pub struct Latch(watch::Sender<bool>);

impl Default for Latch {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Latch {
    /// Sets the latch. Later calls change nothing.
    pub fn set(&self) {
        self.0.send_if_modified(|set| !std::mem::replace(set, true));
    }

    /// Whether the latch has been set.
    pub fn is_set(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until the latch has been set.
    pub async fn wait(&self) {
        // This fails only when the sender is dropped, and the sender is part of self.
        let _ = self.0.subscribe().wait_for(|set| *set).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_wait_completes_once_the_latch_is_set() {
        let latch = Latch::default();
        assert!(!latch.is_set());
        let waiting = latch.wait();
        latch.set();
        latch.set();
        waiting.await;
        latch.wait().await;
        assert!(latch.is_set());
    }
}
