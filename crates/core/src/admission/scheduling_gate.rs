//! Gates a pod until its identity is ready: with a scheduling gate, and the label by which the controller finds the pod.
//!
//! The gate is reserved for Ensign. A pod that comes with it, for example a copy of a gated one, stays gated whatever its
//! bindings are: it gets the label, and the controller removes both as soon as the bindings allow it, possibly right away.
//! The label alone means nothing. It is never removed here, because someone's selector may rely on it.

use serde_json::json;

use super::config::Config;
use super::inject::Identity;
use super::injection::Injection;
use super::json_patch::Content;
use super::pod::Pod;
use crate::pods::gate::Start;
use ensign_api::keys::{GATED_LABEL, IDENTITY_GATE};

/// Adds gate and label if one of the identities is not ready. Returns whether the pod is gated.
pub(super) fn gate(injection: &mut Injection, pod: &Pod<'_>, identities: &[Identity<'_>], config: &Config) -> bool {
    let (true, Some(spec)) = (config.gate_pods, &pod.spec) else { return false };
    let existing = spec.scheduling_gates.as_deref();
    let has_gate = existing.unwrap_or_default().iter().any(|gate| &*gate.name == IDENTITY_GATE);
    let containers = || spec.init_containers.iter().chain(&spec.containers).flatten();
    let injects = |identity: &&Identity<'_>| containers().any(|container| identity.binding.selects(&container.name));
    let waiting = identities.iter().filter(injects).find(|identity| identity.binding.start == Start::WaitForIdentity);
    if !has_gate && waiting.is_none() {
        return false;
    }
    if spec.node_name.as_deref().is_some_and(|name| !name.is_empty()) {
        // The API server rejects a gate on a pod that is already bound to a node.
        injection.warnings.extend(waiting.map(|identity| {
            format!(
                "the pod sets its node (spec.nodeName), so it can't be gated until ManagedIdentityBinding {:?} is ready: \
                 Entra may reject its first requests",
                identity.binding.name
            )
        }));
        return false;
    }
    if !has_gate {
        injection.append(
            &["spec", "schedulingGates"],
            existing.is_some(),
            vec![Content::Other(json!({"name": IDENTITY_GATE}))],
        );
    }
    add_label(injection, pod);
    true
}

fn add_label(injection: &mut Injection, pod: &Pod<'_>) {
    match pod.labels() {
        Some(labels) if labels.get(GATED_LABEL).is_some_and(|value| value == "true") => {}
        Some(_) => injection.add(&["metadata", "labels", GATED_LABEL], Content::Other(json!("true"))),
        // Injection has created the metadata by now.
        None => injection.add(&["metadata", "labels"], Content::Other(json!({GATED_LABEL: "true"}))),
    }
}
