//! The webhook configuration between the controller and other programs, on a real API server.

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
use ensign_testkit::objects::{apply, kubectl, unique, wait_for};
use ensign_testkit::replica::{Replica, ReplicaOptions};
use ensign_testkit::testbed::Testbed;
use ensign_testkit::webhook_process::{Install, LoadBalancer};

/// An install without a webhook, whose Secret is filled.
fn filled(testbed: &Testbed, prefix: &str) -> Install {
    let install = Install::new(testbed.control_plane, prefix);
    let names = ["127.0.0.1".to_owned()];
    let made = Bundle::default().repaired(None, &names, Timestamp::now(), &aws_lc_rs::default_provider());
    let mut data = std::collections::BTreeMap::new();
    made.expect("create certificates").0.write(&mut data);
    let name = &install.name;
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": name}, "data": data});
    apply(testbed.control_plane, &secret).expect("apply");
    install
}

/// The settings of a controller that registers the webhook without probing it.
fn without_probe(install: &Install) -> WebhookTarget {
    WebhookTarget { probe: None, ..install.target("127.0.0.1:1".parse().expect("an address")) }
}

fn start(testbed: &Testbed, name: &str, target: WebhookTarget) -> Replica {
    testbed.start(name, ReplicaOptions { webhook: Some(target), ..ReplicaOptions::default() })
}

/// Waits until the controller has checked the webhook configuration and applied the result.
fn wait_for_check(testbed: &Testbed, controller: &str, install: &Install) {
    // The second check begins after the first one has finished, including its writes.
    for _ in 0..2 {
        let before = testbed.registration_reads(controller);
        let touch = format!("touched={}", unique("touch"));
        let arguments = ["annotate", "--overwrite", "mutatingwebhookconfiguration", &install.name, &touch];
        kubectl(testbed.control_plane, &arguments);
        wait_for("the controller to check", || (testbed.registration_reads(controller) > before).then_some(()));
    }
}

#[test]
fn the_registration_is_filled_in_only_once_the_webhook_responds() {
    let testbed = Testbed::acquire();
    let install = Install::new(testbed.control_plane, "probe");
    let balancer = LoadBalancer::start();
    // A replica fills the Secret and exits.
    let mut early = install.start(&["--drain-duration=0s"]);
    early.ready();
    assert!(early.terminate().success());
    let _controller = start(&testbed, &unique("probe"), install.target(balancer.address));
    wait_for("the controller to probe the webhook", || (balancer.turned_away() > 1).then_some(()));
    assert!(install.registration()["webhooks"].is_null());

    let mut webhook = install.start(&["--drain-duration=0s"]);
    balancer.add(webhook.endpoint());
    wait_for("the registration", || install.entry(LABELLED_ENTRY));
}

#[test]
fn a_webhook_with_a_certificate_of_another_ca_counts_as_unreachable() {
    let testbed = Testbed::acquire();
    let (install, other) = (filled(&testbed, "untrusted"), Install::new(testbed.control_plane, "other"));
    let balancer = LoadBalancer::start();
    let mut webhook = other.start(&["--drain-duration=0s"]);
    let backend = webhook.endpoint();
    balancer.add(backend);
    let before = balancer.accepted();
    let _controller = start(&testbed, &unique("untrusted"), install.target(balancer.address));
    wait_for("the controller to probe twice", || (balancer.accepted() > before + 1).then_some(()));
    assert!(install.registration()["webhooks"].is_null());
}

#[test]
fn the_api_server_stores_every_webhook_entry_unchanged() {
    let testbed = Testbed::acquire();
    let install = filled(&testbed, "entries");
    let team = testbed.team("entries-team");
    team.bind();
    let name = unique("entries");
    let _controller = start(&testbed, &name, WebhookTarget { compatibility: true, ..without_probe(&install) });
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
    wait_for_check(&testbed, &name, &install);
    let settled = testbed.registrations(&name);
    wait_for_check(&testbed, &name, &install);
    assert_eq!(testbed.registrations(&name), settled, "defaults of the API server are no difference");
}

#[test]
fn an_externally_injected_ca_is_left_to_that_program() {
    let testbed = Testbed::acquire();
    let install = Install::new(testbed.control_plane, "external");
    let team = testbed.team("external-team");
    team.bind();
    let name = unique("external");
    let _controller = start(&testbed, &name, WebhookTarget { ca: CaInjection::External, ..without_probe(&install) });
    let nowhere = json!([{"key": "kubernetes.io/metadata.name", "operator": "In", "values": [""]}]);
    let entry = wait_for("an entry to inject a CA into", || install.entry(GRANTED_ENTRY));
    assert_eq!(entry["namespaceSelector"]["matchExpressions"], nowhere, "no pod is sent to the webhook without a CA");

    let ca = Bundle::default()
        .repaired(None, &["x.example".to_owned()], Timestamp::now(), &aws_lc_rs::default_provider())
        .expect("create certificates");
    let ca = json!(k8s_openapi::ByteString(ca.0.ca_certificate().to_vec()));
    let count = install.registration()["webhooks"].as_array().expect("entries").len();
    let inject = |index| json!({"op": "add", "path": format!("/webhooks/{index}/clientConfig/caBundle"), "value": ca});
    install.patch_registration(&Value::Array((0..count).map(inject).collect()));
    wait_for("the namespace to be selected", || {
        let entry = install.entry(GRANTED_ENTRY)?;
        entry["namespaceSelector"].to_string().contains(&team.name).then_some(())
    });
    for entry in [GRANTED_ENTRY, LABELLED_ENTRY] {
        assert_eq!(install.entry(entry).expect("an entry")["clientConfig"]["caBundle"], ca);
    }
}

