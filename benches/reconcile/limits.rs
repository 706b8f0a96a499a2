//! The same work under Azure's published rate limits, on a simulated clock: the whole controller in this process, on the real API
//! server, and an emulator that enforces its own rate limits, on the same clock.
//!
//! The clock stops while any work is in progress. The time that has passed at the end is the cost of waiting. Its minimum is the cost
//! of the rate limits themselves: the time in which their token buckets supply as many tokens as there are requests.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ensign_azure::ArmClient;
use ensign_controller::{Config, ControllerMetrics, Failpoints};
use ensign_core::acceptance::scopes::AllowedScopes;
use ensign_core::assess::Settings;
use ensign_core::credentials::names::cluster_tag;
use ensign_core::credentials::ownership::Cluster;
use ensign_core::own_writes::READ_LAG;
use ensign_core::scheduling::backoff::Spread;
use ensign_core::scheduling::rate_limiter::RateLimits;
use ensign_runtime::clock::SharedClock;
use ensign_runtime::health::Readiness;
use kube::client::ClientBuilder;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::fixture::{Fixture, seconds};
use crate::fleet::{Fleet, arm_counts, arm_log, log_position};
use crate::pending_requests::PendingRequests;
use ensign_testkit::azure::FixedToken;
use ensign_testkit::clock::FakeClock;

/// Deadlines within one step are reached at its end: each step takes real time, and ten thousand would take long.
/// A wait, and a whole run, can be too long by this much.
const STEP: Duration = Duration::from_millis(500);
/// How long nothing must have happened before the clock advances.
const STILL: Duration = Duration::from_millis(40);
/// The processor time of an idle cluster in that time, including the granularity of the kernel's counter: if it uses more,
/// it may have yet to deliver a change.
const IDLE_SECONDS: f64 = 0.011;
const TIMEOUT: Duration = Duration::from_secs(1800);
const CONCURRENCY: usize = 8;

pub async fn measure(fixture: &mut Fixture) -> Value {
    let fleet = fixture.fleet(fixture.largest());
    fleet.prepare(&fixture.azure).await;
    fleet.bind().await;
    fixture.progress(&format!("{} bindings created", fleet.bindings));
    let clock = FakeClock::new();
    fixture.azure.limit_requests(Some(clock.clone()));
    let (seen, begun) = (log_position(&fixture.azure), Instant::now());
    let (stop, pending) = (CancellationToken::new(), PendingRequests::default());
    let config = config(fixture, clock.clone(), &pending).await;
    let running = tokio::spawn(ensign_controller::run(config, stop.clone()));
    let mut reported = Instant::now();
    while fleet.trusted(&fixture.azure) < fleet.bindings {
        assert!(begun.elapsed() < TIMEOUT && !running.is_finished(), "not every credential is written");
        stillness(fixture, &clock, &pending).await;
        if fleet.trusted(&fixture.azure) < fleet.bindings {
            advance_to_next_deadline(&clock);
        }
        if reported.elapsed() > Duration::from_secs(10) {
            fixture.progress(&format!(
                "{} written after {:.0} s",
                fleet.trusted(&fixture.azure),
                clock.passed().as_secs_f64()
            ));
            reported = Instant::now();
        }
    }
    let passed = clock.passed();
    stop.cancel();
    running.await.expect("run the controller").expect("join the controller");
    fixture.azure.limit_requests(None);
    fixture.ready_fleet = Some(fleet.clone());
    let floor = floor(&fleet);
    for entry in arm_log(&fixture.azure, seen).iter().filter(|entry| entry.status.is_some_and(|status| status >= 400)) {
        fixture.progress(&format!("{} {}: {:?} {:?}", entry.method, entry.path, entry.status, entry.error_code));
    }
    fixture.progress(&format!(
        "{:.1} s, of which the rate limits cost {:.1} s",
        passed.as_secs_f64(),
        floor.as_secs_f64()
    ));
    json!({
        "bindings": fleet.bindings, "identities": fleet.identities(), "subscriptions": fleet.subscriptions(),
        "seconds": seconds(passed), "floor_seconds": seconds(floor), "arm": arm_counts(&fixture.azure, seen),
        "real_seconds": seconds(begun.elapsed()),
    })
}

