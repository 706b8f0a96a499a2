//! A thousand bindings, and the real controller killed again and again while it serves them.
//!
//! The controller is the real binary, running as its own service account with exactly the rights of dev/manifests, on a
//! control plane and an Azure of this binary's own.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail like tests")]
#![allow(clippy::print_stdout, reason = "figures, for who asks with --nocapture")]

mod fleet;

use std::collections::BTreeMap;

use ensign_core::scheduling::backoff::Spread;
use ensign_runtime::clock::SystemClock;
use fleet::{BINDINGS, Fleet, IDENTITIES, Pace};
use k8s_openapi::jiff::SignedDuration;

/// How often the controller is killed, unless `ENSIGN_TEST_KILLS` says otherwise. Each kill costs the end of a lease.
const KILLS: usize = 5;
/// The longest that a controller lives before it is killed, in writes.
const MOST_WRITES: u32 = 20;
/// The shortest that the controller takes.
const RESYNC_SECONDS: u64 = 10;
/// Long enough for a machine that is busy with everything else.
const STEADY_LEASE_SECONDS: u64 = 30;
/// The shortest that the controller takes: each kill is followed by its end.
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
    assert_eq!(writes.len(), BINDINGS, "one PUT for each");
    assert!(writes.iter().all(|write| matches!(write.status, Some(200 | 201))), "no 409 and no 429 of our own making");

    rests(&fleet).await;
    controller.stop();
    let refused = fleet.refused_for_limits();
    assert!(refused.is_empty(), "no 429 of our own making: {refused:#?}");

    // What comes now is more than the limits let through in reasonable time: 200 writes in each subscription are done, and
    // the others would come with two a second.
    fleet.azure.limit_requests(None);
    let controller = fleet.controller(RESYNC_SECONDS, STEADY_LEASE_SECONDS, Pace::Unbounded);
    fleet.unbind().await;
    assert!(fleet.trusted().is_empty(), "no credential outlives its binding");
    controller.stop();

    fleet.azure.clear_log();
    fleet.bind().await;
    killed_again_and_again(&fleet).await;
}

/// Every identity is looked at once in a period, and nothing is written anywhere.
async fn rests(fleet: &Fleet) {
    fleet.wait_for_rest().await;
    // What still waited for its turn when the last status was written has had it after a period.
    fleet.wait_for_lists_of_every_identity(fleet.log_position());
    let (seen, written, audited) = (fleet.log_position(), fleet.azure_writes().len(), fleet.kubernetes_writes());
    let lists = fleet.wait_for_lists_of_every_identity(seen);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for identity in &lists {
        *counts.entry(identity).or_default() += 1;
    }
    // One LIST of each identity in a round, and no more. On a busy machine a look may come late, and the next one is in time.
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
    println!("a period at rest: {} LISTs of {} identities", lists.len(), counts.len());
    assert_eq!(counts.len(), IDENTITIES);
    // Periods are jittered, so that the first identity may come a second time before the last.
    assert!(counts.values().all(|count| *count <= 2), "one LIST for each identity in a period: {counts:?}");
    assert_eq!(fleet.azure_writes().len(), written, "no write to Azure");
    assert_eq!(fleet.kubernetes_writes(), audited, "no write to Kubernetes");
}

async fn killed_again_and_again(fleet: &Fleet) {
    let kills = std::env::var("ENSIGN_TEST_KILLS").map_or(KILLS, |kills| kills.parse().expect("a number"));
    // A failure says it; the same kills can be had again with it.
    let seed = std::env::var("ENSIGN_TEST_SEED").map_or_else(|_| new_seed(), |seed| seed.parse().expect("a number"));
    println!("ENSIGN_TEST_SEED={seed}");
    let moments = Spread::seeded(seed);
    for kill in 0..kills {
        let controller = fleet.controller(RESYNC_SECONDS, SHORT_LEASE_SECONDS, Pace::Unbounded);
        // Moments at random, counted in writes: some right after the start, some in the middle of the work.
        let share = moments.share("kill", kill.try_into().expect("a small number"));
        let writes = (0..MOST_WRITES).take_while(|least| share > f64::from(*least + 1) / f64::from(MOST_WRITES + 1));
        fleet.wait_for_more_writes(writes.count()).await;
        controller.kill();
    }
    println!("{kills} kills; {} writes meanwhile", fleet.azure_writes().len());
    let controller = fleet.controller(RESYNC_SECONDS, SHORT_LEASE_SECONDS, Pace::Unbounded);
    fleet.wait_all_ready().await;
    assert_eq!(fleet.trusted(), fleet.expected(), "the end state is the one that was asked for");
    let writes = fleet.azure_writes();
    let puts = writes.iter().filter(|write| matches!(write.status, Some(200 | 201))).count();
    println!("{puts} PUTs for {BINDINGS} bindings and {kills} kills");
    assert!(writes.iter().all(|write| write.method == "PUT"), "nothing was ever deleted");
    // What a kill left unanswered is found in the next LIST, unless it was still under way then.
    assert!((BINDINGS..=BINDINGS + kills).contains(&puts), "{puts}");
    controller.stop();
}

fn new_seed() -> u64 {
    SystemClock::shared().now().as_millisecond().unsigned_abs()
}
