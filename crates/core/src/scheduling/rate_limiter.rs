//! Which requests may go out to Azure now: none during a pause, and none beyond the limits.
//!
//! ```text
//! a request under an identity ─► pauses of the identity, its subscription, the tenant
//!                             ─► a token of each of the three
//!                             ─► goes out, or learns when to come again
//! ```
//!
//! Who is told when to come again has a promise: a place in line, in which those who come later do not push in. Many
//! identities that wait for one subscription so come back one by one, at the rate at which tokens do. Promises are
//! manners and no more. What goes out always takes its token at that moment, so that the limits hold whatever becomes
//! of them.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::leader_election::Moment;
use super::token_bucket::{Bucket, Rate};
use crate::failure::Failure;
use ensign_api::ArmId;
use ensign_api::conditions::Reason;

/// Who waits for several tokens comes back when so many are there: each time costs a list too.
const BATCH: u32 = 5;
/// Who does not come within this time after its moment has lost its place in line.
const PROMISE: Duration = Duration::from_secs(60);
/// From so many identities on, those that nobody asks about are forgotten now and then.
const SWEEP: usize = 1024;

/// What a request is to the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// Reading one resource.
    Get,
    /// Reading a list.
    List,
    /// Creating, changing or deleting.
    Write,
}

impl RequestKind {
    /// Every kind that is meant where Azure speaks of reads, or of writes.
    fn alike(self) -> &'static [Self] {
        match self {
            Self::Get | Self::List => &[Self::Get, Self::List],
            Self::Write => &[Self::Write],
        }
    }
}

/// One of something for each kind of request.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PerKind<T> {
    /// Of [`RequestKind::Get`].
    pub get: T,
    /// Of [`RequestKind::List`].
    pub list: T,
    /// Of [`RequestKind::Write`].
    pub write: T,
}

impl<T> PerKind<T> {
    /// That of a kind.
    pub fn of(&self, kind: RequestKind) -> &T {
        match kind {
            RequestKind::Get => &self.get,
            RequestKind::List => &self.list,
            RequestKind::Write => &self.write,
        }
    }

    fn of_mut(&mut self, kind: RequestKind) -> &mut T {
        match kind {
            RequestKind::Get => &mut self.get,
            RequestKind::List => &mut self.list,
            RequestKind::Write => &mut self.write,
        }
    }
}

impl PerKind<Rate> {
    fn scaled(self, share: f64) -> Self {
        Self { get: self.get.scaled(share), list: self.list.scaled(share), write: self.write.scaled(share) }
    }
}

/// How fast requests may go out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateLimits {
    /// Under one identity.
    pub identity: PerKind<Rate>,
    /// Under one subscription.
    pub subscription: PerKind<Rate>,
    /// All together.
    pub tenant: PerKind<Rate>,
}

impl RateLimits {
    /// What Azure publishes for managed identities. It says nothing of bursts: those are chosen so that a new identity's
    /// 20 credentials go out at once, and that reads together stay within the 250 that Resource Manager takes.
    pub const PUBLISHED: Self = Self {
        identity: PerKind { get: Rate::known(20, 0.5), list: Rate::known(20, 0.25), write: Rate::known(20, 0.25) },
        subscription: PerKind {
            get: Rate::known(100, 10.0),
            list: Rate::known(150, 5.0),
            write: Rate::known(200, 2.0),
        },
        tenant: PerKind { get: Rate::known(300, 30.0), list: Rate::known(450, 15.0), write: Rate::known(1000, 10.0) },
    };

    /// This cluster's share of what many clusters use together: subscriptions and the tenant. An identity's own limits
    /// are not divided, because all clusters together have no more than its 20 credentials to write.
    #[must_use]
    pub fn shared(self, share: f64) -> Self {
        Self {
            identity: self.identity,
            subscription: self.subscription.scaled(share),
            tenant: self.tenant.scaled(share),
        }
    }

    /// The most tokens that can ever be there at once.
    fn most(&self, kind: RequestKind) -> u32 {
        let rates = [&self.identity, &self.subscription, &self.tenant];
        rates.into_iter().map(|rates| rates.of(kind).burst()).min().unwrap_or(1)
    }
}

/// For what Azure asked for a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One identity.
    Identity,
    /// Everything in its subscription.
    Subscription,
    /// Everything.
    Tenant,
}

impl Scope {
    /// What people are told while it lasts; the same text each time, so that status does not churn.
    pub fn message(self, id: &ArmId) -> String {
        match self {
            Self::Identity => format!("Azure asks for fewer requests under {id}; retrying"),
            Self::Subscription => {
                format!("Azure asks for fewer requests in subscription {}; retrying", id.subscription())
            }
            Self::Tenant => "Azure asks for fewer requests in the tenant; retrying".to_owned(),
        }
    }
}