#[test]
fn the_registration_is_emptied_when_the_webhooks_namespace_is_deleted() {
    let testbed = Testbed::acquire();
    let install = filled(&testbed, "going");
    let _controller = start(&testbed, &unique("going"), without_probe(&install));
    wait_for("the registration", || install.entry(LABELLED_ENTRY));
    kubectl(testbed.control_plane, &["delete", "namespace", &install.name, "--timeout=60s"]);
    wait_for("no pod to be sent to the webhook", || install.entry(LABELLED_ENTRY).is_none().then_some(()));
}

/// Another program that changes the webhook configuration whenever it differs from what it wants.
struct OtherProgram {
    stop: Arc<AtomicBool>,
    changes: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl OtherProgram {
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

impl Drop for OtherProgram {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Adds what the admissions enforcer of AKS adds to each entry.
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
fn changes_of_another_program_to_selectors_are_kept() {
    let testbed = Testbed::acquire();
    let install = filled(&testbed, "enforcer");
    let other_program = OtherProgram::start(&install, enforcer);
    let name = unique("enforcer");
    let _controller = start(&testbed, &name, without_probe(&install));
    let team = testbed.team("enforcer-team");
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
    wait_for_check(&testbed, &name, &install);
    let (ours, theirs) = (testbed.registrations(&name), other_program.changes());
    for _ in 0..3 {
        wait_for_check(&testbed, &name, &install);
    }
    assert_eq!((testbed.registrations(&name), other_program.changes()), (ours, theirs), "both come to rest");

    // Changes of Ensign keep those of the other program.
    let late = testbed.team("enforcer-late");
    late.bind();
    wait_for("the new namespace", || {
        let entry = install.entry(GRANTED_ENTRY)?["namespaceSelector"].to_string();
        (entry.contains(&late.name) && entry.contains("control-plane")).then_some(())
    });
}

/// Removes Ensign's settings from every entry at once: one change per repair, however many entries there are.
fn saboteur(registration: &Value) -> Option<Value> {
    let entries = registration["webhooks"].as_array()?.iter().enumerate();
    let closed = entries.filter(|(_, entry)| entry["failurePolicy"] == "Fail");
    let open =
        |(index, _)| json!({"op": "replace", "path": format!("/webhooks/{index}/failurePolicy"), "value": "Ignore"});
    let patch: Vec<_> = closed.map(open).collect();
    (!patch.is_empty()).then_some(Value::Array(patch))
}

#[test]
fn removals_by_another_program_are_repaired_with_backoff() {
    let testbed = Testbed::acquire();
    let install = filled(&testbed, "saboteur");
    let clock = FakeClock::new();
    let name = unique("saboteur");
    let options =
        ReplicaOptions { webhook: Some(without_probe(&install)), clock: clock.clone(), ..ReplicaOptions::default() };
    let _controller = testbed.start(&name, options);
    let other_program = OtherProgram::start(&install, saboteur);
    // Written, repaired three times immediately, and then only after the backoff.
    wait_for("the first repairs", || (testbed.registrations(&name) == 4 && other_program.changes() == 4).then_some(()));
    for _ in 0..3 {
        wait_for_check(&testbed, &name, &install);
    }
    assert_eq!(testbed.registrations(&name), 4);
    for (wait, total) in [(1, 5), (2, 6), (4, 7)] {
        clock.advance(Duration::from_secs(wait));
        wait_for("the next repair", || {
            // For a check in progress when the clock advanced, the backoff counts from its end. The clock stops once the repair is
            // done: the other program takes time, which must not count towards the next repair.
            let repaired = testbed.registrations(&name) >= total;
            (!repaired).then(|| clock.advance(Duration::from_millis(20)));
            repaired.then_some(())
        });
        wait_for("the other program's next change", || (other_program.changes() >= total).then_some(()));
        wait_for_check(&testbed, &name, &install);
        assert_eq!(testbed.registrations(&name), total);
    }
    drop(other_program);
    clock.advance(Duration::from_secs(8));
    wait_for("the entry to stay repaired", || {
        (install.entry(LABELLED_ENTRY)?["failurePolicy"] == "Fail").then_some(())
    });
}
