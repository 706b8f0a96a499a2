//! Compatibility mode behind a real API server: one test for each rule that pods of azure-workload-identity rely on.

use std::time::Duration;

use ensign_api::keys::{INJECTED_BY_ANNOTATION, TOKEN_FILE, TOKEN_MOUNT_PATH, TOKEN_PATH};
use serde_json::{Value, json};

use ensign_testkit::azure::AUDIENCE;
use ensign_testkit::azure_workload_identity::{
    AUTHORITY, CompatibilityWebhook, NAMESPACE_LABEL, TENANT, in_compatibility_mode,
};
use ensign_testkit::clock::FakeClock;
use ensign_testkit::control_plane::ControlPlane;
use ensign_testkit::objects::{Team, apply, condition_of, kubectl, kubectl_with, unique, wait_for};
use ensign_testkit::pods::{create, env, env_names};
use ensign_testkit::replica::ReplicaOptions;
use ensign_testkit::testbed::Testbed;
use ensign_testkit::webhook::COMPATIBLE_ONLY;

const USE: &str = "azure.workload.identity/use";
const CLIENT_ID: &str = "azure.workload.identity/client-id";
const TENANT_ID: &str = "azure.workload.identity/tenant-id";
const EXPIRATION: &str = "azure.workload.identity/service-account-token-expiration";
const SKIP: &str = "azure.workload.identity/skip-containers";
const PROXY: &str = "azure.workload.identity/inject-proxy-sidecar";
const PROXY_PORT: &str = "azure.workload.identity/proxy-sidecar-port";
const ANNOTATED: &str = "c11e0000-0000-4000-8000-0000000000c1";

/// A namespace for compatibility mode, as in a cluster that migrates, with the annotated service account `app`.
struct Tenant {
    control_plane: &'static ControlPlane,
    namespace: String,
}

impl Tenant {
    /// The namespace of a team, which can have bindings.
    fn of(team: &Team) -> Self {
        let tenant = Self { control_plane: CompatibilityWebhook::shared().control_plane, namespace: team.name.clone() };
        tenant.join();
        tenant.account("app", &json!({CLIENT_ID: ANNOTATED}));
        tenant
    }

    fn new(prefix: &str) -> Self {
        let webhook = CompatibilityWebhook::shared();
        let tenant = Self { control_plane: webhook.control_plane, namespace: unique(prefix) };
        kubectl(tenant.control_plane, &["create", "namespace", &tenant.namespace]);
        tenant.join();
        tenant.account("app", &json!({CLIENT_ID: ANNOTATED}));
        tenant
    }

    /// From now on the API server sends pods of the namespace to the webhook.
    fn join(&self) {
        let label = format!("{NAMESPACE_LABEL}=true");
        kubectl(self.control_plane, &["label", "namespace", &self.namespace, &label]);
        let probe =
            self.pod(&json!({"metadata": {"annotations": {PROXY: "true"}}, "spec": {"serviceAccountName": "default"}}));
        wait_for("the API server to call the webhook", || {
            self.dry_run(&probe).err().filter(|said| said.contains("compatible-pods.ensign.dev"))
        });
    }

    fn account(&self, name: &str, annotations: &Value) {
        let metadata = json!({"name": name, "namespace": self.namespace, "annotations": annotations});
        apply(self.control_plane, &json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}))
            .expect("apply the service account");
    }

    /// A pod of service account `app` with the label.
    fn pod(&self, change: &Value) -> Value {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "pod", "namespace": self.namespace, "labels": {USE: "true"}},
            "spec": {
                "serviceAccountName": "app", "automountServiceAccountToken": false,
                "containers": [{"name": "app", "image": "app:1"}],
            },
        });
        json_patch::merge(&mut pod, change);
        pod
    }

    /// The pod as the API server would store it, or the error.
    fn dry_run(&self, pod: &Value) -> Result<Value, String> {
        create(self.control_plane, pod, &["--dry-run=server"])
    }

    fn admitted(&self, change: &Value) -> Value {
        self.dry_run(&self.pod(change)).expect("admitted")
    }

    fn refused(&self, change: &Value) -> String {
        self.dry_run(&self.pod(change)).expect_err("denied")
    }

    /// The warning of `kubectl create`.
    fn warning(&self, change: &Value) -> Option<String> {
        create(self.control_plane, &self.pod(change), &["--dry-run=server", "--warnings-as-errors"]).err()
    }

    fn warned(&self, change: &Value) -> String {
        self.warning(change).expect("a warning")
    }
}

