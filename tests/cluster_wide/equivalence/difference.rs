//! Differences between a pod as admitted by the policies and by the webhook, and whether they are expected.

use std::collections::BTreeSet;
use std::sync::Arc;

use ensign_api::ManagedIdentityBinding;
use ensign_api::keys::{
    ENV_AUTHORITY_HOST, ENV_TENANT_ID, ENV_TOKEN_FILE, INJECT_LABEL, INJECTED_BY_ANNOTATION, TOKEN_MOUNT_PATH,
    TOKEN_PATH, TOKEN_VOLUME,
};
use ensign_core::admission::{self, Binding, Decision, Pod};
use kube::core::Status;
use serde_json::{Value, json};

use super::pods::UPSTREAM_VOLUME;
use crate::policy_namespace::config;
use ensign_testkit::azure::AUDIENCE;

/// Expected differences and how often each occurred. docs/injection-policy.md explains them.
#[derive(Debug, Default)]
pub(super) struct Explained {
    /// A labelled pod that already contains everything that injection adds.
    brings_its_own: usize,
    /// A copy that keeps its previous annotation.
    keeps_claims: usize,
    /// Both deny, each for another one of several causes.
    other_cause: usize,
    /// With policies, an invalid pod gets the API server's validation error first.
    invalid_anyway: usize,
}

/// What has to be the same: everything except what the API server generates each time, regardless of order.
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

/// Whether the pod already contains everything that injection adds.
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

/// Every denial of the webhook for the pod with one of its bindings, with none, or with one of its containers.
fn words_for(pod: &Value, bindings: &[Value], namespace: &str) -> BTreeSet<String> {
    let read = |object: &Value| {
        let mut object = object.clone();
        let deleted = object["metadata"].as_object_mut()?.remove("deletionTimestamp").is_some();
        let typed: ManagedIdentityBinding = serde_json::from_value(object).ok()?;
        let mut binding = Binding::from(&typed);
        if deleted {
            binding.readiness = admission::BindingReadiness::Deleting;
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
            if let Decision::Deny(refusal) = admission::admit(&read, namespace, &bindings, &config(&[])) {
                words.insert(refusal.message);
            }
        }
    }
    words
}

/// The pod, and the pod with each single container, so that each conflict comes first once.
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

/// The unexpected difference, if any.
pub(super) fn difference(
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
            let namespace = policy.message.replace(policy_namespace, webhook_namespace);
            if policy.reason == "Invalid" && policy.message.contains("is invalid") && reason(&webhook.message).is_some()
            {
                explained.invalid_anyway += 1;
                return None;
            }
            let (Some(said), Some(wanted)) = (reason(&namespace), reason(&webhook.message)) else {
                return (namespace != webhook.message).then(|| format!("{namespace}\nand {}", webhook.message));
            };
            if policy.code != webhook.code {
                return Some(format!("code {} and {}", policy.code, webhook.code));
            }
            if said == wanted {
                return None;
            }
            explained.other_cause += 1;
            let mut words = words_for(pod, bindings, webhook_namespace);
            if said.contains("no ready ManagedIdentityBinding") && pod["metadata"]["labels"][INJECT_LABEL] == "true" {
                words.insert(said.to_owned());
            }
            (!words.contains(said)).then(|| format!("{said}\nis not the webhook's word, which is {wanted}\n{words:#?}"))
        }
        (Ok(policy), Err(webhook)) => {
            let labelled = pod["metadata"]["labels"][INJECT_LABEL] == "true";
            let about_bindings = reason(&webhook.message).is_some_and(|said| {
                !said.contains("rename or remove the volume") && !said.contains("which conflicts with")
            });
            if labelled && about_bindings && brings_its_own(pod) && claims(&policy) == claims(pod) {
                explained.brings_its_own += 1;
                return None;
            }
            Some(format!("only the webhook denies: {}", webhook.message))
        }
        (Err(policy), Ok(_)) => Some(format!("only the policy denies: {}", policy.message)),
    }
}

fn brought(pod: &Value) -> bool {
    pod["spec"]["volumes"].as_array().into_iter().flatten().any(is_token_name)
}

fn is_token_name(volume: &Value) -> bool {
    volume["name"] == TOKEN_VOLUME || volume["name"] == UPSTREAM_VOLUME
}

/// Ensign's own message in a denial.
fn reason(message: &str) -> Option<&str> {
    let ours = message.contains("ensign.dev");
    ours.then(|| message.split_once("denied request: ").or_else(|| message.split_once("denied the request: ")))?
        .map(|(_, reason)| reason)
}
