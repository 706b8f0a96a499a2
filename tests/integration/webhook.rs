//! The webhook behind a real API server, with bindings that the controller judged.

use std::io::Write;
use std::process::Stdio;

use ensign::api::keys::{INJECT_LABEL, INJECTED_BY_ANNOTATION, TOKEN_FILE, TOKEN_MOUNT_PATH, TOKEN_PATH, TOKEN_VOLUME};
use serde_json::{Value, json};

use crate::support::control_plane::ControlPlane;
use crate::support::objects::{Team, condition_of, kubectl, unique, wait_for};
use crate::support::webhook::{AUDIENCE, NAME};

/// `kubectl create`: the object as the API server admitted it, or what kubectl said.
pub(crate) fn create(control_plane: &ControlPlane, object: &Value, flags: &[&str]) -> Result<Value, String> {
    let mut child = control_plane
        .kubectl()
        .args(["create", "--filename", "-", "--output", "json"])
        .args(flags)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run kubectl");
    child.stdin.take().expect("a pipe").write_all(object.to_string().as_bytes()).expect("write to kubectl");
    let done = child.wait_with_output().expect("kubectl ends");
    if done.status.success() {
        Ok(serde_json::from_slice(&done.stdout).expect("an object"))
    } else {
        Err(String::from_utf8_lossy(&done.stderr).into_owned())
    }
}

/// A pod of the team's service account `app`.
fn pod(namespace: &str, change: &Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": unique("pod"), "namespace": namespace},
        "spec": {
            "serviceAccountName": "app", "automountServiceAccountToken": false,
            "containers": [{"name": "app", "image": "app:1"}],
        },
    });
    json_patch::merge(&mut pod, change);
    pod
}

fn labelled() -> Value {
    json!({"metadata": {"labels": {INJECT_LABEL: "true"}}})
}

fn env(container: &Value) -> Vec<(&str, &str)> {
    let variables = container["env"].as_array().map(Vec::as_slice).unwrap_or_default();
    variables.iter().filter_map(|one| Some((one["name"].as_str()?, one["value"].as_str()?))).collect()
}

impl Team {
    /// A team with a service account `app` and pods that the API server asks the webhook about.
    fn with_webhook(prefix: &str) -> Self {
        let team = Self::new(prefix);
        kubectl(team.ensign.control_plane, &["create", "serviceaccount", "app", "--namespace", &team.name]);
        team.apply(&team.identity());
        // A volume under the reserved name is refused for a pod that is to be injected, and only by the webhook.
        team.apply(&team.binding("probe", "probe"));
        team.wait_ready("probe");
        kubectl(team.ensign.control_plane, &["create", "serviceaccount", "probe", "--namespace", &team.name]);
        let clash = json!({"spec": {
            "serviceAccountName": "probe", "volumes": [{"name": TOKEN_VOLUME, "emptyDir": {}}],
        }});
        wait_for("the API server to ask the webhook", || {
            let refusal = team.dry_run(&pod(&team.name, &clash)).err()?;
            refusal.contains("rename the volume").then_some(())
        });
        team
    }

    fn create(&self, object: &Value) -> Result<Value, String> {
        create(self.ensign.control_plane, object, &[])
    }

    fn dry_run(&self, object: &Value) -> Result<Value, String> {
        create(self.ensign.control_plane, object, &["--dry-run=server"])
    }
}