fn app(pod: &Value) -> &Value {
    &pod["spec"]["containers"][0]
}

fn lifetime(pod: &Value) -> &Value {
    &pod["spec"]["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"]
}

fn by(pod: &Value) -> &str {
    pod["metadata"]["annotations"][INJECTED_BY_ANNOTATION].as_str().unwrap_or_default()
}

#[test]
fn only_the_pods_own_label_with_the_value_true_counts() {
    let tenant = Tenant::new("c-label");
    for value in [json!(null), json!("false"), json!("True"), json!("1")] {
        let pod = tenant.admitted(&json!({"metadata": {"labels": {USE: value}}}));
        assert_eq!(env(app(&pod)), [], "{value}");
    }
    kubectl(
        tenant.control_plane,
        &["label", "serviceaccount", "app", "--namespace", &tenant.namespace, &format!("{USE}=true")],
    );
    let pod = tenant.admitted(&json!({"metadata": {"labels": {USE: null}}}));
    assert_eq!(env(app(&pod)), []);
    assert_eq!(env_names(app(&tenant.admitted(&json!({})))).len(), 4);
}

#[test]
fn the_variables_are_injected_in_order_with_their_values() {
    let tenant = Tenant::new("c-env");
    let pod = tenant.admitted(&json!({"spec": {"containers": [
        {"name": "app", "image": "app:1", "env": [{"name": "FIRST", "value": "1"}]},
    ]}}));
    assert_eq!(
        env(app(&pod)),
        [
            ("FIRST", "1"),
            ("AZURE_CLIENT_ID", ANNOTATED),
            ("AZURE_TENANT_ID", TENANT),
            ("AZURE_FEDERATED_TOKEN_FILE", TOKEN_FILE),
            ("AZURE_AUTHORITY_HOST", AUTHORITY),
        ]
    );
    assert_eq!(TOKEN_FILE, "/var/run/secrets/azure/wi/token/azure-identity-token");
    assert_eq!(by(&pod), "ServiceAccount/app=Annotations");
}

#[test]
fn an_existing_variable_is_kept_and_a_difference_warned_about() {
    let tenant = Tenant::new("c-kept");
    let change = json!({"spec": {"containers": [{"name": "app", "image": "app:1", "env": [
        {"name": "AZURE_CLIENT_ID", "value": "mine"}, {"name": "AZURE_AUTHORITY_HOST", "value": AUTHORITY},
    ]}]}});
    let pod = tenant.admitted(&change);
    assert_eq!(
        env_names(app(&pod)),
        ["AZURE_CLIENT_ID", "AZURE_AUTHORITY_HOST", "AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE"]
    );
    assert_eq!(env(app(&pod))[0].1, "mine");
    assert!(tenant.warned(&change).contains("AZURE_CLIENT_ID keeps its value \"mine\""));
}

#[test]
fn init_containers_and_native_sidecars_are_injected_too() {
    let tenant = Tenant::new("c-init");
    let pod = tenant.admitted(&json!({"spec": {"initContainers": [
        {"name": "init", "image": "init:1"}, {"name": "sidecar", "image": "sidecar:1", "restartPolicy": "Always"},
    ]}}));
    for container in pod["spec"]["initContainers"].as_array().expect("init containers") {
        assert_eq!(env_names(container).len(), 4, "{container:#}");
        assert_eq!(container["volumeMounts"][0]["mountPath"], TOKEN_MOUNT_PATH);
    }
}

