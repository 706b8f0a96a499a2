//! When the webhook's own certificates are replaced, and in which order.
//!
//! ```text
//! trusted    [A]          [A, B]         [B, A]         [B]
//! signs       A             A              B             B
//!          ── prepare ──► ── switch ──► ── prune ──►
//! ```
//!
//! A successor is trusted before it signs, and its predecessor until long after it signed last: at no time does anybody
//! who is served a certificate not trust it, whichever replica serves it.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

const SECONDS_PER_DAY: u64 = 24 * 60 * 60;
/// How long an authority is valid.
pub const AUTHORITY_VALIDITY: Duration = Duration::from_secs(10 * 365 * SECONDS_PER_DAY);
/// How long a leaf is valid.
pub const LEAF_VALIDITY: Duration = Duration::from_secs(90 * SECONDS_PER_DAY);
/// A leaf with less than this left is replaced.
pub const RENEW_LEAF_BEFORE: Duration = Duration::from_secs(30 * SECONDS_PER_DAY);
/// An authority with less than this left gets a successor: time for everything to go wrong and be noticed.
pub const SUCCEED_BEFORE: Duration = Duration::from_secs(365 * SECONDS_PER_DAY);
/// An authority with less than this left hands over, even to a successor that was not seen to be trusted.
const HAND_OVER_BEFORE: Duration = RENEW_LEAF_BEFORE;
/// Certificates are valid from a little before they were made, for clients whose clocks are behind.
pub const BACKDATED: Duration = Duration::from_secs(60 * 60);
/// A predecessor is trusted for so long after the present leaf was made. A replica that did not hear of that leaf within
/// a day has heard of nothing else either.
const PRUNE_AFTER: Duration = Duration::from_secs(SECONDS_PER_DAY);

/// From when to when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub since: Timestamp,
    /// The last one.
    pub until: Timestamp,
}

impl Validity {
    /// Whether it is valid at this time.
    pub fn contains(&self, at: Timestamp) -> bool {
        (self.since..=self.until).contains(&at)
    }
}

/// The authorities as they stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaState {
    /// The leaf that is served.
    pub leaf: Validity,
    /// The authority that signs.
    pub authority: Validity,
    /// Whether its successor is prepared, and if so, for how long everybody has been seen to trust it.
    pub successor: Option<Trust>,
    /// Whether predecessors are still trusted.
    pub predecessors: bool,
    /// Whether somebody asked for a new authority.
    pub asked: bool,
}

/// What is known of the trust in a successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Nothing, or that it is not trusted.
    None,
    /// It has been trusted for so long.
    Since(Duration),
}

/// The next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RotationStep {
    /// All is well.
    Keep,
    /// Make a successor and have it trusted.
    Prepare,
    /// Let the successor sign a new leaf.
    Switch,
    /// Trust the predecessors no more.
    Prune,
}

/// The next step at this time. `propagation` is how long API servers may take to act on what was written.
pub fn step(standing: &CaState, now: Timestamp, propagation: Duration) -> RotationStep {
    let ends_within = |left: Duration| standing.authority.until.duration_since(now) < signed(left);
    match standing.successor {
        Some(Trust::Since(trusted)) if trusted >= propagation => RotationStep::Switch,
        Some(_) if ends_within(HAND_OVER_BEFORE) => RotationStep::Switch,
        None if standing.asked || ends_within(SUCCEED_BEFORE) => RotationStep::Prepare,
        None if standing.predecessors && now.duration_since(standing.leaf.since) >= signed(BACKDATED + PRUNE_AFTER) => {
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

    fn made() -> Timestamp {
        "2026-06-01T12:00:00Z".parse().unwrap()
    }

    fn fresh() -> CaState {
        let valid = |validity| Validity { since: made() - BACKDATED, until: made() + validity };
        CaState {
            leaf: valid(LEAF_VALIDITY),
            authority: valid(AUTHORITY_VALIDITY),
            successor: None,
            predecessors: false,
            asked: false,
        }
    }

    fn next(standing: CaState, now: Timestamp) -> RotationStep {
        step(&standing, now, 5 * MINUTE)
    }

    #[test]
    fn a_new_ca_is_kept_for_nine_years() {
        assert_eq!(next(fresh(), made()), RotationStep::Keep);
        assert_eq!(next(fresh(), made() + 9 * 365 * DAY - MINUTE), RotationStep::Keep);
        assert_eq!(next(fresh(), made() + 9 * 365 * DAY + MINUTE), RotationStep::Prepare);
    }

    #[test]
    fn a_requested_rotation_prepares_a_successor() {
        assert_eq!(next(CaState { asked: true, ..fresh() }, made()), RotationStep::Prepare);
    }

    #[test]
    fn a_successor_signs_only_after_the_propagation_delay() {
        let with = |trust| CaState { successor: Some(trust), asked: true, ..fresh() };
        assert_eq!(next(with(Trust::None), made() + 9 * 365 * DAY), RotationStep::Keep);
        assert_eq!(next(with(Trust::Since(Duration::ZERO)), made()), RotationStep::Keep);
        assert_eq!(next(with(Trust::Since(4 * MINUTE)), made()), RotationStep::Keep);
        assert_eq!(next(with(Trust::Since(5 * MINUTE)), made()), RotationStep::Switch);
    }

    #[test]
    fn a_ca_that_is_about_to_expire_hands_over_even_if_the_successor_is_not_seen_to_be_trusted() {
        let waiting = CaState { successor: Some(Trust::None), ..fresh() };
        assert_eq!(next(waiting, made() + (10 * 365 - 31) * DAY), RotationStep::Keep);
        assert_eq!(next(waiting, made() + (10 * 365 - 29) * DAY), RotationStep::Switch);
    }

    #[test]
    fn a_predecessor_is_trusted_for_a_day_after_the_switch() {
        let switched = CaState { predecessors: true, ..fresh() };
        assert_eq!(next(switched, made() + DAY - MINUTE), RotationStep::Keep);
        assert_eq!(next(switched, made() + DAY), RotationStep::Prune);
    }

    #[test]
    fn a_clock_that_jumps_by_ten_minutes_does_not_affect_new_certificates() {
        for standing in [fresh(), CaState { predecessors: true, ..fresh() }] {
            for now in [made() - 10 * MINUTE, made() + 10 * MINUTE] {
                assert_eq!(next(standing, now), RotationStep::Keep);
            }
        }
    }

    #[test]
    fn a_clock_that_is_a_year_behind_changes_nothing() {
        for standing in [fresh(), CaState { predecessors: true, ..fresh() }] {
            assert_eq!(next(standing, made() - 365 * DAY), RotationStep::Keep);
        }
    }

    #[test]
    fn a_complete_rotation_takes_three_writes() {
        let (mut standing, mut now, mut steps) = (CaState { asked: true, ..fresh() }, made(), Vec::new());
        for _ in 0..100 {
            let taken = next(standing, now);
            match taken {
                RotationStep::Prepare => {
                    standing = CaState { successor: Some(Trust::Since(Duration::ZERO)), asked: false, ..standing }
                }
                RotationStep::Switch => {
                    let leaf = Validity { since: now - BACKDATED, until: now + LEAF_VALIDITY };
                    standing = CaState { leaf, successor: None, predecessors: true, ..standing };
                }
                RotationStep::Prune => standing.predecessors = false,
                RotationStep::Keep => {
                    now += 60 * MINUTE;
                    if let Some(Trust::Since(trusted)) = &mut standing.successor {
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
