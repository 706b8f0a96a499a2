//! The same pods and bindings with the webhook and with policies, on one API server: what is stored is the
//! same, except for what docs/injection-policy.md lists. Each mode has a namespace with the same bindings.

mod bindings;
mod difference;
mod pods;

use std::collections::BTreeMap;

use ensign_api::keys::IDENTITY_GATE;
use ensign_core::webhook_configuration::{self, Input};
use ensign_runtime::clock::SystemClock;
use futures::StreamExt;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, Patch, PatchParams};
use kube::core::Status;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use self::bindings::bindings;
use self::difference::{Explained, difference};
use self::pods::pod;
use crate::expressions::settle;
use crate::policy_namespace::{AUTHORITY, PolicyNamespace, config};
use ensign_testkit::objects::unique;
use ensign_testkit::policies::Policies;
use ensign_testkit::testbed::Testbed;
use ensign_testkit::webhook::{NAME, Webhook};

const ROUNDS: usize = 32;
const PODS_PER_ROUND: usize = 100;
const AT_A_TIME: usize = 8;

fn sample<T: std::fmt::Debug>(runner: &mut TestRunner, strategy: &impl Strategy<Value = T>) -> T {
    strategy.new_tree(runner).expect("a value").current()
}

#[test]
fn webhook_and_policies_store_the_same_pods() {
    let testbed = Testbed::acquire();
    let policies = Policies::install(testbed.control_plane);
    let [by_policy, by_webhook] = ["by-policy", "by-webhook"].map(unique);
    let webhook = Webhook::start(testbed.control_plane, AUTHORITY, SystemClock::shared());
    policies.fill(&config(&[&by_webhook]), &[&by_policy]);
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let client = testbed.control_plane.client().await;
        register(&client, &webhook, &by_webhook, &by_policy).await;
        let accounts = ["orders", "other", "default", "sentinel"];
        let places = [
            PolicyNamespace::create(&client, &by_policy, &accounts).await,
            PolicyNamespace::create(&client, &by_webhook, &accounts).await,
        ];
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
        let mut runner = TestRunner::new_with_rng(ProptestConfig::default(), rng);
        let (strategy, mut explained) = (pod(), Explained::default());
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        let mut unexplained = Vec::new();
        for _ in 0..ROUNDS {
            let round = sample(&mut runner, &bindings());
            for namespace in &places {
                for object in &round {
                    namespace.bind(object).await;
                }
                settle(namespace).await;
            }
            let pods: Vec<Value> = (0..PODS_PER_ROUND).map(|_| sample(&mut runner, &strategy)).collect();
            let [one, other] = &places;
            let asked = pods.iter().map(|pod| async move { (pod, [one.dry_run(pod).await, other.dry_run(pod).await]) });
            let answers: Vec<_> = futures::stream::iter(asked).buffer_unordered(AT_A_TIME).collect().await;
            for (pod, results) in answers {
                *seen.entry(kind_of(&results[1])).or_default() += 1;
                let names = [by_policy.as_str(), by_webhook.as_str()];
                if let Some(text) = difference(pod, &round, results, names, &mut explained) {
                    unexplained.push(format!("{text}\nthe pod: {pod:#}\nthe bindings: {:#}", json!(round)));
                }
            }
            for namespace in &places {
                namespace.clear().await;
            }
        }
        println!("{} pods: {seen:?}; explained differences: {explained:?}", ROUNDS * PODS_PER_ROUND);
        unregister(&client).await;
        let count = unexplained.len();
        assert!(unexplained.is_empty(), "{count} unexpected differences, the first: {}", unexplained[0]);
        for kind in ["injected", "gated", "unchanged", "denied"] {
            assert!(seen.get(kind).is_some_and(|count| *count > ROUNDS), "too few pods are {kind}: {seen:?}");
        }
    });
}

fn kind_of(result: &Result<Value, Status>) -> &'static str {
    match result {
        Err(status) if status.message.contains("ensign.dev") => "denied",
        Err(_) => "invalid",
        Ok(pod) if pod["metadata"]["annotations"].to_string().contains("injected-by") => {
            let gates = pod["spec"]["schedulingGates"].to_string();
            if gates.contains(IDENTITY_GATE) { "gated" } else { "injected" }
        }
        Ok(_) => "unchanged",
    }
}

/// Registers the webhook for one of the two namespaces, as the controller does.
async fn register(client: &kube::Client, webhook: &Webhook, covered: &str, excluded: &str) {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), NAME);
    let ca = crate::policy_namespace::until("the webhook's certificate", || async {
        secrets.get(NAME).await.ok()?.data?.remove("ca.crt")
    })
    .await;
    let target = webhook.target();
    let excluded = target.excluded.into_iter().chain([excluded.to_owned()]).collect();
    let entries = webhook_configuration::desired(&Input {
        covered: &[covered.to_owned()].into(),
        excluded: &excluded,
        endpoint: &target.endpoint,
        ca_bundle: Some(&ca.0),
        compatibility: false,
    });
    configure(client, &json!(entries)).await;
}

async fn unregister(client: &kube::Client) {
    configure(client, &json!([])).await;
}

async fn configure(client: &kube::Client, entries: &Value) {
    let api: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let patch = Patch::Merge(json!({"webhooks": entries}));
    api.patch(NAME, &PatchParams::default(), &patch).await.expect("register the webhook");
}