/// Waits until there is no new request or wait for a moment, every request has its response, and the cluster has
/// nothing left to do.
async fn stillness(fixture: &Fixture, clock: &FakeClock, pending: &PendingRequests) {
    let look = || (fixture.azure.requests(), pending.counts(), clock.sleeps());
    let (mut last, mut since, mut worked) = (look(), Instant::now(), None);
    loop {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let now = look();
        let ((arrived, over), (waiting, _), _) = now;
        if now != last || arrived != over || waiting > 0 {
            (last, worked) = (now, None);
            continue;
        }
        if worked.is_some() && since.elapsed() < STILL {
            continue;
        }
        let work = fixture.cluster_cpu_seconds();
        if worked.is_some_and(|before| work - before < IDLE_SECONDS) {
            return;
        }
        (since, worked) = (Instant::now(), Some(work));
    }
}

/// Advances to the next deadline that is waited for, rounded up to the end of its step.
fn advance_to_next_deadline(clock: &FakeClock) {
    let Some(wake) = clock.next_wake().filter(|wake| !wake.is_zero()) else { return };
    let steps = (clock.passed() + wake).as_nanos().div_ceil(STEP.as_nanos());
    let target = STEP * u32::try_from(steps).unwrap_or(u32::MAX);
    clock.advance(target.saturating_sub(clock.passed()));
}

/// The minimal cost of the published rate limits: one PUT per binding, one LIST per identity,
/// and one GET, each by its slowest token bucket.
fn floor(fleet: &Fleet) -> Duration {
    // Burst and rate of writes, lists and reads: of a subscription, and of the tenant.
    let buckets = [[(200.0, 2.0), (150.0, 5.0), (100.0, 10.0)], [(1000.0, 10.0), (450.0, 15.0), (300.0, 30.0)]];
    let needs = |share: f64| {
        let identities = (fleet.identities() as f64 / share).ceil();
        [(fleet.bindings as f64 / share).ceil(), identities, identities]
    };
    let shares = [fleet.subscriptions() as f64, 1.0];
    let times = buckets.iter().zip(shares).flat_map(|(buckets, share)| {
        buckets.iter().zip(needs(share)).map(|((burst, rate), need)| (need - burst).max(0.0) / rate)
    });
    Duration::from_secs_f64(times.fold(0.0, f64::max))
}

async fn config(fixture: &Fixture, clock: SharedClock, pending: &PendingRequests) -> Config {
    let kube = ClientBuilder::try_from(fixture.control_plane.config().await).expect("a client");
    let client = kube.with_layer(pending).build();
    let info = fixture.azure.info();
    let (cloud, connection) = (info.cloud().resolve().expect("a cloud"), info.connection());
    let (id, issuer) = ensign_controller::discover(&client, None, None).await.expect("discover the cluster");
    let token = Arc::new(FixedToken(fixture.azure.arm_token().expect("a token")));
    Config {
        arm: ArmClient::new(&cloud, &connection, token, &cluster_tag(&id)).expect("create an ARM client"),
        client,
        settings: Settings {
            cluster: Cluster { id, previous_id: None, issuer, audience: cloud.token_audience },
            issuer_refusal: None,
            tenant_id: Some(info.tenant_id.clone()),
            own_client_id: None,
            allowed_scopes: AllowedScopes::default(),
            roles: None,
            propagation_delay: Duration::ZERO,
        },
        resync: Duration::from_secs(900),
        azure_read_lag: READ_LAG,
        azure_limits: RateLimits::PUBLISHED,
        spread: Spread::seeded(uuid::Uuid::new_v4().as_u64_pair().0),
        concurrency: CONCURRENCY,
        webhook: None,
        injection: None,
        clock,
        instance: None,
        readiness: Readiness::default(),
        leadership: None,
        issuer_watch: None,
        failpoints: Failpoints::default(),
        pods: None,
        metrics: ControllerMetrics::default(),
    }
}