/// A request does not go out now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deferral {
    /// It would go beyond the limits.
    Paced {
        /// How long until it should be tried again.
        wait: Duration,
    },
    /// Azure asked for a pause, or failed a moment ago.
    Held {
        /// How long until it should be tried again.
        wait: Duration,
        /// The reason of the failure that began the pause.
        reason: Reason,
        /// Its message.
        message: String,
    },
}

impl Deferral {
    /// How long until the request should be tried again.
    pub fn wait(&self) -> Duration {
        match self {
            Self::Paced { wait } | Self::Held { wait, .. } => *wait,
        }
    }

    /// The failure that began the pause, if it is one. That requests wait for their turn is none.
    pub fn failure(&self) -> Option<Failure> {
        match self {
            Self::Paced { .. } => None,
            Self::Held { wait, reason, message } => {
                Some(Failure { reason: *reason, message: message.clone(), retry_after: Some(*wait) })
            }
        }
    }
}

/// Decides which requests may go out.
#[derive(Debug)]
pub struct Pacer {
    limits: RateLimits,
    identities: HashMap<String, Own>,
    subscriptions: HashMap<String, Shared>,
    tenant: Shared,
    promises: u64,
    sweep_at: usize,
}

/// A moment in line, with a number that keeps equal moments apart.
type Place = (Moment, u64);

/// What is known of one identity.
#[derive(Debug, Default)]
struct Own {
    buckets: PerKind<Bucket>,
    hold: Option<Pause>,
    promised: PerKind<Option<Place>>,
    /// Pages of the list that was begun last.
    pages: u32,
    /// Pages of it for which tokens were taken and that have not gone out.
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
        self.hold.as_ref().is_none_or(|hold| hold.until <= now)
            && kinds.iter().all(|kind| {
                self.buckets.of(*kind).is_full(now)
                    && self.promised.of(*kind).is_none_or(|(moment, _)| moment + PROMISE < now)
            })
    }
}

/// What is known of something that many identities share.
#[derive(Debug, Default)]
struct Shared {
    buckets: PerKind<Bucket>,
    throttled_until: PerKind<Moment>,
    /// All tokens that are promised in the line.
    promised: PerKind<u32>,
    /// Those who wait, each with the tokens that it was promised.
    line: PerKind<BTreeMap<Place, u32>>,
}

impl Shared {
    /// How many tokens are promised to others than one who has this place, or none, and whose turn it is not yet.
    fn before(&mut self, kind: RequestKind, place: Option<Place>, now: Moment) -> u32 {
        while let Some(first) = self.line.of(kind).keys().next().filter(|(moment, _)| *moment + PROMISE < now) {
            let first = *first;
            self.leave(kind, first);
        }
        let own = place.and_then(|place| Some((place.0, self.line.of(kind).get(&place)?)));
        match own {
            Some((moment, _)) if moment <= now => 0,
            Some((_, tokens)) => self.promised.of(kind).saturating_sub(*tokens),
            None => *self.promised.of(kind),
        }
    }

    fn enter(&mut self, kind: RequestKind, place: Place, tokens: u32) {
        self.line.of_mut(kind).insert(place, tokens);
        let promised = self.promised.of_mut(kind);
        *promised = promised.saturating_add(tokens);
    }

    /// Takes tokens off those that were promised; whether any are left.
    fn redeem(&mut self, kind: RequestKind, place: Place, tokens: u32) -> bool {
        let Some(left) = self.line.of(kind).get(&place).map(|promised| promised.saturating_sub(tokens)) else {
            return false;
        };
        self.leave(kind, place);
        if left > 0 {
            self.enter(kind, place, left);
        }
        left > 0
    }

    fn leave(&mut self, kind: RequestKind, place: Place) {
        if let Some(tokens) = self.line.of_mut(kind).remove(&place) {
            let promised = self.promised.of_mut(kind);
            *promised = promised.saturating_sub(tokens);
        }
    }
}

impl Pacer {
    /// Nothing has gone out yet.
    pub fn new(limits: RateLimits) -> Self {
        Self {
            limits,
            identities: HashMap::new(),
            subscriptions: HashMap::new(),
            tenant: Shared::default(),
            promises: 0,
            sweep_at: SWEEP,
        }
    }

