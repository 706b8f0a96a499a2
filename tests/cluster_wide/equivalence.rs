//! The same pods and bindings, through the webhook and through the policies, on one API server: what is stored is the
//! same, but for what docs/injection-policy.md lists. Two namespaces with the same bindings; each mode has one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ensign::api::ManagedIdentityBinding;
use ensign::api::keys::{
    ENV_AUTHORITY_HOST, ENV_CLIENT_ID, ENV_TENANT_ID, ENV_TOKEN_FILE, HELD_LABEL, IDENTITY_GATE, INJECT_LABEL,
    INJECTED_BY_ANNOTATION, TOKEN_MOUNT_PATH, TOKEN_PATH, TOKEN_VOLUME,
};
use ensign::decide::admit::{self, Binding, Decision, Pod};
use ensign::decide::registration::{self, Input};
use ensign::runtime::clock::SystemClock;
use futures::StreamExt;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, Patch, PatchParams};
use kube::core::Status;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::expressions::settle;
use crate::scene::{AUTHORITY, Place, Policies, binding, condition, config};
use crate::support::objects::unique;
use crate::support::replica::Stage;
use crate::support::webhook::{AUDIENCE, NAME, Webhook};

const ROUNDS: usize = 32;
const PODS_PER_ROUND: usize = 100;
const AT_A_TIME: usize = 8;
const CONTAINERS: [&str; 5] = ["init0", "init1", "app0", "app1", "app2"];
const TIERS: [&str; 3] = ["web", "db", ""];
/// Every third mount of the generated pods may be in the way of the token.
const PATHS: [&str; 10] = [
    "/data",
    "/tmp",
    "/var/run",
    "/var/run/secrets/azure",
    "/var/run/secrets/azure/wiki",
    "/logs/../data",
    TOKEN_MOUNT_PATH,
    "/var/run/secrets//azure/./wi/",
    "/var/run/secrets/azure/wi/token",
    "/tmp/../var/run/secrets/azure/wi",
];
/// As azure-workload-identity calls its token volume.
const UPSTREAM_VOLUME: &str = "azure-workload-identity-reserved-0123456789";

/// Differences that are explained, with how often each was seen. docs/injection-policy.md has the reasons.
#[derive(Debug, Default)]
struct Explained {
    /// A labelled pod that brings everything along itself, so that its outcome is as promised.
    brings_its_own: usize,
    /// A copy that keeps what its annotation said before.
    keeps_claims: usize,
    /// Both refuse, each for another one of several causes.
    other_cause: usize,
    /// What is invalid by itself hears that first where policies refuse.
    invalid_anyway: usize,
}

fn env_list() -> impl Strategy<Value = Value> {
    let ours = [ENV_CLIENT_ID, ENV_TENANT_ID, ENV_TOKEN_FILE, ENV_AUTHORITY_HOST, "CLIENT_1", "CLIENT_2"];
    let name = prop_oneof![select(ours.to_vec()).prop_map(str::to_owned), "[A-Z]{1,3}"];
    let variable = prop_oneof![
        (name.clone(), "[a-z ]{0,4}").prop_map(|(name, value)| json!({"name": name, "value": value})),
        name.clone().prop_map(|name| json!({"name": name})),
        name.prop_map(|name| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}})),
    ];
    prop::collection::vec(variable, 0..4).prop_map(Value::from)
}

/// Mounts, also of the token volume that the pod has under this name already.
fn mounts(token: Option<String>) -> impl Strategy<Value = Value> {
    let path = prop_oneof![8 => select(PATHS[..6].to_vec()), 1 => select(PATHS[6..].to_vec())];
    let data = (path, any::<bool>())
        .prop_map(|(path, read_only)| json!({"name": "data", "mountPath": path, "readOnly": read_only}));
    let ours = prop_oneof![
        6 => Just(json!({"mountPath": TOKEN_MOUNT_PATH, "readOnly": true})),
        1 => Just(json!({"mountPath": TOKEN_MOUNT_PATH})),
        1 => Just(json!({"mountPath": "/elsewhere", "readOnly": true})),
        1 => Just(json!({"mountPath": TOKEN_MOUNT_PATH, "readOnly": true, "subPath": "token"})),
    ];
    (prop::option::weighted(0.5, data), prop::option::weighted(0.7, ours)).prop_map(move |(data, ours)| {
        let ours = ours.zip(token.clone()).map(|(mut mount, name)| {
            mount["name"] = json!(name);
            mount
        });
        data.into_iter().chain(ours).collect()
    })
}

