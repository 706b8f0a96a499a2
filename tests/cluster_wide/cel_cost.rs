//! The most expensive objects that the CRDs allow stay within the API server's CEL budget.

use ensign_api::keys::INJECT_LABEL;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::expressions::settle;
use crate::policy_namespace::{PolicyNamespace, binding, condition, config, pod};
use ensign_testkit::objects::unique;
use ensign_testkit::policies::Policies;
use ensign_testkit::testbed::Testbed;

const BINDINGS: usize = 50;
const CONTAINERS: usize = 30;
/// Bounded only by the size of a request. Few pods have as many.
const ENV_PER_CONTAINER: usize = 100;
const MOUNTS_PER_CONTAINER: usize = 20;
/// Bounds of the CRDs.
const LABELS: usize = 16;
const EXPRESSIONS: usize = 16;
const VALUES: usize = 32;
const NAMES: usize = 32;

/// As long as a label's value, or a container's name, can be.
fn long(prefix: &str, number: usize) -> String {
    let start = format!("{prefix}-{number}-");
    format!("{start}{}", "x".repeat(63 - start.len()))
}

/// As long as a label's key can be.
fn key(number: usize) -> String {
    let labels = ["a", "b", "c"].map(|letter| letter.repeat(63)).join(".");
    let host = format!("{}.{labels}", "d".repeat(253 - 1 - labels.len()));
    format!("{host}/{}", long("key", number))
}

/// The largest selector that selects the pod only after comparing every value.
fn selector() -> Value {
    let labels: serde_json::Map<_, _> = (0..LABELS).map(|at| (key(at), json!(long("value", at)))).collect();
    let expressions: Vec<Value> = (0..EXPRESSIONS)
        .map(|at| {
            let others = (0..VALUES).map(|number| long("other", number));
            let own = long("value", at);
            if at % 2 == 0 {
                let values: Vec<String> = others.skip(1).chain([own]).collect();
                json!({"key": key(at), "operator": "In", "values": values})
            } else {
                json!({"key": key(at), "operator": "NotIn", "values": others.collect::<Vec<_>>()})
            }
        })
        .collect();
    json!({"matchLabels": labels, "matchExpressions": expressions})
}

fn container(at: usize) -> Value {
    let env: Vec<Value> =
        (0..ENV_PER_CONTAINER).map(|number| json!({"name": format!("VARIABLE_{number}"), "value": "x"})).collect();
    let mounts: Vec<Value> = (0..MOUNTS_PER_CONTAINER)
        .map(|number| json!({"name": "data", "mountPath": format!("/var/run/secrets/azure/{}", long("data", number))}))
        .collect();
    json!({"name": long("container", at), "image": "x", "env": env, "volumeMounts": mounts})
}

fn largest_pod() -> Value {
    let mut labels: serde_json::Map<_, _> = (0..LABELS).map(|at| (key(at), json!(long("value", at)))).collect();
    labels.insert(INJECT_LABEL.to_owned(), json!("true"));
    let half = CONTAINERS / 2;
    pod(&json!({
        "metadata": {"labels": labels},
        "spec": {
            "volumes": [{"name": "data", "emptyDir": {}}],
            "initContainers": (0..half).map(container).collect::<Vec<_>>(),
            "containers": (half..CONTAINERS).map(container).collect::<Vec<_>>(),
        },
    }))
}

fn largest_binding(at: usize, change: &Value) -> Value {
    let include: Vec<String> = (0..NAMES - CONTAINERS)
        .map(|number| long("absent", number))
        .chain((0..CONTAINERS).map(|at| long("container", at)))
        .collect();
    let exclude: Vec<String> = (0..NAMES).map(|number| long("excluded", number)).collect();
    let waits =
        json!([condition("Accepted", "True", "Accepted", ""), condition("CredentialReady", "False", "Pending", "")]);
    let mut object = binding(
        &format!("binding-{at}"),
        &json!({
            "spec": {
                "podSelector": selector(),
                "injection": {
                    "clientIDEnv": format!("CLIENT_{at}"), "containers": {"include": include, "exclude": exclude},
                },
            },
            "status": {"conditions": waits},
        }),
    );
    json_patch::merge(&mut object, change);
    object
}

#[test]
fn the_largest_pod_with_the_largest_bindings_stays_within_the_cel_budget() {
    let testbed = Testbed::acquire();
    let policies = Policies::install(testbed.control_plane);
    let name = unique("cost");
    policies.fill(&config(&[]), &[&name]);
    Runtime::new().expect("a runtime").block_on(async {
        let client = testbed.control_plane.client().await;
        let namespace = PolicyNamespace::create(&client, &name, &["orders", "sentinel"]).await;
        for at in 0..BINDINGS {
            namespace.bind(&largest_binding(at, &json!({}))).await;
        }
        settle(&namespace).await;
        let admitted = namespace.dry_run(&largest_pod()).await.expect("admitted");
        for list in ["initContainers", "containers"] {
            for container in admitted["spec"][list].as_array().expect("containers") {
                let variables = container["env"].as_array().expect("variables").len();
                assert_eq!(variables, ENV_PER_CONTAINER + BINDINGS + 3, "every binding chose every container");
            }
        }
        // Denying costs no more: the message consists of what has been evaluated.
        namespace.clear().await;
        for at in 0..BINDINGS {
            namespace.bind(&largest_binding(at, &json!({"status": {"clientID": null}}))).await;
        }
        settle(&namespace).await;
        let refusal = namespace.dry_run(&largest_pod()).await.expect_err("denied").message;
        assert!(
            refusal.contains("is not known yet") || refusal.contains("no ready ManagedIdentityBinding"),
            "{refusal}"
        );
        namespace.clear().await;
    });
}
