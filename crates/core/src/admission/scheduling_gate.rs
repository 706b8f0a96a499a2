//! Holding a pod back until its identity works: a scheduling gate, and the label by which the controller finds it.
//!
//! The gate is Ensign's own. A pod that brings it along (a copy of a held one, say) is held, whatever its bindings say:
//! it gets the label, and the controller lifts both as soon as the bindings allow it, which may be at once. The label
//! alone means nothing. It is never taken away here: somebody's selector may count on it.

use serde_json::json;

use super::Config;
use super::inject::{Identity, Injection};
use super::json_patch::Content;
use super::pod::Pod;
use crate::pods::gate::Start;
use ensign_api::keys::{GATED_LABEL, IDENTITY_GATE};

/// Adds gate and label to what is injected, where one of the identities does not work yet; whether the pod is held.
pub(super) fn hold(injection: &mut Injection, pod: &Pod<'_>, identities: &[Identity<'_>], config: &Config) -> bool {
    let (true, Some(spec)) = (config.hold, &pod.spec) else { return false };
    let existing = spec.scheduling_gates.as_deref();
    let brought = existing.unwrap_or_default().iter().any(|gate| &*gate.name == IDENTITY_GATE);
    let containers = || spec.init_containers.iter().chain(&spec.containers).flatten();
    let injects = |identity: &&Identity<'_>| containers().any(|container| identity.binding.chooses(&container.name));
    let waiting = identities.iter().filter(injects).find(|identity| identity.binding.start == Start::Waits);
    if !brought && waiting.is_none() {
        return false;
    }
    if spec.node_name.as_deref().is_some_and(|name| !name.is_empty()) {
        // The API server takes no gate on a pod that is bound to a node already.
        injection.warnings.extend(waiting.map(|identity| {
            format!(
                "the pod names its node (spec.nodeName), so it can't be held until ManagedIdentityBinding {:?} works: \
                 Entra may refuse its first requests",
                identity.binding.name
            )
        }));
        return false;
    }
    if !brought {
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
        // Injection has made the metadata by now.
        None => injection.add(&["metadata", "labels"], Content::Other(json!({GATED_LABEL: "true"}))),
    }
}
