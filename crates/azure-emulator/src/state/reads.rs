//! Reads that lag behind writes, as if another replica of ARM answered them.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::model::{Identity, State};
use super::roles::{RoleAssignment, RoleDefinition, builtin};

/// Earlier values are kept at least this long, for fault rules that ask for them.
const KEPT_SECONDS: u32 = 600;

/// How far reads of ARM lag behind writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadSettings {
    /// The lag of the slowest replica, in seconds; 0 is off.
    pub lag_seconds: u32,
    /// How many replicas there are. The first one does not lag, the last one lags most, the others lie in between at equal
    /// distances; a single one always lags.
    pub replicas: u32,
    /// Which replica answers which read follows from this number and that of the read.
    pub seed: u64,
}

impl Default for ReadSettings {
    fn default() -> Self {
        Self { lag_seconds: 0, replicas: 4, seed: 0 }
    }
}

/// How far a single read lags, whatever the settings are. Values older than ten minutes, or than the lag of the settings
/// if that is longer, are not kept: then the oldest known one is returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Staleness {
    /// By this many seconds.
    Seconds(u32),
    /// By a pseudo-random time up to this many seconds.
    UpToSeconds(u32),
}

/// Counts the reads that may lag.
#[derive(Debug, Default)]
pub(in crate::state) struct ReadCounter(u64);

impl State {
    /// When the answer of the next read was the present state.
    pub(in crate::state) fn next_read(&mut self, staleness: Option<Staleness>, now: Timestamp) -> Timestamp {
        let ReadSettings { lag_seconds, replicas, seed } = self.settings.reads;
        if staleness.is_none() && lag_seconds == 0 {
            return now;
        }
        self.reads.0 += 1;
        let random = mixed(seed, self.reads.0);
        let milliseconds = match staleness {
            Some(Staleness::Seconds(seconds)) => u64::from(seconds) * 1000,
            Some(Staleness::UpToSeconds(seconds)) => random % (u64::from(seconds) * 1000 + 1),
            None => {
                let others = u64::from(replicas.saturating_sub(1));
                let all = u64::from(lag_seconds) * 1000;
                (random % (others + 1)).saturating_mul(all).checked_div(others).unwrap_or(all)
            }
        };
        let lag = SignedDuration::from_millis(i64::try_from(milliseconds).unwrap_or(i64::MAX));
        now.checked_sub(lag).unwrap_or(Timestamp::MIN)
    }

    /// The state as of some time.
    pub(in crate::state) fn at(&self, time: Timestamp) -> View<'_> {
        View { state: self, time }
    }

    /// Gives the changes since the last call a time. Reads of the state before that do not show them.
    pub(crate) fn record_changes(&mut self, now: Timestamp) {
        let needed = self.settings.reads.lag_seconds.max(self.settings.propagation_seconds);
        let kept = SignedDuration::from_secs(KEPT_SECONDS.max(needed).into());
        self.identities.record(now, kept);
        self.role_definitions.record(now, kept);
        self.role_assignments.record(now, kept);
    }

    /// Lets what is there now have been there for long: reads that lag show it too.
    pub fn forget_the_past(&mut self) {
        self.identities.forget();
        self.role_definitions.forget();
        self.role_assignments.forget();
    }
}

/// `SplitMix64`: a well-distributed number for each input.
pub(in crate::state) fn mixed(seed: u64, number: u64) -> u64 {
    let mut bits = seed.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// What a read sees: the state as of some time. Settings, subscriptions and resource groups are the present ones.
#[derive(Clone, Copy, Debug)]
pub(in crate::state) struct View<'a> {
    /// The state.
    pub(in crate::state) state: &'a State,
    /// As of when.
    pub(in crate::state) time: Timestamp,
}

impl<'a> View<'a> {
    /// An identity with its credentials.
    pub(in crate::state) fn identity(self, key: &str) -> Option<&'a Identity> {
        self.state.identities.get_at(key, self.time)
    }

    /// All identities by ARM ID.
    pub(in crate::state) fn identities(self) -> impl Iterator<Item = (&'a String, &'a Identity)> {
        self.state.identities.iter_at(self.time)
    }

    /// A role assignment by its GUID in lower case.
    pub(in crate::state) fn role_assignment(self, key: &str) -> Option<&'a RoleAssignment> {
        self.state.role_assignments.get_at(key, self.time)
    }

    /// All role assignments by GUID.
    pub(in crate::state) fn role_assignments(self) -> impl Iterator<Item = (&'a String, &'a RoleAssignment)> {
        self.state.role_assignments.iter_at(self.time)
    }

    /// A role definition by its GUID in any case.
    pub(in crate::state) fn role_definition(self, name: &str) -> Option<&'a RoleDefinition> {
        let custom = self.state.role_definitions.get_at(&name.to_lowercase(), self.time);
        custom.or_else(|| builtin().iter().find(|role| role.name.eq_ignore_ascii_case(name)))
    }

    /// All role definitions: first the built-in ones.
    pub(in crate::state) fn role_definitions(self) -> impl Iterator<Item = &'a RoleDefinition> {
        builtin().iter().chain(self.state.role_definitions.iter_at(self.time).map(|(_, role)| role))
    }
}
