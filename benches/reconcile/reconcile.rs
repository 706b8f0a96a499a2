//! From nothing: bindings that nobody has looked at yet, until each is ready.

use std::time::Instant;

use serde_json::{Value, json};

use crate::audit::between;
use crate::fleet::{Fleet, arm_counts, log_position};
use crate::floor;
use crate::process::CONTROLLER;
use crate::scene::{Scene, seconds};

pub async fn measure(scene: &mut Scene) -> Value {
    let mut sizes = scene.args.sizes.clone();
    sizes.sort_unstable();
    let largest = scene.largest();
    let mut measured = Vec::new();
    for size in sizes {
        let fleet = scene.fleet(size);
        let begun = Instant::now();
        fleet.prepare(&scene.azure).await;
        fleet.bind().await;
        scene.say(&format!("{size} bindings made in {:.1} s", begun.elapsed().as_secs_f64()));
        measured.push(from_nothing(scene, &fleet).await);
        if size == largest {
            // Other parts want it as it stands.
            scene.standing = Some(fleet);
        } else {
            let mut controller = scene.controller(CONTROLLER, 900);
            controller.ready().await;
            fleet.remove(&scene.azure).await;
            controller.stop();
        }
    }
    Value::Array(measured)
}

async fn from_nothing(scene: &mut Scene, fleet: &Fleet) -> Value {
    let (seen, asked) = (log_position(&scene.azure), scene.audit.of(CONTROLLER));
    let cluster = scene.cluster_cpu_seconds();
    let mut controller = scene.controller(CONTROLLER, 900);
    let begun = Instant::now();
    let ready = controller.ready().await;
    scene.wait_all_ready(&mut controller, fleet).await;
    let (wall, cluster) = (begun.elapsed(), scene.cluster_cpu_seconds() - cluster);
    let busy = controller.usage();
    let now = scene.wait_for_rest(CONTROLLER).await;
    let steady = controller.usage();
    let reconciles = controller.metric("ensign_reconciles_total", &[r#"subject="identity""#]).await;
    let mut kubernetes = between(&asked, &now);
    kubernetes.retain(|kind, _| !kind.ends_with(" leases"));
    let arm = arm_counts(&scene.azure, seen);
    controller.stop();
    scene.say(&format!(
        "{} bindings ready after {:.2} s, {:.2} s of processor time and {cluster:.2} s of the cluster's, {} MiB",
        fleet.bindings,
        wall.as_secs_f64(),
        busy.cpu_seconds,
        steady.rss_bytes >> 20
    ));
    let floor = floor::measure(scene, fleet).await;
    json!({
        "bindings": fleet.bindings, "identities": fleet.identities(), "namespaces": fleet.namespaces,
        "seconds": seconds(wall), "caches_seconds": seconds(ready), "cpu_seconds": busy.cpu_seconds,
        "cluster_cpu_seconds": cluster, "anonymous_bytes": steady.anonymous_bytes,
        "reconciles": reconciles, "arm": arm, "kubernetes": kubernetes,
        "peak_bytes": busy.peak_bytes, "busy_bytes": busy.rss_bytes, "steady_bytes": steady.rss_bytes,
        "floor": floor,
    })
}