fn container(name: &'static str, token: Option<String>) -> impl Strategy<Value = Value> {
    let whole = prop::option::weighted(
        0.2,
        Just(json!([
            {"name": ENV_TENANT_ID, "value": "t"}, {"name": ENV_TOKEN_FILE, "value": "f"},
            {"name": ENV_AUTHORITY_HOST, "value": "a"}])),
    );
    let env = (prop::option::of(env_list()), whole).prop_map(|(env, whole)| whole.or(env));
    let sidecar = name.starts_with("init") && name.ends_with('1');
    (env, prop::option::of(mounts(token))).prop_map(move |(env, mounts)| {
        let mut container = json!({"name": name, "image": "x"});
        if let Some(env) = env {
            container["env"] = env;
        }
        if let Some(mounts) = mounts {
            container["volumeMounts"] = mounts;
        }
        if sidecar {
            container["restartPolicy"] = json!("Always");
        }
        container
    })
}

fn token_volume(audience: &str, seconds: u32) -> Value {
    json!({"name": TOKEN_VOLUME, "projected": {"sources": [{"serviceAccountToken": {
        "path": TOKEN_PATH, "audience": audience, "expirationSeconds": seconds}}]}})
}

/// The token volume of a pod: none, the right one, or something else under its name.
fn token_volumes() -> impl Strategy<Value = Option<Value>> {
    let mut two = token_volume(AUDIENCE, 3600);
    if let Some(sources) = two["projected"]["sources"].as_array_mut() {
        sources.push(json!({"downwardAPI": {"items": [{"path": "x", "fieldRef": {"fieldPath": "metadata.name"}}]}}));
    }
    let mut upstream = token_volume(AUDIENCE, 3600);
    upstream["name"] = json!(UPSTREAM_VOLUME);
    prop_oneof![
        12 => Just(None),
        3 => Just(Some(token_volume(AUDIENCE, 3600))),
        1 => Just(Some(token_volume(AUDIENCE, 7200))),
        1 => Just(Some(token_volume("vault", 3600))),
        1 => Just(Some(upstream)),
        1 => Just(Some(two)),
        1 => Just(Some(json!({"name": TOKEN_VOLUME, "emptyDir": {}}))),
    ]
}

fn labels() -> impl Strategy<Value = Value> {
    let inject =
        prop_oneof![4 => Just(None), 3 => Just(Some("true")), 1 => Just(Some("false")), 1 => Just(Some("maybe"))];
    let app = select(vec![None, Some("orders"), Some("pay")]);
    let tier = prop::option::of(select(TIERS.to_vec()));
    let held = prop::option::weighted(0.1, select(vec!["true", "false"]));
    (inject, app, tier, held, any::<bool>()).prop_map(|(inject, app, tier, held, absent)| {
        let pairs = [(INJECT_LABEL, inject), ("app", app), ("tier", tier), (HELD_LABEL, held)];
        let labels: serde_json::Map<_, _> =
            pairs.into_iter().filter_map(|(key, value)| Some((key.to_owned(), json!(value?)))).collect();
        if labels.is_empty() && absent { Value::Null } else { Value::Object(labels) }
    })
}