#[test]
fn a_pod_that_a_ready_binding_matches_is_injected() {
    let team = Team::with_webhook("inject");
    team.apply(&team.binding("app", "app"));
    let binding = team.wait_ready("app");
    let admitted = wait_for("the webhook to learn of the binding", || {
        let admitted = team.dry_run(&pod(&team.name, &json!({}))).expect("admitted");
        admitted["metadata"]["annotations"].is_object().then_some(admitted)
    });
    let info = team.ensign.azure.info();
    assert_eq!(
        env(&admitted["spec"]["containers"][0]),
        [
            ("AZURE_CLIENT_ID", binding["status"]["clientID"].as_str().expect("a client ID")),
            ("AZURE_TENANT_ID", info.tenant_id.as_str()),
            ("AZURE_FEDERATED_TOKEN_FILE", TOKEN_FILE),
            ("AZURE_AUTHORITY_HOST", info.authority_host.as_str()),
        ]
    );
    let mount = json!({"name": TOKEN_VOLUME, "mountPath": TOKEN_MOUNT_PATH, "readOnly": true});
    assert_eq!(admitted["spec"]["containers"][0]["volumeMounts"], json!([mount]));
    let token = json!({"path": TOKEN_PATH, "audience": AUDIENCE, "expirationSeconds": 3600});
    let projected = json!({"defaultMode": 420, "sources": [{"serviceAccountToken": token}]});
    assert_eq!(admitted["spec"]["volumes"], json!([{"name": TOKEN_VOLUME, "projected": projected}]));
    let by = format!("app=ManagedIdentity/{}", team.name);
    assert_eq!(admitted["metadata"]["annotations"][INJECTED_BY_ANNOTATION], by);
}

#[test]
fn an_unmatched_pod_of_a_granted_namespace_is_as_it_would_be_without_the_webhook() {
    let team = Team::with_webhook("unmatched");
    let elsewhere = unique("without-grant");
    kubectl(team.ensign.control_plane, &["create", "namespace", &elsewhere]);
    kubectl(team.ensign.control_plane, &["create", "serviceaccount", "app", "--namespace", &elsewhere]);
    let plain = |namespace: &str| {
        let pod = pod(namespace, &json!({"metadata": {"name": "same", "annotations": {"a": "b"}}}));
        let mut admitted = team.create(&pod).expect("admitted");
        let metadata = admitted["metadata"].as_object_mut().expect("metadata");
        metadata.retain(|key, _| ["name", "labels", "annotations"].contains(&key.as_str()));
        admitted
    };
    assert_eq!(plain(&team.name), plain(&elsewhere));
    // The one was shown to the webhook, the other was not.
    let asked = |namespace: &str| {
        wait_for("the audit record of the pod", || {
            let events = team.ensign.control_plane.audit_events_with(&format!("\"namespace\":\"{namespace}\""));
            let creation = events.iter().find(|event| {
                let object = &event["objectRef"];
                event["verb"] == "create"
                    && object["resource"] == "pods"
                    && event["requestURI"].as_str().is_some_and(|uri| !uri.contains("dryRun"))
            })?;
            let annotations = creation["annotations"].as_object().cloned().unwrap_or_default();
            Some(annotations.values().any(|value| value.as_str().is_some_and(|text| text.contains(NAME))))
        })
    };
    assert!(asked(&team.name));
    assert!(!asked(&elsewhere));
}

#[test]
fn an_injected_pod_that_is_created_again_stays_as_it_is() {
    let team = Team::with_webhook("again");
    team.apply(&team.binding("app", "app"));
    team.wait_ready("app");
    let first = wait_for("an injected pod", || team.create(&pod(&team.name, &labelled())).ok());
    let mut copy = first.clone();
    copy["metadata"] = json!({"name": unique("copy"), "namespace": team.name, "labels": first["metadata"]["labels"]});
    copy.as_object_mut().expect("a pod").remove("status");
    let second = team.create(&copy).expect("admitted");
    assert_eq!(second["spec"], first["spec"]);
    assert_eq!(second["metadata"]["annotations"], first["metadata"]["annotations"]);
}