    /// Lets one request go out and takes its tokens, or says when to come again.
    ///
    /// A list may have several pages, of which `page` counts those before. Its first page takes tokens for as many as the
    /// identity had the last time: a list that stopped in the middle each time would never be whole.
    pub fn ask(&mut self, id: &ArmId, kind: RequestKind, page: u32, now: Moment) -> Result<(), Deferral> {
        let own = self.identities.entry(id.key().to_owned()).or_default();
        let (pages, paid) = (own.pages.max(1), own.paid);
        if page > 0 {
            own.pages = pages.max(page + 1);
        }
        let tokens = match page {
            0 if kind == RequestKind::List => pages.min(self.limits.most(kind)),
            0 => 1,
            _ => 1_u32.saturating_sub(paid),
        };
        self.look(id, kind, tokens..=tokens, now)?;
        let Self { limits, identities, subscriptions, tenant, .. } = self;
        let own = identities.entry(id.key().to_owned()).or_default();
        let subscription = subscriptions.entry(id.subscription().to_lowercase()).or_default();
        if kind == RequestKind::List {
            (own.pages, own.paid) =
                if page == 0 { (1, tokens.saturating_sub(1)) } else { (own.pages, paid.saturating_sub(1)) };
        }
        let place = *own.promised.of(kind);
        let mut promised = false;
        for (shared, rates) in [(subscription, &limits.subscription), (tenant, &limits.tenant)] {
            shared.buckets.of_mut(kind).take(*rates.of(kind), tokens, now);
            promised |= place.is_some_and(|place| shared.redeem(kind, place, tokens));
        }
        if !promised {
            *own.promised.of_mut(kind) = None;
        }
        own.buckets.of_mut(kind).take(*limits.identity.of(kind), tokens, now);
        Ok(())
    }

    /// How many requests, of so many that are wanted, may go out now, at least one; takes nothing. If none may, several
    /// may when the wait is over.
    pub fn room(&mut self, id: &ArmId, kind: RequestKind, wanted: u32, now: Moment) -> Result<u32, Deferral> {
        let worthwhile = wanted.clamp(1, BATCH.min(self.limits.most(kind)));
        self.look(id, kind, 1..=worthwhile, now).map(|room| room.min(wanted))
    }

    /// Whether so many requests may go out now that are of use together only; takes nothing. If not, they and the one that
    /// came before them may when the wait is over.
    pub fn all(&mut self, id: &ArmId, kind: RequestKind, wanted: u32, now: Moment) -> Result<(), Deferral> {
        let most = self.limits.most(kind);
        let wanted = wanted.min(most.saturating_sub(1)).max(1);
        self.look(id, kind, wanted..=(wanted + 1).min(most), now).map(drop)
    }

    /// How many tokens there are, if there are at least the lower number; else who asks waits for the higher one.
    fn look(
        &mut self,
        id: &ArmId,
        kind: RequestKind,
        tokens: RangeInclusive<u32>,
        now: Moment,
    ) -> Result<u32, Deferral> {
        let (enough, tokens) = (*tokens.start(), *tokens.end());
        self.sweep(now);
        let Self { limits, identities, subscriptions, tenant, promises, .. } = self;
        let own = identities.entry(id.key().to_owned()).or_default();
        let subscription = subscriptions.entry(id.subscription().to_lowercase()).or_default();
        let place = *own.promised.of(kind);

        let (rate, bucket) = (*limits.identity.of(kind), own.buckets.of(kind));
        let (mut room, mut least) = (bucket.tokens(rate, now), bucket.wait(rate, tokens, now));
        let mut look = |shared: &mut Shared, rates: &PerKind<Rate>| {
            let before = shared.before(kind, place, now);
            let (rate, bucket) = (*rates.of(kind), shared.buckets.of(kind));
            room = room.min(bucket.tokens(rate, now).saturating_sub(before));
            bucket.wait(rate, before.saturating_add(tokens), now)
        };
        let waits = [look(subscription, &limits.subscription), look(tenant, &limits.tenant)];
        let pause = pause(id, kind, own, subscription, tenant, now);
        if pause.is_none() && room >= enough {
            return Ok(room);
        }
        least = least.max(pause.as_ref().map_or(Duration::ZERO, Deferral::wait));
        let mut wait = waits.into_iter().fold(least, Duration::max);
        if waits.iter().any(|wait| !wait.is_zero()) {
            wait = keep_place(own, [subscription, tenant], waits, (kind, tokens), now, least..=wait, promises);
        }
        Err(match pause {
            Some(Deferral::Held { reason, message, .. }) => Deferral::Held { wait, reason, message },
            _ => Deferral::Paced { wait },
        })
    }

