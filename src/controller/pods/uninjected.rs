//! Looks for pods that were admitted before they could be injected: at drift ticks, and once soon after a binding came
//! to know its identity. Lists without specs, narrowed by the API server to one service account; no pod is cached.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Resource;
use kube::ResourceExt;
use kube::api::{Api, ListParams, PartialObjectMeta};
use serde::de::DeserializeOwned;

use super::ungate::PAGE;
use crate::cache::BindingName;
use crate::engine::key::{Key, Source};
use crate::identity::outcome::ReconcileOutcome;
use crate::identity::reconcile::Reconciler;
use crate::metrics::ControllerMetrics;
use crate::writers::kubernetes::{KubeError, within_deadline};
use ensign_api::conditions::{ConditionType, find};
use ensign_api::{InjectionMode, ManagedIdentityBinding};
use ensign_core::assess::{BindingOutcome, Snapshot};
use ensign_core::pods::uninjected::{self, UninjectedPods};

/// Between the moment at which a binding comes to know its identity and the one at which every webhook knows that.
const SOON: Duration = Duration::from_secs(10);
/// Whole pods are larger.
const SMALL_PAGE: u32 = 100;

/// What the looks have found.
#[derive(Default)]
pub(crate) struct UninjectedPodScanner {
    looks: Mutex<PodScans>,
    metrics: ControllerMetrics,
}

#[derive(Default)]
struct PodScans {
    by_binding: BTreeMap<BindingName, PodScan>,
    /// All pods that were found.
    pods: usize,
}

struct PodScan {
    uid: Option<String>,
    generation: Option<i64>,
    /// Whether there is to be another look soon.
    soon: bool,
    found: Option<UninjectedPods>,
}

impl PodScan {
    fn pods(&self) -> usize {
        self.found.as_ref().map_or(0, UninjectedPods::pods)
    }
}

impl PodScans {
    /// Puts a look in the place of the one that there was, and keeps count.
    fn put(&mut self, name: &BindingName, look: Option<PodScan>) {
        let pods = look.as_ref().map_or(0, PodScan::pods);
        let before = match look {
            Some(look) => self.by_binding.insert(name.clone(), look),
            None => self.by_binding.remove(name),
        };
        self.pods = (self.pods + pods).saturating_sub(before.as_ref().map_or(0, PodScan::pods));
    }
}

impl UninjectedPodScanner {
    pub(crate) fn new(metrics: ControllerMetrics) -> Self {
        Self { looks: Mutex::default(), metrics }
    }

    /// The binding's pods are to be looked at from now on; whether a look has to be begun.
    fn expect(&self, name: &BindingName, binding: &ManagedIdentityBinding) -> bool {
        let (uid, generation) = (binding.uid(), binding.metadata.generation);
        let known = binding.status.as_ref().is_some_and(|status| status.client_id.is_some());
        let mut looks = self.lock();
        let look = looks.by_binding.get(name);
        if look.is_some_and(|look| (&look.uid, &look.generation) == (&uid, &generation)) {
            return false;
        }
        looks.put(name, Some(PodScan { uid, generation, soon: !known, found: None }));
        true
    }

    fn is_expected(&self, name: &BindingName, binding: &ManagedIdentityBinding) -> bool {
        self.lock().by_binding.get(name).is_some_and(|look| look.uid == binding.uid())
    }

    /// Keeps what was found; whether there is to be another look soon.
    fn found(&self, name: &BindingName, found: UninjectedPods) -> bool {
        let mut looks = self.lock();
        let Some(look) = looks.by_binding.get_mut(name) else { return false };
        let soon = std::mem::take(&mut look.soon);
        let (pods, before) = (found.pods(), look.pods());
        look.found = Some(found);
        looks.pods = (looks.pods + pods).saturating_sub(before);
        self.count(&looks);
        soon
    }

    fn forget(&self, name: &BindingName) {
        let mut looks = self.lock();
        looks.put(name, None);
        self.count(&looks);
    }

    /// What is known of the bindings of a snapshot.
    pub(crate) fn observed(&self, snapshot: &Snapshot<'_>) -> BTreeMap<(String, String), UninjectedPods> {
        let looks = self.lock();
        let bindings = snapshot.namespaces.iter().flat_map(|(namespace, facts)| {
            facts.bindings.iter().map(|binding| (((*namespace).to_owned(), binding.name_any()), binding))
        });
        bindings
            .filter_map(|(name, binding)| {
                let look = looks.by_binding.get(&name).filter(|look| look.uid == binding.uid())?;
                Some((name, look.found.clone()?))
            })
            .collect()
    }