#[test]
fn pods_of_a_deployment_are_injected() {
    let team = Team::with_webhook("deployment");
    team.apply(&team.binding("app", "app"));
    team.wait_ready("app");
    let labels = json!({"app": "app", INJECT_LABEL: "true"});
    team.apply(&json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "app", "namespace": team.name},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": "app"}},
            "template": {"metadata": {"labels": labels}, "spec": {
                "serviceAccountName": "app",
                "initContainers": [{"name": "sidecar", "image": "sidecar:1", "restartPolicy": "Always"}],
                "containers": [{"name": "app", "image": "app:1"}],
            }},
        },
    }));
    let pods = wait_for("the pods of the Deployment", || {
        let arguments = ["get", "pods", "--namespace", &team.name, "--selector", "app=app", "--output", "json"];
        let list: Value = serde_json::from_str(&kubectl(team.ensign.control_plane, &arguments)).expect("a list");
        list["items"].as_array().filter(|pods| pods.len() == 2).cloned()
    });
    for pod in pods {
        assert_eq!(env(&pod["spec"]["initContainers"][0]).len(), 4, "{pod:#}");
        assert_eq!(env(&pod["spec"]["containers"][0]).len(), 4, "{pod:#}");
    }
}

#[test]
fn a_labelled_pod_without_a_binding_is_refused_in_any_namespace() {
    let team = Team::with_webhook("anywhere");
    let elsewhere = unique("labelled-elsewhere");
    kubectl(team.ensign.control_plane, &["create", "namespace", &elsewhere]);
    kubectl(team.ensign.control_plane, &["create", "serviceaccount", "app", "--namespace", &elsewhere]);
    let refusal = team.create(&pod(&elsewhere, &labelled())).expect_err("refused");
    for part in [
        "admission webhook \"labelled-pods.ensign.dev\" denied the request",
        "Create a ManagedIdentityBinding",
        "spec.serviceAccountName: app",
    ] {
        assert!(refusal.contains(part), "{part} is missing: {refusal}");
    }
}

#[test]
fn a_binding_that_is_not_accepted_refuses_labelled_pods_with_its_reason_and_leaves_others_alone() {
    let team = Team::with_webhook("refused");
    let mut identity = team.identity();
    identity["spec"]["allowedSubjects"][0]["serviceAccounts"] = json!(["probe"]);
    team.apply(&identity);
    team.apply(&team.binding("app", "app"));
    team.wait_condition("mib", "app", "Accepted", "False", "NotAllowed");
    let refusal = team.create(&pod(&team.name, &labelled())).expect_err("refused");
    assert!(refusal.contains("is not accepted (NotAllowed)"), "{refusal}");
    assert!(refusal.contains("spec.allowedSubjects"), "the condition's message is passed on: {refusal}");
    let admitted = team.create(&pod(&team.name, &json!({}))).expect("admitted");
    assert!(env(&admitted["spec"]["containers"][0]).is_empty());
}

#[test]
fn an_identity_that_is_not_resolved_refuses_pods_and_says_what_to_do() {
    let team = Team::with_webhook("unresolved");
    let (absent, other) = (format!("{}-absent", team.name), format!("{}-other", team.name));
    let mut identity = team.identity();
    identity["metadata"]["name"] = json!(other);
    identity["spec"]["existing"]["resourceID"] = json!(team.ensign.arm_id(&absent));
    team.apply(&identity);
    let mut binding = team.binding("app", "app");
    binding["spec"]["identityRef"]["name"] = json!(other);
    team.apply(&binding);
    team.wait_condition("mib", "app", "IdentityResolved", "False", "IdentityNotFound");
    let refusal = wait_for("the refusal", || team.dry_run(&pod(&team.name, &json!({}))).err());
    assert!(refusal.contains("the client ID of ManagedIdentity/"), "{refusal}");
    assert!(refusal.contains(&format!("kubectl describe mib app -n {}", team.name)), "{refusal}");
}

#[test]
fn a_labelled_pod_right_behind_its_binding_is_injected_as_soon_as_the_binding_is_accepted() {
    let team = Team::with_webhook("helm");
    team.apply(&team.binding("app", "app"));
    // As a Deployment does it: refused until the controller has judged the binding, and then injected.
    let admitted = wait_for("the pod to be admitted", || team.create(&pod(&team.name, &labelled())).ok());
    assert_eq!(env(&admitted["spec"]["containers"][0]).len(), 4);
}

