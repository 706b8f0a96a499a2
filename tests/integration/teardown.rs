//! Ensign is taken down, in every order that people try: nothing is left that blocks pods, holds a namespace or is trusted.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ensign_azure::ArmClient;
use ensign_azure_emulator::{FaultAction, FaultAnswer, FaultMatch, FaultRule, Kind};
use ensign_controller;
use ensign_controller::{LeaseConfig, TeardownConfig, TeardownError, TeardownStep};
use ensign_core::acceptance::scopes::AllowedScopes;
use ensign_core::assess::Settings;
use ensign_core::commands::teardown::{Disposal, IdentityReport, Report};
use ensign_core::credentials::ownership::Cluster;
use ensign_core::scheduling::rate_limiter::RateLimits;
use ensign_core::webhook_configuration::LABELLED_ENTRY;
use ensign_runtime::clock::SystemClock;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use ensign_testkit::ensign::FixedToken;
use ensign_testkit::objects::{apply, apply_crds, condition_of, kubectl, unique, wait_for};
use ensign_testkit::replica::{ReplicaOptions, Stage, StageLease};

/// Longer than any test waits.
const PATIENT: Duration = Duration::from_secs(60);
const LEASE_SECONDS: u64 = 600;

/// One run of teardown on the stage, as a process of its own would do it.
struct Run<'a> {
    stage: &'a Stage,
    lease: Option<&'a StageLease<'a>>,
    registration: String,
    disposal: Disposal,
    patience: Duration,
    steps: Arc<Mutex<Vec<TeardownStep>>>,
    /// What others do while a step begins.
    meanwhile: Box<dyn Fn(&TeardownStep) + Send + Sync + 'a>,
}

impl<'a> Run<'a> {
    fn new(stage: &'a Stage, disposal: Disposal) -> Self {
        let registration = unique("no-registration");
        Self {
            stage,
            lease: None,
            registration,
            disposal,
            patience: PATIENT,
            steps: Arc::default(),
            meanwhile: Box::new(|_| ()),
        }
    }

    fn go(&self) -> Result<Report, TeardownError> {
        let info = self.stage.azure.info();
        let (cloud, connection) = (info.cloud().resolve().expect("a cloud"), info.connection());
        let credential = Arc::new(FixedToken(self.stage.azure.arm_token().expect("a token for ARM")));
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let client = self.stage.control_plane.client().await;
            let mut config = self.stage.control_plane.config().await;
            config.default_retry = false;
            let lease_client = kube::Client::try_from(config).expect("a client");
            let (id, issuer) = ensign_controller::discover(&client, None, None).await.expect("learn the cluster");
            let leadership = self.lease.map(|lease| LeaseConfig {
                client: lease_client,
                namespace: "default".to_owned(),
                name: lease.name.clone(),
                identity: unique("teardown"),
                duration_seconds: lease.duration_seconds,
            });
            let config = TeardownConfig {
                client,
                arm: ArmClient::new(&cloud, &connection, credential, "teardown").expect("a client of ARM"),
                settings: Settings {
                    cluster: Cluster { id, previous_id: None, issuer, audience: cloud.token_audience },
                    issuer_refusal: None,
                    tenant_id: Some(info.tenant_id.clone()),
                    own_client_id: None,
                    settle: Duration::ZERO,
                    roles: None,
                    allowed_scopes: AllowedScopes::default(),
                },
                disposal: self.disposal,
                namespace: "default".to_owned(),
                stop: None,
                leadership,
                registration: self.registration.clone(),
                azure_limits: RateLimits::PUBLISHED,
                clock: SystemClock::shared(),
                patience: self.patience,
            };
            let told = |step| {
                (self.meanwhile)(&step);
                self.steps.lock().expect("no panic").push(step);
            };
            ensign_controller::teardown(config, told, CancellationToken::new()).await
        })
    }

    fn report(&self) -> Report {
        self.go().expect("it goes through")
    }
}

fn of<'a>(report: &'a Report, name: &str) -> &'a IdentityReport {
    let found = report.identities.iter().find(|identity| identity.arm_id.ends_with(&format!("/{name}")));
    found.unwrap_or_else(|| panic!("{name} is not in {report:#?}"))
}

