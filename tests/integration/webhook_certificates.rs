//! The webhook's Secret on a real API server: filled once, by whichever replica is first, and never created.

use std::sync::Arc;
use std::time::Duration;

use ensign_api::keys::ROTATE_CA_ANNOTATION;
use ensign_runtime::clock::{SharedClock, SystemClock};
use ensign_webhook::certificates::{
    Bundle, CA_CERTIFICATE_KEY, CA_PRIVATE_KEY_KEY, CERTIFICATE_KEY, Directory, Keeper, KeeperError, PRIVATE_KEY_KEY,
    Resolver, SharedSecret,
};
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use rustls::crypto::aws_lc_rs;
use serde_json::json;

use ensign_testkit::clock::FakeClock;
use ensign_testkit::control_plane::ControlPlane;
use ensign_testkit::objects::{apply, kubectl, unique, wait_for};
use ensign_testkit::webhook::empty_secret;

const PROPAGATION: Duration = Duration::from_secs(300);
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
        (self.keeper_with(names, SystemClock::shared(), Arc::clone(&resolver)), resolver)
    }

    fn keeper_with(&self, names: &[&str], clock: SharedClock, resolver: Arc<Resolver>) -> Keeper {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let shared = SharedSecret {
            namespace: self.name.clone(),
            name: self.name.clone(),
            registration: self.name.clone(),
            propagation: PROPAGATION,
        };
        Keeper::new(self.client.clone(), shared, names, clock, resolver)
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
        let events = self.control_plane.audit_events_with(&format!("\"namespace\":\"{}\"", self.name));
        let of_secret =
            events.iter().filter(|event| event["verb"] == "update" && event["objectRef"]["resource"] == "secrets");
        of_secret.filter_map(|event| event["responseStatus"]["code"].as_i64()).collect()
    }
}