fn pod() -> impl Strategy<Value = Value> {
    let account =
        prop_oneof![16 => Just(Some("orders")), 1 => Just(Some("other")), 1 => Just(Some("default")), 1 => Just(None)];
    let annotations = prop_oneof![
        6 => Just(Value::Null),
        1 => Just(json!({"a": "b"})),
        1 => Just(json!({INJECTED_BY_ANNOTATION: "ghost=ManagedIdentity/ghost,b0=ManagedIdentity/id-b0"})),
    ];
    let gates = prop_oneof![
        8 => Just(Value::Null),
        1 => Just(json!([{"name": "example.com/quota"}])),
        1 => Just(json!([{"name": IDENTITY_GATE}])),
        1 => Just(json!([{"name": "example.com/quota"}, {"name": IDENTITY_GATE}])),
    ];
    let node = prop::option::weighted(0.1, Just("node-1"));
    let parts = (labels(), account, annotations, gates, node, any::<bool>());
    (token_volumes(), parts).prop_flat_map(|(volume, parts)| {
        let token = volume.as_ref().and_then(|volume| volume["name"].as_str()).map(str::to_owned);
        let lists = (subsequence(CONTAINERS[..2].to_vec(), 0..=2), subsequence(CONTAINERS[2..].to_vec(), 1..=3))
            .prop_flat_map(move |(init, apps)| {
                let of = |names: Vec<&'static str>| -> Vec<_> {
                    names.into_iter().map(|name| container(name, token.clone())).collect()
                };
                (of(init), of(apps))
            });
        (lists, Just(volume), Just(parts)).prop_map(|((init, apps), volume, parts)| {
            let (labels, account, annotations, gates, node, automount) = parts;
            let uses_data =
                init.iter().chain(&apps).any(|container| container["volumeMounts"].to_string().contains("\"data\""));
            let data = uses_data.then(|| json!({"name": "data", "emptyDir": {}}));
            let volumes: Vec<Value> = data.into_iter().chain(volume).collect();
            let mut pod = json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"},
                "spec": {"containers": apps, "automountServiceAccountToken": automount},
            });
            let mut set = |place: &str, value: Value| {
                if !value.is_null() && value != json!([]) {
                    pod[&place[..place.find('.').unwrap()]][&place[place.find('.').unwrap() + 1..]] = value;
                }
            };
            set("metadata.labels", labels);
            set("metadata.annotations", annotations);
            // A pod with both is invalid, which the API server finds after the webhook and before the judging policies.
            set("spec.nodeName", if gates.is_null() { json!(node) } else { Value::Null });
            set("spec.schedulingGates", gates);
            set("spec.serviceAccountName", json!(account));
            set("spec.initContainers", json!(init));
            set("spec.volumes", json!(volumes));
            pod
        })
    })
}

fn selector() -> impl Strategy<Value = Value> {
    let with_values = (select(vec!["In", "NotIn"]), subsequence(TIERS.to_vec(), 1..=2))
        .prop_map(|(operator, values)| json!({"key": "tier", "operator": operator, "values": values}));
    let without = (select(vec!["app", "tier"]), select(vec!["Exists", "DoesNotExist"]))
        .prop_map(|(key, operator)| json!({"key": key, "operator": operator}));
    let expressions = prop::collection::vec(prop_oneof![with_values, without], 0..3);
    let labels =
        select(vec![json!({}), json!({"app": "orders"}), json!({"tier": ""}), json!({"app": "pay", "tier": "db"})]);
    prop_oneof![
        4 => Just(Value::Null),
        1 => Just(json!({})),
        2 => (labels, expressions)
            .prop_map(|(labels, expressions)| json!({"matchLabels": labels, "matchExpressions": expressions})),
    ]
}

fn status() -> impl Strategy<Value = (Value, Value)> {
    let accepted = condition("Accepted", "True", "Accepted", "");
    let ready = select(vec![
        Some(condition("CredentialReady", "True", "Confirmed", "")),
        Some(condition("CredentialReady", "True", "Confirmed", "")),
        Some(condition("CredentialReady", "False", "Forbidden", "no")),
        Some(condition("CredentialReady", "Unknown", "Pending", "")),
        None,
    ]);
    let why = condition("IdentityResolved", "False", "IdentityNotFound", "Azure has it not");
    let refused = condition("Accepted", "False", "NotAllowed", "it's up to \"the owner\"");
    let with = |conditions: Value, client: Value| json!({"status": {"conditions": conditions, "clientID": client}});
    let (one, known) = (accepted.clone(), json!("client"));
    let resolved = ready.prop_map(move |ready| {
        let conditions: Vec<_> = [one.clone()].into_iter().chain(ready).collect();
        with(json!(conditions), known.clone())
    });
    let none = Value::Null;
    prop_oneof![
        20 => resolved.prop_map(|change| (change, Value::Null)),
        1 => Just((with(json!([accepted.clone(), why]), none.clone()), Value::Null)),
        1 => Just((with(json!([accepted.clone()]), json!("")), Value::Null)),
        1 => Just((json!({"status": null}), Value::Null)),
        1 => Just((with(json!([condition("Accepted", "Unknown", "Pending", "")]), none.clone()), Value::Null)),
        3 => Just((with(json!([refused]), none), Value::Null)),
        1 => Just((json!({}), json!("now"))),
    ]
}

