//! The webhook's Secret on a real API server: filled once, by whichever replica is first, and never created.

use std::sync::Arc;
use std::time::Duration;

use ensign::runtime::clock::SystemClock;
use ensign::webhook::certificates::{
    Bundle, CA_CERTIFICATE_KEY, CA_PRIVATE_KEY_KEY, CERTIFICATE_KEY, Keeper, KeeperError, PRIVATE_KEY_KEY, Resolver,
};
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use rustls::crypto::aws_lc_rs;
use serde_json::json;

use crate::support::control_plane::ControlPlane;
use crate::support::objects::{apply, kubectl, unique, wait_for};
use crate::support::webhook::empty_secret;

const NAMES: [&str; 2] = ["127.0.0.1", "ensign-webhook.ensign-system.svc"];

/// A namespace with an empty Secret, both of one name.
struct Install {
    control_plane: &'static ControlPlane,
    client: Client,
    name: String,
}

impl Install {
    async fn new(prefix: &str) -> Self {
        let control_plane = ControlPlane::shared();
        let name = unique(prefix);
        kubectl(control_plane, &["create", "namespace", &name]);
        apply(control_plane, &empty_secret(&name, &name)).expect("apply");
        Self { control_plane, client: control_plane.client().await, name }
    }

    fn keeper(&self) -> (Keeper, Arc<Resolver>) {
        self.keeper_for(&NAMES)
    }

    fn keeper_for(&self, names: &[&str]) -> (Keeper, Arc<Resolver>) {
        let resolver = Resolver::new(Arc::new(aws_lc_rs::default_provider()));
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let (client, name) = (self.client.clone(), self.name.clone());
        let keeper = Keeper::new(client, name.clone(), name, names, SystemClock::shared(), Arc::clone(&resolver));
        (keeper, resolver)
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.name)
    }

    async fn stored(&self) -> Bundle {
        Bundle::read(self.secrets().get(&self.name).await.expect("the Secret").data.as_ref())
    }

    async fn change(&self, data: serde_json::Value) {
        let change = Patch::Merge(json!({"data": data}));
        self.secrets().patch(&self.name, &PatchParams::default(), &change).await.expect("change the Secret");
    }

    /// HTTP status of each update of the Secret.
    fn updates(&self) -> Vec<i64> {
        let events = self.control_plane.audit_events();
        let of_secret = events.iter().filter(|event| {
            event["verb"] == "update"
                && event["objectRef"]["resource"] == "secrets"
                && event["objectRef"]["namespace"] == self.name.as_str()
        });
        of_secret.filter_map(|event| event["responseStatus"]["code"].as_i64()).collect()
    }
}

/// Waits for a fact without holding up the keeper, which runs on the same thread.
async fn eventually(what: &str, fact: impl AsyncFn() -> bool) {
    let waiting = async {
        while !fact().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting)
        .await
        .unwrap_or_else(|_| panic!("waited in vain for {what}"));
}

fn leaf(resolver: &Resolver) -> Vec<u8> {
    resolver.current().expect("a certificate is served").cert[0].to_vec()
}

#[tokio::test]
async fn of_racing_replicas_one_fills_the_secret_and_all_serve_the_same() {
    let install = Install::new("race").await;
    let replicas: Vec<_> = (0..5).map(|_| install.keeper()).collect();
    let resolvers: Vec<_> = replicas.iter().map(|(_, resolver)| Arc::clone(resolver)).collect();
    let settled = replicas.into_iter().map(|(mut keeper, _)| async move { keeper.settle().await });
    for outcome in futures::future::join_all(settled).await {
        outcome.expect("settled");
    }
    let leaves: Vec<_> = resolvers.iter().map(|resolver| leaf(resolver)).collect();
    assert!(leaves.iter().all(|other| *other == leaves[0]));
    wait_for("the audit record of the update", || {
        let updates = install.updates();
        (updates.iter().filter(|status| **status == 200).count() == 1).then_some(())
    });
    assert!(install.updates().iter().all(|status| [200, 409].contains(status)), "{:?}", install.updates());
}

#[tokio::test]
async fn a_second_start_writes_nothing() {
    let install = Install::new("restart").await;
    install.keeper().0.settle().await.expect("settled");
    let before = install.stored().await;
    let (mut keeper, resolver) = install.keeper();
    keeper.settle().await.expect("settled");
    assert_eq!(install.stored().await, before);
    assert!(resolver.current().is_some());
    assert_eq!(wait_for("the audit record", || Some(install.updates()).filter(|all| !all.is_empty())), [200]);
}

