//! The webhook's registration between the controller and other programs, on a real API server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use ensign_controller::{CaInjection, WebhookTarget};
use ensign_core::webhook_configuration::{COMPATIBLE_ENTRY, GRANTED_ENTRY, LABELLED_ENTRY};
use ensign_webhook::certificates::Bundle;
use k8s_openapi::jiff::Timestamp;
use rustls::crypto::aws_lc_rs;
use serde_json::{Value, json};

use ensign_testkit::clock::FakeClock;
use ensign_testkit::install::{Balancer, Install};
use ensign_testkit::objects::{apply, kubectl, unique, wait_for};
use ensign_testkit::replica::{Replica, ReplicaOptions, Stage};

/// An install whose Secret is filled already, without a webhook.
fn filled(stage: &Stage, prefix: &str) -> Install {
    let install = Install::new(stage.control_plane, prefix);
    let names = ["127.0.0.1".to_owned()];
    let made = Bundle::default().repaired(None, &names, Timestamp::now(), &aws_lc_rs::default_provider());
    let mut data = std::collections::BTreeMap::new();
    made.expect("made").0.write(&mut data);
    let name = &install.name;
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": name}, "data": data});
    apply(stage.control_plane, &secret).expect("apply");
    install
}

/// How a controller registers it that does not look whether it answers.
fn unseen(install: &Install) -> WebhookTarget {
    WebhookTarget { probe: None, ..install.target("127.0.0.1:1".parse().expect("an address")) }
}

fn start(stage: &Stage, name: &str, target: WebhookTarget) -> Replica {
    stage.start(name, ReplicaOptions { webhook: Some(target), ..ReplicaOptions::default() })
}

/// Waits until the controller has looked at the registration, and has taken in what it found.
fn wait_for_a_look(stage: &Stage, controller: &str, install: &Install) {
    // The second look begins after the first one has ended, with all that it wrote.
    for _ in 0..2 {
        let before = stage.looks_at_registration(controller);
        let touch = format!("touched={}", unique("touch"));
        let arguments = ["annotate", "--overwrite", "mutatingwebhookconfiguration", &install.name, &touch];
        kubectl(stage.control_plane, &arguments);
        wait_for("the controller to look", || (stage.looks_at_registration(controller) > before).then_some(()));
    }
}

#[test]
fn it_is_filled_in_once_the_webhook_answers_and_not_before() {
    let stage = Stage::enter();
    let install = Install::new(stage.control_plane, "probe");
    let balancer = Balancer::start();
    // A replica fills the Secret and goes again.
    let mut early = install.start(&["--drain-duration=0s"]);
    early.ready();
    assert!(early.terminate().success());
    let _controller = start(&stage, &unique("probe"), install.target(balancer.address));
    wait_for("the controller to look for the webhook", || (balancer.turned_away() > 1).then_some(()));
    assert!(install.registration()["webhooks"].is_null());

    let mut webhook = install.start(&["--drain-duration=0s"]);
    balancer.add(webhook.endpoint());
    wait_for("the registration", || install.entry(LABELLED_ENTRY));
}

#[test]
fn a_webhook_whose_certificate_is_of_another_authority_counts_as_none() {
    let stage = Stage::enter();
    let (install, other) = (filled(&stage, "untrusted"), Install::new(stage.control_plane, "other"));
    let balancer = Balancer::start();
    let mut webhook = other.start(&["--drain-duration=0s"]);
    let backend = webhook.endpoint();
    balancer.add(backend);
    let before = balancer.accepted();
    let _controller = start(&stage, &unique("untrusted"), install.target(balancer.address));
    wait_for("the controller to look twice", || (balancer.accepted() > before + 1).then_some(()));
    assert!(install.registration()["webhooks"].is_null());
}