#[test]
fn ephemeral_containers_are_never_injected() {
    let tenant = Tenant::new("c-ephemeral");
    let mut pod = create(tenant.control_plane, &tenant.pod(&json!({})), &[]).expect("created");
    assert_eq!(env_names(app(&pod)).len(), 4);
    pod["spec"]["ephemeralContainers"] = json!([{"name": "debug", "image": "debug:1"}]);
    let path = format!("/api/v1/namespaces/{}/pods/pod/ephemeralcontainers", tenant.namespace);
    let replaced =
        kubectl_with(tenant.control_plane, &["replace", "--raw", &path, "--filename", "-"], &pod.to_string());
    let pod: Value = serde_json::from_str(&replaced.expect("replaced")).expect("a pod");
    let debug = &pod["spec"]["ephemeralContainers"][0];
    assert_eq!(debug["name"], "debug");
    assert!(debug["env"].is_null() && debug["volumeMounts"].is_null(), "{debug:#}");
}

#[test]
fn the_token_is_projected_and_mounted_read_only_from_a_volume_named_after_the_pod() {
    let tenant = Tenant::new("c-volume");
    let pod = tenant.admitted(&json!({}));
    let name = "azure-workload-identity-reserved-425c89ed5bb78a7623fae60fd8a6f6";
    let token = json!({"path": TOKEN_PATH, "audience": AUDIENCE, "expirationSeconds": 3600});
    let projected = json!({"defaultMode": 420, "sources": [{"serviceAccountToken": token}]});
    assert_eq!(pod["spec"]["volumes"], json!([{"name": name, "projected": projected}]));
    let mount = json!({"name": name, "mountPath": "/var/run/secrets/azure/wi", "readOnly": true});
    assert_eq!(app(&pod)["volumeMounts"], json!([mount]));
    assert_eq!((TOKEN_PATH, AUDIENCE), ("token/azure-identity-token", "api://AzureADTokenExchange"));
}

#[test]
fn the_volume_of_a_pod_whose_name_is_generated_is_named_after_the_prefix() {
    let tenant = Tenant::new("c-prefix");
    let pod = tenant.admitted(&json!({"metadata": {"name": null, "generateName": "web-"}}));
    let name = "azure-workload-identity-reserved-2f3cfc2eb6118051c2b0e512de0d8e";
    assert_eq!(pod["spec"]["volumes"][0]["name"], name);
}

#[test]
fn without_a_client_id_that_variable_is_left_out_and_the_pod_is_admitted_with_a_warning() {
    let tenant = Tenant::new("c-no-client");
    tenant.account("bare", &json!({}));
    tenant.account("empty", &json!({CLIENT_ID: ""}));
    for account in ["bare", "empty"] {
        let change = json!({"spec": {"serviceAccountName": account}});
        let expected = ["AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_AUTHORITY_HOST"];
        assert_eq!(env_names(app(&tenant.admitted(&change))), expected);
        let said = tenant.warned(&change);
        assert!(said.contains(&format!("service account {account:?} has no annotation {CLIENT_ID}")), "{said}");
    }
}

#[test]
fn a_client_id_from_env_from_is_not_hidden_by_an_empty_one() {
    let tenant = Tenant::new("c-env-from");
    tenant.account("bare", &json!({}));
    let env_from = json!([{"configMapRef": {"name": "identity"}}]);
    let containers = json!([{"name": "app", "image": "app:1", "envFrom": env_from}]);
    let pod = tenant.admitted(&json!({"spec": {"serviceAccountName": "bare", "containers": containers}}));
    assert_eq!(app(&pod)["envFrom"], env_from);
    assert!(!env_names(app(&pod)).contains(&"AZURE_CLIENT_ID"));
}

#[test]
fn the_tenant_comes_from_the_service_account_then_the_configuration_and_an_empty_one_is_omitted() {
    let tenant = Tenant::new("c-tenant");
    tenant.account("own", &json!({CLIENT_ID: ANNOTATED, TENANT_ID: "own-tenant"}));
    tenant.account("empty", &json!({CLIENT_ID: ANNOTATED, TENANT_ID: ""}));
    let of = |account: &str| tenant.admitted(&json!({"spec": {"serviceAccountName": account}}));
    assert_eq!(env(app(&of("app")))[1], ("AZURE_TENANT_ID", TENANT));
    assert_eq!(env(app(&of("own")))[1], ("AZURE_TENANT_ID", "own-tenant"));
    assert_eq!(env_names(app(&of("empty"))), ["AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_AUTHORITY_HOST"]);
}

