//! `ensign webhook` as a process.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use ensign_testkit::control_plane::ControlPlane;
use ensign_testkit::objects::{apply, apply_crds, kubectl, unique, wait_for};
use ensign_testkit::webhook::empty_secret;
use ensign_testkit::webhook_process::WebhookProcess;

fn install() -> (&'static ControlPlane, String) {
    let control_plane = ControlPlane::shared();
    apply_crds(control_plane);
    let namespace = unique("process");
    kubectl(control_plane, &["create", "namespace", &namespace]);
    (control_plane, namespace)
}

#[tokio::test]
async fn invalid_requests_get_a_4xx_and_a_log_line_and_sigterm_shuts_down_gracefully() {
    let (control_plane, namespace) = install();
    apply(control_plane, &empty_secret(&namespace, &namespace)).expect("apply");
    let mut webhook =
        WebhookProcess::start(control_plane, &namespace, &["--tls-secret", &namespace, "--drain-duration=0s"]);
    let ready = webhook.ready();
    let health = format!("http://{}/readyz", ready["health_address"].as_str().expect("an address"));
    let url = ready["webhook_url"].as_str().expect("a URL");
    assert_eq!(reqwest::get(&health).await.expect("a response").status(), 200);
    let metrics = reqwest::get(health.replace("/readyz", "/metrics")).await.expect("a response");
    assert!(metrics.text().await.expect("text").contains("# TYPE ensign_admissions counter"));

    let output = "jsonpath={.data.ca\\.crt}";
    let ca = kubectl(control_plane, &["get", "secret", &namespace, "--namespace", &namespace, "--output", output]);
    let ca: k8s_openapi::ByteString = serde_json::from_value(Value::String(ca)).expect("base64");
    let ca = reqwest::Certificate::from_pem(&ca.0).expect("a certificate");
    let client = reqwest::Client::builder().tls_certs_only([ca]).no_proxy().timeout(Duration::from_secs(30));
    let client = client.build().expect("a client");
    let garbage = client.post(url).header("content-type", "application/json").body("{\"c4nary\": [");
    assert_eq!(garbage.send().await.expect("a response").status(), 400);
    let log = webhook.log();
    assert_eq!(log.lines().filter(|line| line.contains("request rejected")).count(), 1, "{log}");
    assert!(!log.contains("c4nary"), "{log}");
    assert!(!log.contains("PRIVATE KEY"), "{log}");

    let status = webhook.terminate();
    assert!(status.success(), "{status}: {}", webhook.log());
}

#[tokio::test]
async fn json_logs_name_the_object_and_the_request() {
    let (control_plane, namespace) = install();
    apply(control_plane, &empty_secret(&namespace, &namespace)).expect("apply");
    let flags = ["--tls-secret", &namespace, "--drain-duration=0s", "--log-format=json"];
    let mut webhook = WebhookProcess::start(control_plane, &namespace, &flags);
    let ready = webhook.ready();
    let url = ready["webhook_url"].as_str().expect("a URL");
    let client = reqwest::Client::builder().tls_danger_accept_invalid_certs(true).no_proxy();
    let client = client.timeout(Duration::from_secs(30)).build().expect("a client");
    let review = serde_json::json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "the-request", "operation": "CREATE", "namespace": "shop",
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "object": {
                "metadata": {"name": "orders-0", "labels": {"ensign.dev/inject": "true"}},
                "spec": {"serviceAccountName": "orders", "containers": [{"name": "app", "image": "app:1"}]},
            },
        },
    });
    let sent = client.post(url).header("content-type", "application/json").body(review.to_string());
    assert_eq!(sent.send().await.expect("a response").status(), 200);
    let log = webhook.log();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect("JSON on each line")).collect();
    let denied = lines.iter().find(|line| line["reason"] == "no_binding").expect("the denial");
    for (key, value) in
        [("request_id", "the-request"), ("namespace", "shop"), ("pod", "orders-0"), ("service_account", "orders")]
    {
        assert_eq!(denied[key], value, "{denied}");
    }
    assert!(webhook.terminate().success());
}

#[test]
fn without_its_secret_the_webhook_explains_how_to_create_it_and_continues_once_it_exists() {
    let (control_plane, namespace) = install();
    let mut webhook =
        WebhookProcess::start(control_plane, &namespace, &["--tls-secret", &namespace, "--drain-duration=0s"]);
    let way_out = format!("kubectl create secret generic {namespace} -n {namespace}");
    wait_for("the remedy in the log", || webhook.log().contains(&way_out).then_some(()));
    assert!(!webhook.folder.path().join("ready.json").exists());
    apply(control_plane, &empty_secret(&namespace, &namespace)).expect("apply");
    webhook.ready();
}

#[test]
fn all_invalid_flags_are_named_at_once() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ensign"))
        .args(["webhook", "--namespace=Upper", "--tls-san=a b", "--azure-cloud=custom"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("start the webhook");
    let mut said = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut said).expect("read");
    assert!(!child.wait().expect("an exit status").success());
    for flag in ["--namespace", "--tls-san", "--azure-authority-host"] {
        assert!(said.contains(flag), "{flag} is missing: {said}");
    }
}