/// The binding at a place of its round. As the controller accepts them: names of variables differ, lifetimes don't.
fn generated_binding(at: usize, seconds: u32) -> impl Strategy<Value = Value> {
    let account = prop_oneof![12 => Just("orders"), 1 => Just("other"), 1 => Just("default")];
    let filter = || prop::option::weighted(0.3, subsequence(CONTAINERS.to_vec(), 1..=4));
    let mode = prop_oneof![12 => Just("Pods"), 1 => Just("None")];
    let start = select(vec!["WaitForIdentity", "Immediate"]);
    (account, selector(), filter(), filter(), mode, start, status()).prop_map(
        move |(account, selector, include, exclude, mode, start, (status, deletion))| {
            let env = if at == 0 { ENV_CLIENT_ID.to_owned() } else { format!("CLIENT_{at}") };
            let kind = if at.is_multiple_of(2) { "ManagedIdentity" } else { "ManagedIdentityClass" };
            let mut change = json!({"spec": {
                "identityRef": {"kind": kind},
                "serviceAccountName": account,
                "podSelector": selector,
                "injection": {
                    "mode": mode, "clientIDEnv": env, "startPolicy": start, "tokenExpirationSeconds": seconds,
                    "containers": {"include": include.unwrap_or_default(), "exclude": exclude.unwrap_or_default()},
                },
            }});
            json_patch::merge(&mut change, &status);
            if !deletion.is_null() {
                change["metadata"] = json!({"deletionTimestamp": deletion});
            }
            let mut binding = binding(&format!("b{at}"), &change);
            if binding["status"]["clientID"] == "client" {
                binding["status"]["clientID"] = json!(format!("client-of-b{at}"));
            }
            binding
        },
    )
}

fn bindings() -> impl Strategy<Value = Vec<Value>> {
    (0_usize..5, select(vec![3600_u32, 7200]))
        .prop_flat_map(|(count, seconds)| (0..count).map(|at| generated_binding(at, seconds)).collect::<Vec<_>>())
}

fn sample<T: std::fmt::Debug>(runner: &mut TestRunner, strategy: &impl Strategy<Value = T>) -> T {
    strategy.new_tree(runner).expect("a value").current()
}

/// What has to be the same: everything but what the API server makes anew each time, in an order that does not matter.
fn comparable(mut pod: Value) -> Value {
    pod.as_object_mut().expect("a pod").remove("status");
    if let Some(metadata) = pod["metadata"].as_object_mut() {
        metadata.retain(|key, _| ["name", "labels", "annotations"].contains(&key.as_str()));
    }
    for list in ["initContainers", "containers"] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            if let Some(env) = container["env"].as_array_mut() {
                env.sort_by_cached_key(ToString::to_string);
            }
        }
    }
    let text = pod.to_string();
    // The volume that the API server mounts for its own token has a random name.
    let random = text.find("\"kube-api-access-").map(|at| text[at + 1..at + 22].to_owned());
    let text = random.map_or(text.clone(), |name| text.replace(&name, "kube-api-access"));
    serde_json::from_str(&text).expect("JSON")
}

fn claims(pod: &Value) -> BTreeSet<&str> {
    let annotation = pod["metadata"]["annotations"][INJECTED_BY_ANNOTATION].as_str();
    annotation.into_iter().flat_map(|text| text.split(',')).collect()
}

/// Whether the pod has by itself all that the outcome of injection is judged by.
fn brings_its_own(pod: &Value) -> bool {
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    let sources = |volume: &Value| volume["projected"]["sources"].as_array().map_or(0, Vec::len);
    let token = |volume: &Value| volume["projected"]["sources"][0]["serviceAccountToken"].clone();
    let brought: Vec<&Value> = volumes
        .filter(|volume| is_token_name(volume) && sources(volume) == 1)
        .filter(|volume| token(volume)["audience"] == AUDIENCE && token(volume)["path"] == TOKEN_PATH)
        .collect();
    let mut containers =
        ["initContainers", "containers"].iter().flat_map(|list| pod["spec"][*list].as_array().into_iter().flatten());
    !brought.is_empty()
        && containers.any(|container| {
            let has_env = |name: &str| container["env"].as_array().into_iter().flatten().any(|one| one["name"] == name);
            let mount = json!({"name": brought[0]["name"], "mountPath": TOKEN_MOUNT_PATH, "readOnly": true});
            container["volumeMounts"].as_array().is_some_and(|mounts| mounts.contains(&mount))
                && [ENV_TENANT_ID, ENV_TOKEN_FILE, ENV_AUTHORITY_HOST].into_iter().all(has_env)
        })
}