#[test]
fn a_known_identity_is_injected_while_azure_is_away() {
    let team = Team::with_webhook("away");
    team.apply(&team.binding("app", "app"));
    let client_id = team.wait_ready("app")["status"]["clientID"].clone();
    let rule = json!([{
        "match": {"pathContains": format!("/{}", team.name)}, "times": 1_000_000, "action": {"status": 503},
    }]);
    team.ensign.azure.set_faults(serde_json::from_value(rule).expect("a rule"));
    let before = team.ensign.arm_lists(&team.name);
    // An annotation makes the controller look.
    kubectl(team.ensign.control_plane, &["annotate", "managedidentity", &team.name, "look=again"]);
    wait_for("the controller to find Azure away", || (team.ensign.arm_lists(&team.name) > before + 1).then_some(()));
    let admitted = team.create(&pod(&team.name, &labelled())).expect("admitted");
    team.ensign.azure.set_faults(Vec::new());
    assert_eq!(env(&admitted["spec"]["containers"][0])[0].1, client_id);
    let binding = team.get("mib", "app").expect("the binding");
    assert_eq!(condition_of(&binding, "Ready").map(|ready| &ready["status"]), Some(&json!("True")));
}

#[test]
fn a_deleted_binding_injects_no_more() {
    let team = Team::with_webhook("deleted");
    team.apply(&team.binding("app", "app"));
    team.wait_ready("app");
    wait_for("an injected pod", || team.dry_run(&pod(&team.name, &labelled())).ok());
    team.delete("mib", "app");
    team.wait_gone("mib", "app");
    wait_for("the webhook to learn of the deletion", || {
        let admitted = team.dry_run(&pod(&team.name, &json!({}))).expect("admitted");
        env(&admitted["spec"]["containers"][0]).is_empty().then_some(())
    });
    team.dry_run(&pod(&team.name, &labelled())).expect_err("a labelled pod is refused");
}

#[test]
fn a_kept_client_id_is_said_to_whoever_creates_the_pod() {
    let team = Team::with_webhook("warning");
    team.apply(&team.binding("app", "app"));
    team.wait_ready("app");
    let preset = json!({
        "metadata": {"labels": {INJECT_LABEL: "true"}},
        "spec": {"containers": [{"name": "app", "image": "x", "env": [{"name": "AZURE_CLIENT_ID", "value": "mine"}]}]},
    });
    wait_for("an injected pod", || team.dry_run(&pod(&team.name, &preset)).ok());
    // As an error, kubectl shows the warning where this test reads.
    let said =
        create(team.ensign.control_plane, &pod(&team.name, &preset), &["--warnings-as-errors"]).expect_err("a warning");
    assert!(said.contains("AZURE_CLIENT_ID is kept as \"mine\""), "{said}");
}

#[test]
fn selector_expressions_of_others_stay_in_the_registration() {
    let team = Team::with_webhook("rival");
    let foreign = json!({"key": "rival.example/skip", "operator": "DoesNotExist"});
    let read = || -> Value {
        let arguments = ["get", "mutatingwebhookconfiguration", NAME, "--output", "json"];
        serde_json::from_str(&kubectl(team.ensign.control_plane, &arguments)).expect("a configuration")
    };
    let position =
        read()["webhooks"].as_array().expect("entries").iter().position(|entry| entry["name"] == "pods.ensign.dev");
    let list = format!("/webhooks/{}/namespaceSelector/matchExpressions/-", position.expect("the entry"));
    let patch = json!([{"op": "add", "path": list, "value": foreign}]).to_string();
    let arguments = ["patch", "mutatingwebhookconfiguration", NAME, "--type", "json", "--patch", &patch];
    kubectl(team.ensign.control_plane, &arguments);
    // A new grant makes the controller write; what the rival added is still there.
    let late = Team::with_webhook("rival-late");
    let entries = read()["webhooks"].clone();
    let entry = entries.as_array().expect("entries").iter().find(|entry| entry["name"] == "pods.ensign.dev");
    let expressions = &entry.expect("the entry")["namespaceSelector"]["matchExpressions"];
    assert!(expressions.as_array().expect("a list").contains(&foreign), "{expressions:#}");
    assert!(expressions.to_string().contains(&late.name), "{expressions:#}");
}
