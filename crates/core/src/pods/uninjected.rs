//! Pods that a binding covers and that were admitted before it could inject them.
//!
//! Helm and Argo CD apply custom resources last, so the first pods of a namespace may be created before their binding.
//! Pods with the opt-in label are denied until it exists; the others are found here. They are summarized by workload,
//! whose name stays the same while its pods are replaced, so that status does not churn.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};

use super::gate::injected_bindings;
use ensign_api::conditions::{ConditionType, Reason, Verdict, find};
use ensign_api::keys::{INJECT_LABEL, INJECTED_BY_ANNOTATION, MIRROR_ANNOTATION};
use ensign_api::{ContainerFilter, InjectionMode, ManagedIdentityBinding};

/// Maximum number of workloads in a message.
const MAX_EXAMPLES: usize = 5;
/// The label by which a Deployment distinguishes its replica sets.
const TEMPLATE_HASH_LABEL: &str = "pod-template-hash";

/// What created a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Workload {
    kind: String,
    name: String,
}

impl Workload {
    /// The workload of a pod, according to the pod's metadata; a pod without a controller is its own.
    fn of(pod: &ObjectMeta) -> Self {
        let owner = pod.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
        let Some(owner) = owner else {
            return Self { kind: "pod".to_owned(), name: pod.name.clone().unwrap_or_default() };
        };
        if owner.kind == "ReplicaSet"
            && let Some(hash) = pod.labels.as_ref().and_then(|labels| labels.get(TEMPLATE_HASH_LABEL))
            && let Some(name) = owner.name.strip_suffix(hash.as_str()).and_then(|name| name.strip_suffix('-'))
        {
            return Self { kind: "deployment".to_owned(), name: name.to_owned() };
        }
        Self { kind: owner.kind.to_lowercase(), name: owner.name.clone() }
    }

    /// Whether `kubectl rollout restart` replaces its pods.
    fn can_be_restarted(&self) -> bool {
        matches!(self.kind.as_str(), "deployment" | "statefulset" | "daemonset")
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// Number of uninjected pods by workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UninjectedPods(BTreeMap<Workload, usize>);

impl UninjectedPods {
    /// Adds a running or pending pod of the binding's service account, if it is uninjected. `containers` are the names of
    /// its containers and init containers; they are read only if [`depends_on_containers`] is true.
    pub fn look_at(&mut self, binding: &ManagedIdentityBinding, pod: &ObjectMeta, containers: &[&str]) {
        if is_uninjected(binding, pod, containers) {
            *self.0.entry(Workload::of(pod)).or_default() += 1;
        }
    }

    /// The number of pods.
    pub fn pods(&self) -> usize {
        self.0.values().sum()
    }

    /// The condition `PodsInjected`, which is set only while it is false.
    pub fn verdict(&self, namespace: &str) -> Option<Verdict> {
        if self.0.is_empty() {
            return None;
        }
        let examples: Vec<String> = self
            .0
            .iter()
            .take(MAX_EXAMPLES)
            .map(|(workload, pods)| format!("{workload} ({})", counted(*pods)))
            .collect();
        let more = match self.0.len().saturating_sub(MAX_EXAMPLES) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let restarts: Vec<String> = self
            .0
            .keys()
            .take(MAX_EXAMPLES)
            .filter(|workload| workload.can_be_restarted())
            .map(|workload| format!("`kubectl rollout restart {workload} -n {namespace}`"))
            .collect();
        let fix = match (restarts.is_empty(), restarts.len() == self.0.len()) {
            (true, _) => "delete and recreate these pods".to_owned(),
            (false, true) => format!("run {}", restarts.join(", ")),
            (false, false) => format!("run {}, and recreate the other pods", restarts.join(", ")),
        };
        let summary = match self.pods() {
            1 => "1 pod was admitted before this binding could inject it, and runs without the identity".to_owned(),
            pods => {
                format!("{pods} pods were admitted before this binding could inject them, and run without the identity")
            }
        };
        let message = format!(
            "{summary}: {}{more}. To fix this, {fix}. Pods labelled {INJECT_LABEL}=true are denied instead",
            examples.join(", ")
        );
        Some(Verdict::bad(Reason::PodsNotInjected, message))
    }
}

fn counted(pods: usize) -> String {
    if pods == 1 { "1 pod".to_owned() } else { format!("{pods} pods") }
}

/// Whether it depends on the names of a pod's containers if the binding covers it.
pub fn depends_on_containers(binding: &ManagedIdentityBinding) -> bool {
    binding.spec.injection.containers != ContainerFilter::default()
}

/// The condition to publish: from what was found, or the one in status until pods have been listed.
pub fn verdict(found: Option<&UninjectedPods>, before: &[Condition], namespace: &str) -> Option<Verdict> {
    match found {
        Some(found) => found.verdict(namespace),
        None => find(before, ConditionType::PodsInjected)
            .map(|known| Verdict::bad(Reason::PodsNotInjected, known.message.clone())),
    }
}

fn is_uninjected(binding: &ManagedIdentityBinding, pod: &ObjectMeta, containers: &[&str]) -> bool {
    let spec = &binding.spec;
    let labels = pod.labels.clone().unwrap_or_default();
    let annotation = |key: &str| pod.annotations.as_ref().and_then(|annotations| annotations.get(key));
    let name = binding.metadata.name.as_deref().unwrap_or_default();
    let injected = annotation(INJECTED_BY_ANNOTATION)
        .is_some_and(|by| injected_bindings(by).any(|injected| injected.binding == name));
    let exempt =
        labels.get(INJECT_LABEL).is_some_and(|value| value == "false") || annotation(MIRROR_ANNOTATION).is_some();
    let selected = spec.pod_selector.as_ref().is_none_or(|selector| selector.is_empty() || selector.matches(&labels));
    let has_selected_container =
        !depends_on_containers(binding) || containers.iter().any(|name| spec.injection.containers.selects(name));
    spec.injection.mode == InjectionMode::Pods
        && pod.deletion_timestamp.is_none()
        && !injected
        && !exempt
        && selected
        && has_selected_container
}

#[cfg(test)]
#[path = "uninjected_tests.rs"]
mod tests;
