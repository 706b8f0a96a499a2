//! Generated pods through the real API server: a pod that is admitted without Ensign is admitted with Ensign, unless Ensign
//! itself reports a conflict; and a second admission changes nothing.

use futures::StreamExt;
use http::Request;
use kube::Client;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use ensign_api::keys::{INJECT_LABEL, INJECTED_BY_ANNOTATION, TOKEN_MOUNT_PATH, TOKEN_PATH, TOKEN_VOLUME};

use ensign_testkit::azure::AUDIENCE;
use ensign_testkit::azure_workload_identity::{CompatibilityWebhook, NAMESPACE_LABEL};
use ensign_testkit::objects::{Team, apply, kubectl, unique, wait_for};
use ensign_testkit::pods::create;
use ensign_testkit::webhook::COMPATIBLE_ONLY;

const PODS: usize = 300;
const AT_A_TIME: usize = 8;
const USE: &str = "azure.workload.identity/use";
const SKIP: &str = "azure.workload.identity/skip-containers";
/// The name of the volume that azure-workload-identity would give the pod `pod`.
const UPSTREAM_VOLUME: &str = "azure-workload-identity-reserved-425c89ed5bb78a7623fae60fd8a6f6";

/// A strategy for a list, or for none.
fn maybe<T: std::fmt::Debug + Clone + 'static>(of: Vec<T>, most: usize) -> impl Strategy<Value = Option<Vec<T>>>
where
    Vec<T>: Into<Value>,
{
    let most = most.min(of.len());
    prop::option::of(subsequence(of, 0..=most).prop_shuffle())
}

fn volumes() -> impl Strategy<Value = Option<Vec<Value>>> {
    let token = |name: &str, path: &str| {
        let token = json!({"path": path, "audience": AUDIENCE, "expirationSeconds": 3600});
        json!({"name": name, "projected": {"sources": [{"serviceAccountToken": token}]}})
    };
    let usual = vec![
        json!({"name": "data", "emptyDir": {"sizeLimit": "1Gi"}}),
        json!({"name": "secret", "secret": {"secretName": "s", "items": [{"key": "k", "path": "p"}]}}),
        token("own", "token"),
        json!({"name": "image", "image": {"reference": "data:1"}}),
    ];
    let odd = vec![
        token(TOKEN_VOLUME, TOKEN_PATH),
        token(UPSTREAM_VOLUME, TOKEN_PATH),
        json!({"name": TOKEN_VOLUME, "emptyDir": {}}),
        json!({"name": "Bad_Name", "emptyDir": {}}),
    ];
    (maybe(usual, 4), prop_oneof![5 => Just(vec![]), 3 => subsequence(odd, 1)]).prop_map(|(usual, odd)| match usual {
        None if odd.is_empty() => None,
        usual => Some(usual.unwrap_or_default().into_iter().chain(odd).collect()),
    })
}

