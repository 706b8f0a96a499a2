//! Who leads: decisions over a `Lease` of `coordination.k8s.io/v1`.
//!
//! Why two candidates never both have authority, whatever their wall clocks say and however late answers come:
//!
//! - A leader's authority is counted from the moment *before* it sent a write that succeeded, and ends well before the
//!   lease does ([`Terms::authority`]).
//! - A candidate takes a lease only after it has itself seen it unchanged for the lease's whole duration, counted from
//!   the moment *after* the answer that showed it first. Both count on their own monotonic time, so the times in the
//!   object are for people only.
//! - Every write replaces exactly the version that was looked at. The API server refuses it if anybody was faster.
//! - A `Lease` that is not there says nothing about a leader that may still have authority. Who finds none creates it,
//!   but leads only after it has stood unchanged for its duration, like any other.
//!
//! One that nobody holds is free at once: its last holder gave it back after its last write, or it was made empty along
//! with everything else that an install consists of.

use std::time::Duration;

use thiserror::Error;

/// Monotonic time since some origin of the process.
pub type Moment = Duration;

/// Shortest lease that still leaves room for a request that needs a second try, in seconds.
pub const MIN_DURATION_SECONDS: u64 = 2;
/// Longest lease: so long does a crash of the leader go unnoticed.
pub const MAX_DURATION_SECONDS: u64 = 600;

/// The times of an election, all derived from the duration of the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    duration: Duration,
}

impl Terms {
    /// The terms of a lease of so many seconds; whoever sets it has to keep to the limits.
    pub fn new(duration_seconds: u64) -> Self {
        Self { duration: Duration::from_secs(duration_seconds.clamp(MIN_DURATION_SECONDS, MAX_DURATION_SECONDS)) }
    }

    /// How long a lease is good for after it was seen to change.
    pub fn duration(self) -> Duration {
        self.duration
    }

    /// How long a leader may act after it sent a renewal that succeeded. The last third of the lease is for what it has
    /// sent and given up waiting for to come to rest.
    pub fn authority(self) -> Duration {
        self.duration * 2 / 3
    }

    /// How often a leader renews.
    pub fn renew_every(self) -> Duration {
        self.duration / 6
    }

    /// How often one who does not lead looks.
    pub fn look_every(self) -> Duration {
        self.duration / 6
    }

    /// How long one who does not lead finds no lease before it makes one: a leader makes it again sooner.
    pub fn create_after(self) -> Duration {
        self.duration / 3
    }

    /// How soon to try again after a request that failed.
    pub fn retry_after(self) -> Duration {
        self.duration / 15
    }

    /// Deadline of a request for the lease.
    pub fn request_deadline(self) -> Duration {
        self.duration / 4
    }

    /// With less authority than this left no write is begun.
    pub fn least_for_a_write(self) -> Duration {
        self.duration / 15
    }
}

/// A lease as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The version of the object.
    pub version: String,
    /// Who holds it; nobody after a release.
    pub holder: Option<String>,
    /// How long it is good for after a change, as its holder wrote it.
    pub duration: Duration,
    /// How often it changed hands.
    pub transitions: i32,
}

/// A lease that can't be understood.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// Nobody can tell when it ends.
    #[error("its holder {holder:?} gave it no duration, so that nobody can tell when it ends")]
    NoDuration {
        /// The holder.
        holder: String,
    },
    /// Not from an API server.
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
    /// Create it, held by this candidate.
    Create {
        /// How often it changed hands, as far as is known.
        transitions: i32,
    },
    /// Replace exactly this version with one that this candidate holds.
    Replace {
        /// The version that has to stand.
        version: String,
        /// How often it changed hands with this.
        transitions: i32,
        /// Whether it changes hands.
        taking: bool,
    },
    /// Nothing before this moment.
    Wait(Moment),
    /// Authority is over and can't be had back: everything has to stop.
    Lost(Loss),
}

/// Why a leader leads no more.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Loss {
    /// No renewal succeeded in time.
    #[error("it could not be renewed in time")]
    NotRenewed,
    /// Somebody else holds it.
    #[error("{holder:?} holds it now")]
    Taken {
        /// The holder.
        holder: String,
    },
    /// Somebody emptied it or wrote this candidate's name into it.
    #[error("somebody else wrote to it")]
    Tampered,
}

/// One who wants to lead, or does.
#[derive(Clone, Debug)]
pub struct Candidate {
    identity: String,
    terms: Terms,
    view: View,
    /// Whether the view has to be refreshed before anything is written.
    stale: bool,
    /// When to act again, unless the lease gets free before.
    due: Moment,
    leading: Option<Leading>,
    loss: Option<Loss>,
}

