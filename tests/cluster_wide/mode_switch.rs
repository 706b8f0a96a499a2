//! Switching between the webhook and the policies while pods are created.

use ensign_controller::InjectionTarget;
use ensign_core::cel::{self, Mode};
use ensign_runtime::clock::SystemClock;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::load::{Load, is_injected};
use crate::policy_namespace::{AUTHORITY, PolicyNamespace, config, pod};
use ensign_testkit::control_plane::ControlPlane;
use ensign_testkit::objects::{kubectl, unique, wait_for};
use ensign_testkit::policies::Policies;
use ensign_testkit::replica::{Replica, ReplicaOptions};
use ensign_testkit::testbed::Testbed;
use ensign_testkit::webhook::{NAME, Webhook};

fn start(testbed: &Testbed, webhook: &Webhook, name: &str, mode: Mode) -> Replica {
    let target = webhook.target();
    let injection = InjectionTarget {
        mode,
        namespace: NAME.to_owned(),
        config: ensign_core::admission::Config { excluded: target.excluded.clone(), ..config(&[]) },
    };
    let options = ReplicaOptions { webhook: Some(target), injection: Some(injection), ..ReplicaOptions::default() };
    let replica = testbed.start(name, options);
    replica.wait_ready();
    replica
}

fn webhooks(control_plane: &ControlPlane) -> usize {
    let text = kubectl(control_plane, &["get", "mutatingwebhookconfiguration", NAME, "--output", "json"]);
    let object: Value = serde_json::from_str(&text).expect("a configuration");
    object["webhooks"].as_array().map_or(0, Vec::len)
}

/// Whether the policies are as the manifest creates them.
fn are_inert(control_plane: &ControlPlane) -> bool {
    cel::policies(cel::Form::Inert).iter().all(|wanted| {
        let text = kubectl(control_plane, &["get", wanted.kind.plural(), wanted.name, "--output", "json"]);
        let object: Value = serde_json::from_str(&text).expect("a policy");
        object["spec"] == wanted.spec
    })
}

/// How often a controller wrote the admission policies.
fn policy_writes(control_plane: &ControlPlane, replica: &str) -> usize {
    let events = control_plane.audit_events_with(&format!("\"userAgent\":\"{replica}\""));
    let is_write = |event: &&Value| {
        let resource = event["objectRef"]["resource"].as_str().unwrap_or_default();
        event["verb"] == "update" && resource.ends_with("admissionpolicies")
    };
    events.iter().filter(is_write).count()
}

#[test]
fn switching_modes_under_load_loses_no_injection() {
    let testbed = Testbed::acquire();
    let control_plane = testbed.control_plane;
    let _policies = Policies::install(control_plane);
    let webhook = Webhook::start(control_plane, AUTHORITY, SystemClock::shared());
    let team = testbed.team("switch");
    kubectl(control_plane, &["create", "serviceaccount", "app", "--namespace", &team.name]);
    team.bind();
    let runtime = Runtime::new().expect("a runtime");
    let namespace =
        runtime.block_on(async { PolicyNamespace { client: control_plane.client().await, name: team.name.clone() } });
    let asks = pod(&json!({"spec": {"serviceAccountName": "app"}}));
    let injected = || runtime.block_on(namespace.dry_run(&asks)).is_ok_and(|pod| is_injected(&pod)).then_some(());

    let name = unique("by-webhook");
    let by_webhook = start(&testbed, &webhook, &name, Mode::Webhook);
    team.wait_ready("app");
    wait_for("a pod to be injected by the webhook", injected);
    wait_for("all policies to be inert", || are_inert(control_plane).then_some(()));

    let load = Load::start(control_plane, &team.name);
    by_webhook.stop().expect("stops");
    let name = unique("by-policy");
    let by_policy = start(&testbed, &webhook, &name, Mode::Policy);
    wait_for("the webhook to be unregistered", || (webhooks(control_plane) == 0).then_some(()));
    wait_for("a pod to be injected by policies", injected);
    assert!(load.end_without_loss() > 0);
    assert!(policy_writes(control_plane, &name) >= 6);

    // A controller that finds everything in sync writes nothing.
    by_policy.stop().expect("stops");
    let name = unique("at-rest");
    let at_rest = start(&testbed, &webhook, &name, Mode::Policy);
    let damaged = json!([{"op": "replace", "path": "/spec/failurePolicy", "value": "Ignore"}]).to_string();
    team.bind_account("second");
    team.wait_ready("second");
    assert_eq!(policy_writes(control_plane, &name), 0);
    // A changed one is repaired.
    kubectl(
        control_plane,
        &["patch", "mutatingadmissionpolicy", "pods.ensign.dev", "--type", "json", "--patch", &damaged],
    );
    wait_for("the policy to be repaired", || {
        let arguments =
            ["get", "mutatingadmissionpolicy", "pods.ensign.dev", "--output", "jsonpath={.spec.failurePolicy}"];
        (kubectl(control_plane, &arguments) == "Fail").then_some(())
    });

    at_rest.stop().expect("stops");
    let load = Load::start(control_plane, &team.name);
    let name = unique("by-webhook-again");
    let again = start(&testbed, &webhook, &name, Mode::Webhook);
    wait_for("the policies to be emptied", || are_inert(control_plane).then_some(()));
    assert!(webhooks(control_plane) > 0);
    wait_for("a pod to be injected by the webhook again", injected);
    assert!(load.end_without_loss() > 0);
    team.unbind("second");
    team.unbind("app");
    kubectl(
        control_plane,
        &["patch", "mutatingwebhookconfiguration", NAME, "--type", "merge", "--patch", r#"{"webhooks":[]}"#],
    );
    again.stop().expect("stops");
}

#[test]
fn the_policy_bindings_of_the_development_environment_are_current() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/dev/manifests/25-policy-bindings.yaml"))
        .expect("read the manifest");
    let documents: Vec<Value> =
        text.split("---\n").skip(1).map(|document| serde_saphyr::from_str(document).expect("YAML")).collect();
    let command = "ensign policies --bindings > dev/manifests/25-policy-bindings.yaml";
    assert_eq!(documents, cel::bindings(), "run `{command}`");
}
