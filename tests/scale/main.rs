//! A thousand bindings, and the real controller killed repeatedly while it reconciles them.
//!
//! The controller is the real binary, with its own service account and the RBAC rules of dev/manifests, on a
//! control plane and an emulator of this program.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail like tests")]
#![allow(clippy::print_stdout, reason = "figures, shown with --nocapture")]

mod fleet;

use std::collections::BTreeMap;

use ensign_core::scheduling::backoff::Spread;
use ensign_runtime::clock::SystemClock;
use fleet::{BINDINGS, Fleet, IDENTITIES, Pace};
use k8s_openapi::jiff::SignedDuration;

/// How often the controller is killed, unless `ENSIGN_TEST_KILLS` is set. Each kill costs the rest of a lease.
const KILLS: usize = 5;
/// The longest that a controller lives before it is killed, in writes.
const MOST_WRITES: u32 = 20;
/// The shortest that the controller accepts.
const RESYNC_SECONDS: u64 = 10;
/// Long enough for a machine that is busy with everything else.
const STEADY_LEASE_SECONDS: u64 = 30;
/// The shortest that the controller accepts: after each kill it has to expire.
const SHORT_LEASE_SECONDS: u64 = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_bindings_converge_stay_in_sync_are_deleted_and_survive_kills() {
    let fleet = Fleet::create().await;

    fleet.azure.limit_requests(Some(SystemClock::shared()));
    fleet.bind().await;
    let controller = fleet.controller(RESYNC_SECONDS, STEADY_LEASE_SECONDS, Pace::Published);
    fleet.wait_all_ready().await;
    assert_eq!(fleet.trusted(), fleet.expected());
    let writes = fleet.azure_writes();
    println!("{} writes and {} LISTs for {BINDINGS} bindings", writes.len(), fleet.azure_lists().len());
    assert_eq!(writes.len(), BINDINGS, "one PUT per binding");
    assert!(writes.iter().all(|write| matches!(write.status, Some(200 | 201))), "Ensign causes no 409 and no 429");

    rests(&fleet).await;
    controller.stop();
    let refused = fleet.refused_for_limits();
    assert!(refused.is_empty(), "Ensign causes no 429: {refused:#?}");

    // The rate limits would make the next step too slow: 200 writes in each subscription are used up, and
    // the others would be sent at two per second.
    fleet.azure.limit_requests(None);
    let controller = fleet.controller(RESYNC_SECONDS, STEADY_LEASE_SECONDS, Pace::Unbounded);
    fleet.unbind().await;
    assert!(fleet.trusted().is_empty(), "no credential outlives its binding");
    controller.stop();

    fleet.azure.clear_log();
    fleet.bind().await;
    killed_again_and_again(&fleet).await;
}

/// Every identity is checked once in an interval, and nothing is written anywhere.
async fn rests(fleet: &Fleet) {
    fleet.wait_for_rest().await;
    // What was still queued when the last status was written is done after an interval.
    fleet.wait_for_lists_of_every_identity(fleet.log_position());
    let (seen, written, audited) = (fleet.log_position(), fleet.azure_writes().len(), fleet.kubernetes_writes());
    let lists = fleet.wait_for_lists_of_every_identity(seen);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for identity in &lists {
        *counts.entry(identity).or_default() += 1;
    }
    // One LIST per identity and interval. On a busy machine a check may be late and the next one on time.
    for identity in counts.keys() {
        let times: Vec<_> = fleet
            .azure_lists()
            .iter()
            .filter(|list| list.seq > seen && list.path.contains(&format!("/{identity}/")))
            .map(|list| list.time)
            .collect();
        let least = SignedDuration::from_secs(RESYNC_SECONDS.cast_signed() / 2);
        assert!(times.windows(2).all(|pair| pair[1].duration_since(pair[0]) >= least), "{identity}: {times:?}");
    }
    println!("one interval in sync: {} LISTs of {} identities", lists.len(), counts.len());
    assert_eq!(counts.len(), IDENTITIES);
    // Intervals are jittered, so the first identity may be checked a second time before the last one.
    assert!(counts.values().all(|count| *count <= 2), "one LIST per identity and interval: {counts:?}");
    assert_eq!(fleet.azure_writes().len(), written, "no write to Azure");
    assert_eq!(fleet.kubernetes_writes(), audited, "no write to Kubernetes");
}

async fn killed_again_and_again(fleet: &Fleet) {
    let kills = std::env::var("ENSIGN_TEST_KILLS").map_or(KILLS, |kills| kills.parse().expect("a number"));
    // Printed so that a failure can be reproduced with the same kills.
    let seed = std::env::var("ENSIGN_TEST_SEED").map_or_else(|_| new_seed(), |seed| seed.parse().expect("a number"));
    println!("ENSIGN_TEST_SEED={seed}");
    let moments = Spread::seeded(seed);
    for kill in 0..kills {
        let controller = fleet.controller(RESYNC_SECONDS, SHORT_LEASE_SECONDS, Pace::Unbounded);
        // Random moments, counted in writes: some right after the start, some in the middle of the work.
        let share = moments.share("kill", kill.try_into().expect("a small number"));
        let writes = (0..MOST_WRITES).take_while(|least| share > f64::from(*least + 1) / f64::from(MOST_WRITES + 1));
        fleet.wait_for_more_writes(writes.count()).await;
        controller.kill();
    }
    println!("{kills} kills; {} writes meanwhile", fleet.azure_writes().len());
    let controller = fleet.controller(RESYNC_SECONDS, SHORT_LEASE_SECONDS, Pace::Unbounded);
    fleet.wait_all_ready().await;
    assert_eq!(fleet.trusted(), fleet.expected(), "the end state is the desired one");
    let writes = fleet.azure_writes();
    let puts = writes.iter().filter(|write| matches!(write.status, Some(200 | 201))).count();
    println!("{puts} PUTs for {BINDINGS} bindings and {kills} kills");
    assert!(writes.iter().all(|write| write.method == "PUT"), "nothing was deleted");
    // A write without a response is found in the next LIST, unless it was still in flight then.
    assert!((BINDINGS..=BINDINGS + kills).contains(&puts), "{puts}");
    controller.stop();
}

fn new_seed() -> u64 {
    SystemClock::shared().now().as_millisecond().unsigned_abs()
}