/// Every word that the webhook has for the pod and one of its bindings, or none of them, or one of its containers.
fn words_for(pod: &Value, bindings: &[Value], namespace: &str) -> BTreeSet<String> {
    let read = |object: &Value| {
        let mut object = object.clone();
        let deleted = object["metadata"].as_object_mut()?.remove("deletionTimestamp").is_some();
        let typed: ManagedIdentityBinding = serde_json::from_value(object).ok()?;
        let mut binding = Binding::from(&typed);
        if deleted {
            binding.standing = admit::Standing::Deleting;
        }
        Some(Arc::new(binding))
    };
    let bindings: Vec<Arc<Binding>> = bindings.iter().filter_map(read).collect();
    let alone = bindings.iter().map(|binding| vec![binding.clone()]).chain([Vec::new()]);
    let mut words = BTreeSet::new();
    for bindings in alone {
        for variant in variants(pod) {
            let text = variant.to_string();
            let read: Pod<'_> = serde_json::from_str(&text).expect("a pod");
            if let Decision::Refuse(refusal) = admit::admit(&read, namespace, &bindings, &config(&[])) {
                words.insert(refusal.message);
            }
        }
    }
    words
}

/// The pod, and the pod with one container alone, so that each clash comes first once.
fn variants(pod: &Value) -> Vec<Value> {
    let mut variants = vec![pod.clone()];
    for list in ["initContainers", "containers"] {
        for container in pod["spec"][list].as_array().into_iter().flatten() {
            let mounts = container["volumeMounts"].as_array().cloned().unwrap_or_default();
            for mount in mounts.into_iter().map(Some).chain([None]) {
                let mut alone = pod.clone();
                let mut container = container.clone();
                container["volumeMounts"] = mount.into_iter().collect();
                alone["spec"]["initContainers"] = json!([]);
                alone["spec"]["containers"] = json!([container]);
                variants.push(alone);
            }
        }
    }
    variants
}

/// What is different and not explained, if anything.
fn difference(
    pod: &Value,
    bindings: &[Value],
    [policy, webhook]: [Result<Value, Status>; 2],
    [policy_namespace, webhook_namespace]: [&str; 2],
    explained: &mut Explained,
) -> Option<String> {
    match (policy, webhook) {
        (Ok(policy), Ok(webhook)) => {
            let (mut policy, mut webhook) = (comparable(policy), comparable(webhook));
            if policy == webhook {
                return None;
            }
            let (said, wanted, before) = (claims(&policy), claims(&webhook), claims(pod));
            let same_but_kept = said == wanted
                || (brought(pod)
                    && said.is_superset(&wanted)
                    && said.difference(&wanted).all(|claim| before.contains(claim)));
            if same_but_kept {
                explained.keeps_claims += usize::from(said != wanted);
                for pod in [&mut policy, &mut webhook] {
                    pod["metadata"]["annotations"][INJECTED_BY_ANNOTATION].take();
                }
            }
            (policy != webhook).then(|| format!("stored by the policy {policy:#}\nand by the webhook {webhook:#}"))
        }
        (Err(policy), Err(webhook)) => {
            let place = policy.message.replace(policy_namespace, webhook_namespace);
            if policy.reason == "Invalid" && policy.message.contains("is invalid") && reason(&webhook.message).is_some()
            {
                explained.invalid_anyway += 1;
                return None;
            }
            let (Some(said), Some(wanted)) = (reason(&place), reason(&webhook.message)) else {
                return (place != webhook.message).then(|| format!("{place}\nand {}", webhook.message));
            };
            if policy.code != webhook.code {
                return Some(format!("code {} and {}", policy.code, webhook.code));
            }
            if said == wanted {
                return None;
            }
            explained.other_cause += 1;
            let mut words = words_for(pod, bindings, webhook_namespace);
            if said.contains("that is ready covers it") && pod["metadata"]["labels"][INJECT_LABEL] == "true" {
                words.insert(said.to_owned());
            }
            (!words.contains(said)).then(|| format!("{said}\nis not the webhook's word, which is {wanted}\n{words:#?}"))
        }
        (Ok(policy), Err(webhook)) => {
            let labelled = pod["metadata"]["labels"][INJECT_LABEL] == "true";
            let about_bindings = reason(&webhook.message)
                .is_some_and(|said| !said.contains("rename the volume") && !said.contains("in the way"));
            if labelled && about_bindings && brings_its_own(pod) && claims(&policy) == claims(pod) {
                explained.brings_its_own += 1;
                return None;
            }
            Some(format!("only the webhook refuses: {}", webhook.message))
        }
        (Err(policy), Ok(_)) => Some(format!("only the policy refuses: {}", policy.message)),
    }
}

fn brought(pod: &Value) -> bool {
    pod["spec"]["volumes"].as_array().into_iter().flatten().any(is_token_name)
}

