//! Which requests may be sent to Azure now: none during a pause, and none beyond the rate limits.
//!
//! ```text
//! a request for an identity ─► pauses of the identity, its subscription, the tenant
//!                           ─► a token of each of the three
//!                           ─► is sent, or gets the time after which to retry
//! ```
//!
//! A request that has to be retried gets a reservation: a place in a queue that later requests do not overtake. So many
//! identities that wait for the same subscription are retried one by one, at its rate. Reservations are advisory; the
//! limits hold regardless, because a request takes its tokens at the moment it is sent.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::monotonic::Moment;
pub use super::rate_limits::{PerKind, Provider, RateLimits, RequestKind};
use super::throttles::ThrottledUntil;
pub use super::throttles::{Scope, Throttle, Throttler};
use super::token_bucket::{Bucket, Rate};
use crate::failure::Failure;
use ensign_api::ArmId;
use ensign_api::conditions::Reason;

/// Maximum number of tokens that a request for several of them waits for. Each retry costs a list, too.
const BATCH: u32 = 5;
/// A reservation expires this long after its time.
const RESERVATION_LIFETIME: Duration = Duration::from_secs(60);
/// From this number of identities on, idle ones are removed periodically.
const SWEEP: usize = 1024;

/// A request is not sent now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deferral {
    /// It would exceed the rate limits.
    RateLimited {
        /// Time until the retry.
        wait: Duration,
    },
    /// Requests are paused, because Azure throttles them or a request failed.
    Paused {
        /// Time until the retry.
        wait: Duration,
        /// The reason of the failure that caused the pause.
        reason: Reason,
        /// The message of that failure.
        message: String,
    },
}

impl Deferral {
    /// Time until the retry.
    pub fn wait(&self) -> Duration {
        match self {
            Self::RateLimited { wait } | Self::Paused { wait, .. } => *wait,
        }
    }

    /// The failure that caused the pause; `None` for rate limits, which are not a failure.
    pub fn failure(&self) -> Option<Failure> {
        match self {
            Self::RateLimited { .. } => None,
            Self::Paused { wait, reason, message } => {
                Some(Failure { reason: *reason, message: message.clone(), retry_after: Some(*wait) })
            }
        }
    }
}

/// Decides which requests may be sent.
#[derive(Debug)]
pub struct RequestScheduler {
    limits: RateLimits,
    identities: HashMap<String, Own>,
    subscriptions: HashMap<String, Shared>,
    tenant: Shared,
    reservations: u64,
    sweep_at: usize,
}

/// The time of a reservation, with a number that distinguishes equal times.
type Place = (Moment, u64);

/// The state of one identity.
#[derive(Debug, Default)]
struct Own {
    buckets: PerKind<Bucket>,
    pause: Option<Pause>,
    reserved: PerKind<Option<Place>>,
    /// Number of pages of the latest list.
    pages: u32,
    /// Pages of that list for which tokens were taken and that were not requested yet.
    paid: u32,
}

#[derive(Debug)]
struct Pause {
    until: Moment,
    reason: Reason,
    message: String,
}

impl Own {
    fn is_idle(&self, now: Moment) -> bool {
        let kinds = [RequestKind::Get, RequestKind::List, RequestKind::Write];
        self.pause.as_ref().is_none_or(|pause| pause.until <= now)
            && kinds.iter().all(|kind| {
                self.buckets.of(*kind).is_full(now)
                    && self.reserved.of(*kind).is_none_or(|(moment, _)| moment + RESERVATION_LIFETIME < now)
            })
    }
}

/// The state of a scope that many identities share.
#[derive(Debug, Default)]
struct Shared {
    buckets: PerKind<Bucket>,
    throttled_until: ThrottledUntil,
    /// Number of tokens reserved in the queue.
    reserved: PerKind<u32>,
    /// Reservations in order, each with its number of tokens.
    queue: PerKind<BTreeMap<Place, u32>>,
}