#[test]
fn every_entry_is_taken_by_the_api_server_as_it_was_meant() {
    let stage = Stage::enter();
    let install = filled(&stage, "entries");
    let team = stage.team("entries-team");
    team.bind();
    let name = unique("entries");
    let _controller = start(&stage, &name, WebhookTarget { compatibility: true, ..unseen(&install) });
    wait_for("every entry", || {
        [GRANTED_ENTRY, LABELLED_ENTRY, COMPATIBLE_ENTRY]
            .iter()
            .all(|entry| install.entry(entry).is_some())
            .then_some(())
    });
    for entry in [GRANTED_ENTRY, LABELLED_ENTRY, COMPATIBLE_ENTRY] {
        let entry = install.entry(entry).expect("an entry");
        assert_eq!(entry["failurePolicy"], "Fail");
        assert_eq!(entry["timeoutSeconds"], 5);
        assert_eq!(entry["rules"][0]["operations"], json!(["CREATE"]));
        assert!(entry["namespaceSelector"].to_string().contains("kube-system"), "{entry:#}");
    }
    team.wait_ready("app");
    wait_for_a_look(&stage, &name, &install);
    let settled = stage.registrations(&name);
    wait_for_a_look(&stage, &name, &install);
    assert_eq!(stage.registrations(&name), settled, "what the API server made of it is no difference");
}

#[test]
fn where_another_program_injects_the_ca_it_is_left_to_it() {
    let stage = Stage::enter();
    let install = Install::new(stage.control_plane, "external");
    let team = stage.team("external-team");
    team.bind();
    let name = unique("external");
    let _controller = start(&stage, &name, WebhookTarget { ca: CaInjection::External, ..unseen(&install) });
    let nowhere = json!([{"key": "kubernetes.io/metadata.name", "operator": "In", "values": [""]}]);
    let entry = wait_for("an entry to inject a CA into", || install.entry(GRANTED_ENTRY));
    assert_eq!(entry["namespaceSelector"]["matchExpressions"], nowhere, "nobody is asked as long as there is none");

    let ca = Bundle::default()
        .repaired(None, &["x.example".to_owned()], Timestamp::now(), &aws_lc_rs::default_provider())
        .expect("made");
    let ca = json!(k8s_openapi::ByteString(ca.0.ca_certificate().to_vec()));
    let count = install.registration()["webhooks"].as_array().expect("entries").len();
    let inject = |index| json!({"op": "add", "path": format!("/webhooks/{index}/clientConfig/caBundle"), "value": ca});
    install.patch_registration(&Value::Array((0..count).map(inject).collect()));
    wait_for("the namespace to be asked about", || {
        let entry = install.entry(GRANTED_ENTRY)?;
        entry["namespaceSelector"].to_string().contains(&team.name).then_some(())
    });
    for entry in [GRANTED_ENTRY, LABELLED_ENTRY] {
        assert_eq!(install.entry(entry).expect("an entry")["clientConfig"]["caBundle"], ca);
    }
}

#[test]
fn it_goes_with_the_namespace_of_the_webhook_so_that_no_pod_waits_for_nobody() {
    let stage = Stage::enter();
    let install = filled(&stage, "going");
    let _controller = start(&stage, &unique("going"), unseen(&install));
    wait_for("the registration", || install.entry(LABELLED_ENTRY));
    kubectl(stage.control_plane, &["delete", "namespace", &install.name, "--timeout=60s"]);
    wait_for("nobody to be sent to the webhook", || install.entry(LABELLED_ENTRY).is_none().then_some(()));
}

/// A program that changes the registration whenever it is not as it likes.
struct Rival {
    stop: Arc<AtomicBool>,
    changes: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Rival {
    fn start(install: &Install, patch_for: impl Fn(&Value) -> Option<Value> + Send + 'static) -> Self {
        let (stop, changes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&changes));
        let (control_plane, name) = (install.control_plane, install.name.clone());
        let thread = std::thread::spawn(move || {
            let kubectl = |arguments: &[&str]| control_plane.kubectl().args(arguments).output().expect("run kubectl");
            while !stopped.load(Ordering::Relaxed) {
                let found = kubectl(&["get", "mutatingwebhookconfiguration", &name, "--output", "json"]);
                let found: Value = serde_json::from_slice(&found.stdout).unwrap_or_default();
                let Some(patch) = patch_for(&found).map(|patch| patch.to_string()) else { continue };
                let patched =
                    kubectl(&["patch", "mutatingwebhookconfiguration", &name, "--type", "json", "--patch", &patch]);
                count.fetch_add(usize::from(patched.status.success()), Ordering::Relaxed);
            }
        });
        Self { stop, changes, thread: Some(thread) }
    }