fn is_token_name(volume: &Value) -> bool {
    volume["name"] == TOKEN_VOLUME || volume["name"] == UPSTREAM_VOLUME
}

/// Ensign's own words in a refusal.
fn reason(message: &str) -> Option<&str> {
    let ours = message.contains("ensign.dev");
    ours.then(|| message.split_once("denied request: ").or_else(|| message.split_once("denied the request: ")))?
        .map(|(_, reason)| reason)
}

#[test]
fn webhook_and_policies_store_the_same_pods() {
    let stage = Stage::enter();
    let policies = Policies::install(stage.control_plane);
    let [by_policy, by_webhook] = ["by-policy", "by-webhook"].map(unique);
    let webhook = Webhook::start(stage.control_plane, AUTHORITY, SystemClock::shared());
    policies.fill(&config(&[&by_webhook]), &[&by_policy]);
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let client = stage.control_plane.client().await;
        register(&client, &webhook, &by_webhook, &by_policy).await;
        let accounts = ["orders", "other", "default", "sentinel"];
        let places =
            [Place::make(&client, &by_policy, &accounts).await, Place::make(&client, &by_webhook, &accounts).await];
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
        let mut runner = TestRunner::new_with_rng(ProptestConfig::default(), rng);
        let (strategy, mut explained) = (pod(), Explained::default());
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        let mut unexplained = Vec::new();
        for _ in 0..ROUNDS {
            let round = sample(&mut runner, &bindings());
            for place in &places {
                for object in &round {
                    place.bind(object).await;
                }
                settle(place).await;
            }
            let pods: Vec<Value> = (0..PODS_PER_ROUND).map(|_| sample(&mut runner, &strategy)).collect();
            let [one, other] = &places;
            let asked = pods.iter().map(|pod| async move { (pod, [one.dry_run(pod).await, other.dry_run(pod).await]) });
            let answers: Vec<_> = futures::stream::iter(asked).buffer_unordered(AT_A_TIME).collect().await;
            for (pod, results) in answers {
                *seen.entry(kind_of(&results[1])).or_default() += 1;
                let names = [by_policy.as_str(), by_webhook.as_str()];
                if let Some(text) = difference(pod, &round, results, names, &mut explained) {
                    unexplained.push(format!("{text}\nthe pod: {pod:#}\nthe bindings: {:#}", json!(round)));
                }
            }
            for place in &places {
                place.clear().await;
            }
        }
        println!("{} pods: {seen:?}; explained differences: {explained:?}", ROUNDS * PODS_PER_ROUND);
        unregister(&client).await;
        let count = unexplained.len();
        assert!(unexplained.is_empty(), "{count} unexplained differences, the first: {}", unexplained[0]);
        for kind in ["injected", "held", "left alone", "refused"] {
            assert!(seen.get(kind).is_some_and(|count| *count > ROUNDS), "too few pods are {kind}: {seen:?}");
        }
    });
}

fn kind_of(result: &Result<Value, Status>) -> &'static str {
    match result {
        Err(status) if status.message.contains("ensign.dev") => "refused",
        Err(_) => "invalid",
        Ok(pod) if pod["metadata"]["annotations"].to_string().contains("injected-by") => {
            let gates = pod["spec"]["schedulingGates"].to_string();
            if gates.contains(IDENTITY_GATE) { "held" } else { "injected" }
        }
        Ok(_) => "left alone",
    }
}

/// Registers the webhook as the controller does, for one of the two namespaces.
async fn register(client: &kube::Client, webhook: &Webhook, covered: &str, excluded: &str) {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), NAME);
    let ca = crate::scene::until("the webhook's certificate", || async {
        secrets.get(NAME).await.ok()?.data?.remove("ca.crt")
    })
    .await;
    let target = webhook.target();
    let excluded = target.excluded.into_iter().chain([excluded.to_owned()]).collect();
    let entries = registration::desired(&Input {
        covered: &[covered.to_owned()].into(),
        excluded: &excluded,
        endpoint: &target.endpoint,
        ca_bundle: Some(&ca.0),
        compatibility: false,
    });
    configure(client, &json!(entries)).await;
}

async fn unregister(client: &kube::Client) {
    configure(client, &json!([])).await;
}

async fn configure(client: &kube::Client, entries: &Value) {
    let api: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let patch = Patch::Merge(json!({"webhooks": entries}));
    api.patch(NAME, &PatchParams::default(), &patch).await.expect("register the webhook");
}
