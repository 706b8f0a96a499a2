//! Admission policies on a real API server, one expression at a time. No process of Ensign runs.

use ensign_api::keys::{
    GATED_LABEL, IDENTITY_GATE, INJECT_LABEL, INJECTED_BY_ANNOTATION, TOKEN_FILE, TOKEN_MOUNT_PATH, TOKEN_PATH,
    TOKEN_VOLUME,
};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::policy_namespace::{AUTHORITY, PolicyNamespace, binding, condition, config, pod, until};
use ensign_testkit::azure::AUDIENCE;
use ensign_testkit::objects::unique;
use ensign_testkit::pods::{env, labelled};
use ensign_testkit::policies::Policies;
use ensign_testkit::testbed::Testbed;

const SENTINEL: &str = "sentinel";

/// A namespace with active policies, on the testbed, which one test uses at a time.
pub struct PolicyTestbed {
    namespace: PolicyNamespace,
    runtime: Runtime,
    _policies: Policies,
    _testbed: Testbed,
}

impl PolicyTestbed {
    pub fn create() -> Self {
        let testbed = Testbed::acquire();
        let policies = Policies::install(testbed.control_plane);
        let name = unique("policy");
        policies.fill(&config(&[]), &[&name]);
        let runtime = Runtime::new().expect("a runtime");
        let namespace = runtime.block_on(async {
            let client = testbed.control_plane.client().await;
            PolicyNamespace::create(&client, &name, &["orders", "other", SENTINEL]).await
        });
        Self { namespace, runtime, _policies: policies, _testbed: testbed }
    }

    /// Creates bindings and waits until every policy knows them: watches keep the order.
    pub fn bind(&self, bindings: &[Value]) {
        self.runtime.block_on(async {
            for object in bindings {
                self.namespace.bind(object).await;
            }
            settle(&self.namespace).await;
        });
    }

    pub fn dry_run(&self, pod: &Value) -> Result<Value, String> {
        self.runtime.block_on(self.namespace.dry_run(pod)).map_err(|status| status.message)
    }

    pub fn admitted(&self, change: &Value) -> Value {
        self.dry_run(&pod(change)).expect("admitted")
    }

    pub fn refusal(&self, change: &Value) -> String {
        self.dry_run(&pod(change)).expect_err("denied")
    }
}

impl Drop for PolicyTestbed {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.runtime.block_on(self.namespace.clear());
        }
    }
}

/// Creates a last binding, first unresolved, then resolved, and waits until both kinds of policies know it.
pub async fn settle(namespace: &PolicyNamespace) {
    let name = unique(SENTINEL);
    let change = json!({"spec": {"serviceAccountName": SENTINEL}, "status": {"clientID": null}});
    namespace.bind(&binding(&name, &change)).await;
    let asks = pod(&json!({"spec": {"serviceAccountName": SENTINEL}}));
    until("the validating policies to know the last binding", || async {
        namespace.dry_run(&asks).await.err().filter(|status| status.message.contains("is not known yet"))
    })
    .await;
    let resolved = json!({"status": {"clientID": "known"}});
    namespace.change_status(&name, &resolved).await;
    until("the policies to know that the last binding is resolved", || async {
        let pod = namespace.dry_run(&asks).await.ok()?;
        is_injected(&pod).then_some(())
    })
    .await;
    namespace.unbind(&name).await;
}

fn is_injected(pod: &Value) -> bool {
    pod["spec"]["containers"].as_array().into_iter().flatten().any(|container| !env(container).is_empty())
}

/// Whether a denial is that of the policy without parameters. Which of two policies denies first is up to the API server.
fn is_general(refusal: &str) -> bool {
    refusal.contains("injected-pods.ensign.dev") && refusal.contains("no ready ManagedIdentityBinding")
}

fn token_volume() -> Value {
    json!({"name": TOKEN_VOLUME, "projected": {"sources": [{"serviceAccountToken": {
        "path": TOKEN_PATH, "audience": AUDIENCE, "expirationSeconds": 3600}}]}})
}