impl Shared {
    /// Number of tokens reserved by others, for a request with this place or none. Zero if the time of its place has come.
    fn reserved_by_others(&mut self, kind: RequestKind, place: Option<Place>, now: Moment) -> u32 {
        let is_expired = |moment: Moment| moment + RESERVATION_LIFETIME < now;
        while let Some(first) = self.queue.of(kind).keys().next().filter(|(moment, _)| is_expired(*moment)) {
            let first = *first;
            self.cancel(kind, first);
        }
        let own = place.and_then(|place| Some((place.0, self.queue.of(kind).get(&place)?)));
        match own {
            Some((moment, _)) if moment <= now => 0,
            Some((_, tokens)) => self.reserved.of(kind).saturating_sub(*tokens),
            None => *self.reserved.of(kind),
        }
    }

    fn reserve(&mut self, kind: RequestKind, place: Place, tokens: u32) {
        self.queue.of_mut(kind).insert(place, tokens);
        let reserved = self.reserved.of_mut(kind);
        *reserved = reserved.saturating_add(tokens);
    }

    /// Uses tokens of a reservation. Returns whether any are left.
    fn redeem(&mut self, kind: RequestKind, place: Place, tokens: u32) -> bool {
        let Some(left) = self.queue.of(kind).get(&place).map(|reserved| reserved.saturating_sub(tokens)) else {
            return false;
        };
        self.cancel(kind, place);
        if left > 0 {
            self.reserve(kind, place, left);
        }
        left > 0
    }

    fn cancel(&mut self, kind: RequestKind, place: Place) {
        if let Some(tokens) = self.queue.of_mut(kind).remove(&place) {
            let reserved = self.reserved.of_mut(kind);
            *reserved = reserved.saturating_sub(tokens);
        }
    }
}

impl RequestScheduler {
    /// A limiter with full token buckets.
    pub fn new(limits: RateLimits) -> Self {
        Self {
            limits,
            identities: HashMap::new(),
            subscriptions: HashMap::new(),
            tenant: Shared::default(),
            reservations: 0,
            sweep_at: SWEEP,
        }
    }

    /// Allows one request and takes its tokens, or returns when to retry.
    ///
    /// A list may have several pages; `page` is the index of the requested one. The first page takes tokens for as many
    /// pages as the identity's list had the last time, because a list that is interrupted each time would never complete.
    pub fn ask(&mut self, id: &ArmId, kind: RequestKind, page: u32, now: Moment) -> Result<(), Deferral> {
        let own = self.identities.entry(id.key().to_owned()).or_default();
        let (pages, paid) = (own.pages.max(1), own.paid);
        if page > 0 {
            own.pages = pages.max(page + 1);
        }
        let tokens = match page {
            0 if kind == RequestKind::List => pages.min(self.limits.max_burst(kind)),
            0 => 1,
            _ => 1_u32.saturating_sub(paid),
        };
        self.check(id, kind, tokens..=tokens, now)?;
        let Self { limits, identities, subscriptions, tenant, .. } = self;
        let own = identities.entry(id.key().to_owned()).or_default();
        let subscription = subscriptions.entry(id.subscription().to_lowercase()).or_default();
        if kind == RequestKind::List {
            (own.pages, own.paid) =
                if page == 0 { (1, tokens.saturating_sub(1)) } else { (own.pages, paid.saturating_sub(1)) };
        }
        let place = *own.reserved.of(kind);
        let mut reserved = false;
        for (shared, rates) in [(subscription, &limits.subscription), (tenant, &limits.tenant)] {
            shared.buckets.of_mut(kind).take(*rates.of(kind), tokens, now);
            reserved |= place.is_some_and(|place| shared.redeem(kind, place, tokens));
        }
        if !reserved {
            *own.reserved.of_mut(kind) = None;
        }
        own.buckets.of_mut(kind).take(*limits.identity.of(kind), tokens, now);
        Ok(())
    }