/// A registration as the controller leaves it, with an entry of another program's. Neither asks about any namespace.
fn registered(stage: &Stage) -> String {
    let name = unique("registration");
    let entry = |entry: &str| {
        json!({
            "name": entry, "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Fail",
            "clientConfig": {"url": "https://127.0.0.1:1/"},
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "no-such-namespace"}},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
        })
    };
    let object = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": name}, "webhooks": [entry(LABELLED_ENTRY), entry("of-another.example.com")],
    });
    apply(stage.control_plane, &object).expect("apply");
    name
}

fn forbid_writes(stage: &Stage, identity: &str) {
    let answer = FaultAnswer {
        status: 403,
        code: Some("AuthorizationFailed".to_owned()),
        message: Some("for the test".to_owned()),
        retry_after: None,
        body: None,
        html: false,
    };
    let matching = FaultMatch {
        kind: Some(Kind::ArmWrite),
        path_contains: Some(format!("/{identity}/")),
        ..FaultMatch::default()
    };
    let action = FaultAction::Answer(answer);
    stage.azure.set_faults(vec![FaultRule { matching, nth: 1, times: u64::MAX, action, matched: 0, fired: 0 }]);
}

fn finalizers(object: &Value) -> usize {
    object["metadata"]["finalizers"].as_array().map_or(0, Vec::len)
}

#[test]
fn what_this_cluster_gave_is_revoked_what_others_gave_stays_and_nothing_holds_a_namespace() {
    let stage = Stage::enter();
    let lease = stage.lease(LEASE_SECONDS);
    lease.make();
    let controller = stage.start(&unique("before-teardown"), ReplicaOptions::with_lease(&lease));
    let team = stage.team("teardown");
    team.bind();
    let bound = team.wait_ready("app");
    let ours = bound["status"]["credential"]["name"].as_str().expect("a credential").to_owned();
    team.add_credential("by-hand", &bound["status"]["credential"]["issuer"], "system:serviceaccount:elsewhere:app");
    team.hold_pod("held");
    let registration = registered(&stage);
    let mut run = Run { lease: Some(&lease), registration, ..Run::new(&stage, Disposal::Delete) };

    // A controller that leads is not worked against.
    run.patience = Duration::from_secs(2);
    let refused = run.go().expect_err("a controller leads").to_string();
    assert!(refused.contains("before-teardown") && refused.contains("kubectl scale deployment"), "{refused}");
    assert_eq!(team.credentials().len(), 2);
    controller.stop().expect("stops");

    // What Azure refuses is left, said, and holds its objects.
    run.patience = PATIENT;
    forbid_writes(&stage, &team.name);
    let report = run.report();
    stage.azure.set_faults(Vec::new());
    let left = of(&report, &team.name);
    assert!(!report.is_complete() && left.problem.as_ref().is_some_and(|said| said.contains("az role assignment")));
    assert_eq!(left.remaining.iter().filter(|left| left.ours).count(), 1, "{left:#?}");
    assert_eq!(finalizers(&team.get("mib", "app").expect("the binding")), 1);
    assert_eq!(team.gates("held"), 0, "nobody would let it go");

    // Again, and it goes on.
    let report = run.report();
    let done = of(&report, &team.name);
    assert_eq!((&done.problem, &done.deleted), (&None, &vec![ours]), "{done:#?}");
    assert_eq!(done.remaining.iter().map(|left| left.name.as_str()).collect::<Vec<_>>(), ["by-hand"]);
    assert_eq!(team.credentials().iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>(), ["by-hand"]);
    let binding = team.get("mib", "app").expect("objects stay");
    assert_eq!(condition_of(&binding, "Ready").expect("a condition")["reason"], "Uninstalled");
    assert!(binding["status"]["credential"].is_null());
    assert_eq!(finalizers(&binding) + finalizers(&team.get("mi", &team.name).expect("it stays")), 0);
    let arguments = ["get", "mutatingwebhookconfiguration", &run.registration, "--output", "json"];
    let registration: Value = serde_json::from_str(&kubectl(stage.control_plane, &arguments)).expect("JSON");
    let entries: Vec<&Value> =
        registration["webhooks"].as_array().expect("entries").iter().map(|e| &e["name"]).collect();
    assert_eq!(entries, ["of-another.example.com"]);
    assert_eq!(lease.holder(), None, "the lease is given back");

    // Once more changes nothing.
    let writes = team.arm_writes("teardown").len();
    let report = run.report();
    assert!(of(&report, &team.name).deleted.is_empty());
    assert!(writes > 0 && team.arm_writes("teardown").len() == writes);

    // Installed again, it serves again.
    let again = stage.start(&unique("after-teardown"), ReplicaOptions::with_lease(&lease));
    team.wait_ready("app");
    again.stop().expect("stops");
    run.report();
    kubectl(stage.control_plane, &["delete", "namespace", &team.name, "--timeout=60s"]);
    kubectl(stage.control_plane, &["delete", "mi", &team.name, "--timeout=60s"]);
}