#[test]
fn the_token_lifetime_comes_from_the_pod_then_the_service_account_then_one_hour() {
    let tenant = Tenant::new("c-lifetime");
    tenant.account("day", &json!({CLIENT_ID: ANNOTATED, EXPIRATION: "86400"}));
    tenant.account("empty", &json!({CLIENT_ID: ANNOTATED, EXPIRATION: ""}));
    let of = |account: &str, of_pod: Value| {
        let annotations = json!({EXPIRATION: of_pod});
        tenant.admitted(&json!({"metadata": {"annotations": annotations}, "spec": {"serviceAccountName": account}}))
    };
    assert_eq!(lifetime(&of("app", json!(null))), 3600);
    assert_eq!(lifetime(&of("empty", json!(null))), 3600);
    assert_eq!(lifetime(&of("day", json!(null))), 86_400);
    assert_eq!(lifetime(&of("day", json!("7200"))), 7200);
    assert_eq!(lifetime(&of("day", json!(""))), 86_400);
}

#[test]
fn a_token_lifetime_outside_3600_to_86400_denies_the_pod() {
    let tenant = Tenant::new("c-refused");
    for value in ["3599", "86401", "1h"] {
        let said = tenant.refused(&json!({"metadata": {"annotations": {EXPIRATION: value}}}));
        assert!(said.contains(&format!("annotation {EXPIRATION} of the pod is {value:?}")), "{said}");
    }
    tenant.account("odd", &json!({CLIENT_ID: ANNOTATED, EXPIRATION: "soon"}));
    let said = tenant.refused(&json!({"spec": {"serviceAccountName": "odd"}}));
    assert!(said.contains("of the service account is \"soon\""), "{said}");
}

#[test]
fn skipped_containers_are_unchanged() {
    let tenant = Tenant::new("c-skip");
    let pod = tenant.admitted(&json!({
        "metadata": {"annotations": {SKIP: " init ;proxy;; "}},
        "spec": {
            "initContainers": [{"name": "init", "image": "init:1"}],
            "containers": [{"name": "app", "image": "app:1"}, {"name": "proxy", "image": "proxy:1"}],
        },
    }));
    assert_eq!(env_names(app(&pod)).len(), 4);
    for container in [&pod["spec"]["initContainers"][0], &pod["spec"]["containers"][1]] {
        assert!(container["env"].is_null() && container["volumeMounts"].is_null(), "{container:#}");
    }
}

#[test]
fn the_proxy_sidecar_annotation_denies_the_pod_and_a_port_alone_has_no_effect() {
    let tenant = Tenant::new("c-proxy");
    for value in ["true", "false", ""] {
        let said = tenant.refused(&json!({"metadata": {"annotations": {PROXY: value}}}));
        assert!(said.contains("Ensign has no proxy sidecar"), "{said}");
    }
    assert_eq!(env_names(app(&tenant.admitted(&json!({"metadata": {"annotations": {PROXY_PORT: "8080"}}})))).len(), 4);
}

#[test]
fn a_pod_without_a_service_account_uses_the_default_one() {
    let tenant = Tenant::new("c-default");
    let annotation = format!("{CLIENT_ID}=default-client");
    let arguments = ["annotate", "serviceaccount", "default", "--namespace", &tenant.namespace, &annotation];
    kubectl(tenant.control_plane, &arguments);
    let pod = tenant.admitted(&json!({"spec": {"serviceAccountName": null}}));
    assert_eq!(env(app(&pod))[0], ("AZURE_CLIENT_ID", "default-client"));
}

