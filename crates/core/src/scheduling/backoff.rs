//! How long to wait before a failed reconcile is retried.

use std::time::Duration;

use ensign_api::conditions::{Reason, Severity};

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);
/// Someone has to act first; retries only detect that.
const TERMINAL: Duration = Duration::from_secs(60);

/// The delay after `attempt` failures in a row (from 0), with jitter by `share`, in 0..1. At least `retry_after`.
pub fn delay(reason: Reason, attempt: u32, retry_after: Option<Duration>, share: f64) -> Duration {
    let first = match reason.severity() {
        Severity::Terminal => TERMINAL,
        _ => FIRST,
    };
    let capped = first.saturating_mul(2_u32.saturating_pow(attempt.min(16))).min(LONGEST);
    let spread = match reason {
        // Another program retries on the same identity, possibly since the same moment: a small jitter would not separate
        // the two.
        Reason::ConcurrentWrites => capped.mul_f64(0.5 + 0.5 * share.clamp(0.0, 1.0)),
        _ => jitter(capped, share),
    };
    spread.max(retry_after.unwrap_or_default())
}

/// A duration with a jitter of ± 10 %.
fn jitter(period: Duration, share: f64) -> Duration {
    period.mul_f64(0.9 + 0.2 * share.clamp(0.0, 1.0))
}

/// The source of a process's jitter. Two controllers that retry on the same identity, in the same cluster or in two, must
/// not wait equally long each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread(u64);

impl Spread {
    /// The jitter for this seed, which should be unique to the process.
    pub fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// A number in 0..1 that depends only on process, key and attempt.
    pub fn share(self, key: &str, attempt: u64) -> f64 {
        // FNV-1a, then the finalizer of splitmix64: well distributed, not cryptographic.
        let seed = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64 ^ mix(self.0), |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let top = u32::try_from(mix(seed.wrapping_add(attempt.wrapping_mul(0x9e37_79b9_7f4a_7c15))) >> 32);
        f64::from(top.unwrap_or_default()) / f64::from(u32::MAX)
    }
}

fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_and_are_capped() {
        let wait = |attempt| delay(Reason::AzureUnavailable, attempt, None, 0.5);
        assert_eq!(wait(0), Duration::from_secs(1));
        assert_eq!(wait(3), Duration::from_secs(8));
        assert_eq!(wait(1000), LONGEST);
    }

    #[test]
    fn retry_after_is_the_minimum() {
        let asked = Duration::from_secs(77);
        assert_eq!(delay(Reason::Throttled, 0, Some(asked), 0.0), asked);
    }

    #[test]
    fn terminal_problems_are_retried_slowly() {
        assert!(delay(Reason::Forbidden, 0, None, 0.0) >= Duration::from_secs(54));
    }

    #[test]
    fn shares_differ_between_keys_attempts_and_processes() {
        let (one, other) = (Spread::seeded(1), Spread::seeded(2));
        assert!((one.share("a", 0) - one.share("b", 0)).abs() > f64::EPSILON);
        assert!((one.share("a", 0) - one.share("a", 1)).abs() > f64::EPSILON);
        assert!((one.share("a", 0) - other.share("a", 0)).abs() > f64::EPSILON);
        assert!((0.0..=1.0).contains(&one.share("a", 7)));
    }

    #[test]
    fn shares_are_uniformly_distributed() {
        let mut counts = [0; 10];
        for key in 0..1000 {
            let share = Spread::seeded(7).share(&format!("key-{key}"), 0);
            let tenth = (1..10).take_while(|tenth| share >= f64::from(*tenth) / 10.0).count();
            counts[tenth] += 1;
        }
        assert!(counts.iter().all(|count| (60..=140).contains(count)), "{counts:?}");
    }

    /// Two concurrent writes that take 200 ms: how often they collide before both succeed.
    #[test]
    fn two_writers_that_collide_diverge_soon() {
        let collisions = |one: Spread, other: Spread| {
            (0..20).find(|attempt| {
                let wait = |spread: Spread| {
                    delay(Reason::ConcurrentWrites, *attempt, None, spread.share("x", (*attempt).into()))
                };
                wait(one).abs_diff(wait(other)) > Duration::from_millis(200)
            })
        };
        for seed in 0..200 {
            let count = collisions(Spread::seeded(seed), Spread::seeded(seed + 1000));
            assert!(count.is_some_and(|count| count <= 6), "{seed}: {count:?}");
        }
        assert_eq!(collisions(Spread::seeded(1), Spread::seeded(1)), None, "with the same seed they always collide");
    }
}
