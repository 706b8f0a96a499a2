//! `ensign teardown` as a process, with the SDK's own credential, on a cluster where no controller runs.

use std::process::Output;

use ensign_azure_emulator::state::Credential;
use ensign_core::cel::{Form, Policy, PolicyKind, bindings, inert, policies};
use ensign_core::credentials::names::{Subject, credential_name};
use ensign_runtime::clock::{Clock, SystemClock};
use serde_json::{Value, json};

use super::Azure;
use ensign_testkit::objects::{apply, kubectl, unique};
use ensign_testkit::testbed::Testbed;

fn run(testbed: &Testbed, azure: &Azure, name: &str, more: &[&str]) -> Output {
    let flags = ["teardown", "-o", "json", "--namespace", name, "--webhook-configuration", name];
    let mut command = azure.ensign(&[&flags[..], more].concat());
    command.env("KUBECONFIG", &testbed.control_plane.kubeconfig).output().expect("run ensign")
}

fn get(testbed: &Testbed, arguments: &[&str]) -> Value {
    let text = kubectl(testbed.control_plane, &[&["get", "--output", "json"][..], arguments].concat());
    serde_json::from_str(&text).expect("an object")
}

#[test]
fn teardown_with_yes_stops_the_controller_empties_policies_and_revokes_credentials() {
    let testbed = Testbed::acquire();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let azure = {
        let _entered = runtime.enter();
        Azure::start()
    };
    let name = unique("teardown-process");
    let control_plane = testbed.control_plane;
    kubectl(control_plane, &["create", "namespace", &name]);
    let labels = json!({"app": "controller"});
    let container = json!([{"name": "controller", "image": "ensign:1"}]);
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "ensign-controller", "namespace": name},
    });
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "ensign-controller", "namespace": name},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": container}},
        },
    });
    for object in [lease, deployment].into_iter().chain(inert()).chain(bindings()) {
        apply(control_plane, &object).expect("apply");
    }
    // Objects of other tests, in another Azure, are abandoned.
    let done = run(&testbed, &azure, &name, &["--credentials=abandon", "--yes", "--timeout=60s"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    for kind in ["mib", "mi"] {
        kubectl(control_plane, &["delete", kind, "--all", "--all-namespaces", "--timeout=60s"]);
    }

    let uid = get(&testbed, &["namespace", "kube-system"])["metadata"]["uid"].as_str().expect("a UID").to_owned();
    let (issuer, subject) = (control_plane.issuer.clone(), Subject::new(&name, "app"));
    let written = Credential {
        name: credential_name(&uid, &issuer, &subject),
        issuer,
        subject: subject.to_string(),
        audiences: vec!["api://AzureADTokenExchange".to_owned()],
        written_at: SystemClock.now(),
    };
    let existing = |change: Option<&Credential>| {
        azure.emulator.with_state(|state| {
            let orders = state.identities.values_mut().find(|found| found.id.name == "orders").expect("it exists");
            orders.credentials.extend(change.map(|one| (one.name.clone(), one.clone())));
            orders.credentials.keys().cloned().collect::<Vec<_>>()
        })
    };
    existing(Some(&written));
    let api = "ensign.dev/v1alpha1";
    let held = json!(["ensign.dev/credentials"]);
    let identity = json!({
        "apiVersion": api, "kind": "ManagedIdentity", "metadata": {"name": name, "finalizers": held},
        "spec": {"existing": {"resourceID": azure.orders().to_string()}},
    });
    let binding = json!({
        "apiVersion": api, "kind": "ManagedIdentityBinding",
        "metadata": {"name": "app", "namespace": name, "finalizers": held},
        "spec": {"identityRef": {"name": name}, "serviceAccountName": "app"},
    });
    for object in [identity, binding] {
        apply(control_plane, &object).expect("apply");
    }
    let touched = json!([{"op": "replace", "path": "/spec/failurePolicy", "value": "Ignore"}]).to_string();
    let policy = ["mutatingadmissionpolicy", "pods.ensign.dev"];
    kubectl(control_plane, &[&["patch"][..], &policy, &["--type", "json", "--patch", &touched]].concat());

    let delete = ["--credentials=delete", "--stop-controller=ensign-controller"];
    let done = run(&testbed, &azure, &name, &delete);
    assert_eq!(done.status.code(), Some(2), "a script has to pass --yes");
    assert_eq!(existing(None), std::slice::from_ref(&written.name));

    let done = run(&testbed, &azure, &name, &[&delete[..], &["--yes"]].concat());
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(0), "{said}");
    let report: Value = serde_json::from_slice(&done.stdout).expect("JSON and nothing else");
    assert_eq!(report["identities"][0]["deleted"], json!([written.name]), "{report:#}");
    assert!(existing(None).is_empty());
    assert_eq!(get(&testbed, &["deployment", "ensign-controller", "--namespace", &name])["spec"]["replicas"], 0);
    for (kind, object) in [("mi", name.as_str()), ("mib", "app")] {
        assert!(get(&testbed, &[kind, object, "--namespace", &name])["metadata"]["finalizers"].is_null(), "{kind}");
    }
    let inert = policies(Form::Inert);
    let is_it = |one: &&Policy| (one.kind, one.name) == (PolicyKind::Mutating, "pods.ensign.dev");
    let inert = inert.iter().find(is_it).expect("a policy");
    assert_eq!(get(&testbed, &policy)["spec"], inert.spec);
}
