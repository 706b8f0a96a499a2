//! O6: a pod that should be injected is injected correctly, or denied with the reason; a second pass changes nothing.
//!
//! At the end of each plan, a pod of every binding goes through admission, with the objects as they are then.

use std::collections::BTreeSet;
use std::sync::Arc;

use ensign_api::ManagedIdentityBinding;
use ensign_api::keys::{ENV_CLIENT_ID, ENV_TENANT_ID, ENV_TOKEN_FILE, INJECT_LABEL, TOKEN_FILE, TOKEN_VOLUME};
use ensign_core::admission::{Binding, Config, Decision, Pod, admit};
use ensign_mutants as mutants;
use serde_json::{Value, json};

use super::eventually::{condition_of, text};
use ensign_testkit::azure::AUDIENCE;

use super::harness::Harness;

const AUTHORITY: &str = "https://login.faults.test/";

/// Returns what was broken.
pub fn judge(harness: &Harness) -> Vec<String> {
    let stored = harness.cluster.list("ManagedIdentityBinding", &harness.plan);
    let pods: BTreeSet<(String, String)> = stored
        .iter()
        .map(|binding| {
            (
                text(&binding["metadata"]["namespace"]).to_owned(),
                text(&binding["spec"]["serviceAccountName"]).to_owned(),
            )
        })
        .collect();
    mutants::activate(harness.mutant);
    let mut broken = Vec::new();
    for (namespace, account) in pods {
        let of_pod: Vec<&Value> = stored
            .iter()
            .filter(|binding| {
                binding["metadata"]["namespace"] == namespace.as_str()
                    && binding["spec"]["serviceAccountName"] == account.as_str()
            })
            .collect();
        for label in [true, false] {
            if let Err(problem) = judge_pod(harness, &namespace, &account, &of_pod, label) {
                let labelled = if label { "labelled" } else { "unlabelled" };
                broken.push(format!("O6: a {labelled} pod of {namespace}/{account}: {problem}"));
            }
        }
    }
    mutants::activate(None);
    broken
}

fn judge_pod(
    harness: &Harness,
    namespace: &str,
    account: &str,
    bindings: &[&Value],
    label: bool,
) -> Result<(), String> {
    let pod = pod(account, label);
    let decision = decide(&pod, namespace, bindings)?;
    let fit: Vec<&&Value> =
        bindings.iter().filter(|binding| is_accepted(binding) && client_id(binding).is_some()).collect();
    let unfit: Vec<&&Value> = bindings.iter().filter(|binding| !fit.contains(binding)).collect();
    if let Some(ready) = fit.first() {
        let wanted = client_id(ready).unwrap_or_default();
        if let Some(real) = harness.client_id_of(ready).filter(|real| real != wanted) {
            return Err(format!("status has client ID {wanted}, but Azure {real}"));
        }
        let Decision::Patch { operations, .. } = decision else {
            // An accepted binding that waits for its identity denies the pod.
            let waits = unfit.iter().any(|binding| is_accepted(binding));
            return if waits { Ok(()) } else { Err(format!("{ready} can inject, but the decision was {decision:?}")) };
        };
        let mut patched = pod.clone();
        let operations: json_patch::Patch =
            serde_json::from_value(json!(operations)).map_err(|error| error.to_string())?;
        json_patch::patch(&mut patched, &operations).map_err(|error| format!("the patch does not apply: {error}"))?;
        let variable = ready["spec"]["injection"]["clientIDEnv"].as_str().unwrap_or(ENV_CLIENT_ID);
        is_injected(&patched, variable, wanted)?;
        return match decide(&patched, namespace, bindings)? {
            Decision::Allow { .. } => Ok(()),
            second => Err(format!("a second pass changes the pod again: {second:?}")),
        };
    }
    match decision {
        Decision::Deny(refusal) => {
            let named = unfit.iter().any(|binding| refusal.message.contains(text(&binding["metadata"]["name"])));
            let reason = unfit.iter().find_map(|binding| condition_of(binding, "Accepted"));
            let reason = reason.filter(|reason| reason["status"] == "False").map(|reason| text(&reason["reason"]));
            // One that is being deleted is denied for that reason.
            let deleting = unfit.iter().any(|binding| binding["metadata"]["deletionTimestamp"].is_string());
            let names_reason = deleting || reason.is_none_or(|reason| refusal.message.contains(reason));
            if named && names_reason { Ok(()) } else { Err(format!("denied without the reason: {}", refusal.message)) }
        }
        Decision::Allow { .. } if !label => Ok(()),
        other => Err(format!("no binding can inject, but the decision was {other:?}")),
    }
}

