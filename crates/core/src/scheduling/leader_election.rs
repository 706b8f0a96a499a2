//! Leader election with a `Lease` of `coordination.k8s.io/v1`.
//!
//! Why two candidates never lead at the same time, regardless of wall clocks and of how late responses arrive:
//!
//! - A leader may act for a limited time, its authority, counted from *before* it sent a write that succeeded. It ends well
//!   before the lease expires ([`Terms::authority`]).
//! - A candidate takes a held lease only after it has itself seen it unchanged for the lease's whole duration, counted from
//!   *after* the response that showed it first. Both use their own monotonic clocks, so the timestamps in the object are
//!   informational.
//! - Every write replaces exactly the version that was read. The API server rejects it if another client was faster.
//! - A `Lease` that does not exist does not prove that there is no leader. A candidate that finds none creates it, but leads
//!   only after it was unchanged for its duration, like any other.
//!
//! A lease without a holder is free immediately: its last holder released it after its last write, or the installer
//! created it empty.

use std::time::Duration;

use thiserror::Error;

use super::monotonic::Moment;

/// Minimum lease duration, in seconds. It still allows for one retry of a request.
pub const MIN_DURATION_SECONDS: u64 = 2;
/// Maximum lease duration, in seconds: for this long, a crash of the leader may go unnoticed.
pub const MAX_DURATION_SECONDS: u64 = 600;

/// The intervals and timeouts of an election, all derived from the lease duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    duration: Duration,
}

impl Terms {
    /// The terms for a lease duration, which is clamped to the limits.
    pub fn new(duration_seconds: u64) -> Self {
        Self { duration: Duration::from_secs(duration_seconds.clamp(MIN_DURATION_SECONDS, MAX_DURATION_SECONDS)) }
    }

    /// How long a lease is valid after it was seen to change.
    pub fn duration(self) -> Duration {
        self.duration
    }

    /// How long a leader may act after it sent a renewal that succeeded. The last third of the lease is a safety margin for
    /// requests in flight, whose responses it no longer waits for.
    pub fn authority(self) -> Duration {
        self.duration * 2 / 3
    }

    /// How often a leader renews.
    pub fn renew_every(self) -> Duration {
        self.duration / 6
    }

    /// How often a standby reads the lease.
    pub fn look_every(self) -> Duration {
        self.duration / 6
    }

    /// How long a standby waits before it creates a missing lease. A leader recreates it sooner.
    pub fn create_after(self) -> Duration {
        self.duration / 3
    }

    /// Delay before the retry of a failed request.
    pub fn retry_after(self) -> Duration {
        self.duration / 15
    }

    /// Deadline of a request for the lease.
    pub fn request_deadline(self) -> Duration {
        self.duration / 4
    }

    /// Minimum remaining authority to begin a write.
    pub fn least_for_a_write(self) -> Duration {
        self.duration / 15
    }
}

/// A lease as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The resourceVersion of the object.
    pub version: String,
    /// Its holder; `None` after a release.
    pub holder: Option<String>,
    /// How long it is valid after a change, as set by its holder.
    pub duration: Duration,
    /// How often the holder changed.
    pub transitions: i32,
}

/// A lease that can't be evaluated.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// It is unknown when it expires.
    #[error("its holder {holder:?} set no leaseDurationSeconds, so it is unknown when it expires")]
    NoDuration {
        /// The holder.
        holder: String,
    },
    /// It does not come from an API server.
    #[error("it has no resourceVersion")]
    NoVersion,
}

impl Record {
    /// A lease from the fields of its object.
    pub fn new(
        version: Option<String>,
        holder: Option<String>,
        duration_seconds: Option<i32>,
        transitions: Option<i32>,
    ) -> Result<Self, Malformed> {
        let version = version.filter(|version| !version.is_empty()).ok_or(Malformed::NoVersion)?;
        let holder = holder.filter(|holder| !holder.is_empty());
        let seconds = duration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).filter(|seconds| *seconds > 0);
        let duration = match (&holder, seconds) {
            (_, Some(seconds)) => Duration::from_secs(seconds),
            (None, None) => Duration::ZERO,
            (Some(holder), None) => return Err(Malformed::NoDuration { holder: holder.clone() }),
        };
        Ok(Self { version, holder, duration, transitions: transitions.unwrap_or_default().max(0) })
    }
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Read the lease.
    Look,
    /// Create it, with this candidate as the holder.
    Create {
        /// How often the holder changed, as far as known.
        transitions: i32,
    },
    /// Replace exactly this version, with this candidate as the holder.
    Replace {
        /// The version that must be the current one.
        version: String,
        /// How often the holder changed, including this time.
        transitions: i32,
        /// Whether the holder changes.
        taking: bool,
    },
    /// Nothing before this moment.
    Wait(Moment),
    /// Leadership is lost for good: everything has to stop.
    Lost(Loss),
}

/// Why a leader lost leadership.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Loss {
    /// No renewal succeeded in time.
    #[error("it could not be renewed in time")]
    NotRenewed,
    /// Another candidate holds the lease.
    #[error("{holder:?} holds it now")]
    Taken {
        /// The holder.
        holder: String,
    },
    /// Another client removed the holder, or set it to this candidate.
    #[error("another client modified it")]
    Tampered,
}

/// A candidate for leadership, or the leader.
#[derive(Clone, Debug)]
pub struct Candidate {
    identity: String,
    terms: Terms,
    view: View,
    /// Whether the lease has to be read before the next write.
    stale: bool,
    /// When to act again, unless the lease becomes free earlier.
    due: Moment,
    leading: Option<Leading>,
    loss: Option<Loss>,
}

