//! Whether memory or file descriptors grow with many reviews and reconciles.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::fixture::Fixture;
use crate::fleet::{AT_ONCE, Fleet};
use crate::process::{CONTROLLER, Process};

/// How often memory and descriptors are measured.
const LOOKS: u64 = 50;
const TIMEOUT: Duration = Duration::from_secs(60);

pub async fn measure(fixture: &mut Fixture) -> Value {
    let fleet = fixture.ready_fleet().await;
    let reviews = fixture.args.reviews;
    let mut webhook = fixture.launcher.webhook(&fixture.azure);
    webhook.wait_ready().await;
    let reviews = soak_webhook(fixture, &fleet, &webhook, reviews).await;
    webhook.stop();
    let mut controller = fixture.controller(CONTROLLER, 900);
    controller.wait_ready().await;
    controller.wait_for_metric("ensign_leader", &[], 1.0, TIMEOUT).await;
    let reconciles = soak_controller(fixture, &fleet, &controller).await;
    controller.stop();
    json!({"bindings": fleet.bindings, "reviews": reviews, "reconciles": reconciles})
}

/// Sends reviews of pods that are injected and of pods that are not, alternately, over persistent connections.
async fn soak_webhook(fixture: &Fixture, fleet: &Fleet, webhook: &Process, wanted: u64) -> Value {
    let client = reqwest::Client::builder()
        // Verifying the certificate is not part of this measurement.
        .danger_accept_invalid_certs(true)
        .timeout(Duration::from_secs(30))
        .build()
        .expect("a client");
    let url = webhook.announced("webhook_url");
    let bodies: Vec<String> = fleet.keys().step_by(7).take(1000).map(|key| review(&key.namespace, &key.name)).collect();
    let (sent, injected) = (AtomicU64::new(0), AtomicU64::new(0));
    let mut looks = Vec::new();
    let begun = Instant::now();
    for round in 1..=LOOKS {
        let until = wanted * round / LOOKS;
        let workers = (0..AT_ONCE).map(async |_| {
            loop {
                let number = sent.fetch_add(1, Ordering::Relaxed);
                if number >= until {
                    sent.fetch_sub(1, Ordering::Relaxed);
                    return;
                }
                let body = bodies[usize::try_from(number).unwrap_or_default() % bodies.len()].clone();
                let request = client.post(&url).header("content-type", "application/json").body(body);
                let answer = request.send().await.expect("send a review").text().await.expect("a response");
                injected.fetch_add(u64::from(answer.contains("\"patch\"")), Ordering::Relaxed);
            }
        });
        futures::future::join_all(workers).await;
        looks.push(json!({"done": until, "usage": webhook.usage()}));
    }
    assert_eq!(injected.into_inner(), wanted, "a pod is not injected");
    fixture.progress(&format!("{wanted} reviews in {:.1} s", begun.elapsed().as_secs_f64()));
    json!({"count": wanted, "looks": looks})
}

/// Annotates bindings repeatedly: each change makes the controller reconcile.
async fn soak_controller(fixture: &Fixture, fleet: &Fleet, controller: &Process) -> Value {
    let wanted = fixture.args.reconciles;
    let keys: Vec<_> = fleet.keys().collect();
    let next = AtomicU64::new(0);
    let done = async || controller.metric("ensign_reconciles_total", &[r#"subject="identity""#]).await;
    let start = done().await;
    let begun = Instant::now();
    let mut looks = Vec::new();
    for round in 1..=LOOKS {
        let until = wanted as f64 * round as f64 / LOOKS as f64;
        while done().await - start < until {
            crate::fleet::each(0..keys.len().min(1000), async |_| {
                let number = next.fetch_add(1, Ordering::Relaxed);
                // Each under another identity than the previous one, so that one reconcile does not cover many changes.
                let at = usize::try_from(number).unwrap_or_default().wrapping_mul(crate::fleet::PER_IDENTITY + 1);
                let key = &keys[at % keys.len()];
                let patch = Patch::Merge(json!({"metadata": {"annotations": {"bench": number.to_string()}}}));
                let patched = fleet.api(key).patch_metadata(&key.name, &PatchParams::default(), &patch).await;
                patched.expect("annotate a binding");
            })
            .await;
        }
        fixture.azure.clear_log();
        looks.push(json!({"done": until, "usage": controller.usage()}));
    }
    fixture.progress(&format!("{wanted} reconciles in {:.1} s", begun.elapsed().as_secs_f64()));
    json!({"count": wanted, "looks": looks})
}

fn review(namespace: &str, account: &str) -> String {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"generateName": "app-", "namespace": namespace, "labels": {"app": "app"}},
        "spec": {"serviceAccountName": account, "containers": [{"name": "app", "image": "app"}]},
    });
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "11111111-2222-4333-8444-555555555555",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": namespace, "operation": "CREATE", "object": pod, "dryRun": false, "userInfo": {},
        },
    })
    .to_string()
}
