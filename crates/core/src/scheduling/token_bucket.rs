//! Token buckets: how many requests may be sent now, and when the next one may be.
//!
//! A bucket gets tokens at a constant rate, up to its burst, and each request takes one. Its state is the time at which it
//! is full again if no more tokens are taken. An unused bucket is full and need not be stored.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::monotonic::Moment;

const MAX_BURST: u32 = 100_000;
const RATES: std::ops::RangeInclusive<f64> = 0.001..=10_000.0;

/// A rate limit: how many requests may be sent at once, and how many per second in the long run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    burst: u32,
    per_second: f64,
}

/// A text is not a rate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not BURST+RATE: a burst of 1 to {MAX_BURST} requests, and 0.001 to 10000 requests per second, such as 20+0.25"
)]
pub struct InvalidRate(String);

impl Rate {
    /// A rate defined in this program.
    pub(crate) const fn known(burst: u32, per_second: f64) -> Self {
        Self { burst, per_second }
    }

    /// The rate multiplied by a share from 0 to 1, but never too low to send any request.
    #[must_use]
    pub fn scaled(self, share: f64) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a burst is between 0 and that burst"
        )]
        let burst = (f64::from(self.burst) * share.clamp(0.0, 1.0)) as u32;
        Self { burst: burst.max(1), per_second: (self.per_second * share).max(*RATES.start()) }
    }

    /// The time per token, rounded up so that the rate is never exceeded.
    pub fn interval(self) -> Duration {
        Duration::from_secs_f64(1.0 / self.per_second) + Duration::from_nanos(1)
    }

    /// How many requests may be sent at once.
    pub(crate) fn burst(self) -> u32 {
        self.burst
    }

    /// The time to fill an empty bucket.
    fn fill(self) -> Duration {
        self.interval() * self.burst
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.burst, self.per_second)
    }
}

impl FromStr for Rate {
    type Err = InvalidRate;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidRate(text.chars().take(64).collect());
        let (burst, per_second) = text.split_once('+').ok_or_else(invalid)?;
        let burst = burst.trim().parse().map_err(|_| invalid())?;
        let per_second = per_second.trim().parse().map_err(|_| invalid())?;
        if (1..=MAX_BURST).contains(&burst) && RATES.contains(&per_second) {
            Ok(Self { burst, per_second })
        } else {
            Err(invalid())
        }
    }
}

/// A bucket of tokens. A new one is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    full_at: Moment,
}

impl Bucket {
    /// The number of tokens available now.
    pub fn tokens(self, rate: Rate, now: Moment) -> u32 {
        let filled = rate.fill().saturating_sub(self.full_at.saturating_sub(now));
        u32::try_from(filled.as_nanos() / rate.interval().as_nanos()).unwrap_or(u32::MAX)
    }

    /// Time until this many tokens have become available, of which more than the burst are taken one by one.
    pub fn wait(self, rate: Rate, tokens: u32, now: Moment) -> Duration {
        (self.full_at.max(now) + rate.interval() * tokens).saturating_sub(now + rate.fill())
    }

    /// Takes tokens, which must be available.
    pub fn take(&mut self, rate: Rate, tokens: u32, now: Moment) {
        self.full_at = self.full_at.max(now) + rate.interval() * tokens;
    }

    /// Empties the bucket: the next token becomes available at this moment, unless it would be later anyway.
    pub fn drain(&mut self, rate: Rate, next: Moment) {
        self.full_at = self.full_at.max(next + rate.interval() * (rate.burst - 1));
    }