#[tokio::test]
async fn entries_and_labels_of_others_in_the_secret_stay() {
    let install = Install::new("others").await;
    install.change(json!({"other": "eA=="})).await;
    kubectl(install.control_plane, &["label", "secret", &install.name, "kept=yes", "--namespace", &install.name]);
    install.keeper().0.settle().await.expect("settled");
    let secret = install.secrets().get(&install.name).await.expect("the Secret");
    assert_eq!(secret.data.expect("data")["other"].0, b"x");
    assert_eq!(secret.metadata.labels.expect("labels")["kept"], "yes");
}

#[tokio::test]
async fn an_absent_secret_is_named_and_never_created() {
    let install = Install::new("absent").await;
    kubectl(install.control_plane, &["delete", "secret", &install.name, "--namespace", &install.name]);
    let (mut keeper, resolver) = install.keeper();
    let error = keeper.settle().await.expect_err("no Secret");
    assert!(matches!(error, KeeperError::Absent { .. }), "{error:?}");
    let way_out = format!("kubectl create secret generic {0} -n {0}", install.name);
    assert!(error.to_string().contains(&way_out), "{error}");
    assert!(resolver.current().is_none());
    assert!(install.secrets().get_opt(&install.name).await.expect("asked").is_none());
}

#[tokio::test]
async fn a_secret_that_comes_late_is_filled_and_one_that_is_wiped_gets_back_what_is_served() {
    let install = Install::new("wiped").await;
    kubectl(install.control_plane, &["delete", "secret", &install.name, "--namespace", &install.name]);
    let (keeper, resolver) = install.keeper();
    let running = tokio::spawn(keeper.run());
    apply(install.control_plane, &empty_secret(&install.name, &install.name)).expect("apply");
    resolver.loaded().await;
    let (served, stored) = (leaf(&resolver), install.stored().await);

    install.change(json!(null)).await;
    // The watch tells the keeper; what it restores is what clients trust.
    eventually("the Secret to be restored", async || install.stored().await == stored).await;
    assert_eq!(leaf(&resolver), served);
    running.abort();
}

#[tokio::test]
async fn what_another_replica_writes_is_served_without_a_restart() {
    let install = Install::new("reload").await;
    let (keeper, resolver) = install.keeper();
    let running = tokio::spawn(keeper.run());
    resolver.loaded().await;
    let before = leaf(&resolver);
    // A replica with another name replaces the leaf; the older one follows and does not fight.
    let (mut newer, newest) = install.keeper_for(&["127.0.0.1", "new.example"]);
    newer.settle().await.expect("settled");
    eventually("the new leaf to be served", async || leaf(&resolver) != before).await;
    assert_eq!(leaf(&resolver), leaf(&newest));
    let stored = install.stored().await;
    newer.settle().await.expect("settled");
    assert_eq!(install.stored().await, stored);
    running.abort();
}

#[tokio::test]
async fn certificates_of_somebody_else_are_served_and_never_overwritten() {
    let install = Install::new("foreign").await;
    install.keeper().0.settle().await.expect("settled");
    install.change(json!({CA_PRIVATE_KEY_KEY: null})).await;
    let stored = install.stored().await;
    let (mut keeper, resolver) = install.keeper();
    keeper.settle().await.expect("served");
    assert!(resolver.current().is_some());

    let (mut other, resolver) = install.keeper_for(&["other.example"]);
    let error = other.settle().await.expect_err("not for this name");
    assert!(matches!(error, KeeperError::Foreign { .. }), "{error:?}");
    assert!(resolver.current().is_none());
    assert_eq!(install.stored().await, stored);
}

#[tokio::test]
async fn garbage_in_the_secret_is_replaced() {
    let install = Install::new("garbage").await;
    let garbage = [CA_CERTIFICATE_KEY, CA_PRIVATE_KEY_KEY, CERTIFICATE_KEY, PRIVATE_KEY_KEY]
        .map(|key| (key.to_owned(), json!("eA==")));
    install.change(serde_json::Value::Object(garbage.into_iter().collect())).await;
    let (mut keeper, resolver) = install.keeper();
    keeper.settle().await.expect("settled");
    assert!(resolver.current().is_some());
}