    /// Nothing goes out under the identity until this moment.
    pub fn hold(&mut self, id: &ArmId, until: Moment, reason: Reason, message: &str) {
        let own = self.identities.entry(id.key().to_owned()).or_default();
        if own.hold.as_ref().is_none_or(|hold| hold.until < until) {
            own.hold = Some(Pause { until, reason, message: message.to_owned() });
        }
    }

    /// Azure answered a request of this kind that there were too many in this scope. Afterwards there is no burst: others
    /// use up the same limits.
    pub fn throttled(&mut self, id: &ArmId, kind: RequestKind, scope: Scope, until: Moment) {
        let Self { limits, identities, subscriptions, tenant, .. } = self;
        for kind in kind.alike() {
            let (bucket, rates) = match scope {
                Scope::Identity => {
                    let own = identities.entry(id.key().to_owned()).or_default();
                    (own.buckets.of_mut(*kind), &limits.identity)
                }
                Scope::Subscription => {
                    let shared = subscriptions.entry(id.subscription().to_lowercase()).or_default();
                    (shared.throttle(*kind, until), &limits.subscription)
                }
                Scope::Tenant => (tenant.throttle(*kind, until), &limits.tenant),
            };
            bucket.drain(*rates.of(*kind), until);
        }
    }

    /// Forgets identities of which there is nothing to remember.
    fn sweep(&mut self, now: Moment) {
        if self.identities.len() >= self.sweep_at {
            self.identities.retain(|_, own| !own.is_idle(now));
            self.sweep_at = SWEEP.max(self.identities.len() * 2);
        }
    }
}

impl Shared {
    fn throttle(&mut self, kind: RequestKind, until: Moment) -> &mut Bucket {
        let throttled = self.throttled_until.of_mut(kind);
        *throttled = (*throttled).max(until);
        self.buckets.of_mut(kind)
    }
}

/// The pause that is on, if one is; of several the one that ends last.
fn pause(
    id: &ArmId,
    kind: RequestKind,
    own: &Own,
    subscription: &Shared,
    tenant: &Shared,
    now: Moment,
) -> Option<Deferral> {
    let held = own.hold.as_ref().map(|hold| (hold.until, hold.reason, None));
    let throttled = [(subscription, Scope::Subscription), (tenant, Scope::Tenant)]
        .map(|(shared, scope)| Some((*shared.throttled_until.of(kind), Reason::Throttled, Some(scope))));
    let pauses = throttled.into_iter().chain([held]).flatten().filter(|(until, ..)| *until > now);
    let (until, reason, scope) = pauses.max_by_key(|(until, ..)| *until)?;
    let message = match scope {
        Some(scope) => scope.message(id),
        None => own.hold.as_ref().map(|hold| hold.message.clone()).unwrap_or_default(),
    };
    Some(Deferral::Held { wait: until.saturating_sub(now), reason, message })
}

/// Gives the last of these places in line, or leaves one that is as good where it is; answers how long until its turn.
///
/// Who waits longer for its subscription than for the tenant stands in the subscription's line alone: a token of the tenant
/// that is promised to it would be kept from those whose subscriptions have room. If the tenant has none when its turn comes
/// there, it stands in the tenant's line too, and keeps a place in the subscription's.
fn keep_place(
    own: &mut Own,
    mut shared: [&mut Shared; 2],
    [for_subscription, for_tenant]: [Duration; 2],
    (kind, tokens): (RequestKind, u32),
    now: Moment,
    waits: RangeInclusive<Duration>,
    promises: &mut u64,
) -> Duration {
    let before = own.promised.of_mut(kind);
    let stands = shared.each_ref().map(|shared| before.is_some_and(|place| shared.line.of(kind).contains_key(&place)));
    let lines =
        if for_subscription < for_tenant { [stands[0] || !for_subscription.is_zero(), true] } else { [true, false] };
    if let Some(place) = *before {
        let left = place.0.saturating_sub(now);
        let stands = lines.iter().zip(stands).all(|(needs, stands)| stands || !needs);
        if stands && !left.is_zero() && waits.contains(&left) {
            return left;
        }
        for shared in &mut shared {
            shared.leave(kind, place);
        }
    }
    *promises += 1;
    let wait = *waits.end();
    let place = (now + wait, *promises);
    for (shared, _) in shared.into_iter().zip(lines).filter(|(_, stands)| *stands) {
        shared.enter(kind, place, tokens);
    }
    *before = Some(place);
    wait
}

#[cfg(test)]
#[path = "rate_limiter_tests.rs"]
mod tests;
