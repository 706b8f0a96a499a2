//! A cache of role definitions.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use ensign_core::roles::{Lookup, RoleDefinition};

/// How long a cached definition is used, unless a write depends on it.
const CACHED_FOR: Duration = Duration::from_secs(3600);
/// How long after that a definition counts as existing although Azure does not find it: for minutes, it finds a role at one
/// request and not at the next (Azure/azure-cli issue 20727).
const MISSED_FOR: Duration = Duration::from_secs(600);

/// Role definitions that were looked up, so that an identity in sync needs no look-up. Many identities share them.
#[derive(Default)]
pub(crate) struct RoleDefinitions(Mutex<BTreeMap<Lookup, (Instant, RoleDefinition)>>);

impl RoleDefinitions {
    pub(super) fn get(&self, lookup: &Lookup, now: Instant) -> Option<RoleDefinition> {
        self.younger(lookup, CACHED_FOR, now)
    }

    /// A definition that Azure found recently enough that a request that does not find it proves nothing.
    pub(super) fn recently_found(&self, lookup: &Lookup, now: Instant) -> Option<RoleDefinition> {
        self.younger(lookup, CACHED_FOR + MISSED_FOR, now)
    }

    fn younger(&self, lookup: &Lookup, age: Duration, now: Instant) -> Option<RoleDefinition> {
        let cached = self.0.lock();
        let (since, role) = cached.get(lookup)?;
        (now.saturating_duration_since(*since) < age).then(|| role.clone())
    }

    pub(super) fn insert(&self, lookup: Lookup, role: RoleDefinition, now: Instant) {
        let mut cached = self.0.lock();
        cached.retain(|_, (since, _)| now.saturating_duration_since(*since) < CACHED_FOR + MISSED_FOR);
        cached.insert(lookup, (now, role));
    }
}
