//! Teardown in every order that users try: nothing is left that blocks pods, blocks a namespace, or is trusted.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ensign_azure::ArmClient;
use ensign_azure_emulator::{FaultAction, FaultAnswer, FaultMatch, FaultRule, LogKind};
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

use ensign_testkit::azure::FixedToken;
use ensign_testkit::objects::{apply, apply_crds, condition_of, kubectl, unique, wait_for};
use ensign_testkit::replica::ReplicaOptions;
use ensign_testkit::testbed::{Testbed, TestbedLease};

/// Longer than any test waits.
const PATIENT: Duration = Duration::from_secs(60);
const LEASE_SECONDS: u64 = 600;

/// One run of teardown on the testbed, as a separate process would do it.
struct Run<'a> {
    testbed: &'a Testbed,
    lease: Option<&'a TestbedLease<'a>>,
    registration: String,
    disposal: Disposal,
    patience: Duration,
    steps: Arc<Mutex<Vec<TeardownStep>>>,
    /// Called when a step begins.
    meanwhile: Box<dyn Fn(&TeardownStep) + Send + Sync + 'a>,
}

impl<'a> Run<'a> {
    fn new(testbed: &'a Testbed, disposal: Disposal) -> Self {
        let registration = unique("no-registration");
        Self {
            testbed,
            lease: None,
            registration,
            disposal,
            patience: PATIENT,
            steps: Arc::default(),
            meanwhile: Box::new(|_| ()),
        }
    }

    fn go(&self) -> Result<Report, TeardownError> {
        let info = self.testbed.azure.info();
        let (cloud, connection) = (info.cloud().resolve().expect("a cloud"), info.connection());
        let credential = Arc::new(FixedToken(self.testbed.azure.arm_token().expect("a token for ARM")));
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let client = self.testbed.control_plane.client().await;
            let mut config = self.testbed.control_plane.config().await;
            config.default_retry = false;
            let lease_client = kube::Client::try_from(config).expect("a client");
            let (id, issuer) = ensign_controller::discover(&client, None, None).await.expect("discover the cluster");
            let leadership = self.lease.map(|lease| LeaseConfig {
                client: lease_client,
                namespace: "default".to_owned(),
                name: lease.name.clone(),
                identity: unique("teardown"),
                duration_seconds: lease.duration_seconds,
            });
            let config = TeardownConfig {
                client,
                arm: ArmClient::new(&cloud, &connection, credential, "teardown").expect("create an ARM client"),
                settings: Settings {
                    cluster: Cluster { id, previous_id: None, issuer, audience: cloud.token_audience },
                    issuer_refusal: None,
                    tenant_id: Some(info.tenant_id.clone()),
                    own_client_id: None,
                    propagation_delay: Duration::ZERO,
                    roles: None,
                    allowed_scopes: AllowedScopes::default(),
                },
                disposal: self.disposal,
                namespace: "default".to_owned(),
                stop: None,
                leadership,
                webhook_configuration: self.registration.clone(),
                azure_limits: RateLimits::PUBLISHED,
                clock: SystemClock::shared(),
                timeout: self.patience,
            };
            let told = |step| {
                (self.meanwhile)(&step);
                self.steps.lock().expect("no panic").push(step);
            };
            ensign_controller::teardown(config, told, CancellationToken::new()).await
        })
    }

    fn report(&self) -> Report {
        self.go().expect("teardown succeeds")
    }
}

fn of<'a>(report: &'a Report, name: &str) -> &'a IdentityReport {
    let found = report.identities.iter().find(|identity| identity.arm_id.ends_with(&format!("/{name}")));
    found.unwrap_or_else(|| panic!("{name} is not in {report:#?}"))
}

/// A webhook configuration as the controller leaves it, with an entry of another program. Neither matches a namespace.
fn registered(testbed: &Testbed) -> String {
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
    apply(testbed.control_plane, &object).expect("apply");
    name
}

