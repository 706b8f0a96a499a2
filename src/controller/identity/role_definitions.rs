//! A cache of role definitions.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use ensign_core::roles::{Lookup, RoleDefinition};

/// How long a cached definition is used, unless a write depends on it.
const CACHED_FOR: Duration = Duration::from_secs(3600);

/// Role definitions that were looked up, so that an identity in sync needs no look-up. Many identities share them.
#[derive(Default)]
pub(crate) struct RoleDefinitions(Mutex<BTreeMap<Lookup, (Instant, RoleDefinition)>>);

impl RoleDefinitions {
    pub(super) fn get(&self, lookup: &Lookup, now: Instant) -> Option<RoleDefinition> {
        let cached = self.0.lock();
        let (since, role) = cached.get(lookup)?;
        (now.saturating_duration_since(*since) < CACHED_FOR).then(|| role.clone())
    }

    pub(super) fn insert(&self, lookup: Lookup, role: RoleDefinition, now: Instant) {
        let mut cached = self.0.lock();
        cached.retain(|_, (since, _)| now.saturating_duration_since(*since) < CACHED_FOR);
        cached.insert(lookup, (now, role));
    }
}
