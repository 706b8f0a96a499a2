//! What Azure confirmed to this process's own writes, for every identity.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use ensign_api::ArmId;
use ensign_core::own_writes::OwnWrites;
use ensign_core::scheduling::monotonic::Moment;
use ensign_runtime::clock::SharedClock;

/// Beyond so many identities, those without anything recent are forgotten.
const SWEEP_ABOVE: usize = 256;

/// The recent writes of this process; clones share them. They are lost with the process: then what Azure returns has to do, and
/// deletions are repeated.
#[derive(Clone)]
pub(crate) struct OwnWritesByIdentity(Arc<Inner>);

struct Inner {
    lag: Duration,
    identities: Mutex<Identities>,
    clock: SharedClock,
    origin: Instant,
}

#[derive(Default)]
struct Identities {
    /// By the key of the ARM ID.
    writes: BTreeMap<String, OwnWrites>,
    /// The number of identities at which those without anything recent are forgotten.
    sweep_at: usize,
}

impl OwnWritesByIdentity {
    /// No writes yet. Reads may lag this long behind them.
    pub(crate) fn new(lag: Duration, clock: SharedClock) -> Self {
        let origin = clock.monotonic();
        let identities = Mutex::new(Identities { writes: BTreeMap::new(), sweep_at: SWEEP_ABOVE });
        Self(Arc::new(Inner { lag, identities, clock, origin }))
    }

    /// The time. What a read returned is judged by the time at which it was sent.
    pub(crate) fn now(&self) -> Moment {
        self.0.clock.monotonic().saturating_duration_since(self.0.origin)
    }

    /// Reads or notes the writes for one identity. The second argument of `act` is the time.
    pub(crate) fn of<T>(&self, id: &ArmId, act: impl FnOnce(&mut OwnWrites, Moment) -> T) -> T {
        let now = self.now();
        let mut identities = self.0.identities.lock();
        let writes = identities.writes.entry(id.key().to_owned()).or_insert_with(|| OwnWrites::new(self.0.lag));
        let result = act(writes, now);
        if writes.forget(now) {
            identities.writes.remove(id.key());
        }
        identities.sweep(now);
        result
    }
}

impl Identities {
    fn sweep(&mut self, now: Moment) {
        if self.writes.len() >= self.sweep_at {
            self.writes.retain(|_, writes| !writes.forget(now));
            self.sweep_at = SWEEP_ABOVE.max(self.writes.len() * 2);
        }
    }
}
