//! The issuers that this cluster has had, as `status.issuers` records them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::{IssuerRecord, IssuerState};
use crate::mutants::{self, Mutant};

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
            (record.url.as_str(), expired || mutants::active(Mutant::OldIssuerDroppedAtOnce))
        })
        .collect()
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
}