#[derive(Clone, Debug)]
enum View {
    Missing { since: Moment },
    Exists { record: Record, since: Moment },
}

#[derive(Clone, Copy, Debug)]
struct Leading {
    /// Before the last successful write was sent.
    since: Moment,
    transitions: i32,
}

impl Candidate {
    /// A candidate. Its identity must be unique, even among restarts of the same process.
    pub fn new(identity: impl Into<String>, terms: Terms) -> Self {
        let view = View::Missing { since: Moment::MAX };
        Self { identity: identity.into(), terms, view, stale: true, due: Moment::ZERO, leading: None, loss: None }
    }

    /// Its identity.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Its terms.
    pub fn terms(&self) -> Terms {
        self.terms
    }

    /// When its authority ends, if it leads.
    pub fn authority_ends(&self) -> Option<Moment> {
        let leading = self.leading.filter(|_| self.loss.is_none())?;
        Some(leading.since + self.terms.authority())
    }

    /// The last known holder of the lease.
    pub fn holder(&self) -> Option<&str> {
        match &self.view {
            View::Exists { record, .. } => record.holder.as_deref(),
            View::Missing { .. } => None,
        }
    }

    /// The lease that this candidate holds, and has to release when it exits.
    pub fn held(&self) -> Option<&Record> {
        match &self.view {
            View::Exists { record, .. } if record.holder.as_deref() == Some(&self.identity) => Some(record),
            _ => None,
        }
    }

    /// What to do at `now`.
    pub fn next(&self, now: Moment) -> Act {
        match (&self.loss, self.leading) {
            (Some(loss), _) => Act::Lost(loss.clone()),
            (None, Some(leading)) => self.next_as_leader(leading, now),
            (None, None) => self.next_as_standby(now),
        }
    }

    fn next_as_leader(&self, leading: Leading, now: Moment) -> Act {
        let ends = leading.since + self.terms.authority();
        if now >= ends {
            return Act::Lost(Loss::NotRenewed);
        }
        if now < self.due {
            return Act::Wait(self.due.min(ends));
        }
        match &self.view {
            _ if self.stale => Act::Look,
            // Another candidate that creates it first waits for longer than this one has authority.
            View::Missing { .. } => Act::Create { transitions: leading.transitions },
            View::Exists { record, .. } => {
                Act::Replace { version: record.version.clone(), transitions: leading.transitions, taking: false }
            }
        }
    }

    fn next_as_standby(&self, now: Moment) -> Act {
        let free_at = match &self.view {
            _ if self.stale => None,
            View::Missing { since } => since.checked_add(self.terms.create_after()),
            View::Exists { record, .. } if record.holder.is_none() => Some(now),
            View::Exists { record, since } => since.checked_add(record.duration),
        };
        if free_at.is_some_and(|at| now >= at) {
            return match &self.view {
                View::Missing { .. } => Act::Create { transitions: 0 },
                View::Exists { record, .. } => Act::Replace {
                    version: record.version.clone(),
                    transitions: record.transitions.saturating_add(1),
                    taking: true,
                },
            };
        }
        if now >= self.due { Act::Look } else { Act::Wait(free_at.map_or(self.due, |at| at.min(self.due))) }
    }

    /// Applies the result of a read; `at` is after the response.
    pub fn saw(&mut self, found: Option<Record>, at: Moment) {
        self.stale = false;
        if let Some(leading) = self.leading {
            return self.saw_as_leader(found, leading, at);
        }
        self.due = at + self.terms.look_every();
        match (found, &self.view) {
            (Some(record), View::Exists { record: known, .. }) if *known == record => {}
            (Some(record), _) => self.view = View::Exists { record, since: at },
            (None, View::Missing { since }) => self.view = View::Missing { since: at.min(*since) },
            (None, View::Exists { .. }) => self.view = View::Missing { since: at },
        }
    }

    /// A leader reads only after a write that was rejected or got no response.
    fn saw_as_leader(&mut self, found: Option<Record>, leading: Leading, at: Moment) {
        self.due = at;
        let Some(record) = found else {
            self.view = View::Missing { since: at };
            return;
        };
        match &record.holder {
            // Its own write, whose response was lost, or a change of labels by another client.
            Some(holder) if *holder == self.identity && record.transitions == leading.transitions => {}
            Some(holder) if *holder != self.identity => self.loss = Some(Loss::Taken { holder: holder.clone() }),
            _ => self.loss = Some(Loss::Tampered),
        }
        self.view = View::Exists { record, since: at };
    }

    /// Applies the creation of the lease; `sent` is before the request, `at` after the response.
    pub fn created(&mut self, stored: Record, sent: Moment, at: Moment) {
        if self.leading.is_some() {
            self.replaced(stored, sent);
        } else {
            self.saw(Some(stored), at);
        }
    }

    /// Applies the replacement of the lease; `sent` is before the request.
    pub fn replaced(&mut self, stored: Record, sent: Moment) {
        self.leading = Some(Leading { since: sent, transitions: stored.transitions });
        self.view = View::Exists { record: stored, since: sent };
        self.stale = false;
        self.due = sent + self.terms.renew_every();
    }

    /// The lease changed since it was read: the API server rejected a write, or a watch reported it.
    pub fn behind(&mut self, at: Moment) {
        self.stale = true;
        self.due = at;
    }

    /// A request failed or got no response; it may have been applied.
    pub fn unanswered(&mut self, at: Moment) {
        self.stale = true;
        self.due = at + self.terms.retry_after();
    }
}

#[cfg(test)]
#[path = "leader_election_tests.rs"]
mod tests;