/// The API server rejects such a pod before it calls webhooks, so this test calls the webhook itself.
#[tokio::test]
async fn a_missing_service_account_denies_the_pod_with_the_upstream_message() {
    let webhook = CompatibilityWebhook::shared();
    let ca: k8s_openapi::ByteString = serde_json::from_value(json!(webhook.ca)).expect("base64");
    let ca = reqwest::Certificate::from_pem(&ca.0).expect("a certificate");
    let client = reqwest::Client::builder().tls_certs_only([ca]).no_proxy().timeout(Duration::from_secs(30));
    let client = client.build().expect("a client");
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "1", "resource": {"group": "", "version": "v1", "resource": "pods"}, "operation": "CREATE",
            "namespace": "default",
            "object": {
                "metadata": {"name": "pod", "labels": {USE: "true"}},
                "spec": {"serviceAccountName": "nobody", "containers": [{"name": "app"}]},
            },
        },
    });
    let answer: Value =
        client.post(&webhook.url).json(&review).send().await.expect("a response").json().await.expect("a review");
    assert_eq!(answer["response"]["allowed"], false);
    let said = answer["response"]["status"]["message"].as_str().expect("a message");
    assert!(said.contains("serviceaccounts \"nobody\" not found"), "{said}");
}

#[test]
fn a_new_service_account_is_used_immediately() {
    let tenant = Tenant::new("c-fresh");
    for round in 0..8 {
        let account = format!("fresh-{round}");
        tenant.account(&account, &json!({CLIENT_ID: account}));
        let pod = tenant.admitted(&json!({"spec": {"serviceAccountName": account}}));
        assert_eq!(env(app(&pod))[0], ("AZURE_CLIENT_ID", account.as_str()));
    }
}

