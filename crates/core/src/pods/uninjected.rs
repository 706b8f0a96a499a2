//! Pods that a binding means and that were admitted before they could be injected.
//!
//! Helm and Argo CD apply custom resources last, so that the first pods of a namespace may be made before their binding
//! is there. Pods with the opt-in label are refused until it is; the others are found here. What is found is summed up
//! by workload: names of workloads stay while their pods come and go, so that status changes only when facts do.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};

use super::gate::claims;
use ensign_api::conditions::{ConditionType, Reason, Verdict, find};
use ensign_api::keys::{INJECT_LABEL, INJECTED_BY_ANNOTATION, MIRROR_ANNOTATION};
use ensign_api::{ContainerFilter, InjectionMode, ManagedIdentityBinding};

/// How many workloads a message names.
const MAX_EXAMPLES: usize = 5;
/// The label by which a Deployment tells its replica sets apart.
const TEMPLATE_HASH_LABEL: &str = "pod-template-hash";

/// What made a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Workload {
    kind: String,
    name: String,
}

impl Workload {
    /// The workload of a pod, as far as the pod's metadata tells; a bare pod is its own.
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

    /// Whether `kubectl rollout restart` makes its pods anew.
    fn restarts(&self) -> bool {
        matches!(self.kind.as_str(), "deployment" | "statefulset" | "daemonset")
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// Pods that were missed, by workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UninjectedPods(BTreeMap<Workload, usize>);

impl UninjectedPods {
    /// Takes in a pod of the binding's service account that has not ended. `containers` are the names of its containers
    /// and init containers; they are asked for only where [`depends_on_containers`] says so.
    pub fn look_at(&mut self, binding: &ManagedIdentityBinding, pod: &ObjectMeta, containers: &[&str]) {
        if is_missed(binding, pod, containers) {
            *self.0.entry(Workload::of(pod)).or_default() += 1;
        }
    }

    /// How many pods.
    pub fn pods(&self) -> usize {
        self.0.values().sum()
    }

    /// The condition `PodsInjected`, which is there only while it does not hold.
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
            .filter(|workload| workload.restarts())
            .map(|workload| format!("`kubectl rollout restart {workload} -n {namespace}`"))
            .collect();
        let cure = match (restarts.is_empty(), restarts.len() == self.0.len()) {
            (true, _) => "delete these pods and have them made again".to_owned(),
            (false, true) => format!("run {}", restarts.join(", ")),
            (false, false) => format!("run {}, and have the other pods made again", restarts.join(", ")),
        };
        let message = format!(
            "{} admitted before this binding could inject them, and run without the identity: {}{more}. To cure it, {cure}. Pods labelled {INJECT_LABEL}=true are never missed",
            match self.pods() {
                1 => "1 pod was".to_owned(),
                pods => format!("{pods} pods were"),
            },
            examples.join(", ")
        );
        Some(Verdict::bad(Reason::PodsNotInjected, message))
    }
}

fn counted(pods: usize) -> String {
    if pods == 1 { "1 pod".to_owned() } else { format!("{pods} pods") }
}

/// Whether the names of a pod's containers decide about it.
pub fn depends_on_containers(binding: &ManagedIdentityBinding) -> bool {
    binding.spec.injection.containers != ContainerFilter::default()
}

/// The verdict to tell: what a look found, or what status says while nobody has looked.
pub fn verdict(found: Option<&UninjectedPods>, before: &[Condition], namespace: &str) -> Option<Verdict> {
    match found {
        Some(found) => found.verdict(namespace),
        None => find(before, ConditionType::PodsInjected)
            .map(|known| Verdict::bad(Reason::PodsNotInjected, known.message.clone())),
    }
}

fn is_missed(binding: &ManagedIdentityBinding, pod: &ObjectMeta, containers: &[&str]) -> bool {
    let spec = &binding.spec;
    let labels = pod.labels.clone().unwrap_or_default();
    let annotation = |key: &str| pod.annotations.as_ref().and_then(|annotations| annotations.get(key));
    let name = binding.metadata.name.as_deref().unwrap_or_default();
    let injected = annotation(INJECTED_BY_ANNOTATION).is_some_and(|by| claims(by).any(|claim| claim.binding == name));
    let exempt =
        labels.get(INJECT_LABEL).is_some_and(|wish| wish == "false") || annotation(MIRROR_ANNOTATION).is_some();
    let selected = spec.pod_selector.as_ref().is_none_or(|selector| selector.is_empty() || selector.matches(&labels));
    let meant =
        !depends_on_containers(binding) || containers.iter().any(|name| spec.injection.containers.selects(name));
    spec.injection.mode == InjectionMode::Pods
        && pod.deletion_timestamp.is_none()
        && !injected
        && !exempt
        && selected
        && meant
}

#[cfg(test)]
#[path = "uninjected_tests.rs"]
mod tests;
