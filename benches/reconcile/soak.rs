//! Very many reviews and reconciles: whether memory or descriptors grow with them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::fleet::{AT_ONCE, Fleet};
use crate::process::{CONTROLLER, Process};
use crate::scene::Scene;

/// How often it is looked at memory and descriptors on the way.
const LOOKS: u64 = 50;
const PATIENCE: Duration = Duration::from_secs(60);

pub async fn measure(scene: &mut Scene) -> Value {
    let fleet = scene.standing().await;
    let reviews = scene.args.reviews;
    let mut webhook = scene.workshop.webhook(&scene.azure);
    webhook.ready().await;
    let reviews = soak_webhook(scene, &fleet, &webhook, reviews).await;
    webhook.stop();
    let mut controller = scene.controller(CONTROLLER, 900);
    controller.ready().await;
    controller.reaches("ensign_leader", &[], 1.0, PATIENCE).await;
    let reconciles = soak_controller(scene, &fleet, &controller).await;
    controller.stop();
    json!({"bindings": fleet.bindings, "reviews": reviews, "reconciles": reconciles})
}

/// Reviews of pods that are injected and of pods that are not, over connections that stay, by turns.
async fn soak_webhook(scene: &Scene, fleet: &Fleet, webhook: &Process, wanted: u64) -> Value {
    let client = reqwest::Client::builder()
        // Its certificate is nobody's figure here.
        .danger_accept_invalid_certs(true)
        .timeout(Duration::from_secs(30))
        .build()
        .expect("a client");
    let url = webhook.announced("webhook_url");
    let bodies: Vec<String> =
        fleet.places().step_by(7).take(1000).map(|place| review(&place.namespace, &place.name)).collect();
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
                let answer = request.send().await.expect("ask the webhook").text().await.expect("an answer");
                injected.fetch_add(u64::from(answer.contains("\"patch\"")), Ordering::Relaxed);
            }
        });
        futures::future::join_all(workers).await;
        looks.push(json!({"done": until, "usage": webhook.usage()}));
    }
    assert_eq!(injected.into_inner(), wanted, "each of these pods is injected");
    scene.say(&format!("{wanted} reviews in {:.1} s", begun.elapsed().as_secs_f64()));
    json!({"count": wanted, "looks": looks})
}

/// Annotates bindings over and over: each is a change that the controller has to look at.
async fn soak_controller(scene: &Scene, fleet: &Fleet, controller: &Process) -> Value {
    let wanted = scene.args.reconciles;
    let places: Vec<_> = fleet.places().collect();
    let next = AtomicU64::new(0);
    let done = async || controller.metric("ensign_reconciles_total", &[r#"subject="identity""#]).await;
    let start = done().await;
    let begun = Instant::now();
    let mut looks = Vec::new();
    for round in 1..=LOOKS {
        let until = wanted as f64 * round as f64 / LOOKS as f64;
        while done().await - start < until {
            crate::fleet::each(0..places.len().min(1000), async |_| {
                let number = next.fetch_add(1, Ordering::Relaxed);
                // Each in another identity than the one before, so that one reconcile does not serve many of them.
                let at = usize::try_from(number).unwrap_or_default().wrapping_mul(crate::fleet::PER_IDENTITY + 1);
                let place = &places[at % places.len()];
                let patch = Patch::Merge(json!({"metadata": {"annotations": {"bench": number.to_string()}}}));
                let patched = fleet.api(place).patch_metadata(&place.name, &PatchParams::default(), &patch).await;
                patched.expect("annotate a binding");
            })
            .await;
        }
        scene.azure.clear_log();
        looks.push(json!({"done": until, "usage": controller.usage()}));
    }
    scene.say(&format!("{wanted} reconciles in {:.1} s", begun.elapsed().as_secs_f64()));
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