    fn changes(&self) -> usize {
        self.changes.load(Ordering::Relaxed)
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// What the admissions enforcer of AKS adds to each entry.
fn enforcer(registration: &Value) -> Option<Value> {
    let wanted = [
        json!({"key": "kubernetes.azure.com/managedby", "operator": "NotIn", "values": ["aks"]}),
        json!({"key": "control-plane", "operator": "DoesNotExist"}),
    ];
    let mut patch = Vec::new();
    for (index, entry) in registration["webhooks"].as_array()?.iter().enumerate() {
        let expressions = entry["namespaceSelector"]["matchExpressions"].as_array().cloned().unwrap_or_default();
        for missing in wanted.iter().filter(|one| !expressions.contains(one)) {
            let end = format!("/webhooks/{index}/namespaceSelector/matchExpressions/-");
            patch.push(json!({"op": "add", "path": end, "value": missing}));
        }
    }
    (!patch.is_empty()).then_some(Value::Array(patch))
}

#[test]
fn a_rival_that_adds_to_selectors_is_not_fought() {
    let stage = Stage::enter();
    let install = filled(&stage, "enforcer");
    let rival = Rival::start(&install, enforcer);
    let name = unique("enforcer");
    let _controller = start(&stage, &name, unseen(&install));
    let team = stage.team("enforcer-team");
    team.bind();
    let is_settled = || {
        let entry = install.entry(GRANTED_ENTRY)?["namespaceSelector"].to_string();
        let has = |text: &str| entry.contains(text).then_some(());
        has(&team.name)?;
        has("control-plane")?;
        has("kubernetes.azure.com/managedby")
    };
    wait_for("both to have what they want", is_settled);
    team.wait_ready("app");
    wait_for_a_look(&stage, &name, &install);
    let (ours, theirs) = (stage.registrations(&name), rival.changes());
    for _ in 0..3 {
        wait_for_a_look(&stage, &name, &install);
    }
    assert_eq!((stage.registrations(&name), rival.changes()), (ours, theirs), "both rest");

    // What changes on our side keeps what is theirs.
    let late = stage.team("enforcer-late");
    late.bind();
    wait_for("the new namespace", || {
        let entry = install.entry(GRANTED_ENTRY)?["namespaceSelector"].to_string();
        (entry.contains(&late.name) && entry.contains("control-plane")).then_some(())
    });
}

/// Takes away what is Ensign's, of every entry at once: one change for each repair, however many entries there are.
fn saboteur(registration: &Value) -> Option<Value> {
    let entries = registration["webhooks"].as_array()?.iter().enumerate();
    let closed = entries.filter(|(_, entry)| entry["failurePolicy"] == "Fail");
    let open =
        |(index, _)| json!({"op": "replace", "path": format!("/webhooks/{index}/failurePolicy"), "value": "Ignore"});
    let patch: Vec<_> = closed.map(open).collect();
    (!patch.is_empty()).then_some(Value::Array(patch))
}

#[test]
fn a_rival_that_takes_away_is_answered_ever_more_seldom() {
    let stage = Stage::enter();
    let install = filled(&stage, "saboteur");
    let clock = FakeClock::new();
    let name = unique("saboteur");
    let options = ReplicaOptions { webhook: Some(unseen(&install)), clock: clock.clone(), ..ReplicaOptions::default() };
    let _controller = stage.start(&name, options);
    let rival = Rival::start(&install, saboteur);
    // Written, repaired three times at once, and then no more before its time.
    wait_for("the fight", || (stage.registrations(&name) == 4 && rival.changes() == 4).then_some(()));
    for _ in 0..3 {
        wait_for_a_look(&stage, &name, &install);
    }
    assert_eq!(stage.registrations(&name), 4);
    for (wait, total) in [(1, 5), (2, 6), (4, 7)] {
        clock.pass(Duration::from_secs(wait));
        wait_for("the next repair", || {
            // A look that was under way when the time passed counts from its end. The clock stands again once the repair is
            // there: the rival takes its time, which must not be that of the repair after.
            let repaired = stage.registrations(&name) >= total;
            (!repaired).then(|| clock.pass(Duration::from_millis(20)));
            repaired.then_some(())
        });
        wait_for("the rival's answer", || (rival.changes() >= total).then_some(()));
        wait_for_a_look(&stage, &name, &install);
        assert_eq!(stage.registrations(&name), total);
    }
    drop(rival);
    clock.pass(Duration::from_secs(8));
    wait_for("peace", || (install.entry(LABELLED_ENTRY)?["failurePolicy"] == "Fail").then_some(()));
}
