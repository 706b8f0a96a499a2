//! How long a credential that Azure confirmed takes to settle: Entra takes seconds to minutes to learn of it, and an early
//! try may even keep the failure. Until then pods are told to wait.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// When a credential has settled that Azure has had since then.
pub fn settled_at(since: Timestamp, settle: Duration) -> Timestamp {
    let settle = SignedDuration::try_from(settle).unwrap_or(SignedDuration::MAX);
    since.saturating_add(settle).unwrap_or(Timestamp::MAX)
}

/// How long it is until then; no time at all if it has passed.
pub fn remaining(until: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(until.duration_since(now)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;
    const SETTLE: Duration = Duration::from_secs(30);

    #[test]
    fn a_settle_time_beyond_all_time_is_no_panic() {
        assert_eq!(settled_at(NOW, Duration::MAX), Timestamp::MAX);
    }

    #[test]
    fn a_moment_that_has_passed_is_waited_for_no_more() {
        let until = settled_at(NOW, SETTLE);
        assert_eq!(remaining(until, NOW), SETTLE);
        assert_eq!(remaining(NOW, until), Duration::ZERO);
    }
}
