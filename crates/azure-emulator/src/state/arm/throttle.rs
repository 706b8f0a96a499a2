//! Azure's rate limits: token buckets that refill at the published rates, for each identity, subscription and tenant, and
//! ARM's own for each subscription and principal.
//!
//! Azure publishes the refill rates of the resource provider's buckets, but not their sizes. Here, an identity's buckets
//! hold 20, a subscription's ten times and a tenant's fifty times as much.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::Method;

use super::{ArmError, Operation, OperationKind};
use crate::state::model::IdentityId;

/// The kind of a request, for the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verb {
    Get,
    List,
    Put,
    Delete,
}

/// The size of a bucket, and the milliseconds in which one token is refilled.
#[derive(Clone, Copy, Debug)]
struct Limit {
    size: u32,
    every_ms: u64,
}

const fn limit(size: u32, every_ms: u64) -> Limit {
    Limit { size, every_ms }
}

impl Limit {
    fn every(self) -> Duration {
        Duration::from_millis(self.every_ms)
    }
}

impl Verb {
    /// Both kinds of writes share a bucket of the resource provider.
    fn shared(self) -> Self {
        if self == Self::Delete { Self::Put } else { self }
    }

    /// ARM's name for it, which is also that of one of its buckets.
    fn word(self) -> &'static str {
        match self {
            Self::Get | Self::List => "read",
            Self::Put => "write",
            Self::Delete => "delete",
        }
    }

    /// The limits of the resource provider: for a resource, a subscription and a tenant.
    fn limits(self) -> [Limit; 3] {
        match self {
            Self::Get => [limit(20, 2_000), limit(200, 100), limit(1_000, 33)],
            Self::List => [limit(20, 4_000), limit(200, 200), limit(1_000, 66)],
            Self::Put | Self::Delete => [limit(20, 4_000), limit(200, 500), limit(1_000, 100)],
        }
    }

    /// ARM's own limit for a subscription and a principal.
    fn front(self) -> Limit {
        match self {
            Self::Get | Self::List => limit(250, 40),
            Self::Put | Self::Delete => limit(200, 100),
        }
    }
}

/// The name of a bucket: the kind of limit, what it applies to, and the requests that it counts.
type Name = (&'static str, String, &'static str);

/// Every bucket that has been used: the time until it is full, as of some time. Fractions of a millisecond matter: without
/// them, rounding errors would add up to requests that are rejected without reason.
#[derive(Debug, Default)]
pub struct Throttle {
    missing: BTreeMap<Name, (Duration, Duration)>,
}

impl Throttle {
    /// Counts a request, or rejects it without counting it.
    pub fn admit(&mut self, operation: &Operation, object_id: &str, now: Duration) -> Result<(), ArmError> {
        let About { verb, subscription, identity, provider } = about(&operation.kind);
        let [resource, subscriptions, tenant] = verb.limits();
        let counted = match verb.shared() {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Put | Verb::Delete => "write",
        };
        let lower = subscription.to_lowercase();
        let mut drawn: Vec<(Name, Limit)> =
            identity.map(|identity| (("resource", identity.key(), counted), resource)).into_iter().collect();
        if provider {
            drawn.push((("subscription", lower.clone(), counted), subscriptions));
            drawn.push((("tenant", String::new(), counted), tenant));
        }
        drawn.push((("front", format!("{lower}/{object_id}"), verb.word()), verb.front()));
        for (name, limit) in &drawn {
            let wait = (self.lacks(name, now) + limit.every()).saturating_sub(limit.every() * limit.size);
            if !wait.is_zero() {
                let seconds = u32::try_from(wait.as_nanos().div_ceil(1_000_000_000)).unwrap_or(u32::MAX);
                return Err(match (name.0, identity) {
                    ("tenant", _) => ArmError::tenant_throttled(seconds),
                    ("resource", Some(id)) => ArmError::resource_throttled(id, seconds),
                    _ => ArmError::throttled(verb.word(), subscription, object_id, seconds),
                });
            }
        }
        for (name, limit) in drawn.drain(..) {
            let lacks = self.lacks(&name, now) + limit.every();
            self.missing.insert(name, (lacks, now));
        }
        Ok(())
    }

    fn lacks(&self, name: &Name, now: Duration) -> Duration {
        let (lacked, then) = self.missing.get(name).copied().unwrap_or_default();
        lacked.saturating_sub(now.saturating_sub(then))
    }
}

/// What a request counts towards.
struct About<'a> {
    verb: Verb,
    subscription: &'a str,
    identity: Option<&'a IdentityId>,
    /// Whether the limits of Microsoft.ManagedIdentity apply. Those of Microsoft.Authorization are not published.
    provider: bool,
}