fn forbid_writes(testbed: &Testbed, identity: &str) {
    let answer = FaultAnswer {
        status: 403,
        code: Some("AuthorizationFailed".to_owned()),
        message: Some("for the test".to_owned()),
        ..FaultAnswer::default()
    };
    let matching = FaultMatch {
        kind: Some(LogKind::ArmWrite),
        path_contains: Some(format!("/{identity}/")),
        ..FaultMatch::default()
    };
    let action = FaultAction::Answer(answer);
    testbed.azure.set_faults(vec![FaultRule { matching, nth: 1, times: u64::MAX, action, matched: 0, fired: 0 }]);
}

fn finalizers(object: &Value) -> usize {
    object["metadata"]["finalizers"].as_array().map_or(0, Vec::len)
}

#[test]
fn teardown_revokes_this_clusters_credentials_keeps_others_and_releases_namespaces() {
    let testbed = Testbed::acquire();
    let lease = testbed.lease(LEASE_SECONDS);
    lease.create();
    let controller = testbed.start(&unique("before-teardown"), ReplicaOptions::with_lease(&lease));
    let team = testbed.team("teardown");
    team.bind();
    let bound = team.wait_ready("app");
    let ours = bound["status"]["credential"]["name"].as_str().expect("a credential").to_owned();
    team.add_credential("by-hand", &bound["status"]["credential"]["issuer"], "system:serviceaccount:elsewhere:app");
    team.create_gated_pod("held");
    let registration = registered(&testbed);
    let mut run = Run { lease: Some(&lease), registration, ..Run::new(&testbed, Disposal::Delete) };

    // Teardown does not start while a controller leads.
    run.patience = Duration::from_secs(2);
    let refused = run.go().expect_err("a controller leads").to_string();
    assert!(refused.contains("before-teardown") && refused.contains("kubectl scale deployment"), "{refused}");
    assert_eq!(team.credentials().len(), 2);
    controller.stop().expect("stops");

    // What Azure forbids to delete is kept and reported, and its objects keep their finalizers.
    run.patience = PATIENT;
    forbid_writes(&testbed, &team.name);
    let report = run.report();
    testbed.azure.set_faults(Vec::new());
    let left = of(&report, &team.name);
    assert!(!report.is_complete() && left.problem.as_ref().is_some_and(|said| said.contains("az role assignment")));
    assert_eq!(left.remaining.iter().filter(|left| left.ours).count(), 1, "{left:#?}");
    assert_eq!(finalizers(&team.get("mib", "app").expect("the binding")), 1);
    assert_eq!(team.gates("held"), 0, "no controller would ungate it");

    // A second run continues.
    let report = run.report();
    let done = of(&report, &team.name);
    assert_eq!((&done.problem, &done.deleted), (&None, &vec![ours]), "{done:#?}");
    assert_eq!(done.remaining.iter().map(|left| left.name.as_str()).collect::<Vec<_>>(), ["by-hand"]);
    assert_eq!(team.credentials().iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>(), ["by-hand"]);
    let binding = team.get("mib", "app").expect("objects are kept");
    assert_eq!(condition_of(&binding, "Ready").expect("a condition")["reason"], "Uninstalled");
    assert!(binding["status"]["credential"].is_null());
    assert_eq!(finalizers(&binding) + finalizers(&team.get("mi", &team.name).expect("it is kept")), 0);
    let arguments = ["get", "mutatingwebhookconfiguration", &run.registration, "--output", "json"];
    let registration: Value = serde_json::from_str(&kubectl(testbed.control_plane, &arguments)).expect("JSON");
    let entries: Vec<&Value> =
        registration["webhooks"].as_array().expect("entries").iter().map(|e| &e["name"]).collect();
    assert_eq!(entries, ["of-another.example.com"]);
    assert_eq!(lease.holder(), None, "the lease is released");

    // A third run changes nothing.
    let writes = team.arm_writes("teardown").len();
    let report = run.report();
    assert!(of(&report, &team.name).deleted.is_empty());
    assert!(writes > 0 && team.arm_writes("teardown").len() == writes);

    // After a reinstall it works again.
    let again = testbed.start(&unique("after-teardown"), ReplicaOptions::with_lease(&lease));
    team.wait_ready("app");
    again.stop().expect("stops");
    run.report();
    kubectl(testbed.control_plane, &["delete", "namespace", &team.name, "--timeout=60s"]);
    kubectl(testbed.control_plane, &["delete", "mi", &team.name, "--timeout=60s"]);
}

