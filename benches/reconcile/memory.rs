//! The memory of both processes: in steady state and during a relist, without pods and with many.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use kube::api::{Api, ListParams, ObjectMeta, PostParams};
use serde_json::{Value, json};

use crate::fixture::Fixture;
use crate::fleet::{Fleet, each, object};
use crate::process::{CONTROLLER, Process, WEBHOOK};

const TIMEOUT: Duration = Duration::from_secs(180);
/// Long enough to survive restarts of the API server.
const LEASE_SECONDS: u64 = 300;
/// Long enough that there is no drift check during a measurement.
const RESYNC_SECONDS: u64 = 86_400;
const POD_NAMESPACE: &str = "crowd";
const ACCOUNTS_PER_NAMESPACE: usize = 100;

pub async fn measure(fixture: &mut Fixture) -> Value {
    let empty = empty(fixture).await;
    let fleet = fixture.ready_fleet().await;
    let before = processes(fixture).await;
    let with_bindings = look(&before);
    before.0.stop();
    before.1.stop();
    accounts(fixture, fleet.bindings).await;
    fixture.progress(&format!("{} service accounts created", fleet.bindings));

    let (controller, webhook) = processes(fixture).await;
    let alone = rest_and_relist(fixture, &controller, &webhook).await;
    pods(fixture).await;
    fixture.progress(&format!("{} pods created", fixture.args.pods));
    let crowded = rest_and_relist(fixture, &controller, &webhook).await;
    controller.stop();
    webhook.stop();
    let (controller, webhook) = processes(fixture).await;
    let crowded_from_start = look(&(controller, webhook));
    json!({
        "bindings": fleet.bindings, "identities": fleet.identities(), "service_accounts": fleet.bindings,
        "pods": fixture.args.pods, "empty": empty, "with_bindings": with_bindings, "without_pods": alone,
        "with_pods": crowded, "with_pods_from_start": crowded_from_start,
    })
}

/// Both processes without any object, unless a fleet exists already.
async fn empty(fixture: &mut Fixture) -> Value {
    if fixture.ready_fleet.is_some() {
        return Value::Null;
    }
    let both = processes(fixture).await;
    let seen = look(&both);
    both.0.stop();
    both.1.stop();
    seen
}

/// A leading controller and a webhook, both ready and idle.
async fn processes(fixture: &mut Fixture) -> (Process, Process) {
    let mut controller = fixture.controller_with_lease(CONTROLLER, RESYNC_SECONDS, LEASE_SECONDS);
    let mut webhook = fixture.launcher.webhook(&fixture.azure);
    controller.wait_ready().await;
    webhook.wait_ready().await;
    controller.wait_for_metric("ensign_leader", &[], 1.0, TIMEOUT).await;
    fixture.wait_for_rest(CONTROLLER).await;
    (controller, webhook)
}

fn look(both: &(Process, Process)) -> Value {
    json!({"controller": both.0.usage(), "webhook": both.1.usage()})
}

/// Both in steady state, and then after a compaction, so that no watch can resume and all have to relist.
async fn rest_and_relist(fixture: &mut Fixture, controller: &Process, webhook: &Process) -> Value {
    let lists = |fixture: &mut Fixture, account: &str| {
        fixture.audit.of(account).get("list managedidentitybindings").copied().unwrap_or_default()
    };
    fixture.wait_for_rest(CONTROLLER).await;
    let rest = [controller.usage(), webhook.usage()];
    let before = [lists(fixture, CONTROLLER), lists(fixture, WEBHOOK)];
    controller.reset_peak();
    webhook.reset_peak();
    discard_history(fixture).await;
    let start = Instant::now();
    for (account, before) in [CONTROLLER, WEBHOOK].into_iter().zip(before) {
        while lists(fixture, account) == before {
            assert!(start.elapsed() < TIMEOUT, "{account} does not relist");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        fixture.wait_for_rest(account).await;
    }
    let relist = [controller.usage(), webhook.usage()];
    for (name, at, after) in [(CONTROLLER, rest[0], relist[0]), (WEBHOOK, rest[1], relist[1])] {
        let [at, peak, after] =
            [at.rss_bytes, after.peak_bytes, after.rss_bytes].map(|bytes| bytes as f64 / 1_048_576.0);
        fixture.progress(&format!(
            "{name}: {at:.1} MiB in steady state, peak {peak:.1} during a relist, {after:.1} afterwards"
        ));
    }
    json!({
        "controller": {"rest": rest[0], "relist": relist[0]},
        "webhook": {"rest": rest[1], "relist": relist[1]},
    })
}

/// Kills the API server, and compacts etcd up to the current revision.
async fn discard_history(fixture: &Fixture) {
    let api: Api<Namespace> = Api::all(fixture.client.clone());
    let now = api.list(&ListParams::default().limit(1)).await.expect("list").metadata.resource_version;
    let control_plane = fixture.control_plane;
    let forget = move || {
        control_plane.command("kill kube-apiserver");
        control_plane.compact_etcd(&now.expect("a version"));
        control_plane.command("start kube-apiserver");
    };
    tokio::task::spawn_blocking(forget).await.expect("restart the API server");
}

/// A service account per binding, besides those that they refer to, with the annotations of
/// azure-workload-identity.
async fn accounts(fixture: &Fixture, count: usize) {
    let namespaces: Api<Namespace> = Api::all(fixture.client.clone());
    each(0..count.div_ceil(ACCOUNTS_PER_NAMESPACE), async |number| {
        let metadata = ObjectMeta { name: Some(format!("accounts-{number}")), ..ObjectMeta::default() };
        let namespace = Namespace { metadata, ..Namespace::default() };
        namespaces.create(&PostParams::default(), &namespace).await.expect("create a namespace");
    })
    .await;
    each(0..count, async |number| {
        let api: Api<ServiceAccount> =
            Api::namespaced(fixture.client.clone(), &format!("accounts-{}", number / ACCOUNTS_PER_NAMESPACE));
        let account: ServiceAccount = object(json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": format!("app-{number}"), "annotations": {
                "azure.workload.identity/client-id": format!("11111111-2222-4333-8444-{number:012}"),
                "azure.workload.identity/tenant-id": fixture.azure.info().tenant_id,
            }},
        }));
        api.create(&PostParams::default(), &account).await.expect("create a service account");
    })
    .await;
}

async fn pods(fixture: &Fixture) {
    let namespaces: Api<Namespace> = Api::all(fixture.client.clone());
    let metadata = ObjectMeta { name: Some(POD_NAMESPACE.to_owned()), ..ObjectMeta::default() };
    namespaces
        .create(&PostParams::default(), &Namespace { metadata, ..Namespace::default() })
        .await
        .expect("a namespace");
    let crowd = Fleet { client: fixture.client.clone(), name: "crowd".to_owned(), bindings: 0, namespaces: 1 };
    let api: Api<Pod> = Api::namespaced(crowd.client.clone(), POD_NAMESPACE);
    let account: Api<ServiceAccount> = Api::namespaced(crowd.client, POD_NAMESPACE);
    let start = Instant::now();
    while account.get_opt("default").await.expect("get the service account").is_none() {
        assert!(start.elapsed() < TIMEOUT, "the namespace has no service account");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    each(0..fixture.args.pods, async |number| {
        let pod: Pod = object(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("p{number}"), "labels": {"app": "crowd"}},
            "spec": {"automountServiceAccountToken": false, "containers": [{"name": "app", "image": "app"}]},
        }));
        api.create(&PostParams::default(), &pod).await.expect("create a pod");
    })
    .await;
}