    fn count(&self, looks: &PodScans) {
        self.metrics.uninjected.set(i64::try_from(looks.pods).unwrap_or(i64::MAX));
    }

    fn lock(&self) -> MutexGuard<'_, PodScans> {
        // The map is whole after every method, so a panic elsewhere does not spoil it.
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reconciler {
    /// Has the pods of a binding looked at, if it can inject any.
    pub(crate) fn expect_looks(&self, binding: &ManagedIdentityBinding, outcome: &BindingOutcome) {
        let Some(pods) = &self.pods else { return };
        let name = Arc::new((outcome.namespace.clone(), outcome.name.clone()));
        let name = self.cache.read().binding_name(&name);
        let injects = outcome.status.client_id.is_some()
            && binding.metadata.deletion_timestamp.is_none()
            && binding.spec.injection.mode == InjectionMode::Pods
            && !pods.excluded.contains(&name.0);
        if !injects {
            self.missed.forget(&name);
        } else if self.missed.expect(&name, binding) {
            let source = Source::Namespace(name.0.clone());
            self.queue.add(Key::Missed(name), source);
        }
    }

    /// Looks for missed pods of a binding; its identity is queued if status does not say what was found.
    pub(crate) async fn reconcile_missed(&self, name: &BindingName) -> Result<ReconcileOutcome, KubeError> {
        let (binding, terminating) = {
            let objects = self.cache.read();
            (objects.binding(&name.0, &name.1).cloned(), objects.namespace(&name.0).terminating)
        };
        let Some(binding) = binding.filter(|binding| !terminating && self.missed.is_expected(name, binding)) else {
            self.missed.forget(name);
            return Ok(ReconcileOutcome::Nothing);
        };
        let found = self.look(&name.0, &binding).await?;
        let verdict = found.verdict(&name.0);
        let conditions = binding.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        let told = find(conditions, ConditionType::PodsInjected).map(|condition| &condition.message);
        let soon = self.missed.found(name, found);
        if verdict.as_ref().map(|verdict| &verdict.message) != told {
            let key = self.cache.read().key_of(&binding.identity_name());
            self.queue.add(key, Source::Namespace(name.0.clone()));
        }
        Ok(if soon { ReconcileOutcome::Again(SOON) } else { ReconcileOutcome::InStep })
    }

    async fn look(&self, namespace: &str, binding: &ManagedIdentityBinding) -> Result<UninjectedPods, KubeError> {
        let client = self.writer.client().clone();
        if uninjected::depends_on_containers(binding) {
            let api: Api<Pod> = Api::namespaced(client, namespace);
            look_through(&api, namespace, binding, SMALL_PAGE, containers).await
        } else {
            let api: Api<PartialObjectMeta<Pod>> = Api::namespaced(client, namespace);
            look_through(&api, namespace, binding, PAGE, |_| Vec::new()).await
        }
    }
}

/// Reads the whole list: nothing is concluded from a part of it.
async fn look_through<K: Resource + Clone + std::fmt::Debug + DeserializeOwned>(
    api: &Api<K>,
    namespace: &str,
    binding: &ManagedIdentityBinding,
    page_size: u32,
    containers: impl Fn(&K) -> Vec<&str>,
) -> Result<UninjectedPods, KubeError> {
    let account = &binding.spec.service_account_name;
    let fields = format!("spec.serviceAccountName={account},status.phase!=Succeeded,status.phase!=Failed");
    let mut page = ListParams::default().fields(&fields).limit(page_size);
    let mut found = UninjectedPods::default();
    loop {
        let act = || format!("listing the pods of service account {namespace}/{account}");
        let list = within_deadline(act, api.list(&page)).await?;
        for pod in &list.items {
            found.look_at(binding, pod.meta(), &containers(pod));
        }
        match list.metadata.continue_.filter(|next| !next.is_empty()) {
            Some(next) => page.continue_token = Some(next),
            None => return Ok(found),
        }
    }
}

fn containers(pod: &Pod) -> Vec<&str> {
    let spec = pod.spec.as_ref();
    let init = spec.and_then(|spec| spec.init_containers.as_ref()).into_iter().flatten();
    let containers = spec.map(|spec| spec.containers.iter()).into_iter().flatten();
    init.chain(containers).map(|container| container.name.as_str()).collect()
}