fn pod(account: &str, label: bool) -> Value {
    let labels = if label { json!({INJECT_LABEL: "true"}) } else { json!({}) };
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "app-", "labels": labels},
        "spec": {"serviceAccountName": account, "containers": [
            {"name": "app", "image": "app", "env": [{"name": "KEPT", "value": "yes"}]}, {"name": "side", "image": "side"},
        ]},
    })
}

fn decide(pod: &Value, namespace: &str, bindings: &[&Value]) -> Result<Decision, String> {
    let config = Config {
        authority_host: AUTHORITY.to_owned(),
        audience: AUDIENCE.to_owned(),
        excluded: BTreeSet::new(),
        compatibility: None,
        gate_pods: true,
    };
    let text = pod.to_string();
    let pod: Pod<'_> =
        serde_json::from_str(&text).map_err(|error| format!("the pod can't be deserialized: {error}"))?;
    let read = |object: &&Value| {
        let object: ManagedIdentityBinding =
            serde_json::from_value((*object).clone()).map_err(|error| error.to_string())?;
        Ok(Arc::new(Binding::from(&object)))
    };
    let bindings: Vec<Arc<Binding>> = bindings.iter().map(read).collect::<Result<_, String>>()?;
    Ok(admit(&pod, namespace, &bindings, &config))
}

fn is_accepted(binding: &Value) -> bool {
    let deleting = binding["metadata"]["deletionTimestamp"].is_string();
    !deleting && condition_of(binding, "Accepted").is_some_and(|accepted| accepted["status"] == "True")
}

fn client_id(binding: &Value) -> Option<&str> {
    binding["status"]["clientID"].as_str().filter(|id| !id.is_empty())
}

/// Checks that each container has the identity once, and the token the right audience.
fn is_injected(pod: &Value, variable: &str, client_id: &str) -> Result<(), String> {
    let spec = &pod["spec"];
    for container in spec["containers"].as_array().into_iter().flatten() {
        let value = |name: &str| {
            let env = container["env"].as_array().into_iter().flatten();
            let found: Vec<&str> =
                env.filter(|variable| variable["name"] == name).map(|variable| text(&variable["value"])).collect();
            match found[..] {
                [value] => Ok(value.to_owned()),
                _ => Err(format!("{} has {name} {} times", container["name"], found.len())),
            }
        };
        if value(variable)? != client_id || value(ENV_TOKEN_FILE)? != TOKEN_FILE || value(ENV_TENANT_ID)?.is_empty() {
            return Err(format!("{} has another identity: {}", container["name"], container["env"]));
        }
        let mounts = container["volumeMounts"].as_array().into_iter().flatten();
        if mounts.filter(|mount| mount["name"] == TOKEN_VOLUME).count() != 1 {
            return Err(format!("{} has not exactly one token", container["name"]));
        }
    }
    let kept = spec["containers"][0]["env"][0]["value"] == "yes";
    let volumes = spec["volumes"].as_array().into_iter().flatten();
    let audiences: Vec<&Value> = volumes
        .filter(|volume| volume["name"] == TOKEN_VOLUME)
        .map(|volume| &volume["projected"]["sources"][0]["serviceAccountToken"]["audience"])
        .collect();
    if kept && audiences == [AUDIENCE] { Ok(()) } else { Err(format!("the pod is not as expected: {spec}")) }
}