    /// How many of the wanted requests may be sent now, at least one. Takes no tokens. If none may be sent, several may be
    /// once the wait is over.
    pub fn room(&mut self, id: &ArmId, kind: RequestKind, wanted: u32, now: Moment) -> Result<u32, Deferral> {
        let worthwhile = wanted.clamp(1, BATCH.min(self.limits.max_burst(kind)));
        self.check(id, kind, 1..=worthwhile, now).map(|room| room.min(wanted))
    }

    /// Whether all wanted requests, which are only useful together, may be sent now. Takes no tokens. If not, they and the
    /// one before them may be sent once the wait is over.
    pub fn all(&mut self, id: &ArmId, kind: RequestKind, wanted: u32, now: Moment) -> Result<(), Deferral> {
        let max = self.limits.max_burst(kind);
        let wanted = wanted.min(max.saturating_sub(1)).max(1);
        self.check(id, kind, wanted..=(wanted + 1).min(max), now).map(drop)
    }

    /// Number of available tokens, if it is at least the start of the range; otherwise reserves as many as its end.
    fn check(
        &mut self,
        id: &ArmId,
        kind: RequestKind,
        tokens: RangeInclusive<u32>,
        now: Moment,
    ) -> Result<u32, Deferral> {
        let (enough, tokens) = (*tokens.start(), *tokens.end());
        self.sweep(now);
        let Self { limits, identities, subscriptions, tenant, reservations, .. } = self;
        let own = identities.entry(id.key().to_owned()).or_default();
        let subscription = subscriptions.entry(id.subscription().to_lowercase()).or_default();
        let place = *own.reserved.of(kind);

        let (rate, bucket) = (*limits.identity.of(kind), own.buckets.of(kind));
        let (mut room, mut least) = (bucket.tokens(rate, now), bucket.wait(rate, tokens, now));
        let mut wait_for = |shared: &mut Shared, rates: &PerKind<Rate>| {
            let reserved = shared.reserved_by_others(kind, place, now);
            let (rate, bucket) = (*rates.of(kind), shared.buckets.of(kind));
            room = room.min(bucket.tokens(rate, now).saturating_sub(reserved));
            bucket.wait(rate, reserved.saturating_add(tokens), now)
        };
        let waits = [wait_for(subscription, &limits.subscription), wait_for(tenant, &limits.tenant)];
        let pause = pause(id, kind, own, subscription, tenant, now);
        if pause.is_none() && room >= enough {
            return Ok(room);
        }
        least = least.max(pause.as_ref().map_or(Duration::ZERO, Deferral::wait));
        let mut wait = waits.into_iter().fold(least, Duration::max);
        if waits.iter().any(|wait| !wait.is_zero()) {
            wait = reserve(own, [subscription, tenant], waits, (kind, tokens), now, least..=wait, reservations);
        }
        Err(match pause {
            Some(Deferral::Paused { reason, message, .. }) => Deferral::Paused { wait, reason, message },
            _ => Deferral::RateLimited { wait },
        })
    }

    /// Pauses all requests to the identity until this moment.
    pub fn hold(&mut self, id: &ArmId, until: Moment, reason: Reason, message: &str) {
        let own = self.identities.entry(id.key().to_owned()).or_default();
        if own.pause.as_ref().is_none_or(|pause| pause.until < until) {
            own.pause = Some(Pause { until, reason, message: message.to_owned() });
        }
    }