    /// Whether it is full, like a new one.
    pub fn is_full(self, now: Moment) -> bool {
        self.full_at <= now
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const IDENTITY: Rate = Rate::known(20, 0.25);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_burst_is_sent_immediately_and_the_next_request_waits_for_a_token() {
        let mut bucket = Bucket::default();
        for _ in 0..20 {
            assert_eq!(bucket.wait(IDENTITY, 1, seconds(7)), Duration::ZERO);
            bucket.take(IDENTITY, 1, seconds(7));
        }
        assert_eq!(bucket.tokens(IDENTITY, seconds(7)), 0);
        let wait = bucket.wait(IDENTITY, 1, seconds(7));
        assert_eq!(wait.as_secs(), 4);
        assert_eq!(bucket.tokens(IDENTITY, seconds(7) + wait), 1);
        assert_eq!(bucket.wait(IDENTITY, 3, seconds(7)).as_secs(), 12, "one by one");
    }

    #[test]
    fn tokens_do_not_accumulate_beyond_the_burst() {
        let mut bucket = Bucket::default();
        bucket.take(IDENTITY, 1, seconds(1));
        assert_eq!(bucket.tokens(IDENTITY, seconds(100_000)), 20);
        assert!(bucket.is_full(seconds(100_000)));
    }

    #[test]
    fn a_drained_bucket_has_one_token_at_the_given_time_and_no_burst() {
        let mut bucket = Bucket::default();
        bucket.drain(IDENTITY, seconds(77));
        assert_eq!(bucket.tokens(IDENTITY, seconds(76)), 0);
        assert_eq!(bucket.tokens(IDENTITY, seconds(77)), 1);
        bucket.drain(IDENTITY, seconds(10));
        assert_eq!(bucket.wait(IDENTITY, 1, seconds(70)), seconds(7), "a shorter pause does not end it earlier");
    }

    #[test]
    fn a_scaled_rate_still_allows_requests() {
        assert_eq!(Rate::known(200, 2.0).scaled(0.25), Rate::known(50, 0.5));
        assert_eq!(Rate::known(20, 1.0).scaled(0.01).burst, 1);
    }

    #[test]
    fn a_rate_is_parsed_from_its_display_format() {
        assert_eq!("20+0.25".parse(), Ok(IDENTITY));
        assert_eq!(IDENTITY.to_string(), "20+0.25");
        for text in ["", "20", "20/0.25", "0+1", "+1", "20+0", "20+-1", "20+NaN", "20+inf", "1000000+1", "x+1"] {
            assert!(text.parse::<Rate>().is_err(), "{text:?} must be rejected");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn no_time_window_has_more_requests_than_burst_and_rate_allow(
            burst in 1_u32..30,
            per_second in 0.05_f64..20.0,
            pauses in proptest::collection::vec(0_u64..5_000, 1..200),
        ) {
            let rate = Rate::known(burst, per_second);
            let (mut bucket, mut now, mut sent) = (Bucket::default(), Duration::ZERO, Vec::new());
            for pause in pauses {
                now += Duration::from_millis(pause);
                if bucket.wait(rate, 1, now).is_zero() {
                    prop_assert!(bucket.tokens(rate, now) > 0);
                    bucket.take(rate, 1, now);
                    sent.push(now);
                } else {
                    prop_assert_eq!(bucket.tokens(rate, now), 0);
                }
            }
            for (first, begin) in sent.iter().enumerate() {
                for (count, end) in sent[first..].iter().enumerate() {
                    let allowed = f64::from(burst) + end.saturating_sub(*begin).as_secs_f64() * per_second;
                    prop_assert!(f64::from(u32::try_from(count + 1).unwrap()) <= allowed + 1e-6);
                }
            }
        }

        #[test]
        fn a_request_after_its_wait_is_allowed(
            burst in 1_u32..30,
            per_second in 0.05_f64..20.0,
            requests in 1_usize..100,
        ) {
            let rate = Rate::known(burst, per_second);
            let (mut bucket, mut now) = (Bucket::default(), Duration::ZERO);
            for _ in 0..requests {
                now += bucket.wait(rate, 1, now);
                prop_assert!(bucket.wait(rate, 1, now).is_zero());
                bucket.take(rate, 1, now);
            }
            let beyond = u32::try_from(requests).unwrap().saturating_sub(burst);
            prop_assert_eq!(now, rate.interval() * beyond, "no later than the rate requires");
        }
    }
}
