//! `ensign check` as a process: what works is said to work, and what does not has its cure.

use ensign_core::webhook_configuration::LABELLED_ENTRY;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::{Azure, CONTROLLER};
use ensign_testkit::control_plane::ControlPlane;
use ensign_testkit::objects::{apply, apply_crds, kubectl, unique};

/// Exit status, the looks, and standard error.
fn run(azure: &Azure, more: &[&str], kubeconfig: Option<&ControlPlane>) -> (i32, Vec<Value>, String) {
    let cas = format!("{}\n{}", azure.emulator.info().ca_pem, azure.issuer.ca_pem);
    let ca_file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(ca_file.path(), cas).expect("write");
    let issuer = ["--service-account-issuer", &azure.issuer.url, "--allow-private-issuer"];
    let mut command = azure.ensign(&[&["check", "-o", "json"][..], &issuer, more].concat());
    command.env("ENSIGN_AZURE_CA_FILE", ca_file.path());
    if let Some(cluster) = kubeconfig {
        command.env("KUBECONFIG", &cluster.kubeconfig);
    }
    let done = command.output().expect("run ensign");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    let report: Value = serde_json::from_slice(&done.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
    let checks = report["checks"].as_array().expect("looks").clone();
    let status = done.status.code().expect("it ends");
    let fails = checks.iter().any(|check| check["outcome"] == "Fail");
    assert_eq!((report["ok"] == true, status), (!fails, i32::from(fails)), "{report:#}");
    (status, checks, said)
}

/// The look of this name that speaks of this.
fn find<'a>(checks: &'a [Value], name: &str, about: &str) -> &'a Value {
    let found = checks.iter().find(|check| check["check"] == name && check["said"].to_string().contains(about));
    found.unwrap_or_else(|| panic!("no {name} about {about}: {checks:#?}"))
}

/// What an install and a controller that leads would have made, all of one name.
fn install(cluster: &ControlPlane) -> String {
    apply_crds(cluster);
    let name = unique("check");
    kubectl(cluster, &["create", "namespace", &name]);
    let webhook = json!({
        "name": LABELLED_ENTRY, "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Fail",
        "clientConfig": {"url": "https://127.0.0.1:1/"},
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "no-such-namespace"}},
        "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
    });
    let now = Timestamp::now().to_string();
    let now = format!("{}.000000Z", now.split(['.', 'Z']).next().expect("a time"));
    for object in [
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name, "namespace": name},
            "spec": {"holderIdentity": "one_of_two", "leaseDurationSeconds": 15, "renewTime": now},
        }),
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": name}, "webhooks": [webhook],
        }),
    ] {
        apply(cluster, &object).expect("apply");
    }
    name
}

#[tokio::test(flavor = "multi_thread")]
async fn what_works_is_said_to_work() {
    let azure = Azure::start();
    let cluster = ControlPlane::shared();
    let name = install(cluster);
    let orders = azure.orders().to_string();
    let flags = ["--namespace", &name, "--lease-name", &name, "--webhook-configuration", &name];
    let (_, checks, _) = run(&azure, &[&flags[..], &["--azure-allowed-scopes", &orders]].concat(), Some(cluster));
    for (check, about) in [
        ("api-server", "v1."),
        ("crds", "of this version"),
        ("leader", "one_of_two"),
        ("injection", "1 entries"),
        ("discovery", "1 key(s)"),
        ("credential", "Entra issues a token"),
        ("tenant", "orders is in"),
        ("role", "userAssignedIdentities/orders and its credentials"),
    ] {
        assert_eq!(find(&checks, check, about)["outcome"], "Ok", "{check}");
    }
    assert_eq!(find(&checks, "issuer", "127.0.0.1")["outcome"], "Warn");
    kubectl(cluster, &["delete", "mutatingwebhookconfiguration", &name]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_work_has_its_cure() {
    let azure = Azure::start();
    let cluster = ControlPlane::shared();
    apply_crds(cluster);
    let orders = azure.orders().to_string();
    // Nothing of an install is there, and the role lacks a right.
    azure.allow(["Microsoft.ManagedIdentity/userAssignedIdentities/read".to_owned()]);
    let absent = unique("absent");
    let flags = ["--lease-name", &absent, "--namespace", &absent, "--webhook-configuration", &absent];
    let (status, checks, said) =
        run(&azure, &[&flags[..], &["--azure-allowed-scopes", &orders]].concat(), Some(cluster));
    assert_eq!(status, 1, "{said}");
    for (check, about, cure) in [
        ("leader", "the Lease has no holder", "kubectl get pods"),
        ("injection", "pods are not injected", "applies the chart again"),
        ("role", "federatedIdentityCredentials/read", "ensign azure-role --scope"),
    ] {
        let found = find(&checks, check, about);
        assert_eq!(found["outcome"], "Fail");
        assert!(found["cure"].as_str().expect("a cure").contains(cure), "{found:#}");
    }
    // The controller's own identity trusts nobody any more.
    azure.emulator.with_state(|state| {
        let own = state.identities.values_mut().find(|found| found.id.name == "controller").expect("it is there");
        own.credentials.clear();
    });
    let (status, checks, _) = run(&azure, &flags, None);
    assert_eq!(status, 1);
    let found = find(&checks, "credential", "AADSTS");
    let cure = found["cure"].as_str().expect("a cure");
    let subject = CONTROLLER.replace("ensign-system", &absent);
    for part in ["az identity federated-credential create", &azure.issuer.url, &subject] {
        assert!(cure.contains(part), "{part}: {cure}");
    }
    assert_eq!(find(&checks, "api-server", "")["outcome"], "Fail", "no kubeconfig");
}
