//! Rotation of the webhook's own certificates: when, and in which order.
//!
//! ```text
//! trusted    [A]          [A, B]         [B, A]         [B]
//! signs       A             A              B             B
//!          ── prepare ──► ── switch ──► ── prune ──►
//! ```
//!
//! A successor is trusted before it signs, and its predecessor until long after it last signed. So clients always trust
//! the certificate that they are served, whichever replica serves it.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

const SECONDS_PER_DAY: u64 = 24 * 60 * 60;
/// How long a CA is valid.
pub const AUTHORITY_VALIDITY: Duration = Duration::from_secs(10 * 365 * SECONDS_PER_DAY);
/// How long a leaf is valid.
pub const LEAF_VALIDITY: Duration = Duration::from_secs(90 * SECONDS_PER_DAY);
/// A leaf with less than this left is replaced.
pub const RENEW_LEAF_BEFORE: Duration = Duration::from_secs(30 * SECONDS_PER_DAY);
/// A CA with less than this left gets a successor, early enough to notice and fix a failed rotation.
pub const SUCCEED_BEFORE: Duration = Duration::from_secs(365 * SECONDS_PER_DAY);
/// A CA with less than this left hands over, even to a successor that was not seen to be trusted.
const HAND_OVER_BEFORE: Duration = RENEW_LEAF_BEFORE;
/// Certificates are valid from this long before they are issued, for clients whose clocks are behind.
pub const BACKDATED: Duration = Duration::from_secs(60 * 60);
/// A predecessor is trusted for this long after the current leaf was issued. A replica that has not picked up that leaf
/// within a day picks up no other changes either.
const PRUNE_AFTER: Duration = Duration::from_secs(SECONDS_PER_DAY);

/// The validity period of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Not before.
    pub since: Timestamp,
    /// Not after.
    pub until: Timestamp,
}

impl Validity {
    /// Whether it is valid at this time.
    pub fn contains(&self, at: Timestamp) -> bool {
        (self.since..=self.until).contains(&at)
    }
}

/// The current certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaState {
    /// The leaf that is served.
    pub leaf: Validity,
    /// The CA that signs.
    pub authority: Validity,
    /// The trust in its successor, if one is prepared.
    pub successor: Option<Trust>,
    /// Whether predecessors are still trusted.
    pub predecessors: bool,
    /// Whether a rotation was requested.
    pub asked: bool,
}

/// Whether clients trust a successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// They do not, or it is not known.
    None,
    /// They have trusted it for this long.
    Since(Duration),
}

/// The next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RotationStep {
    /// Nothing to do.
    Keep,
    /// Create a successor and add it to the trusted CAs.
    Prepare,
    /// Let the successor sign a new leaf.
    Switch,
    /// Remove the predecessors from the trusted CAs.
    Prune,
}