/// Waits for a condition without blocking the keeper, which runs on the same thread.
async fn eventually(what: &str, fact: impl AsyncFn() -> bool) {
    let waiting = async {
        while !fact().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap_or_else(|_| panic!("not within 60 s: {what}"));
}

fn leaf(resolver: &Resolver) -> Vec<u8> {
    resolver.current().expect("a certificate is served").cert[0].to_vec()
}

#[tokio::test]
async fn of_racing_replicas_one_fills_the_secret_and_all_serve_the_same_certificate() {
    let install = Install::new("race").await;
    let replicas: Vec<_> = (0..5).map(|_| install.keeper()).collect();
    let resolvers: Vec<_> = replicas.iter().map(|(_, resolver)| Arc::clone(resolver)).collect();
    let settled = replicas.into_iter().map(|(mut keeper, _)| async move { keeper.settle().await });
    for outcome in futures::future::join_all(settled).await {
        outcome.expect("update the Secret");
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
    install.keeper().0.settle().await.expect("update the Secret");
    let before = install.stored().await;
    let (mut keeper, resolver) = install.keeper();
    keeper.settle().await.expect("update the Secret");
    assert_eq!(install.stored().await, before);
    assert!(resolver.current().is_some());
    assert_eq!(wait_for("the audit record", || Some(install.updates()).filter(|all| !all.is_empty())), [200]);
}

#[tokio::test]
async fn entries_and_labels_of_others_in_the_secret_stay() {
    let install = Install::new("others").await;
    install.change(json!({"other": "eA=="})).await;
    kubectl(install.control_plane, &["label", "secret", &install.name, "kept=yes", "--namespace", &install.name]);
    install.keeper().0.settle().await.expect("update the Secret");
    let secret = install.secrets().get(&install.name).await.expect("the Secret");
    assert_eq!(secret.data.expect("data")["other"].0, b"x");
    assert_eq!(secret.metadata.labels.expect("labels")["kept"], "yes");
}

#[tokio::test]
async fn a_missing_secret_is_named_and_never_created() {
    let install = Install::new("absent").await;
    kubectl(install.control_plane, &["delete", "secret", &install.name, "--namespace", &install.name]);
    let (mut keeper, resolver) = install.keeper();
    let error = keeper.settle().await.expect_err("no Secret");
    assert!(matches!(error, KeeperError::Absent { .. }), "{error:?}");
    let way_out = format!("kubectl create secret generic {0} -n {0}", install.name);
    assert!(error.to_string().contains(&way_out), "{error}");
    assert!(resolver.current().is_none());
    assert!(install.secrets().get_opt(&install.name).await.expect("get the Secret").is_none());
}

#[tokio::test]
async fn a_secret_created_late_is_filled_and_a_wiped_one_restored() {
    let install = Install::new("wiped").await;
    kubectl(install.control_plane, &["delete", "secret", &install.name, "--namespace", &install.name]);
    let (keeper, resolver) = install.keeper();
    let running = tokio::spawn(keeper.run());
    apply(install.control_plane, &empty_secret(&install.name, &install.name)).expect("apply");
    resolver.loaded().await;
    let (served, stored) = (leaf(&resolver), install.stored().await);

    install.change(json!(null)).await;
    // The watch notifies the keeper, which restores what clients trust.
    eventually("the Secret to be restored", async || install.stored().await == stored).await;
    assert_eq!(leaf(&resolver), served);
    running.abort();
}

#[tokio::test]
async fn a_certificate_written_by_another_replica_is_served_without_a_restart() {
    let install = Install::new("reload").await;
    let (keeper, resolver) = install.keeper();
    let running = tokio::spawn(keeper.run());
    resolver.loaded().await;
    let before = leaf(&resolver);
    // A replica with another name replaces the leaf certificate; the older one follows instead of replacing it again.
    let (mut newer, newest) = install.keeper_for(&["127.0.0.1", "new.example"]);
    newer.settle().await.expect("update the Secret");
    eventually("the new leaf to be served", async || leaf(&resolver) != before).await;
    assert_eq!(leaf(&resolver), leaf(&newest));
    let stored = install.stored().await;
    newer.settle().await.expect("update the Secret");
    assert_eq!(install.stored().await, stored);
    running.abort();
}

#[tokio::test]
async fn certificates_of_another_program_are_served_and_never_overwritten() {
    let install = Install::new("foreign").await;
    install.keeper().0.settle().await.expect("update the Secret");
    install.change(json!({CA_PRIVATE_KEY_KEY: null})).await;
    let stored = install.stored().await;
    let (mut keeper, resolver) = install.keeper();
    keeper.settle().await.expect("update the Secret");
    assert!(resolver.current().is_some());

    let (mut other, resolver) = install.keeper_for(&["other.example"]);
    let error = other.settle().await.expect_err("not for this name");
    assert!(matches!(error, KeeperError::Foreign { .. }), "{error:?}");
    assert!(resolver.current().is_none());
    assert_eq!(install.stored().await, stored);
}

#[tokio::test]
async fn invalid_data_in_the_secret_is_replaced() {
    let install = Install::new("garbage").await;
    let garbage = [CA_CERTIFICATE_KEY, CA_PRIVATE_KEY_KEY, CERTIFICATE_KEY, PRIVATE_KEY_KEY]
        .map(|key| (key.to_owned(), json!("eA==")));
    install.change(serde_json::Value::Object(garbage.into_iter().collect())).await;
    let (mut keeper, resolver) = install.keeper();
    keeper.settle().await.expect("update the Secret");
    assert!(resolver.current().is_some());
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Install {
    /// Registers a webhook with this CA bundle, as the controller does.
    fn register(&self, ca_bundle: &[u8]) {
        let ca_bundle = k8s_openapi::ByteString(ca_bundle.to_vec());
        let object = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": self.name},
            "webhooks": [{
                "name": "labelled-pods.ensign.dev", "admissionReviewVersions": ["v1"], "sideEffects": "None",
                "clientConfig": {"url": "https://127.0.0.1:1/mutate-pods", "caBundle": ca_bundle},
                "objectSelector": {"matchLabels": {"nobody": "has-this"}},
            }],
        });
        apply(self.control_plane, &object).expect("apply");
    }

    async fn ask_for_a_new_authority(&self) {
        let change = Patch::Merge(json!({"metadata": {"annotations": {ROTATE_CA_ANNOTATION: "please"}}}));
        self.secrets().patch(&self.name, &PatchParams::default(), &change).await.expect("annotate the Secret");
    }

    async fn is_rotation_requested(&self) -> bool {
        let secret = self.secrets().get(&self.name).await.expect("the Secret");
        secret.metadata.annotations.is_some_and(|all| all.contains_key(ROTATE_CA_ANNOTATION))
    }

    /// A keeper with the test's clock.
    fn keeper_on(&self, clock: &Arc<FakeClock>) -> (Keeper, Arc<Resolver>) {
        let resolver = Resolver::new(Arc::new(aws_lc_rs::default_provider()));
        let clock: SharedClock = clock.clone();
        (self.keeper_with(&NAMES, clock, Arc::clone(&resolver)), resolver)
    }
}

#[tokio::test]
async fn a_new_ca_signs_only_after_it_has_been_registered_for_a_while() {
    let install = Install::new("rotate").await;
    let clock = FakeClock::new();
    let (mut keeper, resolver) = install.keeper_on(&clock);
    keeper.settle().await.expect("update the Secret");
    let (first, served) = (install.stored().await, leaf(&resolver));
    install.register(first.ca_certificate());

    install.ask_for_a_new_authority().await;
    keeper.settle().await.expect("update the Secret");
    let prepared = install.stored().await;
    assert!(prepared.successor().is_some());
    assert!(prepared.ca_certificate().starts_with(first.ca_certificate()), "both are trusted, the old one still signs");
    assert!(!install.is_rotation_requested().await, "the rotation was requested once");

    // While it is not registered, it does not sign, however long it takes.
    for _ in 0..3 {
        clock.advance(PROPAGATION);
        keeper.settle().await.expect("update the Secret");
    }
    assert_eq!(install.stored().await, prepared);
    install.register(prepared.ca_certificate());
    keeper.settle().await.expect("update the Secret");
    clock.advance(PROPAGATION.saturating_sub(Duration::from_secs(1)));
    keeper.settle().await.expect("update the Secret");
    assert_eq!(install.stored().await, prepared, "API servers may not have read it yet");
    assert_eq!(leaf(&resolver), served);

    clock.advance(Duration::from_secs(1));
    keeper.settle().await.expect("update the Secret");
    let switched = install.stored().await;
    assert!(switched.successor().is_none() && switched.has_predecessors());
    assert_ne!(leaf(&resolver), served);
    keeper.settle().await.expect("update the Secret");
    assert_eq!(install.stored().await, switched, "the old one stays trusted, for replicas that are late");
}

#[tokio::test]
async fn replicas_that_race_for_a_new_ca_agree_on_one() {
    let install = Install::new("race-rotate").await;
    let clock = FakeClock::new();
    let mut replicas: Vec<_> = (0..4).map(|_| install.keeper_on(&clock)).collect();
    for (keeper, _) in &mut replicas {
        keeper.settle().await.expect("update the Secret");
    }
    install.register(install.stored().await.ca_certificate());
    install.ask_for_a_new_authority().await;
    let before = install.updates_once_there(1);
    // The webhook configuration follows the Secret, as the controller makes it do, while all replicas poll.
    for _ in 0..4 {
        let looks = replicas.iter_mut().map(|(keeper, _)| keeper.settle());
        for outcome in futures::future::join_all(looks).await {
            outcome.expect("update the Secret");
        }
        install.register(install.stored().await.ca_certificate());
        clock.advance(PROPAGATION);
    }
    let leaves: Vec<_> = replicas.iter().map(|(_, resolver)| leaf(resolver)).collect();
    assert!(leaves.iter().all(|other| *other == leaves[0]), "all serve the same");
    assert!(install.stored().await.successor().is_none());
    assert_eq!(install.updates_once_there(before + 2), before + 2, "one write per step");
}

impl Install {
    /// Waits for this many successful updates of the Secret; returns their number.
    fn updates_once_there(&self, count: usize) -> usize {
        let successes = || self.updates().iter().filter(|status| **status == 200).count();
        wait_for("the audit records of the updates", || (successes() >= count).then(successes))
    }
}

#[tokio::test]
async fn a_clock_that_jumps_replaces_nothing() {
    let install = Install::new("jump").await;
    install.keeper().0.settle().await.expect("update the Secret");
    let stored = install.stored().await;
    for jump in [10 * 60, 366 * 24 * 60 * 60, 20 * 366 * 24 * 60 * 60] {
        let clock = FakeClock::new();
        clock.advance(Duration::from_secs(jump));
        let (mut keeper, resolver) = install.keeper_on(&clock);
        keeper.settle().await.expect("update the Secret");
        assert!(resolver.current().is_some(), "it is valid by the API server's clock");
        assert_eq!(install.stored().await, stored);
    }
}

#[tokio::test]
async fn an_expired_certificate_and_an_expired_ca_are_replaced() {
    let install = Install::new("expired").await;
    let provider = aws_lc_rs::default_provider();
    let names: Vec<String> = NAMES.iter().map(|name| (*name).to_owned()).collect();
    let now = k8s_openapi::jiff::Timestamp::now();
    for (age, same_authority) in [(DAY * 100, true), (DAY * 4000, false)] {
        let (old, _) = Bundle::default().repaired(None, &names, now - age, &provider).expect("create certificates");
        let mut data = std::collections::BTreeMap::new();
        old.write(&mut data);
        install.change(json!(data)).await;
        let (mut keeper, resolver) = install.keeper();
        keeper.settle().await.expect("update the Secret");
        let stored = install.stored().await;
        assert_eq!(stored.ca_certificate() == old.ca_certificate(), same_authority);
        assert!(stored.flawless(&names, now, &provider).is_some());
        assert!(resolver.expiry().expect("served").leaf > now + DAY * 80);
    }
}

#[tokio::test]
async fn a_ca_that_expires_within_a_year_gets_a_successor() {
    let install = Install::new("successor").await;
    let provider = aws_lc_rs::default_provider();
    let names: Vec<String> = NAMES.iter().map(|name| (*name).to_owned()).collect();
    let now = k8s_openapi::jiff::Timestamp::now();
    let (old, _) = Bundle::default().repaired(None, &names, now - DAY * 3400, &provider).expect("create certificates");
    let old = old.with_new_leaf(&names, now).expect("renewed");
    let mut data = std::collections::BTreeMap::new();
    old.write(&mut data);
    install.change(json!(data)).await;
    let (mut keeper, _) = install.keeper();
    keeper.settle().await.expect("update the Secret");
    assert!(install.stored().await.successor().is_some());
}

#[tokio::test]
async fn certificate_files_are_served_and_reloaded_and_invalid_ones_ignored() {
    let folder = tempfile::tempdir().expect("a folder");
    let provider = aws_lc_rs::default_provider();
    let names: Vec<String> = NAMES.iter().map(|name| (*name).to_owned()).collect();
    let resolver = Resolver::new(Arc::new(provider.clone()));
    let mut directory =
        Directory::new(folder.path().to_owned(), names.clone(), SystemClock::shared(), Arc::clone(&resolver));
    directory.look().await.expect_err("nothing is there");
    let write = |bundle: &Bundle| {
        let mut data = std::collections::BTreeMap::new();
        bundle.write(&mut data);
        for file in [CA_CERTIFICATE_KEY, CERTIFICATE_KEY, PRIVATE_KEY_KEY] {
            std::fs::write(folder.path().join(file), &data[file].0).expect("write");
        }
    };
    let make = || {
        let now = k8s_openapi::jiff::Timestamp::now();
        Bundle::default().repaired(None, &names, now, &provider).expect("create certificates").0
    };
    write(&make());
    directory.look().await.expect("read the certificate");
    let first = leaf(&resolver);
    std::fs::write(folder.path().join(PRIVATE_KEY_KEY), "garbage").expect("write");
    let error = directory.look().await.expect_err("garbage");
    assert!(!format!("{error:?}").contains("garbage"));
    assert_eq!(leaf(&resolver), first);
    write(&make());
    directory.look().await.expect("read the certificate");
    assert_ne!(leaf(&resolver), first);
}
