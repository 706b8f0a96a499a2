//! A restart with everything in sync.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::audit::{between, writes};
use crate::fixture::{Fixture, seconds};
use crate::fleet::{Fleet, arm_log, log_position};
use crate::process::CONTROLLER;

const TIMEOUT: Duration = Duration::from_secs(120);

pub async fn measure(fixture: &mut Fixture) -> Value {
    let fleet = fixture.ready_fleet().await;
    let mut rounds = Vec::new();
    for _ in 0..fixture.args.repeats {
        let mut webhook = fixture.launcher.webhook(&fixture.azure);
        let webhook_ready = webhook.wait_ready().await;
        webhook.stop();
        let (seen, asked) = (log_position(&fixture.azure), fixture.audit.of(CONTROLLER));
        let mut controller = fixture.controller(CONTROLLER, 900);
        let begun = Instant::now();
        let caches = controller.wait_ready().await;
        controller.wait_for_metric("ensign_leader", &[], 1.0, TIMEOUT).await;
        let leads = begun.elapsed();
        all_checked(fixture, &fleet, seen).await;
        let all = begun.elapsed();
        let cpu = controller.usage().cpu_seconds;
        let kubernetes = between(&asked, &fixture.wait_for_rest(CONTROLLER).await);
        let log = arm_log(&fixture.azure, seen);
        controller.stop();
        fixture.progress(&format!(
            "webhook {webhook_ready:.2?}, caches {caches:.2?}, leads {leads:.2?}, all seen {all:.2?}"
        ));
        rounds.push(json!({
            "webhook_ready_seconds": seconds(webhook_ready), "caches_seconds": seconds(caches),
            "leads_seconds": seconds(leads), "all_identities_seconds": seconds(all), "cpu_seconds": cpu,
            "arm_reads": log.iter().filter(|entry| entry.method == "GET").count(),
            "arm_writes": log.iter().filter(|entry| entry.method != "GET").count(),
            "kubernetes_writes": writes(&kubernetes), "kubernetes": kubernetes,
        }));
    }
    json!({"bindings": fleet.bindings, "identities": fleet.identities(), "rounds": rounds, "floor": floor(fixture).await})
}

/// Waits until every identity was checked in Azure.
async fn all_checked(fixture: &Fixture, fleet: &Fleet, since: u64) {
    let start = Instant::now();
    loop {
        let log = arm_log(&fixture.azure, since);
        let paths: BTreeSet<_> = log.iter().map(|entry| entry.path.as_str()).collect();
        if paths.iter().filter(|path| path.ends_with("/federatedIdentityCredentials")).count() >= fleet.identities() {
            return;
        }
        assert!(start.elapsed() < TIMEOUT, "not every identity is checked");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// How long it takes to read the list of bindings, page by page, without parsing it.
async fn floor(fixture: &Fixture) -> f64 {
    let begun = Instant::now();
    let mut token = String::new();
    loop {
        let path = format!("/apis/ensign.dev/v1alpha1/managedidentitybindings?limit=500&continue={token}");
        let request = http::Request::get(path).body(Vec::new()).expect("a request");
        let text = fixture.client.request_text(request).await.expect("a page");
        // The token is in the metadata, which is before or after the items.
        let Some((_, rest)) = text.split_once("\"continue\":\"") else { break };
        rest.split('"').next().unwrap_or_default().clone_into(&mut token);
        if token.is_empty() {
            break;
        }
    }
    seconds(begun.elapsed())
}