fn container(name: String, init: bool) -> impl Strategy<Value = Value> {
    let env = vec![
        json!({"name": "A", "value": "1"}),
        json!({"name": "A", "value": "again"}),
        json!({"name": "AZURE_CLIENT_ID", "value": "mine"}),
        json!({"name": "AZURE_TENANT_ID", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": true}}}),
        json!({"name": "AZURE_AUTHORITY_HOST"}),
        json!({"name": "SECOND_CLIENT_ID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}),
        json!({"name": "with-dash.and_dot", "value": "$(A)"}),
    ];
    let env_from = vec![json!({"configMapRef": {"name": "c"}}), json!({"prefix": "P_", "secretRef": {"name": "s"}})];
    let mount = |name: &str, path: &str| json!({"name": name, "mountPath": path});
    let usual = vec![
        mount("data", "/data"),
        json!({"name": "data", "mountPath": "/part", "subPath": "a/b", "readOnly": true}),
        mount("secret", "/var/run/secrets/azure"),
        mount("own", "/var/run/secrets/tokens"),
        mount("image", "/image"),
    ];
    let odd = vec![
        mount("data", "/data"),
        mount("missing", "/missing"),
        mount("data", TOKEN_MOUNT_PATH),
        mount("data", "/var/run/secrets/azure/wi/token"),
        json!({"name": TOKEN_VOLUME, "mountPath": TOKEN_MOUNT_PATH, "readOnly": true}),
        json!({"name": UPSTREAM_VOLUME, "mountPath": TOKEN_MOUNT_PATH, "readOnly": true}),
    ];
    let odd = prop_oneof![8 => Just(vec![]), 3 => subsequence(odd, 1)];
    let more = select(vec![
        json!({}),
        json!({"resources": {"requests": {"cpu": "10m"}, "limits": {"memory": "1Gi"}}}),
        json!({"securityContext": {"readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}}}),
        if init {
            json!({"restartPolicy": "Always", "startupProbe": {"exec": {"command": ["true"]}}})
        } else {
            json!({"tty": true})
        },
        json!({"ports": [{"containerPort": 80}], "workingDir": "/var"}),
    ]);
    (maybe(env, 5), maybe(env_from, 2), maybe(usual, 3), odd, more).prop_map(
        move |(env, env_from, mounts, odd, more)| {
            let mut container = json!({"name": name, "image": "app:1"});
            let mounts = match mounts {
                None if odd.is_empty() => None,
                mounts => Some(mounts.unwrap_or_default().into_iter().chain(odd).collect::<Vec<_>>()),
            };
            let lists = [("env", env), ("envFrom", env_from), ("volumeMounts", mounts)];
            for (key, list) in lists.into_iter().filter_map(|(key, list)| Some((key, list?))) {
                container[key] = Value::from(list);
            }
            json_patch::merge(&mut container, &more);
            container
        },
    )
}

fn containers(prefix: &'static str, counts: std::ops::Range<usize>, init: bool) -> impl Strategy<Value = Vec<Value>> {
    counts.prop_flat_map(move |count| (0..count).map(|at| container(format!("{prefix}{at}"), init)).collect::<Vec<_>>())
}

fn pod() -> impl Strategy<Value = Value> {
    let label = select(vec![None, None, Some((INJECT_LABEL, "true")), Some((USE, "true")), Some((USE, "true"))]);
    let more = select(vec![
        json!({}),
        json!({"hostUsers": false, "priority": 0, "terminationGracePeriodSeconds": 1}),
        json!({"tolerations": [{"operator": "Exists"}], "nodeSelector": {"a": "b"}}),
        json!({"shareProcessNamespace": true, "enableServiceLinks": false}),
        json!({"schedulingGates": [{"name": "example.com/gate"}]}),
        json!({"securityContext": {"fsGroup": 1000, "runAsNonRoot": true}}),
    ]);
    let annotations =
        select(vec![None, Some(json!({"a": "b"})), Some(json!({INJECTED_BY_ANNOTATION: "x", SKIP: "app1"}))]);
    let name = select(vec!["name", "generateName"]);
    let parts = (volumes(), prop::option::of(containers("init", 0..3, true)), containers("app", 1..4, false));
    (label, annotations, name, more, parts).prop_map(|(label, annotations, name, more, (volumes, init, containers))| {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {name: "pod", "labels": {"app": "generated"}},
            "spec": {"serviceAccountName": "app", "automountServiceAccountToken": false, "containers": containers},
        });
        if let Some((key, value)) = label {
            pod["metadata"]["labels"][key] = json!(value);
        }
        if let Some(annotations) = annotations {
            pod["metadata"]["annotations"] = annotations;
        }
        if let Some(volumes) = volumes {
            pod["spec"]["volumes"] = Value::from(volumes);
        }
        if let Some(init) = init {
            pod["spec"]["initContainers"] = Value::from(init);
        }
        json_patch::merge(&mut pod["spec"], &more);
        without_dangling_mounts(&mut pod["spec"]);
        pod
    })
}

/// Most pods should be valid: adds the volumes of the usual mounts.
fn without_dangling_mounts(spec: &mut Value) {
    let volumes = spec["volumes"].as_array().cloned().unwrap_or_default();
    let dangles = |mount: &Value| {
        ["data", "secret", "own", "image"].iter().any(|name| mount["name"] == *name)
            && !volumes.iter().any(|volume| volume["name"] == mount["name"])
    };
    for list in ["initContainers", "containers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(mounts) = container.get_mut("volumeMounts").and_then(Value::as_array_mut) {
                mounts.retain(|mount| !dangles(mount));
            }
        }
    }
}

/// The pod as the API server would store it, or the error.
async fn dry_run(client: &Client, namespace: &str, pod: &Value) -> Result<Value, String> {
    let request = Request::post(format!("/api/v1/namespaces/{namespace}/pods?dryRun=All"))
        .header("content-type", "application/json")
        .body(pod.to_string().into_bytes())
        .expect("a request");
    match client.request::<Value>(request).await {
        Ok(pod) => Ok(pod),
        Err(kube::Error::Api(status)) => Err(status.message.clone()),
        Err(error) => panic!("no response: {error}"),
    }
}

/// The outcome for a pod.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Invalid,
    Injected,
    Completed,
    Clashing,
}

async fn follow(client: &Client, injecting: &str, plain: &str, pod: &Value) -> Fate {
    // With Ensign's label it would be sent to the webhook there, too.
    let mut unlabelled = pod.clone();
    unlabelled["metadata"]["labels"].as_object_mut().expect("labels").remove(INJECT_LABEL);
    let before = dry_run(client, plain, &unlabelled).await;
    let after = dry_run(client, injecting, pod).await;
    let (before, after) = match (before, after) {
        (Ok(before), Ok(after)) => (before, after),
        (Ok(_), Err(said)) => {
            let ours =
                said.contains("rename or remove the volume") || said.contains("mount it elsewhere, or remove it");
            assert!(ours, "admitted without Ensign, denied with it: {said}\n{pod:#}");
            return Fate::Clashing;
        }
        (Err(_), Err(_)) => return Fate::Invalid,
        // A mount of the token volume, which Ensign adds.
        (Err(said), Ok(_))
            if [TOKEN_VOLUME, UPSTREAM_VOLUME].iter().any(|name| said.contains(&format!("Not found: {name:?}"))) =>
        {
            return Fate::Completed;
        }
        (Err(said), Ok(_)) => panic!("denied before, admitted after: {said}\n{pod:#}"),
    };
    assert!(after["metadata"]["annotations"][INJECTED_BY_ANNOTATION].as_str().is_some_and(|by| by != "x"), "{after:#}");
    for list in ["initContainers", "containers"] {
        for (before, after) in both(&before["spec"][list], &after["spec"][list]) {
            for key in ["env", "volumeMounts"] {
                let kept = both(&before[key], &after[key]).all(|(before, after)| before == after);
                assert!(kept, "part of {key} was lost:\n{before:#}\n{after:#}");
            }
        }
    }
    let mut again = after.clone();
    again.as_object_mut().expect("a pod").remove("status");
    let metadata = json!({
        "name": "pod", "labels": after["metadata"]["labels"], "annotations": after["metadata"]["annotations"],
    });
    again["metadata"] = metadata;
    let again = dry_run(client, injecting, &again)
        .await
        .unwrap_or_else(|said| panic!("a second admission fails: {said}\n{after:#}"));
    assert_eq!(again["spec"], after["spec"], "a second admission changes the pod");
    assert_eq!(again["metadata"]["annotations"], after["metadata"]["annotations"]);
    Fate::Injected
}

fn both<'a>(before: &'a Value, after: &'a Value) -> impl Iterator<Item = (&'a Value, &'a Value)> {
    let (before, after) = (before.as_array(), after.as_array());
    assert!(before.map_or(0, Vec::len) <= after.map_or(0, Vec::len), "something was removed");
    before.into_iter().flatten().zip(after.into_iter().flatten())
}

#[tokio::test]
async fn pods_that_are_admitted_without_ensign_are_admitted_with_it() {
    let (team, compatible, plain) = tokio::task::spawn_blocking(prepare).await.expect("namespaces");
    let control_plane = team.ensign.control_plane;
    let client = control_plane.client().await;
    let mut runner = TestRunner::deterministic();
    let pods: Vec<Value> = (0..PODS).map(|_| pod().new_tree(&mut runner).expect("a pod").current()).collect();
    let fates = futures::stream::iter(&pods).map(async |pod| {
        if pod["metadata"]["labels"].get(USE).is_some() {
            follow(&client, &compatible.name, &plain, pod).await
        } else {
            follow(&client, &team.name, &plain, pod).await
        }
    });
    let fates: Vec<Fate> = fates.buffer_unordered(AT_A_TIME).collect().await;
    let count = |wanted: Fate| fates.iter().filter(|fate| **fate == wanted).count();
    let (injected, clashing, invalid) = (count(Fate::Injected), count(Fate::Clashing), count(Fate::Invalid));
    // The generator produces each kind; without them the test would prove nothing.
    assert!(
        injected > PODS / 3 && clashing > 5 && invalid > 5,
        "{injected} injected, {clashing} clashing, {invalid} invalid"
    );
}

/// Namespaces with two bindings for the service account, one without and one with compatibility mode; and a namespace whose
/// pods the API server sends to no webhook.
fn prepare() -> (Team, Team, String) {
    let (team, compatible) = (Team::new("generated"), Team::named(COMPATIBLE_ONLY[2].to_owned()));
    let (control_plane, plain) = (CompatibilityWebhook::shared().control_plane, unique("generated-plain"));
    kubectl(control_plane, &["create", "namespace", &plain]);
    kubectl(control_plane, &["label", "namespace", &compatible.name, &format!("{NAMESPACE_LABEL}=true")]);
    for namespace in [&team.name, &compatible.name, &plain] {
        let annotations = json!({"azure.workload.identity/client-id": "annotated"});
        let metadata = json!({"name": "app", "namespace": namespace, "annotations": annotations});
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata});
        apply(control_plane, &account).expect("apply the service account");
    }
    for team in [&team, &compatible] {
        team.apply(&team.identity());
        team.apply(&team.binding("first", "app"));
        let mut second = team.binding("second", "app");
        second["spec"]["injection"] = json!({"clientIDEnv": "SECOND_CLIENT_ID", "containers": {"exclude": ["app1"]}});
        team.apply(&second);
        team.wait_ready("first");
        team.wait_ready("second");
    }
    for (team, labels) in
        [(&team, json!({})), (&team, json!({INJECT_LABEL: "true"})), (&compatible, json!({USE: "true"}))]
    {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "pod", "namespace": team.name, "labels": labels},
            "spec": {"serviceAccountName": "app", "containers": [{"name": "app", "image": "app:1"}]},
        });
        wait_for("the API server to call the webhooks, and those to know both bindings", || {
            let admitted = create(control_plane, &pod, &["--dry-run=server"]).ok()?;
            let by = admitted["metadata"]["annotations"][INJECTED_BY_ANNOTATION].as_str()?.to_owned();
            (by.contains("first=") && by.contains("second=")).then_some(())
        });
    }
    (team, compatible, plain)
}