#[test]
fn a_namespace_that_was_deleted_first_gets_free_and_what_is_abandoned_is_told() {
    let stage = Stage::enter();
    let controller = stage.start(&unique("gone-first"), ReplicaOptions::default());
    let team = stage.team("abandoned");
    team.bind();
    team.wait_ready("app");
    controller.stop().expect("stops");
    kubectl(stage.control_plane, &["delete", "namespace", &team.name, "--wait=false"]);
    wait_for("the binding to wait", || {
        (!team.get("mib", "app")?["metadata"]["deletionTimestamp"].is_null()).then_some(())
    });
    let report = Run::new(&stage, Disposal::Abandon).report();
    let left = of(&report, &team.name);
    assert_eq!((&left.problem, left.asked_azure), (&None, true));
    let [remaining] = &left.remaining[..] else { panic!("one credential remains: {left:#?}") };
    assert!(remaining.ours && remaining.command.contains(&format!("--name {}", remaining.name)), "{remaining:?}");
    assert_eq!(team.credentials().len(), 1, "it is abandoned, not deleted");
    wait_for("the namespace to be gone", || {
        let arguments = ["get", "namespace", &team.name, "--ignore-not-found"];
        kubectl(stage.control_plane, &arguments).trim().is_empty().then_some(())
    });
}

#[test]
fn a_binding_that_goes_meanwhile_keeps_nothing_from_being_released() {
    let stage = Stage::enter();
    let controller = stage.start(&unique("meanwhile"), ReplicaOptions::default());
    let team = stage.team("meanwhile");
    team.bind();
    team.bind_account("worker");
    team.wait_ready("app");
    team.wait_ready("worker");
    controller.stop().expect("stops");
    let meanwhile = |step: &TeardownStep| {
        if matches!(step, TeardownStep::Identity(name, ..) if name.ends_with(&format!("/{}", team.name))) {
            let strip = ["patch", "mib", "app", "--type=merge", "--patch", r#"{"metadata":{"finalizers":null}}"#];
            kubectl(stage.control_plane, &[&strip[..], &["--namespace", &team.name]].concat());
            team.unbind("app");
        }
    };
    let report = Run { meanwhile: Box::new(meanwhile), ..Run::new(&stage, Disposal::Delete) }.report();
    let done = of(&report, &team.name);
    assert_eq!((&done.problem, done.deleted.len()), (&None, 2), "{done:#?}");
    assert!(team.get("mib", "app").is_none() && team.credentials().is_empty());
    let worker = team.get("mib", "worker").expect("it stays");
    assert_eq!(finalizers(&worker) + finalizers(&team.get("mi", &team.name).expect("it stays")), 0);
}

#[test]
fn definitions_that_were_deleted_first_get_free_and_without_them_there_is_nothing_to_do() {
    let stage = Stage::enter();
    let controller = stage.start(&unique("crds-first"), ReplicaOptions::default());
    let team = stage.team("crds");
    team.bind();
    team.wait_ready("app");
    controller.stop().expect("stops");
    let definitions = ["managedidentities.ensign.dev", "managedidentitybindings.ensign.dev"];
    kubectl(stage.control_plane, &[&["delete", "crd", "--wait=false"][..], &definitions].concat());
    wait_for("the binding to wait", || {
        (!team.get("mib", "app")?["metadata"]["deletionTimestamp"].is_null()).then_some(())
    });
    let run = Run::new(&stage, Disposal::Delete);
    let report = run.report();
    // Every object counts that other tests have left here, too.
    assert!(report.is_complete(), "{report:#?}");
    assert!(team.credentials().is_empty());
    wait_for("the definitions to be gone", || {
        let found = kubectl(stage.control_plane, &[&["get", "crd", "--ignore-not-found"][..], &definitions].concat());
        found.trim().is_empty().then_some(())
    });
    let report = run.report();
    assert!(report.is_complete() && report.identities.is_empty(), "{report:#?}");
    apply_crds(stage.control_plane);
}
