//! The cluster's current and former issuers, as recorded in `status.issuers`, and when a new one is adopted.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use ensign_api::{IssuerRecord, IssuerState};

/// The records, updated for the issuer in use, `current`. An issuer is recorded before the first write for it, so that a
/// credential of a former issuer is always recognised as ours.
pub fn record(before: &[IssuerRecord], current: &str, now: Timestamp) -> Vec<IssuerRecord> {
    let mut records: Vec<IssuerRecord> = before
        .iter()
        .map(|record| {
            let state = if record.url == current { IssuerState::Current } else { IssuerState::Retiring };
            let since = if state == record.state { record.since.clone() } else { Time(now) };
            IssuerRecord { url: record.url.clone(), state, since }
        })
        .collect();
    if records.iter().all(|record| record.url != current) {
        records.push(IssuerRecord { url: current.to_owned(), state: IssuerState::Current, since: Time(now) });
    }
    records
}

/// The issuers other than `current`, each with whether the last token that it signed has expired.
pub fn retiring<'a>(
    records: &'a [IssuerRecord],
    current: &str,
    longest_token_seconds: u32,
    now: Timestamp,
) -> Vec<(&'a str, bool)> {
    let lifetime = SignedDuration::from_secs(longest_token_seconds.into());
    records
        .iter()
        .filter(|record| record.url != current)
        .map(|record| {
            let retired = record.state == IssuerState::Retiring;
            let expired = retired && now.duration_since(record.since.0) >= lifetime;
            (record.url.as_str(), expired)
        })
        .collect()
}

/// The most recently recorded issuer, if the one that was found at startup is not recorded: the cluster's issuer may have
/// changed while the controller was down, or may be changing, so the new one has to be observed stably first.
pub fn doubted<'a>(recorded: &'a [IssuerRecord], found: &str) -> Option<&'a str> {
    if recorded.iter().any(|record| record.url == found) {
        return None;
    }
    recorded.iter().max_by_key(|record| record.since.0).map(|record| record.url.as_str())
}

/// How long a new issuer has to be observed before it is adopted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stability {
    /// Number of consecutive observations.
    pub looks: u32,
    /// Time between the first and the last of them, at least.
    pub time: Duration,
}

/// The result of observing the API server's issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IssuerChange {
    /// The adopted one.
    Same,
    /// Another one, but not for long enough yet.
    Doubtful,
    /// Another one, which is adopted from now on.
    Changed,
}

/// Observations of the issuer. API servers restart one by one, so both issuers are observed alternately during a change.
#[derive(Clone, Debug)]
pub struct Sightings {
    believed: String,
    stability: Stability,
    candidate: Option<NewIssuer>,
}

#[derive(Clone, Debug)]
struct NewIssuer {
    issuer: String,
    looks: u32,
    since: Duration,
}

impl Sightings {
    /// Starts with `issuer`, until another one is observed stably.
    pub fn new(issuer: impl Into<String>, stability: Stability) -> Self {
        Self { believed: issuer.into(), stability, candidate: None }
    }

    /// The adopted issuer.
    pub fn believed(&self) -> &str {
        &self.believed
    }

    /// Records an observation at `now`, in monotonic time. Failed observations are not recorded.
    pub fn saw(&mut self, issuer: &str, now: Duration) -> IssuerChange {
        if issuer == self.believed {
            self.candidate = None;
            return IssuerChange::Same;
        }
        let fresh = NewIssuer { issuer: issuer.to_owned(), looks: 0, since: now };
        let mut candidate = self.candidate.take().filter(|candidate| candidate.issuer == issuer).unwrap_or(fresh);
        candidate.looks += 1;
        let stands = now.saturating_sub(candidate.since) >= self.stability.time;
        let is_stable = stands && candidate.looks >= self.stability.looks;
        if is_stable {
            self.believed = candidate.issuer;
            return IssuerChange::Changed;
        }
        self.candidate = Some(candidate);
        IssuerChange::Doubtful
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    #[test]
    fn the_first_issuer_is_recorded_once() {
        let first = record(&[], "https://one", at(0));
        assert_eq!(first.len(), 1);
        assert_eq!(record(&first, "https://one", at(99)), first, "no change, no write");
    }

    #[test]
    fn a_former_issuer_is_retiring_until_its_last_token_has_expired() {
        let changed = record(&record(&[], "https://one", at(0)), "https://two", at(10));
        assert_eq!(
            changed.iter().map(|record| record.state).collect::<Vec<_>>(),
            [IssuerState::Retiring, IssuerState::Current]
        );
        assert_eq!(retiring(&changed, "https://two", 3600, at(3609)), [("https://one", false)]);
        assert_eq!(retiring(&changed, "https://two", 3600, at(3610)), [("https://one", true)]);
    }

    const MINUTE: Duration = Duration::from_secs(60);

    fn sightings() -> Sightings {
        Sightings::new("https://one", Stability { looks: 3, time: 2 * MINUTE })
    }

    #[test]
    fn a_new_issuer_is_adopted_after_enough_observations_over_enough_time() {
        let mut sightings = sightings();
        assert_eq!(sightings.saw("https://one", Duration::ZERO), IssuerChange::Same);
        assert_eq!(sightings.saw("https://two", MINUTE), IssuerChange::Doubtful);
        assert_eq!(sightings.saw("https://two", 2 * MINUTE), IssuerChange::Doubtful);
        assert_eq!(sightings.saw("https://two", 3 * MINUTE), IssuerChange::Changed);
        assert_eq!(sightings.believed(), "https://two");
        assert_eq!(sightings.saw("https://two", 4 * MINUTE), IssuerChange::Same);
    }

    #[test]
    fn neither_many_observations_in_a_short_time_nor_few_in_a_long_time_are_enough() {
        let mut many = sightings();
        assert!((0..100).all(|_| many.saw("https://two", MINUTE) == IssuerChange::Doubtful));
        let mut few = sightings();
        few.saw("https://two", MINUTE);
        assert_eq!(few.saw("https://two", 60 * MINUTE), IssuerChange::Doubtful);
    }

    #[test]
    fn a_different_issuer_in_between_restarts_the_count() {
        let mut sightings = sightings();
        for (minute, issuer) in ["two", "two", "one", "two", "two", "three", "two", "two"].into_iter().enumerate() {
            let change = sightings.saw(&format!("https://{issuer}"), MINUTE * u32::try_from(minute).unwrap());
            assert_ne!(change, IssuerChange::Changed, "minute {minute}");
        }
        assert_eq!(sightings.saw("https://two", 8 * MINUTE), IssuerChange::Changed);
    }

    #[test]
    fn an_issuer_that_no_object_records_is_not_adopted_at_startup() {
        assert_eq!(doubted(&[], "https://one"), None, "there are no records on first startup");
        let mut records = record(&[], "https://one", at(0));
        assert_eq!(doubted(&records, "https://one"), None);
        assert_eq!(doubted(&records, "https://two"), Some("https://one"));
        records.extend(record(&[], "https://later", at(9)));
        assert_eq!(doubted(&records, "https://two"), Some("https://later"));
    }

    #[test]
    fn a_former_issuer_that_is_restored_is_current_again_and_does_not_expire() {
        let changed = record(&record(&[], "https://one", at(0)), "https://two", at(10));
        let restored = record(&changed, "https://one", at(20));
        assert_eq!(retiring(&restored, "https://one", 3600, at(3619)), [("https://two", false)]);
        assert_eq!(retiring(&restored, "https://one", 3600, at(9999)), [("https://two", true)]);
    }
}
