//! A fleet in steady state: requests and writes in several drift check intervals.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::audit::{between, writes};
use crate::fixture::Fixture;
use crate::fleet::{arm_log, log_position};
use crate::process::CONTROLLER;

/// The shortest that the controller accepts.
const RESYNC_SECONDS: u64 = 10;

pub async fn measure(fixture: &mut Fixture) -> Value {
    let fleet = fixture.ready_fleet().await;
    let mut controller = fixture.controller(CONTROLLER, RESYNC_SECONDS);
    controller.wait_ready().await;
    let is_list = |path: &str| path.ends_with("/federatedIdentityCredentials");
    // The checks right after the start are not drift checks; from its second LIST on, each identity has its phase.
    let since = log_position(&fixture.azure);
    let mut settled = false;
    while !settled {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        arm_log(&fixture.azure, since).into_iter().filter(|entry| is_list(&entry.path)).for_each(|entry| {
            *counts.entry(entry.path).or_default() += 1;
        });
        settled = counts.len() == fleet.identities() && counts.values().all(|count| *count >= 2);
    }
    let watched = Duration::from_secs(RESYNC_SECONDS) * fixture.args.periods;
    // Reading the audit log takes a while, in which checks continue: the measured time begins afterwards.
    let (asked, before) = (fixture.audit.of(CONTROLLER), controller.usage());
    let (since, end) = (log_position(&fixture.azure), Timestamp::now() + watched);
    tokio::time::sleep(watched).await;
    let mut log = arm_log(&fixture.azure, since);
    log.retain(|entry| entry.time < end);
    let kubernetes = between(&asked, &fixture.audit.of(CONTROLLER));
    let after = controller.usage();
    controller.stop();

    let mut times: BTreeMap<&str, Vec<Timestamp>> = BTreeMap::new();
    for entry in log.iter().filter(|entry| is_list(&entry.path)) {
        times.entry(&entry.path).or_default().push(entry.time);
    }
    let gaps =
        times.values().flat_map(|times| times.windows(2).map(|pair| pair[1].duration_since(pair[0]).as_secs_f64()));
    let lists: usize = times.values().map(Vec::len).sum();
    let (shortest, longest) = gaps.fold((f64::MAX, 0.0_f64), |(least, most), gap| (least.min(gap), most.max(gap)));
    let expected = fleet.identities() * usize::try_from(fixture.args.periods).expect("a few");
    fixture.progress(&format!("{lists} LISTs of {expected} expected, {} other requests to ARM", log.len() - lists));
    json!({
        "bindings": fleet.bindings, "identities": fleet.identities(), "identities_listed": times.len(),
        "periods": fixture.args.periods, "period_seconds": RESYNC_SECONDS,
        "lists": lists, "lists_due": expected, "shortest_gap_seconds": shortest, "longest_gap_seconds": longest,
        "other_arm_requests": log.len() - lists,
        "arm_writes": log.iter().filter(|entry| entry.method != "GET").count(),
        "kubernetes": kubernetes, "kubernetes_writes": writes(&kubernetes),
        "cpu_seconds": after.cpu_seconds - before.cpu_seconds, "rss_bytes": after.rss_bytes,
    })
}
