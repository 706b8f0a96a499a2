//! One binding, from its creation until it is ready, beside all that stand.

use std::pin::pin;
use std::time::{Duration, Instant};

use ensign_api::ManagedIdentityBinding;
use ensign_api::conditions::{ConditionType, is_true};
use futures::StreamExt;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, WatchEvent, WatchParams};
use serde_json::{Value, json};

use crate::fleet::{Fleet, Place};
use crate::process::CONTROLLER;
use crate::scene::{Scene, seconds};

/// Bindings that are made, one after another, for each repetition.
const EACH: usize = 4;
const PATIENCE: Duration = Duration::from_secs(30);

pub async fn measure(scene: &mut Scene) -> Value {
    let standing = scene.standing().await;
    let count = (EACH * scene.args.repeats).min(crate::fleet::PER_IDENTITY);
    let fleet = Fleet { client: scene.client.clone(), name: "one".to_owned(), bindings: count, namespaces: 1 };
    fleet.prepare(&scene.azure).await;
    let mut controller = scene.controller(CONTROLLER, 900);
    controller.ready().await;
    controller.reaches("ensign_leader", &[], 1.0, PATIENCE).await;
    scene.wait_for_rest(CONTROLLER).await;
    let mut took = Vec::new();
    let mut floor = Vec::new();
    for place in fleet.places() {
        took.push(seconds(until_ready(&fleet, &place).await));
        floor.push(seconds(patched(&fleet, &place).await));
    }
    for place in fleet.places() {
        fleet.api(&place).delete(&place.name, &DeleteParams::default()).await.expect("delete a binding");
    }
    while fleet.trusted(&scene.azure) > 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    scene.wait_for_rest(CONTROLLER).await;
    controller.stop();
    scene.say(&format!("one binding is ready after {took:.3?} s"));
    json!({"bindings_beside": standing.bindings, "ready_seconds": took, "patches_seconds": floor})
}

async fn until_ready(fleet: &Fleet, place: &Place) -> Duration {
    let api = fleet.api(place);
    let version = api.list(&ListParams::default().limit(1)).await.expect("list").metadata.resource_version;
    let params = WatchParams::default().fields(&format!("metadata.name={}", place.name));
    let mut events = pin!(api.watch(&params, &version.unwrap_or_default()).await.expect("watch"));
    let begun = Instant::now();
    fleet.create(place).await;
    let ready = async {
        while let Some(event) = events.next().await {
            if let WatchEvent::Added(binding) | WatchEvent::Modified(binding) = event.expect("an event")
                && is_ready(&binding)
            {
                return;
            }
        }
        panic!("the watch ended");
    };
    tokio::time::timeout(PATIENCE, ready).await.expect("it is ready in time");
    begun.elapsed()
}

fn is_ready(binding: &ManagedIdentityBinding) -> bool {
    binding.status.as_ref().is_some_and(|status| is_true(&status.conditions, ConditionType::Ready))
}

/// What a creation, two patches and the word of a watch take at least: three writes, one after another.
async fn patched(fleet: &Fleet, place: &Place) -> Duration {
    let api: Api<ManagedIdentityBinding> = fleet.api(place);
    let binding = api.get(&place.name).await.expect("the binding");
    let labels = |value: &str| Patch::Merge(json!({"metadata": {"labels": {"bench": value}}}));
    let params = PatchParams::default();
    let begun = Instant::now();
    for value in ["a", "b", "c"] {
        api.patch_metadata(&binding.name_any(), &params, &labels(value)).await.expect("patch the binding");
    }
    begun.elapsed()
}
