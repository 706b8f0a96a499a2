//! Removes the scheduling gates of pods: one reconcile of one pod, and the search for gated pods that lost their label.
//!
//! What a gated pod waits for is decided from the cache. Before its gate is removed for any other reason than that its identity
//! works, its bindings are read from the API server: a watch that is behind must not let pods start too early.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, PartialObjectMeta};
use kube::{Client, Resource, ResourceExt};

use crate::cache::Cache;
use crate::cache::gated_pods::GatedPods;
use crate::engine::key::{Key, Source};
use crate::engine::outcome::ReconcileOutcome;
use crate::engine::work_queue::WorkQueue;
use crate::error::ReconcileError;
use crate::kube_names::PodName;
use crate::kube_request::{KubeError, within_deadline};
use crate::metrics::{ControllerMetrics, UngateReason};
use crate::writers::kubernetes::KubeWriter;
use ensign_api::ManagedIdentityBinding;
use ensign_api::keys::{GATED_LABEL, IDENTITY_GATE, INJECTED_BY_ANNOTATION};
use ensign_core::pods::gate::{self, GateDecision, injected_bindings};
use ensign_runtime::kube_pages::Pages;

/// Objects in a page of a list.
const PAGE_SIZE: u32 = 500;
const LISTING: &str = "listing the pods without a node";

/// How the controller handles pods.
#[derive(Clone, Debug)]
pub struct PodSettings {
    /// Namespaces whose pods are never injected.
    pub excluded: BTreeSet<String>,
}

/// Removes the gates of pods whose identity works.
pub(crate) struct GatedPodReconciler {
    pub(crate) cache: Arc<Cache>,
    pub(crate) writer: Arc<KubeWriter>,
    pub(crate) gated: Arc<GatedPods>,
    pub(crate) queue: Arc<WorkQueue<Key, Source>>,
    pub(crate) metrics: ControllerMetrics,
}

impl GatedPodReconciler {
    /// Removes the pod's gate if its bindings allow it, and publishes an event with what it waits for if they don't.
    pub(crate) async fn reconcile(&self, name: &PodName) -> Result<ReconcileOutcome, ReconcileError> {
        let api: Api<Pod> = Api::namespaced(self.writer.client().clone(), &name.namespace);
        let act = || format!("reading Pod {name}");
        let live = within_deadline(act, api.get_opt(&name.name)).await?;
        let Some(live) = live.filter(|pod| pod.meta().deletion_timestamp.is_none()) else {
            self.gated.remove(name);
            return Ok(ReconcileOutcome::Nothing);
        };
        let Some(gate) = gate_of(&live) else {
            if is_labelled(&live) {
                self.gated.seen(live.meta());
                self.gated.record_ungated(name);
            } else {
                self.gated.remove(name);
            }
            return Ok(ReconcileOutcome::Nothing);
        };
        self.gated.seen(live.meta());
        let injected_by = live.annotations().get(INJECTED_BY_ANNOTATION).map(String::as_str);
        match self.decide(&name.namespace, injected_by).await? {
            GateDecision::Remove { events } => {
                let outcome = if events.is_empty() { UngateReason::Propagated } else { UngateReason::WithoutIdentity };
                // Published first: once the gate is removed, the pod is not reconciled again.
                for event in self.gated.unpublished(name, events) {
                    self.writer.publish_event(&live, &event, "Ungate").await;
                }
                self.writer.remove_gate(&live, gate).await?;
                self.metrics.ungated(outcome);
                self.gated.remove(name);
                Ok(ReconcileOutcome::Nothing)
            }
            GateDecision::Wait { events } => {
                for event in self.gated.unpublished(name, events) {
                    self.writer.publish_event(&live, &event, "Gate").await;
                }
                // A change of a binding queues the pod as well; the drift check is a fallback.
                Ok(ReconcileOutcome::InSync)
            }
        }
    }

    async fn decide(&self, namespace: &str, injected_by: Option<&str>) -> Result<GateDecision, ReconcileError> {
        let cached = {
            let objects = self.cache.read();
            let find = |name: &str| objects.binding(namespace, name).map(AsRef::as_ref);
            gate::decide(injected_by, find)
        };
        if cached.is_identity_ready() || matches!(cached, GateDecision::Wait { .. }) {
            return Ok(cached);
        }
        let api: Api<ManagedIdentityBinding> = Api::namespaced(self.writer.client().clone(), namespace);
        let mut live = BTreeMap::new();
        for claim in injected_bindings(injected_by.unwrap_or_default()) {
            let act = || format!("reading ManagedIdentityBinding {namespace}/{}", claim.binding);
            if let Some(binding) = within_deadline(act, get_opt(&api, claim.binding)).await? {
                live.insert(claim.binding, binding);
            }
        }
        Ok(gate::decide(injected_by, |name| live.get(name)))
    }

    /// Queues pods that Ensign injected, that are on no node, and that have lost the label: they may still be gated.
    pub(crate) async fn reconcile_unlabelled(&self) -> Result<ReconcileOutcome, ReconcileError> {
        let api: Api<PartialObjectMeta<Pod>> = Api::all(self.writer.client().clone());
        let unlabelled = unscheduled().labels(&format!("{GATED_LABEL}!=true"));
        let mut pages = Pages::new(unlabelled, PAGE_SIZE);
        while let Some(page) = within_deadline(|| LISTING.to_owned(), pages.next(&api)).await? {
            for pod in page.items.iter().filter(|pod| pod.annotations().contains_key(INJECTED_BY_ANNOTATION)) {
                let namespace = pod.namespace().unwrap_or_default();
                self.queue.add(Key::Pod(PodName::from(pod.meta()).into()), Source::Namespace(namespace));
            }
        }
        Ok(ReconcileOutcome::InSync)
    }
}

/// Selects the pods without a node: only those can be gated.
fn unscheduled() -> ListParams {
    ListParams::default().fields("spec.nodeName=,status.phase=Pending")
}

/// Every gated pod, read now, with the index of its gate; also pods that have lost the label.
pub(crate) async fn all_gated(client: &Client) -> Result<Vec<(Pod, usize)>, KubeError> {
    let api: Api<Pod> = Api::all(client.clone());
    let mut pages = Pages::new(unscheduled(), PAGE_SIZE);
    let mut gated = Vec::new();
    while let Some(page) = within_deadline(|| LISTING.to_owned(), pages.next(&api)).await? {
        gated.extend(page.items.into_iter().filter_map(|pod| gate_of(&pod).map(|gate| (pod, gate))));
    }
    Ok(gated)
}

/// A tenant may have put anything into the annotation: no binding has an invalid name.
async fn get_opt(api: &Api<ManagedIdentityBinding>, name: &str) -> kube::Result<Option<ManagedIdentityBinding>> {
    let valid = !name.is_empty()
        && name.len() <= 253
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte));
    if valid { api.get_opt(name).await } else { Ok(None) }
}

fn gate_of(pod: &Pod) -> Option<usize> {
    let gates = pod.spec.as_ref()?.scheduling_gates.as_ref()?;
    gates.iter().position(|gate| gate.name == IDENTITY_GATE)
}

fn is_labelled(pod: &Pod) -> bool {
    pod.labels().get(GATED_LABEL).is_some_and(|value| value == "true")
}
