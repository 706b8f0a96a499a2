//! How long to wait before a reconcile is tried again.

use std::time::Duration;

use crate::api::conditions::{Reason, Severity};
use crate::mutants::{self, Mutant};

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);
/// Somebody has to act first; a look now and then notices that somebody did.
const TERMINAL: Duration = Duration::from_secs(60);

/// The wait after `attempt` failures in a row (from 0). `share` in 0..1 spreads the waits of many keys.
///
/// Azure's own wish is the least.
pub fn delay(reason: Reason, attempt: u32, retry_after: Option<Duration>, share: f64) -> Duration {
    let first = match reason.severity() {
        Severity::Terminal => TERMINAL,
        _ => FIRST,
    };
    let capped = first.saturating_mul(2_u32.saturating_pow(attempt.min(16))).min(LONGEST);
    let wished = retry_after.filter(|_| !mutants::active(Mutant::RetryAfterIgnored));
    jitter(capped, share).max(wished.unwrap_or_default())
}

/// A period, spread by ± 10 %.
pub fn jitter(period: Duration, share: f64) -> Duration {
    period.mul_f64(0.9 + 0.2 * share.clamp(0.0, 1.0))
}

/// A number in 0..1 that differs between keys and attempts, and is the same when computed again.
pub fn share(key: &str, attempt: u64) -> f64 {
    // FNV-1a, then a finishing step of splitmix64: spreads, no more.
    let seed = key
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let mut mixed = seed.wrapping_add(attempt.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let top = u32::try_from((mixed ^ (mixed >> 31)) >> 32).unwrap_or_default();
    f64::from(top) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_are_capped() {
        let wait = |attempt| delay(Reason::AzureUnavailable, attempt, None, 0.5);
        assert_eq!(wait(0), Duration::from_secs(1));
        assert_eq!(wait(3), Duration::from_secs(8));
        assert_eq!(wait(1000), LONGEST);
    }

    #[test]
    fn nothing_goes_out_before_azure_allows_it() {
        let asked = Duration::from_secs(77);
        assert_eq!(delay(Reason::Throttled, 0, Some(asked), 0.0), asked);
    }

    #[test]
    fn terminal_problems_are_looked_at_slowly() {
        assert!(delay(Reason::Forbidden, 0, None, 0.0) >= Duration::from_secs(54));
    }

    #[test]
    fn shares_differ_between_keys() {
        assert!((share("a", 0) - share("b", 0)).abs() > f64::EPSILON);
        assert!((0.0..=1.0).contains(&share("a", 7)));
    }
}