    /// Azure throttled a request of this kind. Afterwards there is no burst, because others use the same limits.
    ///
    /// What Microsoft.Authorization throttles only pauses requests about roles: its limits are its own, and not the rates here.
    pub fn throttled(&mut self, id: &ArmId, kind: RequestKind, Throttle { by, scope }: Throttle, until: Moment) {
        let Self { limits, identities, subscriptions, tenant, .. } = self;
        let of_roles = by == Throttler::Authorization;
        let (buckets, rates) = match scope {
            Scope::Identity if !of_roles => {
                (&mut identities.entry(id.key().to_owned()).or_default().buckets, &limits.identity)
            }
            Scope::Identity | Scope::Subscription => {
                let shared = subscriptions.entry(id.subscription().to_lowercase()).or_default();
                shared.throttled_until.extend(by, kind, until);
                (&mut shared.buckets, &limits.subscription)
            }
            Scope::Tenant => {
                tenant.throttled_until.extend(by, kind, until);
                (&mut tenant.buckets, &limits.tenant)
            }
        };
        for kind in kind.throttled_together().iter().filter(|_| !of_roles) {
            buckets.of_mut(*kind).drain(*rates.of(*kind), until);
        }
    }

    /// Removes idle identities.
    fn sweep(&mut self, now: Moment) {
        if self.identities.len() >= self.sweep_at {
            self.identities.retain(|_, own| !own.is_idle(now));
            self.sweep_at = SWEEP.max(self.identities.len() * 2);
        }
    }
}

/// The current pause, if any; of several, the one that ends last.
fn pause(
    id: &ArmId,
    kind: RequestKind,
    own: &Own,
    subscription: &Shared,
    tenant: &Shared,
    now: Moment,
) -> Option<Deferral> {
    let failed = own.pause.as_ref().map(|pause| (pause.until, pause.reason, None));
    let throttled = [(subscription, Scope::Subscription), (tenant, Scope::Tenant)].map(|(shared, scope)| {
        let (until, by) = shared.throttled_until.longest(kind);
        Some((until, Reason::Throttled, Some(Throttle { by, scope })))
    });
    let pauses = throttled.into_iter().chain([failed]).flatten().filter(|(until, ..)| *until > now);
    let (until, reason, throttle) = pauses.max_by_key(|(until, ..)| *until)?;
    let message = match throttle {
        Some(throttle) => throttle.message(id),
        None => own.pause.as_ref().map(|pause| pause.message.clone()).unwrap_or_default(),
    };
    Some(Deferral::Paused { wait: until.saturating_sub(now), reason, message })
}

/// Reserves tokens at the end of `waits`, unless there is a reservation within `waits` already. Returns the time until the
/// reservation.
///
/// A request that waits longer for its subscription than for the tenant is only in the subscription's queue: a token of the
/// tenant reserved for it would be unavailable to requests whose subscriptions have room. If the tenant has none at the
/// time of its reservation, it enters the tenant's queue too, and keeps a reservation in the subscription's.
fn reserve(
    own: &mut Own,
    mut shared: [&mut Shared; 2],
    [for_subscription, for_tenant]: [Duration; 2],
    (kind, tokens): (RequestKind, u32),
    now: Moment,
    waits: RangeInclusive<Duration>,
    reservations: &mut u64,
) -> Duration {
    let former = own.reserved.of_mut(kind);
    let is_in = shared.each_ref().map(|shared| former.is_some_and(|place| shared.queue.of(kind).contains_key(&place)));
    let required =
        if for_subscription < for_tenant { [is_in[0] || !for_subscription.is_zero(), true] } else { [true, false] };
    if let Some(place) = *former {
        let left = place.0.saturating_sub(now);
        let suffices = required.iter().zip(is_in).all(|(required, is_in)| is_in || !required);
        if suffices && !left.is_zero() && waits.contains(&left) {
            return left;
        }
        for shared in &mut shared {
            shared.cancel(kind, place);
        }
    }
    *reservations += 1;
    let wait = *waits.end();
    let place = (now + wait, *reservations);
    for (shared, _) in shared.into_iter().zip(required).filter(|(_, required)| *required) {
        shared.reserve(kind, place, tokens);
    }
    *former = Some(place);
    wait
}

#[cfg(test)]
#[path = "rate_limiter_tests.rs"]
mod tests;