#[test]
fn a_pod_gets_what_the_webhook_would_give_it() {
    let testbed = PolicyTestbed::create();
    testbed.bind(&[binding("first", &json!({}))]);
    let admitted = testbed.admitted(&json!({}));
    let wanted = [
        ("AZURE_CLIENT_ID", "client-of-first"),
        ("AZURE_TENANT_ID", "tenant"),
        ("AZURE_FEDERATED_TOKEN_FILE", TOKEN_FILE),
        ("AZURE_AUTHORITY_HOST", AUTHORITY),
    ];
    assert_eq!(env(&admitted["spec"]["containers"][0]), wanted);
    let mount = json!({"name": TOKEN_VOLUME, "mountPath": TOKEN_MOUNT_PATH, "readOnly": true});
    assert_eq!(admitted["spec"]["containers"][0]["volumeMounts"], json!([mount]));
    let token = json!({"path": TOKEN_PATH, "audience": AUDIENCE, "expirationSeconds": 3600});
    let projected = json!({"defaultMode": 420, "sources": [{"serviceAccountToken": token}]});
    assert_eq!(admitted["spec"]["volumes"], json!([{"name": TOKEN_VOLUME, "projected": projected}]));
    assert_eq!(admitted["metadata"]["annotations"], json!({INJECTED_BY_ANNOTATION: "first=ManagedIdentity/id-first"}));
    assert_eq!(admitted["spec"]["schedulingGates"], Value::Null);
}

