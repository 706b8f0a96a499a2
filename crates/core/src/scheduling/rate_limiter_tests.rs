use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const NEAR: u32 = 1;
const FAR: u32 = 2;

fn id(subscription: u32, name: u32) -> ArmId {
    format!(
        "/subscriptions/00000000-0000-0000-0000-{subscription:012}/resourceGroups/rg/providers/Microsoft.ManagedIdentity/userAssignedIdentities/id-{name}"
    )
    .parse()
    .unwrap()
}

fn scheduler() -> RequestScheduler {
    RequestScheduler::new(RateLimits::PUBLISHED)
}

fn by_manager(scope: Scope) -> Throttle {
    Throttle { by: Throttler::ResourceManager, scope }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn paced(answer: Result<(), Deferral>) -> Duration {
    match answer {
        Err(Deferral::RateLimited { wait }) => wait,
        other => panic!("{other:?}"),
    }
}

fn held(answer: Result<(), Deferral>) -> (Duration, Reason, String) {
    match answer {
        Err(Deferral::Paused { wait, reason, message }) => (wait, reason, message),
        other => panic!("{other:?}"),
    }
}

/// Uses up the writes of a subscription, through as many identities as necessary.
fn drained(scheduler: &mut RequestScheduler, now: Moment) {
    for name in 0..10 {
        for _ in 0..20 {
            assert_eq!(scheduler.ask(&id(NEAR, 1000 + name), RequestKind::Write, 0, now), Ok(()));
        }
    }
}

#[test]
fn an_identity_has_its_burst_and_others_have_theirs() {
    let mut scheduler = scheduler();
    assert_eq!(scheduler.room(&id(NEAR, 1), RequestKind::Write, 100, seconds(0)), Ok(20));
    for _ in 0..20 {
        assert_eq!(scheduler.ask(&id(NEAR, 1), RequestKind::Write, 0, seconds(0)), Ok(()));
    }
    assert_eq!(paced(scheduler.ask(&id(NEAR, 1), RequestKind::Write, 0, seconds(0))).as_secs(), 4);
    assert_eq!(scheduler.ask(&id(NEAR, 2), RequestKind::Write, 0, seconds(0)), Ok(()));
    assert_eq!(scheduler.ask(&id(NEAR, 1), RequestKind::List, 0, seconds(0)), Ok(()), "lists have their own");
}

#[test]
fn an_exhausted_subscription_does_not_affect_others() {
    let mut scheduler = scheduler();
    drained(&mut scheduler, seconds(0));
    assert_eq!(paced(scheduler.ask(&id(NEAR, 1), RequestKind::Write, 0, seconds(0))).as_millis(), 500);
    assert_eq!(scheduler.ask(&id(FAR, 1), RequestKind::Write, 0, seconds(0)), Ok(()));
}

#[test]
fn the_tenants_limits_apply_across_subscriptions() {
    let mut scheduler = scheduler();
    for number in 0..1000 {
        assert_eq!(scheduler.ask(&id(number / 100, number), RequestKind::Write, 0, seconds(0)), Ok(()));
    }
    assert_eq!(paced(scheduler.ask(&id(99, 1), RequestKind::Write, 0, seconds(0))).as_millis(), 100);
}

#[test]
fn a_share_scales_the_limits_of_subscription_and_tenant_but_not_of_an_identity() {
    let mut scheduler = RequestScheduler::new(RateLimits::PUBLISHED.shared(0.05));
    assert_eq!(scheduler.room(&id(NEAR, 1), RequestKind::Write, 100, seconds(0)), Ok(10));
    assert_eq!(RateLimits::PUBLISHED.shared(0.05).identity, RateLimits::PUBLISHED.identity);
}

#[test]
fn a_pause_of_an_identity_stops_all_its_requests_and_no_others() {
    let mut scheduler = scheduler();
    scheduler.hold(&id(NEAR, 1), seconds(77), Reason::AzureUnavailable, "Azure has trouble");
    for kind in [RequestKind::Get, RequestKind::List, RequestKind::Write] {
        let answer = held(scheduler.ask(&id(NEAR, 1), kind, 0, seconds(70)));
        assert_eq!(answer, (seconds(7), Reason::AzureUnavailable, "Azure has trouble".to_owned()));
        assert_eq!(scheduler.ask(&id(NEAR, 2), kind, 0, seconds(70)), Ok(()));
    }
    scheduler.hold(&id(NEAR, 1), seconds(75), Reason::Throttled, "shorter");
    assert_eq!(
        held(scheduler.ask(&id(NEAR, 1), RequestKind::Get, 0, seconds(70))).0,
        seconds(7),
        "a shorter pause does not shorten a longer one"
    );
    assert_eq!(scheduler.ask(&id(NEAR, 1), RequestKind::List, 0, seconds(77)), Ok(()));
}

#[test]
fn throttled_reads_of_a_subscription_pause_gets_and_lists_of_all_its_identities() {
    let mut scheduler = scheduler();
    scheduler.throttled(&id(NEAR, 1), RequestKind::Get, by_manager(Scope::Subscription), seconds(600));
    for kind in [RequestKind::Get, RequestKind::List] {
        let (wait, reason, message) = held(scheduler.ask(&id(NEAR, 2), kind, 0, seconds(100)));
        assert_eq!((wait, reason), (seconds(500), Reason::Throttled));
        assert!(message.contains("subscription 00000000-0000-0000-0000-000000000001"), "{message}");
        assert_eq!(held(scheduler.ask(&id(NEAR, 2), kind, 0, seconds(200))).2, message, "the same text each time");
        assert_eq!(scheduler.ask(&id(FAR, 1), kind, 0, seconds(100)), Ok(()), "other subscriptions go on");
    }
    assert_eq!(scheduler.ask(&id(NEAR, 2), RequestKind::Write, 0, seconds(100)), Ok(()), "and so do writes");
}

#[test]
fn what_microsoft_authorization_throttles_pauses_requests_about_roles_and_no_others() {
    let mut scheduler = scheduler();
    let throttle = Throttle { by: Throttler::Authorization, scope: Scope::Subscription };
    scheduler.throttled(&id(NEAR, 1), RequestKind::RoleWrite, throttle, seconds(600));
    let (wait, _, message) = held(scheduler.ask(&id(NEAR, 2), RequestKind::RoleWrite, 0, seconds(100)));
    assert_eq!(wait, seconds(500));
    assert!(message.contains("requests about roles to subscription"), "{message}");
    for kind in [RequestKind::Get, RequestKind::List, RequestKind::Write, RequestKind::RoleRead] {
        assert_eq!(scheduler.ask(&id(NEAR, 1), kind, 0, seconds(100)), Ok(()), "{kind:?}");
    }
    assert_eq!(
        scheduler.ask(&id(FAR, 1), RequestKind::RoleWrite, 0, seconds(100)),
        Ok(()),
        "other subscriptions go on"
    );
}

#[test]
fn what_the_identity_provider_throttles_does_not_count_as_a_pause_of_roles() {
    let mut scheduler = scheduler();
    let throttle = |by| Throttle { by, scope: Scope::Subscription };
    scheduler.throttled(&id(NEAR, 1), RequestKind::Write, throttle(Throttler::ManagedIdentity), seconds(60));
    held(scheduler.ask(&id(NEAR, 2), RequestKind::Write, 0, seconds(0)));
    // The budget is one, so that it is used up for both.
    paced(scheduler.ask(&id(NEAR, 2), RequestKind::RoleWrite, 0, seconds(0)));
    scheduler.throttled(&id(FAR, 1), RequestKind::Write, throttle(Throttler::ResourceManager), seconds(60));
    held(scheduler.ask(&id(FAR, 2), RequestKind::RoleWrite, 0, seconds(0)));
}

#[test]
fn a_pause_of_the_tenant_stops_every_subscription() {
    let mut scheduler = scheduler();
    scheduler.throttled(&id(NEAR, 1), RequestKind::Write, by_manager(Scope::Tenant), seconds(60));
    assert_eq!(held(scheduler.ask(&id(FAR, 1), RequestKind::Write, 0, seconds(0))).0, seconds(60));
    assert_eq!(scheduler.ask(&id(FAR, 1), RequestKind::List, 0, seconds(0)), Ok(()));
}

#[test]
fn after_a_pause_there_is_no_burst_and_requests_are_spread_out() {
    let mut scheduler = scheduler();
    scheduler.throttled(&id(NEAR, 0), RequestKind::Write, by_manager(Scope::Subscription), seconds(60));
    let waits: Vec<Duration> =
        (0..5).map(|name| held(scheduler.ask(&id(NEAR, name), RequestKind::Write, 0, seconds(0))).0).collect();
    assert_eq!(waits[0], seconds(60));
    for pair in waits.windows(2) {
        assert_eq!(pair[1].saturating_sub(pair[0]).as_millis(), 500);
    }
}

#[test]
fn a_reservation_is_not_overtaken_by_later_requests() {
    let mut scheduler = scheduler();
    drained(&mut scheduler, seconds(0));
    let first = paced(scheduler.ask(&id(NEAR, 1), RequestKind::Write, 0, seconds(0)));
    let second = paced(scheduler.ask(&id(NEAR, 2), RequestKind::Write, 0, seconds(0)));
    assert_eq!(second.saturating_sub(first).as_millis(), 500);
    assert_eq!(
        paced(scheduler.ask(&id(NEAR, 1), RequestKind::Write, 0, seconds(0))),
        first,
        "a retry keeps the reservation"
    );
    paced(scheduler.ask(&id(NEAR, 3), RequestKind::Write, 0, first));
    assert_eq!(scheduler.ask(&id(NEAR, 1), RequestKind::Write, 0, first), Ok(()));
    assert_eq!(scheduler.ask(&id(NEAR, 2), RequestKind::Write, 0, second), Ok(()));
}

#[test]
fn many_waiting_identities_in_a_subscription_do_not_delay_another_subscription() {
    let mut scheduler = scheduler();
    drained(&mut scheduler, seconds(0));
    for name in 0..300 {
        assert!(scheduler.room(&id(NEAR, name), RequestKind::Write, 20, seconds(0)).is_err());
    }
    assert_eq!(scheduler.room(&id(FAR, 1), RequestKind::Write, 20, seconds(0)), Ok(20), "the tenant has 800 left");
}

#[test]
fn a_reservation_in_the_subscription_is_kept_while_waiting_for_the_tenant() {
    let mut scheduler = scheduler();
    drained(&mut scheduler, seconds(0));
    let turn = paced(scheduler.ask(&id(NEAR, 1), RequestKind::Write, 0, seconds(0)));
    for name in 2..40 {
        paced(scheduler.ask(&id(NEAR, name), RequestKind::Write, 0, seconds(0)));
    }
    // They use up the tenant's tokens.
    let mut others = (0..50).flat_map(|number| [(); 20].map(|()| id(FAR + number / 10, number)));
    assert!(others.any(|id| scheduler.ask(&id, RequestKind::Write, 0, turn).is_err()));
    let wait = paced(scheduler.ask(&id(NEAR, 1), RequestKind::Write, 0, turn));
    assert!(wait < seconds(1), "the tenant's next token but one: {wait:?}");
    assert_eq!(scheduler.ask(&id(NEAR, 1), RequestKind::Write, 0, turn + wait), Ok(()));
}

#[test]
fn a_reservation_can_be_for_several_requests() {
    let mut scheduler = scheduler();
    drained(&mut scheduler, seconds(0));
    let Err(first) = scheduler.room(&id(NEAR, 1), RequestKind::Write, 20, seconds(0)) else { panic!("there is none") };
    assert_eq!(first.wait().as_millis(), 2500, "five tokens");
    let Err(second) = scheduler.room(&id(NEAR, 2), RequestKind::Write, 2, seconds(0)) else { panic!("there is none") };
    assert_eq!(second.wait().as_millis(), 3500, "two after them");
    assert_eq!(scheduler.room(&id(NEAR, 1), RequestKind::Write, 20, first.wait()), Ok(5));
    for _ in 0..5 {
        assert_eq!(scheduler.ask(&id(NEAR, 1), RequestKind::Write, 0, first.wait()), Ok(()));
    }
    assert!(scheduler.room(&id(NEAR, 1), RequestKind::Write, 20, first.wait()).is_err());
    assert_eq!(scheduler.room(&id(NEAR, 2), RequestKind::Write, 2, second.wait()), Ok(2));
}

#[test]
fn an_unused_reservation_expires() {
    let mut scheduler = scheduler();
    drained(&mut scheduler, seconds(0));
    for name in 0..5 {
        paced(scheduler.ask(&id(NEAR, name), RequestKind::Write, 0, seconds(0)));
    }
    let later = seconds(3) + RESERVATION_LIFETIME;
    assert_eq!(scheduler.room(&id(NEAR, 9), RequestKind::Write, 100, later), Ok(20));
}

/// A list of this many pages, or the deferral that interrupted it.
fn list(scheduler: &mut RequestScheduler, pages: u32, now: Moment) -> Result<(), Deferral> {
    (0..pages).try_for_each(|page| scheduler.ask(&id(NEAR, 1), RequestKind::List, page, now))
}

#[test]
fn a_list_of_several_pages_is_completed_however_few_tokens_are_left() {
    let mut scheduler = scheduler();
    for _ in 0..6 {
        assert_eq!(list(&mut scheduler, 3, seconds(0)), Ok(()));
    }
    // Two tokens are left, and it is known to need three.
    let mut now = seconds(0);
    for round in 0..10 {
        let wait = paced(list(&mut scheduler, 3, now));
        assert!(round == 0 || wait.as_secs() == 12, "{wait:?}");
        now += wait;
        assert_eq!(list(&mut scheduler, 3, now), Ok(()));
    }
}

#[test]
fn a_list_takes_as_many_tokens_as_it_had_pages_the_last_time() {
    let mut scheduler = scheduler();
    assert_eq!(list(&mut scheduler, 10, seconds(0)), Ok(()));
    assert_eq!(scheduler.room(&id(NEAR, 1), RequestKind::List, 100, seconds(0)), Ok(10));
    assert_eq!(list(&mut scheduler, 1, seconds(1000)), Ok(()));
    assert_eq!(list(&mut scheduler, 1, seconds(1000)), Ok(()));
    assert_eq!(scheduler.room(&id(NEAR, 1), RequestKind::List, 100, seconds(1000)), Ok(9));
}

#[test]
fn a_pause_ends_a_list_in_the_middle() {
    let mut scheduler = scheduler();
    assert_eq!(list(&mut scheduler, 3, seconds(0)), Ok(()));
    assert_eq!(scheduler.ask(&id(NEAR, 1), RequestKind::List, 0, seconds(1)), Ok(()));
    scheduler.throttled(&id(NEAR, 2), RequestKind::Get, by_manager(Scope::Subscription), seconds(60));
    held(scheduler.ask(&id(NEAR, 1), RequestKind::List, 1, seconds(1)));
}

#[test]
fn idle_identities_are_removed() {
    let mut scheduler = scheduler();
    for number in 0..20_000 {
        // The subscription allows ten reads a second.
        let now = Duration::from_millis(100 * u64::from(number));
        assert_eq!(scheduler.ask(&id(NEAR, number), RequestKind::Get, 0, now + seconds(1)), Ok(()));
    }
    assert!(scheduler.identities.len() <= 2 * SWEEP, "{}", scheduler.identities.len());
}

/// Many identities that write often, each of which retries exactly when it should.
#[test]
fn many_writers_proceed_fairly_at_the_limit_without_a_stampede() {
    const CROWD: u32 = 300;
    const EACH: u32 = 3;
    let mut scheduler = scheduler();
    let mut coming: BTreeSet<(Moment, u32)> = (0..CROWD).map(|name| (Duration::ZERO, name)).collect();
    let (mut wrote, mut asked, mut end) = (BTreeMap::<u32, u32>::new(), 0_u32, Duration::ZERO);
    while let Some((now, name)) = coming.pop_first() {
        asked += 1;
        match scheduler.ask(&id(NEAR, name), RequestKind::Write, 0, now) {
            Ok(()) => {
                let written = wrote.entry(name).or_default();
                *written += 1;
                end = now;
                if *written < EACH {
                    coming.insert((now, name));
                }
                let least = if wrote.len() < 300 { 0 } else { *wrote.values().min().unwrap() };
                assert!(*wrote.values().max().unwrap() <= least + EACH, "none is far ahead");
            }
            Err(deferral) => {
                coming.insert((now + deferral.wait(), name));
            }
        }
    }
    let limit = f64::from(CROWD * EACH - 200) / 2.0;
    assert!(end.as_secs_f64() <= limit * 1.05, "{end:?} for what the limit allows in {limit} s");
    assert!(asked <= 2 * CROWD * EACH, "{asked} questions for {} writes", CROWD * EACH);
}

/// Many writers in several subscriptions, limited by the subscriptions and by the tenant alike.
#[test]
fn many_writers_in_several_subscriptions_proceed_at_the_limit() {
    const SUBSCRIPTIONS: u32 = 5;
    const IDENTITIES: u32 = 100;
    const EACH: u32 = 20;
    let mut scheduler = scheduler();
    let mut left: BTreeMap<(u32, u32), u32> =
        (0..SUBSCRIPTIONS).flat_map(|number| (0..IDENTITIES).map(move |name| ((number, name), EACH))).collect();
    let mut coming: BTreeSet<(Moment, (u32, u32))> = left.keys().map(|key| (Duration::ZERO, *key)).collect();
    let (mut turns, mut end) = (0_u32, Duration::ZERO);
    while let Some((now, key)) = coming.pop_first() {
        turns += 1;
        let wanted = left.get_mut(&key).unwrap();
        let id = id(key.0, key.1);
        let answer = scheduler.room(&id, RequestKind::Write, *wanted, now).and_then(|room| {
            (0..room).try_for_each(|_| {
                scheduler.ask(&id, RequestKind::Write, 0, now)?;
                (*wanted, end) = (*wanted - 1, now);
                Ok(())
            })
        });
        if *wanted > 0 {
            coming.insert((now + answer.err().map_or(Duration::ZERO, |deferral| deferral.wait()), key));
        }
    }
    let limit = f64::from(IDENTITIES * EACH - 200) / 2.0;
    assert!(end.as_secs_f64() <= limit * 1.05, "{end:?} for what the limits allow in {limit} s");
    // Each turn costs a list and is for five writes, as many as a reservation has.
    let fewest = SUBSCRIPTIONS * IDENTITIES * EACH / BATCH;
    assert!(turns <= 3 * fewest, "{turns} turns, where {fewest} are the fewest");
}

fn most_in_a_window(sent: &[Moment], rate: Rate, burst: u32) -> Result<(), TestCaseError> {
    for (first, begin) in sent.iter().enumerate() {
        for (count, end) in sent[first..].iter().enumerate() {
            let earned = end.saturating_sub(*begin).as_secs_f64() / rate.interval().as_secs_f64();
            prop_assert!(f64::from(u32::try_from(count + 1).unwrap()) <= f64::from(burst) + earned + 1e-6);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_limits_hold_in_every_scope_for_any_sequence_of_requests(
        steps in proptest::collection::vec((0_u64..400, 0_u32..3, 0_u32..12), 1..400),
    ) {
        let rate = |burst, per_second| PerKind {
            get: Rate::known(burst, per_second),
            list: Rate::known(burst, per_second),
            write: Rate::known(burst, per_second),
        };
        let limits = RateLimits { identity: rate(3, 1.0), subscription: rate(8, 3.0), tenant: rate(12, 5.0) };
        let (mut scheduler, mut now) = (RequestScheduler::new(limits), Duration::ZERO);
        let mut sent: BTreeMap<String, Vec<Moment>> = BTreeMap::new();
        for (pause, subscription, name) in steps {
            now += Duration::from_millis(pause);
            let id = id(subscription, name);
            if scheduler.ask(&id, RequestKind::Write, 0, now).is_ok() {
                for scope in [id.key(), id.subscription(), "tenant"] {
                    sent.entry(scope.to_owned()).or_default().push(now);
                }
            }
        }
        for (scope, sent) in sent {
            let (rates, burst) = match scope.as_str() {
                "tenant" => (limits.tenant, 12),
                scope if scope.starts_with('/') => (limits.identity, 3),
                _ => (limits.subscription, 8),
            };
            most_in_a_window(&sent, rates.write, burst)?;
        }
    }
}

#[test]
fn requests_that_are_only_useful_together_wait_together() {
    let mut scheduler = scheduler();
    let own = id(NEAR, 1);
    let per_token = seconds(2);
    while scheduler.ask(&own, RequestKind::Get, 0, seconds(0)).is_ok() {}
    let mut now = seconds(0);
    // Each time one request is sent first, followed by three.
    for _ in 0..3 {
        let wait = paced(scheduler.all(&own, RequestKind::Get, 3, now));
        assert_eq!(wait.as_millis(), (per_token * 4).as_millis(), "three, and the one before them");
        now += wait;
        assert_eq!(scheduler.ask(&own, RequestKind::Get, 0, now), Ok(()));
        assert_eq!(scheduler.all(&own, RequestKind::Get, 3, now), Ok(()));
        for _ in 0..3 {
            assert_eq!(scheduler.ask(&own, RequestKind::Get, 0, now), Ok(()));
        }
        assert!(scheduler.ask(&own, RequestKind::Get, 0, now).is_err());
    }
}

#[test]
fn a_request_for_more_than_the_burst_does_not_wait_for_more_than_the_burst() {
    let mut scheduler = scheduler();
    assert_eq!(scheduler.ask(&id(NEAR, 1), RequestKind::Get, 0, seconds(0)), Ok(()));
    assert_eq!(scheduler.all(&id(NEAR, 1), RequestKind::Get, 100, seconds(0)), Ok(()));
}