fn about(kind: &OperationKind) -> About<'_> {
    let (verb, id) = match kind {
        OperationKind::ListIdentities { subscription, .. } => {
            return About { verb: Verb::List, subscription, identity: None, provider: true };
        }
        OperationKind::Role(role) => {
            let (subscription, method) = role.about();
            let verb = match method {
                Method::PUT => Verb::Put,
                Method::DELETE => Verb::Delete,
                _ => Verb::Get,
            };
            return About { verb, subscription, identity: None, provider: false };
        }
        OperationKind::Resource(resource) => {
            let (subscription, method) = resource.about();
            let verb = match *method {
                Method::GET | Method::HEAD => Verb::Get,
                Method::DELETE => Verb::Delete,
                _ => Verb::Put,
            };
            return About { verb, subscription, identity: None, provider: false };
        }
        OperationKind::GetIdentity(id)
        | OperationKind::ListAssociatedResources(id)
        | OperationKind::GetCredential(id, _) => (Verb::Get, id),
        OperationKind::ListCredentials(id, _) => (Verb::List, id),
        OperationKind::PutIdentity(id, _)
        | OperationKind::PatchIdentity(id, _)
        | OperationKind::PutCredential(id, ..) => (Verb::Put, id),
        OperationKind::DeleteIdentity(id) | OperationKind::DeleteCredential(id, _) => (Verb::Delete, id),
    };
    About { verb, subscription: &id.subscription, identity: Some(id), provider: true }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::ArmRequest;
    use super::*;
    use crate::state::arm::fixtures::{SUBSCRIPTION, caller, identities, orders, trust};
    use crate::state::arm::plan;
    use crate::state::{ArmRights, State};

    fn operation(state: &State, method: &Method, path: &str, body: &Value) -> Operation {
        let (query, body) = ("api-version=2024-11-30", body.to_string());
        let caller = caller(ArmRights::All);
        plan(state, &ArmRequest { method, path, query, body: body.as_bytes(), caller: &caller }).unwrap()
    }

    fn put(identity: &str) -> Operation {
        let path = identities(&format!("/{identity}/federatedIdentityCredentials/trust"));
        operation(&orders(), &Method::PUT, &path, &trust("https://issuer.test", "subject"))
    }

    fn list(identity: &str) -> Operation {
        let path = identities(&format!("/{identity}/federatedIdentityCredentials"));
        operation(&orders(), &Method::GET, &path, &json!(null))
    }

    /// How many requests are allowed at one moment, and the error for the next one.
    fn burst(throttle: &mut Throttle, operation: &Operation, now: Duration) -> (usize, ArmError) {
        let mut count = 0;
        loop {
            match throttle.admit(operation, "me", now) {
                Ok(()) => count += 1,
                Err(error) => return (count, error),
            }
        }
    }

    #[test]
    fn an_identity_allows_twenty_writes_and_then_one_every_four_seconds() {
        let mut throttle = Throttle::default();
        let (count, error) = burst(&mut throttle, &put("orders"), Duration::ZERO);
        assert_eq!((count, error.status, error.code.as_str()), (20, 429, "TooManyRequests"));
        assert_eq!(error.retry_after, Some(4));
        assert_eq!(burst(&mut throttle, &put("orders"), Duration::from_millis(3_999)).0, 0);
        assert_eq!(burst(&mut throttle, &put("orders"), Duration::from_secs(9)).0, 2);
        assert!(throttle.admit(&list("orders"), "me", Duration::ZERO).is_ok(), "lists are counted separately");
        let delete = operation(
            &orders(),
            &Method::DELETE,
            &identities("/orders/federatedIdentityCredentials/trust"),
            &json!(null),
        );
        assert!(throttle.admit(&delete, "me", Duration::from_secs(9)).is_err(), "deletes are writes");
    }

    #[test]
    fn a_subscription_allows_two_hundred_writes_across_its_identities() {
        let mut throttle = Throttle::default();
        for number in 0..10 {
            assert_eq!(burst(&mut throttle, &put(&format!("id-{number}")), Duration::ZERO).0, 20);
        }
        let (count, error) = burst(&mut throttle, &put("another"), Duration::ZERO);
        assert_eq!((count, error.code.as_str(), error.retry_after), (0, "SubscriptionRequestsThrottled", Some(1)));
        assert!(error.message.contains(SUBSCRIPTION) && error.message.contains("'write'"), "{}", error.message);
        assert!(throttle.admit(&put("another"), "me", Duration::from_millis(500)).is_ok());
    }

    #[test]
    fn requests_at_the_published_rate_are_allowed_at_any_fraction_of_a_millisecond() {
        let mut throttle = Throttle::default();
        burst(&mut throttle, &put("orders"), Duration::ZERO);
        for token in 1..200 {
            // Each one is rejected just before its token is refilled, and allowed with it.
            let due = Duration::from_secs(4 * token);
            let early = due.saturating_sub(Duration::from_nanos(1));
            assert!(throttle.admit(&put("orders"), "me", early).is_err(), "{token}");
            assert!(
                throttle.admit(&put("orders"), "me", due + Duration::from_micros(token * 7 % 1000)).is_ok(),
                "{token}"
            );
        }
    }

    #[test]
    fn arm_limits_the_reads_of_one_principal() {
        let mut throttle = Throttle::default();
        let mut taken = 0;
        for number in 0..50 {
            let get = operation(&orders(), &Method::GET, &identities(&format!("/id-{number}")), &json!(null));
            for operation in [list(&format!("id-{number}")), get] {
                for _ in 0..3 {
                    taken += usize::from(throttle.admit(&operation, "me", Duration::ZERO).is_ok());
                }
            }
        }
        assert_eq!(taken, 250);
        assert!(throttle.admit(&list("other"), "another principal", Duration::ZERO).is_ok());
    }
}