#[test]
fn several_bindings_each_add_their_client_id_and_share_one_token() {
    let testbed = PolicyTestbed::create();
    let second = json!({"spec": {"injection": {"clientIDEnv": "SECOND", "containers": {"exclude": ["sidecar"]}}}});
    let third = json!({"spec": {"injection": {"clientIDEnv": "THIRD", "containers": {"include": ["sidecar", "app"]}}}});
    testbed.bind(&[binding("first", &json!({})), binding("second", &second), binding("third", &third)]);
    let admitted = testbed.admitted(&json!({
        "metadata": {"annotations": {"kept": "yes"}},
        "spec": {
            "initContainers": [
                {"name": "setup", "image": "x"}, {"name": "sidecar", "image": "x", "restartPolicy": "Always"}],
            "volumes": [{"name": "data", "emptyDir": {}}],
            "containers": [{
                "name": "app", "image": "x", "env": [{"name": "MINE", "value": "1"}, {"name": "SECOND", "value": "kept"}],
                "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
        },
    }));
    let names = |container: &Value| {
        let mut names: Vec<String> = env(container).iter().map(|(name, _)| (*name).to_owned()).collect();
        names.sort_unstable();
        names
    };
    let shared = ["AZURE_AUTHORITY_HOST", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_TENANT_ID"];
    let with = |more: &[&'static str]| shared.iter().chain(more).copied().collect::<Vec<_>>();
    let [init, app] = ["initContainers", "containers"].map(|list| &admitted["spec"][list]);
    assert_eq!(names(&init[0]), with(&["SECOND"]));
    assert_eq!(names(&init[1]), with(&["THIRD"]));
    assert_eq!(names(&app[0]), with(&["MINE", "SECOND", "THIRD"]));
    assert!(env(&app[0]).contains(&("SECOND", "kept")), "existing variables are kept");
    assert_eq!(admitted["spec"]["volumes"].as_array().map(Vec::len), Some(2));
    assert_eq!(app[0]["volumeMounts"].as_array().map(Vec::len), Some(2));
    let by = admitted["metadata"]["annotations"][INJECTED_BY_ANNOTATION].as_str().expect("an annotation");
    let mut by: Vec<&str> = by.split(',').collect();
    by.sort_unstable();
    let wanted = ["first", "second", "third"].map(|name| format!("{name}=ManagedIdentity/id-{name}"));
    assert_eq!(by, wanted);
}

#[test]
fn selectors_have_the_semantics_of_kubernetes() {
    let testbed = PolicyTestbed::create();
    let expression = |operator: &str, values: &[&str]| {
        json!({"matchExpressions": [
        {"key": "tier", "operator": operator, "values": values}]})
    };
    let both = json!({"matchLabels": {"app": "orders"}, "matchExpressions": [
        {"key": "tier", "operator": "Exists"}, {"key": "team", "operator": "DoesNotExist"}]});
    let cases = [
        ("none", json!({}), [true; 4]),
        ("labels", json!({"matchLabels": {"app": "orders", "tier": "web"}}), [false, false, true, false]),
        ("in", expression("In", &["web", "db"]), [false, false, true, true]),
        ("notin", expression("NotIn", &["web"]), [true, true, false, true]),
        ("exists", expression("Exists", &[]), [false, false, true, true]),
        ("missing", expression("DoesNotExist", &[]), [true, true, false, false]),
        ("both", both, [false, false, true, false]),
    ];
    let bindings: Vec<Value> = cases
        .iter()
        .map(|(name, selector, _)| {
            let env = format!("BY_{}", name.to_uppercase());
            binding(name, &json!({"spec": {"podSelector": selector, "injection": {"clientIDEnv": env}}}))
        })
        .collect();
    testbed.bind(&bindings);
    let pods = [
        json!({}),
        json!({"app": "orders"}),
        json!({"app": "orders", "tier": "web"}),
        json!({"app": "orders", "tier": "db", "team": "x"}),
    ];
    for (at, labels) in pods.iter().enumerate() {
        let admitted = testbed.admitted(&json!({"metadata": {"labels": labels}}));
        let names = env(&admitted["spec"]["containers"][0]);
        for (name, _, wanted) in &cases {
            let injected = names.iter().any(|(env, _)| *env == format!("BY_{}", name.to_uppercase()));
            assert_eq!(injected, wanted[at], "{name} and {labels}");
        }
    }
}

#[test]
fn pods_without_a_binding_are_unchanged() {
    let testbed = PolicyTestbed::create();
    let refused = condition("Accepted", "False", "NotAllowed", "ask");
    testbed.bind(&[
        binding("other", &json!({"spec": {"serviceAccountName": "other"}})),
        binding("none", &json!({"spec": {"injection": {"mode": "None"}}})),
        binding("pending", &json!({"status": null})),
        binding("refused", &json!({"status": {"conditions": [refused]}})),
        binding("deleting", &json!({"metadata": {"deletionTimestamp": "now"}})),
        binding("chooses-none", &json!({"spec": {"injection": {"containers": {"include": ["absent"]}}}})),
    ]);
    let admitted = testbed.admitted(&json!({}));
    assert!(!is_injected(&admitted), "{admitted:#}");
    assert_eq!(admitted["metadata"]["annotations"], Value::Null);
    assert_eq!(admitted["spec"]["volumes"], Value::Null);
}

#[test]
fn pods_that_opt_out_and_mirror_pods_are_unchanged() {
    let testbed = PolicyTestbed::create();
    testbed.bind(&[binding("first", &json!({})), binding("waits", &json!({"status": {"clientID": null}}))]);
    let admitted = testbed.admitted(&json!({"metadata": {"labels": {INJECT_LABEL: "false"}}}));
    assert!(!is_injected(&admitted));
    // Only a node may create a mirror pod; it is not Ensign that denies it.
    let mirror = testbed.refusal(&json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}}));
    assert!(!mirror.contains("ensign.dev"), "{mirror}");
}

#[test]
fn pods_are_gated_until_the_credential_works_unless_immediate_or_bound_to_a_node() {
    let testbed = PolicyTestbed::create();
    let waits = |policy: &str, ready: &str| {
        let conditions =
            [condition("Accepted", "True", "Accepted", ""), condition("CredentialReady", ready, "Reason", "")];
        json!({"spec": {"injection": {"startPolicy": policy}}, "status": {"conditions": conditions}})
    };
    let gates =
        |admitted: &Value| (admitted["spec"]["schedulingGates"].clone(), admitted["metadata"]["labels"].clone());
    let ours = json!({"name": IDENTITY_GATE});
    let held = json!({GATED_LABEL: "true"});
    for (policy, ready, is_gated) in [
        ("WaitForIdentity", "True", false),
        ("WaitForIdentity", "False", true),
        ("WaitForIdentity", "Unknown", true),
        ("Immediate", "False", false),
    ] {
        testbed.runtime.block_on(testbed.namespace.clear());
        testbed.bind(&[binding("app", &waits(policy, ready))]);
        let wanted = if is_gated { (json!([ours]), held.clone()) } else { (Value::Null, Value::Null) };
        assert_eq!(gates(&testbed.admitted(&json!({}))), wanted, "{policy} {ready}");
    }
    testbed.runtime.block_on(testbed.namespace.clear());
    testbed.bind(&[binding("app", &waits("WaitForIdentity", "False"))]);
    let other = json!({"name": "example.com/quota"});
    let admitted = testbed.admitted(&json!({"spec": {"schedulingGates": [other]}}));
    assert_eq!(admitted["spec"]["schedulingGates"], json!([other, ours]));
    let admitted = testbed.admitted(&json!({"spec": {"nodeName": "node-1"}}));
    assert_eq!(gates(&admitted), (Value::Null, Value::Null));
    assert!(is_injected(&admitted));
}

#[test]
fn a_gate_set_by_the_user_gets_its_label() {
    let testbed = PolicyTestbed::create();
    testbed.bind(&[binding("app", &json!({}))]);
    let admitted = testbed.admitted(&json!({"spec": {"schedulingGates": [{"name": IDENTITY_GATE}]}}));
    assert_eq!(admitted["metadata"]["labels"], json!({GATED_LABEL: "true"}));
}

#[test]
fn pods_of_an_unresolved_identity_are_denied_with_the_webhooks_message() {
    let testbed = PolicyTestbed::create();
    let why = condition("IdentityResolved", "False", "IdentityNotFound", "Azure has no such\nidentity");
    let accepted = condition("Accepted", "True", "Accepted", "");
    testbed.bind(&[binding("app", &json!({"status": {"clientID": null, "conditions": [accepted, why]}}))]);
    let refusal = testbed.refusal(&json!({}));
    let wanted = format!(
        "ManagedIdentityBinding \"app\" in namespace \"{0}\" is accepted, but the client ID of ManagedIdentity/id-app is \
         not known yet (IdentityNotFound: Azure has no such identity); retry later, and see `kubectl describe mib app -n \
         {0}`",
        testbed.namespace.name
    );
    assert!(refusal.ends_with(&wanted), "{refusal}");
    assert!(
        refusal.contains("ValidatingAdmissionPolicy 'pods.ensign.dev' with binding 'pods.ensign.dev' denied request: ")
    );
    let labelled = testbed.refusal(&labelled());
    assert!(labelled.ends_with(&wanted) || is_general(&labelled), "{labelled}");
    let status = testbed.runtime.block_on(testbed.namespace.dry_run(&pod(&json!({})))).expect_err("denied");
    assert_eq!((status.code, status.reason.as_str()), (403, "Forbidden"));
}

#[test]
fn a_labelled_pod_is_denied_with_the_reason_of_its_binding() {
    let testbed = PolicyTestbed::create();
    let refused = condition("Accepted", "False", "NotAllowed", "ask the owner");
    let cases = [
        (json!({"status": null}), "has not been evaluated by the controller yet; retry in a moment"),
        (json!({"status": {"conditions": [refused]}}), "is not accepted (NotAllowed): ask the owner"),
        (json!({"metadata": {"deletionTimestamp": "now"}}), "is being deleted; create another binding"),
        (
            json!({"spec": {"injection": {"containers": {"include": ["absent"]}}}}),
            "selects none of the pod's containers",
        ),
        (json!({"spec": {"podSelector": {"matchLabels": {"app": "x"}}}}), "its spec.podSelector does not match"),
        (json!({"spec": {"injection": {"mode": "None"}}}), "its spec.injection.mode is None"),
    ];
    for (change, wanted) in cases {
        testbed.runtime.block_on(testbed.namespace.clear());
        testbed.bind(&[binding("app", &change)]);
        let status = testbed.runtime.block_on(testbed.namespace.dry_run(&pod(&labelled()))).expect_err("denied");
        assert!(is_general(&status.message) || status.message.contains(wanted), "{wanted}: {}", status.message);
        assert!(status.message.contains("ensign.dev"), "{}", status.message);
        let unlabelled = testbed.admitted(&json!({}));
        assert!(!is_injected(&unlabelled));
    }
}

#[test]
fn a_labelled_pod_without_a_binding_is_denied_except_in_excluded_namespaces() {
    let testbed = PolicyTestbed::create();
    testbed.bind(&[]);
    let elsewhere = unique("without-grant");
    let client = testbed.namespace.client.clone();
    let elsewhere = testbed.runtime.block_on(PolicyNamespace::create(&client, &elsewhere, &["orders"]));
    let refusal = testbed.runtime.block_on(elsewhere.dry_run(&pod(&labelled()))).expect_err("denied").message;
    for part in
        ["injected-pods.ensign.dev", "Create a ManagedIdentityBinding in namespace", "spec.serviceAccountName: orders"]
    {
        assert!(refusal.contains(part), "{part}: {refusal}");
    }
    let unlabelled = testbed.runtime.block_on(elsewhere.dry_run(&pod(&json!({})))).expect("admitted");
    assert!(!is_injected(&unlabelled));
    let system = PolicyNamespace { client, name: "kube-system".to_owned() };
    let change = json!({"metadata": {"labels": {INJECT_LABEL: "true"}}, "spec": {"serviceAccountName": "default"}});
    testbed.runtime.block_on(system.dry_run(&pod(&change))).expect("an excluded namespace is left alone");
}

#[test]
fn an_annotation_is_no_proof_of_injection() {
    let testbed = PolicyTestbed::create();
    testbed.bind(&[]);
    let claims = json!({"metadata": {
        "labels": {INJECT_LABEL: "true"}, "annotations": {INJECTED_BY_ANNOTATION: "app=ManagedIdentity/orders"}}});
    assert!(testbed.refusal(&claims).contains("but no ready ManagedIdentityBinding"));
    testbed.bind(&[binding("app", &json!({}))]);
    let admitted = testbed.admitted(&claims);
    let by = &admitted["metadata"]["annotations"][INJECTED_BY_ANNOTATION];
    assert_eq!(*by, "app=ManagedIdentity/id-app", "the forged annotation is replaced");
}

#[test]
fn a_conflicting_mount_denies_the_pod() {
    let testbed = PolicyTestbed::create();
    let chooses = json!({"spec": {"injection": {"containers": {"include": ["app"]}}}});
    testbed.bind(&[binding("app", &chooses)]);
    let mounting = |mount: Value| {
        json!({"spec": {
            "volumes": [{"name": "data", "emptyDir": {}}, token_volume()],
            "containers": [{"name": "app", "image": "x", "volumeMounts": [mount]}, {"name": "other", "image": "x"}]}})
    };
    let token = |change: Value| {
        let mut mount = json!({"name": TOKEN_VOLUME, "mountPath": TOKEN_MOUNT_PATH, "readOnly": true});
        json_patch::merge(&mut mount, &change);
        mount
    };
    for free in [
        token(json!({})),
        token(json!({"mountPath": "/var/run/secrets/azure/wi/"})),
        json!({"name": "data", "mountPath": "/var/run/secrets/azure"}),
        json!({"name": "data", "mountPath": "/var/run/secrets/azure/wiki"}),
        json!({"name": "data", "mountPath": "/data/../logs"}),
    ] {
        let admitted = testbed.dry_run(&pod(&mounting(free.clone()))).unwrap_or_else(|error| panic!("{free}: {error}"));
        assert_eq!(env(&admitted["spec"]["containers"][0]).len(), 4, "{free}");
    }
    for clash in [
        json!({"name": "data", "mountPath": TOKEN_MOUNT_PATH}),
        json!({"name": "data", "mountPath": "/var/run/secrets/azure/wi/token"}),
        json!({"name": "data", "mountPath": "//var/./run/secrets//azure/wi/"}),
        json!({"name": "data", "mountPath": "/tmp/../var/run/secrets/azure/wi"}),
        token(json!({"readOnly": false})),
        token(json!({"subPath": "token"})),
    ] {
        let refusal = testbed.dry_run(&pod(&mounting(clash.clone()))).expect_err(&clash.to_string());
        let (name, path) = (&clash["name"], &clash["mountPath"]);
        assert!(
            refusal.contains(&format!("container \"app\" mounts volume {name} at {path}, which conflicts with")),
            "{refusal}"
        );
    }
    // Without injection, they do not matter.
    let mut elsewhere = mounting(json!({"name": "data", "mountPath": TOKEN_MOUNT_PATH}));
    elsewhere["spec"]["serviceAccountName"] = json!("other");
    testbed.admitted(&elsewhere);
}

#[test]
fn a_volume_with_the_reserved_name_denies_the_pod_unless_it_is_the_token() {
    let testbed = PolicyTestbed::create();
    testbed.bind(&[binding("app", &json!({}))]);
    let with = |volume: Value| json!({"spec": {"volumes": [volume]}});
    assert!(
        testbed.refusal(&with(json!({"name": TOKEN_VOLUME, "emptyDir": {}}))).contains("rename or remove the volume")
    );
    let mut other_audience = token_volume();
    other_audience["projected"]["sources"][0]["serviceAccountToken"]["audience"] = json!("vault");
    assert!(testbed.refusal(&with(other_audience)).contains("rename or remove the volume"));
    let admitted = testbed.admitted(&with(token_volume()));
    assert_eq!(admitted["spec"]["volumes"].as_array().map(Vec::len), Some(1));
    assert_eq!(admitted["spec"]["containers"][0]["volumeMounts"][0]["name"], TOKEN_VOLUME);
    // A copy of a pod that azure-workload-identity injected.
    let mut upstream = token_volume();
    upstream["name"] = json!("azure-workload-identity-reserved-0123456789");
    let admitted = testbed.admitted(&with(upstream.clone()));
    assert_eq!(admitted["spec"]["volumes"].as_array().map(Vec::len), Some(1));
    assert_eq!(admitted["spec"]["containers"][0]["volumeMounts"][0]["name"], upstream["name"]);
}
