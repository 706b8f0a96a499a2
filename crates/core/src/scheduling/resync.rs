//! When an identity that is in sync is checked for drift again.

use std::time::Duration;

use super::monotonic::Moment;
use super::rate_limiter::RateLimits;
use super::token_bucket::Rate;

/// At most one in this many lists that the rate limits allow is for drift checks; the others are for changes.
const BUDGET: u32 = 2;

/// How many identities share the rate limits of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sharers {
    /// Identities in its subscription, including itself.
    pub subscription: usize,
    /// All identities.
    pub tenant: usize,
}

/// The drift check interval of an identity: the configured one, extended if the lists of all identities that share its
/// rate limits would use more than their part of them.
pub fn period(configured: Duration, sharers: Sharers, limits: &RateLimits) -> Duration {
    let needed = |count: usize, rate: Rate| {
        rate.interval().saturating_mul(u32::try_from(count).unwrap_or(u32::MAX)).saturating_mul(BUDGET)
    };
    configured
        .max(needed(sharers.subscription, limits.subscription.list))
        .max(needed(sharers.tenant, limits.tenant.list))
}

/// Time until the next drift check. Each key has its own phase in the interval (`share`, in 0..1), so that checks are
/// evenly distributed no matter when their keys were last reconciled: a restart, or an event for all keys, causes no burst
/// that recurs in each interval.
///
/// A key in sync is checked exactly once in each interval; after any other reconcile, in 0.1 to 1.1 intervals.
pub fn next_look(period: Duration, now: Moment, share: f64) -> Duration {
    let least = period / 10;
    let length = period.as_nanos().max(1);
    let phase = period.mul_f64(share.clamp(0.0, 1.0)).as_nanos();
    let into = ((now + least).as_nanos() + length - phase % length) % length;
    let left = u64::try_from(length - into).unwrap_or(u64::MAX);
    least + Duration::from_nanos(left)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const QUARTER: Duration = Duration::from_secs(900);

    fn alone(subscription: usize) -> Sharers {
        Sharers { subscription, tenant: subscription }
    }

    #[test]
    fn a_few_identities_have_the_configured_interval() {
        assert_eq!(period(QUARTER, alone(1000), &RateLimits::PUBLISHED), QUARTER);
    }

    #[test]
    fn many_identities_in_a_subscription_extend_the_interval_to_use_half_of_its_lists() {
        let period = period(QUARTER, alone(10_000), &RateLimits::PUBLISHED);
        assert_eq!(period.as_secs(), 4000, "10,000 lists at half of 5 a second");
    }

    #[test]
    fn the_tenants_limits_extend_the_interval_across_subscriptions() {
        let sharers = Sharers { subscription: 100, tenant: 30_000 };
        assert_eq!(period(QUARTER, sharers, &RateLimits::PUBLISHED).as_secs(), 4000);
    }

    #[test]
    fn a_share_of_the_limits_extends_the_interval_further() {
        let limits = RateLimits::PUBLISHED.shared(0.1);
        assert_eq!(period(QUARTER, alone(1000), &limits).as_secs(), 4000);
    }

    #[test]
    fn keys_that_were_processed_at_the_same_time_are_checked_at_different_times() {
        let tenth = |share: u32| next_look(QUARTER, Duration::from_secs(5), f64::from(share) / 1000.0).as_secs() / 90;
        let mut counts = [0; 12];
        for share in 0..1000 {
            counts[usize::try_from(tenth(share)).unwrap()] += 1;
        }
        assert!(counts[1..11].iter().all(|count| (95..=105).contains(count)), "{counts:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn a_key_in_sync_is_checked_once_in_each_interval(
            period in 10_u64..100_000, start in 0_u64..10_000_000, share in 0.0_f64..1.0,
        ) {
            let period = Duration::from_secs(period);
            let start = Duration::from_millis(start);
            let first = next_look(period, start, share);
            prop_assert!(first > period / 10 && first <= period + period / 10);
            let now = start + first;
            prop_assert_eq!(next_look(period, now, share), period);
            // Shortly after, when the check is done.
            let late = Duration::from_millis(300);
            prop_assert_eq!(next_look(period, now + late, share), period.saturating_sub(late));
        }
    }
}