#[derive(Clone, Debug)]
enum View {
    Absent { since: Moment },
    Stands { record: Record, since: Moment },
}

#[derive(Clone, Copy, Debug)]
struct Leading {
    /// The moment before the last successful write was sent.
    since: Moment,
    transitions: i32,
}

impl Candidate {
    /// A candidate. No other one, not even an earlier life of the same process, may have the same identity.
    pub fn new(identity: impl Into<String>, terms: Terms) -> Self {
        let view = View::Absent { since: Moment::MAX };
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

    /// The moment at which its authority ends, if it has any.
    pub fn authority_ends(&self) -> Option<Moment> {
        let leading = self.leading.filter(|_| self.loss.is_none())?;
        Some(leading.since + self.terms.authority())
    }

    /// Who holds the lease, as far as this candidate has seen.
    pub fn holder(&self) -> Option<&str> {
        match &self.view {
            View::Stands { record, .. } => record.holder.as_deref(),
            View::Absent { .. } => None,
        }
    }

    /// The lease that this candidate holds and has to give back at its end.
    pub fn held(&self) -> Option<&Record> {
        match &self.view {
            View::Stands { record, .. } if record.holder.as_deref() == Some(&self.identity) => Some(record),
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
            // Whoever else creates it first waits for longer than this candidate has authority.
            View::Absent { .. } => Act::Create { transitions: leading.transitions },
            View::Stands { record, .. } => {
                Act::Replace { version: record.version.clone(), transitions: leading.transitions, taking: false }
            }
        }
    }

    fn next_as_standby(&self, now: Moment) -> Act {
        let free_at = match &self.view {
            _ if self.stale => None,
            View::Absent { since } => since.checked_add(self.terms.create_after()),
            View::Stands { record, .. } if record.holder.is_none() => Some(now),
            View::Stands { record, since } => since.checked_add(record.duration),
        };
        if free_at.is_some_and(|at| now >= at) {
            return match &self.view {
                View::Absent { .. } => Act::Create { transitions: 0 },
                View::Stands { record, .. } => Act::Replace {
                    version: record.version.clone(),
                    transitions: record.transitions.saturating_add(1),
                    taking: true,
                },
            };
        }
        if now >= self.due { Act::Look } else { Act::Wait(free_at.map_or(self.due, |at| at.min(self.due))) }
    }

    /// Takes in what a look found; `at` is a moment after the answer came.
    pub fn saw(&mut self, found: Option<Record>, at: Moment) {
        self.stale = false;
        if let Some(leading) = self.leading {
            return self.saw_as_leader(found, leading, at);
        }
        self.due = at + self.terms.look_every();
        match (found, &self.view) {
            (Some(record), View::Stands { record: known, .. }) if *known == record => {}
            (Some(record), _) => self.view = View::Stands { record, since: at },
            (None, View::Absent { since }) => self.view = View::Absent { since: at.min(*since) },
            (None, View::Stands { .. }) => self.view = View::Absent { since: at },
        }
    }

    /// A leader looks only after a write that was refused or had no answer.
    fn saw_as_leader(&mut self, found: Option<Record>, leading: Leading, at: Moment) {
        self.due = at;
        let Some(record) = found else {
            self.view = View::Absent { since: at };
            return;
        };
        match &record.holder {
            // Its own write, whose answer it did not get, or somebody's label on the object.
            Some(holder) if *holder == self.identity && record.transitions == leading.transitions => {}
            Some(holder) if *holder != self.identity => self.loss = Some(Loss::Taken { holder: holder.clone() }),
            _ => self.loss = Some(Loss::Tampered),
        }
        self.view = View::Stands { record, since: at };
    }

    /// Takes in that the lease was created; `sent` is before the request, `at` after the answer.
    pub fn created(&mut self, stored: Record, sent: Moment, at: Moment) {
        if self.leading.is_some() {
            self.replaced(stored, sent);
        } else {
            self.saw(Some(stored), at);
        }
    }

    /// Takes in that the lease was replaced; `sent` is before the request.
    pub fn replaced(&mut self, stored: Record, sent: Moment) {
        self.leading = Some(Leading { since: sent, transitions: stored.transitions });
        self.view = View::Stands { record: stored, since: sent };
        self.stale = false;
        self.due = sent + self.terms.renew_every();
    }

    /// Takes in that the API server refused a write because the lease is not as it was seen, or that somebody says so.
    pub fn behind(&mut self, at: Moment) {
        self.stale = true;
        self.due = at;
    }

    /// Takes in that a request failed or had no answer; whether it was applied is not known.
    pub fn unanswered(&mut self, at: Moment) {
        self.stale = true;
        self.due = at + self.terms.retry_after();
    }
}

#[cfg(test)]
#[path = "leader_election_tests.rs"]
mod tests;
