//! The same work under Azure's published limits, on a simulated clock: the whole controller in this process, on the real API
//! server, and a stand-in for Azure that judges each request by limits of its own, on the same clock.
//!
//! The clock stands while anybody works. What has passed at the end is what waiting has cost, and its floor is what the
//! limits themselves cost: the time in which their buckets give as many tokens as there are requests.

use std::sync::Arc;
use std::time::{Duration, Instant};

use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use azure_core::time::OffsetDateTime;
use ensign_azure::ArmClient;
use ensign_controller;
use ensign_controller::{Config, ControllerMetrics, Failpoints};
use ensign_core::acceptance::scopes::AllowedScopes;
use ensign_core::assess::Settings;
use ensign_core::credentials::names::cluster_tag;
use ensign_core::credentials::ownership::Cluster;
use ensign_core::scheduling::backoff::Spread;
use ensign_core::scheduling::rate_limiter::RateLimits;
use ensign_runtime::clock::SharedClock;
use ensign_runtime::health::Readiness;
use kube::client::ClientBuilder;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::fleet::{Fleet, arm_counts, arm_log, log_position};
use crate::scene::{Scene, seconds};
use crate::simulated_clock::{SimulatedClock, UnderWay};

/// For so long nothing may have happened before the clock goes on.
const STILL: Duration = Duration::from_millis(40);
/// What the cluster does in that time where it does nothing, with what the kernel's counting may add: where it does more, it
/// may be that it has yet to tell of a change.
const IDLE_SECONDS: f64 = 0.011;
const PATIENCE: Duration = Duration::from_secs(1800);
const CONCURRENCY: usize = 8;

pub async fn measure(scene: &mut Scene) -> Value {
    let fleet = scene.fleet(scene.largest());
    fleet.prepare(&scene.azure).await;
    fleet.bind().await;
    scene.say(&format!("{} bindings made", fleet.bindings));
    let clock = SimulatedClock::new();
    scene.azure.limit_requests(Some(clock.clone()));
    let (seen, begun) = (log_position(&scene.azure), Instant::now());
    let (stop, under_way) = (CancellationToken::new(), UnderWay::default());
    let config = config(scene, clock.clone(), &under_way).await;
    let running = tokio::spawn(ensign_controller::run(config, stop.clone()));
    let mut said = Instant::now();
    while fleet.trusted(&scene.azure) < fleet.bindings {
        assert!(begun.elapsed() < PATIENCE && !running.is_finished(), "every credential is written");
        stillness(scene, &clock, &under_way).await;
        if fleet.trusted(&scene.azure) < fleet.bindings {
            clock.go_on();
        }
        if said.elapsed() > Duration::from_secs(10) {
            scene.say(&format!("{} written after {:.0} s", fleet.trusted(&scene.azure), clock.passed().as_secs_f64()));
            said = Instant::now();
        }
    }
    let passed = clock.passed();
    stop.cancel();
    running.await.expect("the controller ran").expect("the controller stopped");
    scene.azure.limit_requests(None);
    scene.standing = Some(fleet.clone());
    let floor = floor(&fleet);
    for entry in arm_log(&scene.azure, seen).iter().filter(|entry| entry.status.is_some_and(|status| status >= 400)) {
        scene.say(&format!("{} {}: {:?} {:?}", entry.method, entry.path, entry.status, entry.error_code));
    }
    scene.say(&format!("{:.1} s where the limits cost {:.1} s", passed.as_secs_f64(), floor.as_secs_f64()));
    json!({
        "bindings": fleet.bindings, "identities": fleet.identities(), "subscriptions": fleet.subscriptions(),
        "seconds": seconds(passed), "floor_seconds": seconds(floor), "arm": arm_counts(&scene.azure, seen),
        "real_seconds": seconds(begun.elapsed()),
    })
}

/// Waits until nothing has been asked or waited for anew for a moment, every request has its answer, and the cluster has
/// nothing left to do.
async fn stillness(scene: &Scene, clock: &SimulatedClock, under_way: &UnderWay) {
    let look = || (scene.azure.requests(), under_way.counts(), clock.sleeps());
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
        let work = scene.cluster_cpu_seconds();
        if worked.is_some_and(|before| work - before < IDLE_SECONDS) {
            return;
        }
        (since, worked) = (Instant::now(), Some(work));
    }
}

/// What the published limits cost at least, however the work is done: one PUT for each binding, one LIST for each identity,
/// and one GET, each by the bucket that takes longest.
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

async fn config(scene: &Scene, clock: SharedClock, under_way: &UnderWay) -> Config {
    let kube = ClientBuilder::try_from(scene.control_plane.config().await).expect("a client");
    let client = kube.with_layer(under_way).build();
    let info = scene.azure.info();
    let (cloud, connection) = (info.cloud().resolve().expect("a cloud"), info.connection());
    let (id, issuer) = ensign_controller::discover(&client, None, None).await.expect("learn the cluster");
    let token = Arc::new(FixedToken(scene.azure.arm_token().expect("a token")));
    Config {
        arm: ArmClient::new(&cloud, &connection, token, &cluster_tag(&id)).expect("a client of ARM"),
        client,
        settings: Settings {
            cluster: Cluster { id, previous_id: None, issuer, audience: cloud.token_audience },
            issuer_refusal: None,
            tenant_id: Some(info.tenant_id.clone()),
            own_client_id: None,
            allowed_scopes: AllowedScopes::default(),
            roles: None,
            settle: Duration::ZERO,
        },
        resync: Duration::from_secs(900),
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

/// A credential that always has the same token.
#[derive(Debug)]
struct FixedToken(String);

#[async_trait::async_trait]
impl TokenCredential for FixedToken {
    async fn get_token(
        &self,
        _scopes: &[&str],
        _options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        let expires_on = OffsetDateTime::now_utc() + azure_core::time::Duration::hours(12);
        Ok(AccessToken::new(self.0.clone(), expires_on))
    }
}
