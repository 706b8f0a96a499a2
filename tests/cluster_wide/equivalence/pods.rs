//! Generated pods, most of them valid, of each kind that a rule distinguishes.

use ensign_api::keys::{
    ENV_AUTHORITY_HOST, ENV_CLIENT_ID, ENV_TENANT_ID, ENV_TOKEN_FILE, GATED_LABEL, IDENTITY_GATE, INJECT_LABEL,
    INJECTED_BY_ANNOTATION, TOKEN_MOUNT_PATH, TOKEN_PATH, TOKEN_VOLUME,
};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

use ensign_testkit::azure::AUDIENCE;

pub(super) const CONTAINERS: [&str; 5] = ["init0", "init1", "app0", "app1", "app2"];
pub(super) const TIERS: [&str; 3] = ["web", "db", ""];
/// Every third mount of the generated pods may conflict with the token.
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
/// The name of the token volume of azure-workload-identity.
pub(super) const UPSTREAM_VOLUME: &str = "azure-workload-identity-reserved-0123456789";

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

/// Mounts, also of the token volume under the name that the pod uses.
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
        let pairs = [(INJECT_LABEL, inject), ("app", app), ("tier", tier), (GATED_LABEL, held)];
        let labels: serde_json::Map<_, _> =
            pairs.into_iter().filter_map(|(key, value)| Some((key.to_owned(), json!(value?)))).collect();
        if labels.is_empty() && absent { Value::Null } else { Value::Object(labels) }
    })
}

pub(super) fn pod() -> impl Strategy<Value = Value> {
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
            let mut set = |namespace: &str, value: Value| {
                if !value.is_null() && value != json!([]) {
                    pod[&namespace[..namespace.find('.').unwrap()]][&namespace[namespace.find('.').unwrap() + 1..]] =
                        value;
                }
            };
            set("metadata.labels", labels);
            set("metadata.annotations", annotations);
            // A pod with both is invalid, which the API server detects after the webhook and before the validating policies.
            set("spec.nodeName", if gates.is_null() { json!(node) } else { Value::Null });
            set("spec.schedulingGates", gates);
            set("spec.serviceAccountName", json!(account));
            set("spec.initContainers", json!(init));
            set("spec.volumes", json!(volumes));
            pod
        })
    })
}
