//! From scratch: new bindings, until each is ready.

use std::time::Instant;

use serde_json::{Value, json};

use crate::audit::between;
use crate::baseline;
use crate::fixture::{Fixture, seconds};
use crate::fleet::{Fleet, arm_counts, log_position};
use crate::process::CONTROLLER;

pub async fn measure(fixture: &mut Fixture) -> Value {
    let mut sizes = fixture.args.sizes.clone();
    sizes.sort_unstable();
    let largest = fixture.largest();
    let mut measured = Vec::new();
    for size in sizes {
        let fleet = fixture.fleet(size);
        let begun = Instant::now();
        fleet.prepare(&fixture.azure).await;
        fleet.bind().await;
        fixture.progress(&format!("{size} bindings created in {:.1} s", begun.elapsed().as_secs_f64()));
        measured.push(from_nothing(fixture, &fleet).await);
        if size == largest {
            // Other parts use it.
            fixture.ready_fleet = Some(fleet);
        } else {
            let mut controller = fixture.controller(CONTROLLER, 900);
            controller.wait_ready().await;
            fleet.remove(&fixture.azure).await;
            controller.stop();
        }
    }
    Value::Array(measured)
}

async fn from_nothing(fixture: &mut Fixture, fleet: &Fleet) -> Value {
    let (seen, asked) = (log_position(&fixture.azure), fixture.audit.of(CONTROLLER));
    let cluster = fixture.cluster_cpu_seconds();
    let mut controller = fixture.controller(CONTROLLER, 900);
    let begun = Instant::now();
    let ready = controller.wait_ready().await;
    fixture.wait_all_ready(&mut controller, fleet).await;
    let (wall, cluster) = (begun.elapsed(), fixture.cluster_cpu_seconds() - cluster);
    let busy = controller.usage();
    let now = fixture.wait_for_rest(CONTROLLER).await;
    let steady = controller.usage();
    let reconciles = controller.metric("ensign_reconciles_total", &[r#"subject="identity""#]).await;
    let mut kubernetes = between(&asked, &now);
    kubernetes.retain(|kind, _| !kind.ends_with(" leases"));
    let arm = arm_counts(&fixture.azure, seen);
    controller.stop();
    fixture.progress(&format!(
        "{} bindings ready after {:.2} s, {:.2} s of processor time and {cluster:.2} s of the cluster's, {} MiB",
        fleet.bindings,
        wall.as_secs_f64(),
        busy.cpu_seconds,
        steady.rss_bytes >> 20
    ));
    let floor = baseline::measure(fixture, fleet).await;
    json!({
        "bindings": fleet.bindings, "identities": fleet.identities(), "namespaces": fleet.namespaces,
        "seconds": seconds(wall), "caches_seconds": seconds(ready), "cpu_seconds": busy.cpu_seconds,
        "cluster_cpu_seconds": cluster, "anonymous_bytes": steady.anonymous_bytes,
        "reconciles": reconciles, "arm": arm, "kubernetes": kubernetes,
        "peak_bytes": busy.peak_bytes, "busy_bytes": busy.rss_bytes, "steady_bytes": steady.rss_bytes,
        "floor": floor,
    })
}
