//! One binding, from its creation until it is ready, beside the whole fleet.

use std::pin::pin;
use std::time::{Duration, Instant};

use ensign_api::ManagedIdentityBinding;
use ensign_api::conditions::{ConditionType, is_true};
use futures::StreamExt;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, WatchEvent, WatchParams};
use serde_json::{Value, json};

use crate::fixture::{Fixture, seconds};
use crate::fleet::{BindingKey, Fleet};
use crate::process::CONTROLLER;

/// Bindings that are created one after another per repetition.
const EACH: usize = 4;
const TIMEOUT: Duration = Duration::from_secs(30);

pub async fn measure(fixture: &mut Fixture) -> Value {
    let ready_fleet = fixture.ready_fleet().await;
    let count = (EACH * fixture.args.repeats).min(crate::fleet::PER_IDENTITY);
    let fleet = Fleet { client: fixture.client.clone(), name: "one".to_owned(), bindings: count, namespaces: 1 };
    fleet.prepare(&fixture.azure).await;
    let mut controller = fixture.controller(CONTROLLER, 900);
    controller.wait_ready().await;
    controller.wait_for_metric("ensign_leader", &[], 1.0, TIMEOUT).await;
    fixture.wait_for_rest(CONTROLLER).await;
    let mut took = Vec::new();
    let mut floor = Vec::new();
    for key in fleet.keys() {
        took.push(seconds(until_ready(&fleet, &key).await));
        floor.push(seconds(patched(&fleet, &key).await));
    }
    for key in fleet.keys() {
        fleet.api(&key).delete(&key.name, &DeleteParams::default()).await.expect("delete a binding");
    }
    while fleet.trusted(&fixture.azure) > 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    fixture.wait_for_rest(CONTROLLER).await;
    controller.stop();
    fixture.progress(&format!("one binding is ready after {took:.3?} s"));
    json!({"bindings_beside": ready_fleet.bindings, "ready_seconds": took, "patches_seconds": floor})
}

async fn until_ready(fleet: &Fleet, key: &BindingKey) -> Duration {
    let api = fleet.api(key);
    let version = api.list(&ListParams::default().limit(1)).await.expect("list").metadata.resource_version;
    let params = WatchParams::default().fields(&format!("metadata.name={}", key.name));
    let mut events = pin!(api.watch(&params, &version.unwrap_or_default()).await.expect("watch"));
    let begun = Instant::now();
    fleet.create(key).await;
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
    tokio::time::timeout(TIMEOUT, ready).await.expect("the binding is not ready in time");
    begun.elapsed()
}

fn is_ready(binding: &ManagedIdentityBinding) -> bool {
    binding.status.as_ref().is_some_and(|status| is_true(&status.conditions, ConditionType::Ready))
}

/// The minimal cost of a creation, two patches and a watch event: three writes, one after another.
async fn patched(fleet: &Fleet, key: &BindingKey) -> Duration {
    let api: Api<ManagedIdentityBinding> = fleet.api(key);
    let binding = api.get(&key.name).await.expect("the binding");
    let labels = |value: &str| Patch::Merge(json!({"metadata": {"labels": {"bench": value}}}));
    let params = PatchParams::default();
    let begun = Instant::now();
    for value in ["a", "b", "c"] {
        api.patch_metadata(&binding.name_any(), &params, &labels(value)).await.expect("patch the binding");
    }
    begun.elapsed()
}