#[test]
fn everything_else_in_a_pod_is_unchanged() {
    let tenant = Tenant::new("c-unknown");
    let with = |label: &str| {
        let metadata = json!({"labels": {USE: label, "app": "web"}, "annotations": {"team.example/a": "b"}});
        tenant.admitted(&json!({"metadata": metadata, "spec": {
            "hostUsers": false,
            "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["db"]}],
            "readinessGates": [{"conditionType": "example.com/ready"}],
            "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
            "resources": {"limits": {"cpu": "1"}},
            "containers": [{
                "name": "app", "image": "app:1", "restartPolicy": "Never",
                "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "NotRequired"}],
                "startupProbe": {"grpc": {"port": 9000}},
                "securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}},
                "volumeMounts": [{"name": "data", "mountPath": "/data", "readOnly": true, "recursiveReadOnly": "IfPossible"}],
                "env": [{"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
            }],
            "volumes": [{"name": "data", "image": {"reference": "data:1", "pullPolicy": "IfNotPresent"}}],
        }}))
    };
    let (before, mut after) = (with("no"), with("true"));
    assert_eq!(env_names(app(&after)).len(), 4, "it is injected");
    let container = &mut after["spec"]["containers"][0];
    container["env"].as_array_mut().expect("variables").truncate(1);
    container["volumeMounts"].as_array_mut().expect("mounts").truncate(1);
    after["spec"]["volumes"].as_array_mut().expect("volumes").truncate(1);
    assert_eq!(after["spec"], before["spec"]);
    after["metadata"]["annotations"].as_object_mut().expect("annotations").remove(INJECTED_BY_ANNOTATION);
    assert_eq!(after["metadata"]["annotations"], before["metadata"]["annotations"]);
}

#[test]
fn a_copy_of_an_injected_pod_is_admitted_unchanged() {
    let tenant = Tenant::new("c-again");
    let first = tenant.admitted(&json!({}));
    let mut copy = first.clone();
    copy["metadata"] = json!({
        "name": "copy", "namespace": tenant.namespace, "labels": first["metadata"]["labels"],
        "annotations": first["metadata"]["annotations"],
    });
    copy.as_object_mut().expect("a pod").remove("status");
    let second = tenant.dry_run(&copy).expect("admitted");
    assert_eq!(second["spec"], first["spec"]);
    assert_eq!(second["metadata"]["annotations"], first["metadata"]["annotations"]);
}

#[test]
fn a_binding_takes_precedence_over_annotations_and_the_pod_records_it() {
    let team = Team::named(COMPATIBLE_ONLY[0].to_owned());
    let tenant = Tenant::of(&team);
    assert_eq!(env(app(&tenant.admitted(&json!({}))))[0].1, ANNOTATED, "before the binding exists");
    team.apply(&team.identity());
    team.apply(&team.binding("app", "app"));
    let binding = team.wait_ready("app");
    let pod = wait_for("the webhook to know the binding", || {
        let pod = tenant.admitted(&json!({}));
        by(&pod).starts_with("app=").then_some(pod)
    });
    assert_eq!(by(&pod), format!("app=ManagedIdentity/{},ServiceAccount/app=Overridden", team.name));
    assert_eq!(env(app(&pod))[0], ("AZURE_CLIENT_ID", binding["status"]["clientID"].as_str().expect("a client ID")));
    let volume = pod["spec"]["volumes"][0]["name"].as_str().expect("a volume");
    assert!(volume.starts_with("azure-workload-identity-reserved-"), "policies match on it: {volume}");
    assert_eq!(pod["spec"]["volumes"].as_array().map(Vec::len), Some(1));
}

#[test]
fn with_a_rejected_binding_the_annotations_apply_and_a_warning_reports_it() {
    let team = Team::named(COMPATIBLE_ONLY[1].to_owned());
    let tenant = Tenant::of(&team);
    let mut identity = team.identity();
    identity["spec"]["allowedSubjects"][0]["serviceAccounts"] = json!(["somebody-else"]);
    team.apply(&identity);
    team.apply(&team.binding("app", "app"));
    team.wait_condition("mib", "app", "Accepted", "False", "NotAllowed");
    wait_for("the webhook to know that the binding is rejected", || {
        tenant.warning(&json!({})).filter(|said| said.contains("is not accepted (NotAllowed)"))
    });
    assert_eq!(env(app(&tenant.admitted(&json!({}))))[0].1, ANNOTATED);
}

#[test]
fn the_upstream_webhook_is_reported_once_until_removed_and_never_changed() {
    let testbed = Testbed::acquire();
    let team = testbed.team("c-upstream");
    team.bind();
    let name = "azure-wi-webhook-mutating-webhook-configuration";
    let api = "admissionregistration.k8s.io/v1";
    let upstream = json!({"apiVersion": api, "kind": "MutatingWebhookConfiguration", "metadata": {"name": name}});
    apply(testbed.control_plane, &upstream).expect("apply the upstream's webhook configuration");
    let clock = FakeClock::new();
    let options =
        || ReplicaOptions { webhook: Some(in_compatibility_mode()), clock: clock.clone(), ..ReplicaOptions::default() };
    let replica = unique("upstream");
    let running = testbed.start(&replica, options());
    let said = |identity: &Value| condition_of(identity, "UpstreamWebhookAbsent").cloned();
    let identity = || team.get("mi", &team.name).expect("the identity");
    let condition = wait_for("the condition", || said(&identity()));
    assert_eq!((&condition["status"], &condition["reason"]), (&json!("False"), &json!("UpstreamWebhookPresent")));
    assert!(condition["message"].as_str().is_some_and(|text| text.contains(name)), "{condition:#}");
    team.wait_ready("app");
    assert_eq!(condition_of(&identity(), "Ready").map(|ready| &ready["status"]), Some(&json!("True")));

    // A restart reports nothing new.
    running.stop().expect("the controller stops");
    let replica = unique("upstream-again");
    let running = testbed.start(&replica, options());
    running.wait_ready();
    wait_for("it to check the identity", || (team.arm_lists(&replica) > 0).then_some(()));
    kubectl(testbed.control_plane, &["delete", "mutatingwebhookconfiguration", name]);
    wait_for("the condition to be removed", || {
        clock.advance(Duration::from_secs(900));
        said(&identity()).is_none().then_some(())
    });
    // Other tests leave objects behind, which a new controller checks as well.
    let mut writes = testbed.kubernetes_writes(&replica);
    writes.retain(|write| write.contains(&team.name));
    assert_eq!(writes.len(), 1, "the status without the condition, and nothing before: {writes:#?}");
    drop(running);
}
