//! How long to allow for a confirmed credential to propagate in Entra. That takes seconds to minutes, and Entra may cache
//! the failure of a token exchange that comes too early, so pods wait until then.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// When a credential that Azure confirmed at `since` counts as propagated.
pub fn propagated_at(since: Timestamp, delay: Duration) -> Timestamp {
    let delay = SignedDuration::try_from(delay).unwrap_or(SignedDuration::MAX);
    since.saturating_add(delay).unwrap_or(Timestamp::MAX)
}

/// The time left until `until`; zero if it has passed.
pub fn remaining(until: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(until.duration_since(now)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;
    const DELAY: Duration = Duration::from_secs(30);

    #[test]
    fn an_excessive_delay_does_not_panic() {
        assert_eq!(propagated_at(NOW, Duration::MAX), Timestamp::MAX);
    }

    #[test]
    fn no_time_is_left_after_the_moment_has_passed() {
        let until = propagated_at(NOW, DELAY);
        assert_eq!(remaining(until, NOW), DELAY);
        assert_eq!(remaining(NOW, until), Duration::ZERO);
    }
}