#[test]
fn a_namespace_deleted_first_is_released_and_abandoned_credentials_are_reported() {
    let testbed = Testbed::acquire();
    let controller = testbed.start(&unique("gone-first"), ReplicaOptions::default());
    let team = testbed.team("abandoned");
    team.bind();
    team.wait_ready("app");
    controller.stop().expect("stops");
    kubectl(testbed.control_plane, &["delete", "namespace", &team.name, "--wait=false"]);
    wait_for("the binding to wait", || {
        (!team.get("mib", "app")?["metadata"]["deletionTimestamp"].is_null()).then_some(())
    });
    let report = Run::new(&testbed, Disposal::Abandon).report();
    let left = of(&report, &team.name);
    assert_eq!((&left.problem, left.asked_azure), (&None, true));
    let [remaining] = &left.remaining[..] else { panic!("one credential remains: {left:#?}") };
    assert!(remaining.ours && remaining.command.contains(&format!("--name {}", remaining.name)), "{remaining:?}");
    assert_eq!(team.credentials().len(), 1, "it is abandoned, not deleted");
    wait_for("the namespace to be deleted", || {
        let arguments = ["get", "namespace", &team.name, "--ignore-not-found"];
        kubectl(testbed.control_plane, &arguments).trim().is_empty().then_some(())
    });
}

#[test]
fn a_binding_deleted_meanwhile_does_not_block_the_release() {
    let testbed = Testbed::acquire();
    let controller = testbed.start(&unique("meanwhile"), ReplicaOptions::default());
    let team = testbed.team("meanwhile");
    team.bind();
    team.bind_account("worker");
    team.wait_ready("app");
    team.wait_ready("worker");
    controller.stop().expect("stops");
    let meanwhile = |step: &TeardownStep| {
        if matches!(step, TeardownStep::Identity(name, ..) if name.ends_with(&format!("/{}", team.name))) {
            let strip = ["patch", "mib", "app", "--type=merge", "--patch", r#"{"metadata":{"finalizers":null}}"#];
            kubectl(testbed.control_plane, &[&strip[..], &["--namespace", &team.name]].concat());
            team.unbind("app");
        }
    };
    let report = Run { meanwhile: Box::new(meanwhile), ..Run::new(&testbed, Disposal::Delete) }.report();
    let done = of(&report, &team.name);
    assert_eq!((&done.problem, done.deleted.len()), (&None, 2), "{done:#?}");
    assert!(team.get("mib", "app").is_none() && team.credentials().is_empty());
    let worker = team.get("mib", "worker").expect("it is kept");
    assert_eq!(finalizers(&worker) + finalizers(&team.get("mi", &team.name).expect("it is kept")), 0);
}

#[test]
fn crds_deleted_first_are_released_and_without_them_there_is_nothing_to_do() {
    let testbed = Testbed::acquire();
    let controller = testbed.start(&unique("crds-first"), ReplicaOptions::default());
    let team = testbed.team("crds");
    team.bind();
    team.wait_ready("app");
    controller.stop().expect("stops");
    let definitions = ["managedidentities.ensign.dev", "managedidentitybindings.ensign.dev"];
    kubectl(testbed.control_plane, &[&["delete", "crd", "--wait=false"][..], &definitions].concat());
    wait_for("the binding to wait", || {
        (!team.get("mib", "app")?["metadata"]["deletionTimestamp"].is_null()).then_some(())
    });
    let run = Run::new(&testbed, Disposal::Delete);
    let report = run.report();
    // Objects that other tests have left count as well.
    assert!(report.is_complete(), "{report:#?}");
    assert!(team.credentials().is_empty());
    wait_for("the CRDs to be deleted", || {
        let found = kubectl(testbed.control_plane, &[&["get", "crd", "--ignore-not-found"][..], &definitions].concat());
        found.trim().is_empty().then_some(())
    });
    let report = run.report();
    assert!(report.is_complete() && report.identities.is_empty(), "{report:#?}");
    apply_crds(testbed.control_plane);
}