/// The next step at this time. `propagation` is how long API servers may take to pick up a written CA bundle.
pub fn step(state: &CaState, now: Timestamp, propagation: Duration) -> RotationStep {
    let ends_within = |left: Duration| state.authority.until.duration_since(now) < signed(left);
    match state.successor {
        Some(Trust::Since(trusted)) if trusted >= propagation => RotationStep::Switch,
        Some(_) if ends_within(HAND_OVER_BEFORE) => RotationStep::Switch,
        None if state.asked || ends_within(SUCCEED_BEFORE) => RotationStep::Prepare,
        None if state.predecessors && now.duration_since(state.leaf.since) >= signed(BACKDATED + PRUNE_AFTER) => {
            RotationStep::Prune
        }
        Some(_) | None => RotationStep::Keep,
    }
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(SECONDS_PER_DAY);
    const MINUTE: Duration = Duration::from_secs(60);

    fn issued() -> Timestamp {
        "2026-06-01T12:00:00Z".parse().unwrap()
    }

    fn fresh() -> CaState {
        let valid = |validity| Validity { since: issued() - BACKDATED, until: issued() + validity };
        CaState {
            leaf: valid(LEAF_VALIDITY),
            authority: valid(AUTHORITY_VALIDITY),
            successor: None,
            predecessors: false,
            asked: false,
        }
    }

    fn next(state: CaState, now: Timestamp) -> RotationStep {
        step(&state, now, 5 * MINUTE)
    }

    #[test]
    fn a_new_ca_is_kept_for_nine_years() {
        assert_eq!(next(fresh(), issued()), RotationStep::Keep);
        assert_eq!(next(fresh(), issued() + 9 * 365 * DAY - MINUTE), RotationStep::Keep);
        assert_eq!(next(fresh(), issued() + 9 * 365 * DAY + MINUTE), RotationStep::Prepare);
    }

    #[test]
    fn a_requested_rotation_prepares_a_successor() {
        assert_eq!(next(CaState { asked: true, ..fresh() }, issued()), RotationStep::Prepare);
    }

    #[test]
    fn a_successor_signs_only_after_the_propagation_delay() {
        let with = |trust| CaState { successor: Some(trust), asked: true, ..fresh() };
        assert_eq!(next(with(Trust::None), issued() + 9 * 365 * DAY), RotationStep::Keep);
        assert_eq!(next(with(Trust::Since(Duration::ZERO)), issued()), RotationStep::Keep);
        assert_eq!(next(with(Trust::Since(4 * MINUTE)), issued()), RotationStep::Keep);
        assert_eq!(next(with(Trust::Since(5 * MINUTE)), issued()), RotationStep::Switch);
    }

    #[test]
    fn a_ca_that_is_about_to_expire_hands_over_even_if_the_successor_is_not_seen_to_be_trusted() {
        let waiting = CaState { successor: Some(Trust::None), ..fresh() };
        assert_eq!(next(waiting, issued() + (10 * 365 - 31) * DAY), RotationStep::Keep);
        assert_eq!(next(waiting, issued() + (10 * 365 - 29) * DAY), RotationStep::Switch);
    }

    #[test]
    fn a_predecessor_is_trusted_for_a_day_after_the_switch() {
        let switched = CaState { predecessors: true, ..fresh() };
        assert_eq!(next(switched, issued() + DAY - MINUTE), RotationStep::Keep);
        assert_eq!(next(switched, issued() + DAY), RotationStep::Prune);
    }

    #[test]
    fn a_clock_that_jumps_by_ten_minutes_does_not_affect_new_certificates() {
        for state in [fresh(), CaState { predecessors: true, ..fresh() }] {
            for now in [issued() - 10 * MINUTE, issued() + 10 * MINUTE] {
                assert_eq!(next(state, now), RotationStep::Keep);
            }
        }
    }

    #[test]
    fn a_clock_that_is_a_year_behind_changes_nothing() {
        for state in [fresh(), CaState { predecessors: true, ..fresh() }] {
            assert_eq!(next(state, issued() - 365 * DAY), RotationStep::Keep);
        }
    }

    #[test]
    fn a_complete_rotation_takes_three_writes() {
        let (mut state, mut now, mut steps) = (CaState { asked: true, ..fresh() }, issued(), Vec::new());
        for _ in 0..100 {
            let taken = next(state, now);
            match taken {
                RotationStep::Prepare => {
                    state = CaState { successor: Some(Trust::Since(Duration::ZERO)), asked: false, ..state }
                }
                RotationStep::Switch => {
                    let leaf = Validity { since: now - BACKDATED, until: now + LEAF_VALIDITY };
                    state = CaState { leaf, successor: None, predecessors: true, ..state };
                }
                RotationStep::Prune => state.predecessors = false,
                RotationStep::Keep => {
                    now += 60 * MINUTE;
                    if let Some(Trust::Since(trusted)) = &mut state.successor {
                        *trusted += 60 * MINUTE;
                    }
                }
            }
            steps.push(taken);
        }
        steps.retain(|step| *step != RotationStep::Keep);
        assert_eq!(steps, [RotationStep::Prepare, RotationStep::Switch, RotationStep::Prune]);
    }
}
