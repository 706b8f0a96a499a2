//! Pods as users create them, and what injection added to them.

use ensign_api::keys::{GATED_LABEL, IDENTITY_GATE, INJECT_LABEL};
use serde_json::{Value, json};

use super::control_plane::ControlPlane;
use super::objects::{kubectl_with, unique};

/// Runs `kubectl create`; returns the object as admitted, or the error of kubectl.
pub fn create(control_plane: &ControlPlane, object: &Value, flags: &[&str]) -> Result<Value, String> {
    let arguments = [&["create", "--filename", "-", "--output", "json"], flags].concat();
    let text = kubectl_with(control_plane, &arguments, &object.to_string())?;
    Ok(serde_json::from_str(&text).expect("an object"))
}

/// A pod of the service account `app`, changed by a merge patch.
pub fn pod(namespace: &str, change: &Value) -> Value {
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

/// The label that makes admission require an identity.
pub fn labelled() -> Value {
    json!({"metadata": {"labels": {INJECT_LABEL: "true"}}})
}

/// Names and values of a container's variables that have a value.
pub fn env(container: &Value) -> Vec<(&str, &str)> {
    let variables = container["env"].as_array().map(Vec::as_slice).unwrap_or_default();
    variables.iter().filter_map(|one| Some((one["name"].as_str()?, one["value"].as_str()?))).collect()
}

/// Names of a container's variables that have a value.
pub fn env_names(container: &Value) -> Vec<&str> {
    env(container).into_iter().map(|(name, _)| name).collect()
}

/// Whether the pod's first container has the injected variables.
pub fn is_injected(pod: &Value) -> bool {
    pod["spec"]["containers"][0]["env"].as_array().is_some_and(|env| env.len() == 4)
}

/// Names of the pod's scheduling gates.
pub fn gates(pod: &Value) -> Vec<&str> {
    let gates = pod["spec"]["schedulingGates"].as_array().map(Vec::as_slice).unwrap_or_default();
    gates.iter().filter_map(|gate| gate["name"].as_str()).collect()
}

/// Whether the pod has gate and label.
pub fn is_gated(pod: &Value) -> bool {
    gates(pod).contains(&IDENTITY_GATE) && pod["metadata"]["labels"][GATED_LABEL] == "true"
}
