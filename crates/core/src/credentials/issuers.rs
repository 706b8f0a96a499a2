//! The issuers that this cluster has had, as `status.issuers` records them, and when a new one is believed.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use ensign_api::{IssuerRecord, IssuerState};

/// The records after `current` was found in use. The record precedes the first write under an issuer, so that a
/// credential of a former issuer is always known to be ours.
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

/// Issuers other than `current`, each with whether the last token that it issued has expired.
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

/// The issuer that objects record, if it is not the one that was found at start: then the cluster may have changed its
/// issuer while nobody looked, or may be about to, and what was found has to be seen stably first.
pub fn doubted<'a>(recorded: &'a [IssuerRecord], found: &str) -> Option<&'a str> {
    if recorded.iter().any(|record| record.url == found) {
        return None;
    }
    recorded.iter().max_by_key(|record| record.since.0).map(|record| record.url.as_str())
}

/// When a new issuer is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stability {
    /// How often in a row it has to be seen.
    pub looks: u32,
    /// For how long.
    pub time: Duration,
}

/// What a look at the API server's issuer meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IssuerChange {
    /// It is the one that is believed.
    Same,
    /// It is another one, but not for long enough.
    Doubtful,
    /// It is another one, and believed from now on.
    Changed,
}

/// The issuer as it was seen. API servers are restarted one by one, so that a change is seen back and forth for a while.
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
    /// Believes `issuer` until another one is seen stably.
    pub fn new(issuer: impl Into<String>, stability: Stability) -> Self {
        Self { believed: issuer.into(), stability, candidate: None }
    }

    /// The issuer that is believed.
    pub fn believed(&self) -> &str {
        &self.believed
    }

    /// Takes a look in, at `now` of monotonic time. A look that failed says nothing and is not taken in.
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
    fn the_first_issuer_is_recorded_and_stays_as_it_is() {
        let first = record(&[], "https://one", at(0));
        assert_eq!(first.len(), 1);
        assert_eq!(record(&first, "https://one", at(99)), first, "nothing changed, so nothing is written");
    }

    #[test]
    fn a_former_issuer_retires_and_expires_with_its_last_token() {
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
    fn a_new_issuer_is_believed_after_enough_looks_over_enough_time() {
        let mut sightings = sightings();
        assert_eq!(sightings.saw("https://one", Duration::ZERO), IssuerChange::Same);
        assert_eq!(sightings.saw("https://two", MINUTE), IssuerChange::Doubtful);
        assert_eq!(sightings.saw("https://two", 2 * MINUTE), IssuerChange::Doubtful);
        assert_eq!(sightings.saw("https://two", 3 * MINUTE), IssuerChange::Changed);
        assert_eq!(sightings.believed(), "https://two");
        assert_eq!(sightings.saw("https://two", 4 * MINUTE), IssuerChange::Same);
    }

    #[test]
    fn neither_many_looks_in_a_short_time_nor_few_in_a_long_one_are_enough() {
        let mut hasty = sightings();
        assert!((0..100).all(|_| hasty.saw("https://two", MINUTE) == IssuerChange::Doubtful));
        let mut rare = sightings();
        rare.saw("https://two", MINUTE);
        assert_eq!(rare.saw("https://two", 60 * MINUTE), IssuerChange::Doubtful);
    }

    #[test]
    fn any_flap_starts_over() {
        let mut sightings = sightings();
        for (minute, issuer) in ["two", "two", "one", "two", "two", "three", "two", "two"].into_iter().enumerate() {
            let look = sightings.saw(&format!("https://{issuer}"), MINUTE * u32::try_from(minute).unwrap());
            assert_ne!(look, IssuerChange::Changed, "minute {minute}");
        }
        assert_eq!(sightings.saw("https://two", 8 * MINUTE), IssuerChange::Changed);
    }

    #[test]
    fn an_issuer_that_no_object_records_is_doubted_at_start() {
        assert_eq!(doubted(&[], "https://one"), None, "a first start has nothing to doubt");
        let mut records = record(&[], "https://one", at(0));
        assert_eq!(doubted(&records, "https://one"), None);
        assert_eq!(doubted(&records, "https://two"), Some("https://one"));
        records.extend(record(&[], "https://later", at(9)));
        assert_eq!(doubted(&records, "https://two"), Some("https://later"));
    }

    #[test]
    fn an_issuer_that_comes_back_is_current_again_and_does_not_expire() {
        let there = record(&record(&[], "https://one", at(0)), "https://two", at(10));
        let back = record(&there, "https://one", at(20));
        assert_eq!(retiring(&back, "https://one", 3600, at(3619)), [("https://two", false)]);
        assert_eq!(retiring(&back, "https://one", 3600, at(9999)), [("https://two", true)]);
    }
}
