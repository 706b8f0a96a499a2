//! The cost of the writes alone: two patches and the PUT of each binding, with the concurrency
//! of the controller, without deciding, reading or watching anything.
//!
//! It works on existing bindings, and restores them if another part follows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::fixture::{Fixture, seconds};
use crate::fleet::{Fleet, PER_IDENTITY};
use ensign_api::ManagedIdentityBinding;

/// The controller's default for `--concurrency`.
const AT_ONCE: usize = 8;

pub async fn measure(fixture: &Fixture, fleet: &Fleet) -> Value {
    let azure = reqwest::Client::builder()
        .add_root_certificate(reqwest::Certificate::from_pem(fixture.azure.info().ca_pem.as_bytes()).expect("a CA"))
        .timeout(Duration::from_secs(30))
        .build()
        .expect("a client");
    let token = fixture.azure.arm_token().expect("a token");
    let work = Arc::new(credentials(fixture, fleet));
    let bindings: Api<ManagedIdentityBinding> = Api::all(fixture.client.clone());
    let listed = bindings.list(&ListParams::default()).await.expect("list the bindings").items;
    let prefix = format!("{}-ns-", fleet.name);
    let listed: std::collections::HashMap<String, ManagedIdentityBinding> = listed
        .into_iter()
        .filter(|binding| binding.namespace().is_some_and(|namespace| namespace.starts_with(&prefix)))
        .map(|binding| (binding.name_any(), binding))
        .collect();
    let keys: Vec<_> = fleet.keys().collect();
    let answers = Mutex::new(0_usize);
    let (begun, cluster) = (Instant::now(), fixture.cluster_cpu_seconds());
    // One write at a time per identity, as Azure requires.
    futures::stream::iter(keys.chunks(PER_IDENTITY).zip(work.chunks(PER_IDENTITY)))
        .for_each_concurrent(AT_ONCE, async |(keys, credentials)| {
            for (key, (url, body)) in keys.iter().zip(credentials) {
                let api = fleet.api(key);
                let binding = &listed[&key.name];
                let status = json!(binding.status);
                let params = PatchParams::default();
                let other = json!(["ensign.dev/credentials", "bench.ensign.dev/floor"]);
                let mark = replace("/metadata/finalizers", &json!(binding.finalizers()), &other);
                api.patch_metadata(&key.name, &params, &mark).await.expect("patch a binding");
                let put = azure.put(url).bearer_auth(&token).json(body).send().await.expect("ask ARM");
                assert!(put.status().is_success(), "{}", put.status());
                let mut other = status.clone();
                other["conditions"][0]["message"] = json!("written by the baseline");
                let written = replace("/status", &status, &other);
                api.patch_status(&key.name, &params, &written).await.expect("patch a status");
                *answers.lock().await += 1;
            }
        })
        .await;
    let (wall, cluster) = (begun.elapsed(), fixture.cluster_cpu_seconds() - cluster);
    assert_eq!(answers.into_inner(), fleet.bindings);
    fixture.progress(&format!("the same writes alone: {:.2} s, {cluster:.2} s of the cluster's", wall.as_secs_f64()));
    if !fixture.ends_with(fleet) {
        restore(fleet, &listed).await;
    }
    json!({"seconds": seconds(wall), "cluster_cpu_seconds": cluster, "kubernetes_writes": 2 * fleet.bindings, "arm_writes": fleet.bindings})
}

/// For each binding, URL and body of a PUT that changes nothing.
fn credentials(fixture: &Fixture, fleet: &Fleet) -> Vec<(String, Value)> {
    let endpoint = fixture.azure.info().arm_endpoint.clone();
    fixture.azure.with_state(|state| {
        let mut all = Vec::new();
        for number in 0..fleet.identities() {
            let name = fleet.identity(number);
            let identity = state.identities.values().find(|identity| identity.id.name == name).expect("an identity");
            for credential in identity.credentials.values() {
                let url = format!(
                    "{endpoint}{}/federatedIdentityCredentials/{}?api-version=2024-11-30",
                    fleet.arm_id(number),
                    credential.name
                );
                let properties = json!({
                    "issuer": credential.issuer, "subject": credential.subject, "audiences": credential.audiences,
                });
                all.push((url, json!({"properties": properties})));
            }
        }
        all
    })
}

/// Restores the bindings.
async fn restore(fleet: &Fleet, before: &std::collections::HashMap<String, ManagedIdentityBinding>) {
    let keys: Vec<_> = fleet.keys().collect();
    crate::fleet::each(keys, async |key| {
        let binding = &before[&key.name];
        let (api, params) = (fleet.api(&key), PatchParams::default());
        let mark = Patch::Merge(json!({"metadata": {"finalizers": binding.finalizers()}}));
        api.patch_metadata(&key.name, &params, &mark).await.expect("patch a binding");
        let status = Patch::Merge(json!({"status": binding.status}));
        api.patch_status(&key.name, &params, &status).await.expect("patch a status");
    })
    .await;
}

/// A patch like the controller's.
fn replace(path: &str, before: &Value, after: &Value) -> Patch<()> {
    let operations = json!([
        {"op": "test", "path": path, "value": before},
        {"op": "replace", "path": path, "value": after},
    ]);
    Patch::Json(serde_json::from_value(operations).expect("a patch"))
}
