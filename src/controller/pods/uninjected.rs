//! Finds pods that were admitted before they could be injected: at drift checks, and once soon after a binding's identity
//! became known. Lists without specs, narrowed by the API server to one service account; no pod is cached.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, PartialObjectMeta};
use kube::{Client, Resource, ResourceExt};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;

use crate::cache::Cache;
use crate::engine::key::{Key, Source};
use crate::engine::outcome::ReconcileOutcome;
use crate::engine::work_queue::WorkQueue;
use crate::error::ReconcileError;
use crate::kube_names::BindingName;
use crate::kube_request::within_deadline;
use crate::metrics::ControllerMetrics;
use ensign_api::conditions::{ConditionType, find};
use ensign_api::{InjectionMode, ManagedIdentityBinding, NamespacedName};
use ensign_core::assess::{BindingOutcome, Snapshot};
use ensign_core::pods::uninjected::{self, UninjectedPods};
use ensign_runtime::kube_pages::Pages;

/// How long it takes at most until every webhook knows the identity of a binding.
const RESCAN_DELAY: Duration = Duration::from_secs(10);
/// Objects in a page of a list without specs.
const PAGE_SIZE: u32 = 500;
/// Whole pods are larger.
const SMALL_PAGE_SIZE: u32 = 100;

/// Scans for pods that were not injected, and keeps the results.
pub(crate) struct UninjectedPodScanner {
    pub(crate) client: Client,
    pub(crate) cache: Arc<Cache>,
    pub(crate) queue: Arc<WorkQueue<Key, Source>>,
    /// Namespaces whose pods are never injected.
    pub(crate) excluded: BTreeSet<String>,
    pub(crate) metrics: ControllerMetrics,
    pub(crate) scans: Mutex<PodScans>,
}

/// The last scan of each binding.
#[derive(Default)]
pub(crate) struct PodScans {
    by_binding: BTreeMap<BindingName, PodScan>,
    /// The number of pods that all scans found.
    pods: usize,
}

struct PodScan {
    uid: Option<String>,
    generation: Option<i64>,
    /// Whether another scan has to follow soon.
    rescan: bool,
    found: Option<UninjectedPods>,
}

impl PodScan {
    fn pods(&self) -> usize {
        self.found.as_ref().map_or(0, UninjectedPods::pods)
    }
}

impl PodScans {
    /// Replaces the binding's scan, and updates the number of pods.
    fn set(&mut self, name: &BindingName, scan: Option<PodScan>) {
        let pods = scan.as_ref().map_or(0, PodScan::pods);
        let before = match scan {
            Some(scan) => self.by_binding.insert(name.clone(), scan),
            None => self.by_binding.remove(name),
        };
        self.pods = (self.pods + pods).saturating_sub(before.as_ref().map_or(0, PodScan::pods));
    }

    /// Whether a scan of the binding has to be started: there is one for each generation.
    fn expect(&mut self, name: &BindingName, binding: &ManagedIdentityBinding) -> bool {
        let (uid, generation) = (binding.uid(), binding.metadata.generation);
        let known = binding.status.as_ref().is_some_and(|status| status.client_id.is_some());
        let scan = self.by_binding.get(name);
        if scan.is_some_and(|scan| (&scan.uid, &scan.generation) == (&uid, &generation)) {
            return false;
        }
        self.set(name, Some(PodScan { uid, generation, rescan: !known, found: None }));
        true
    }

    /// Stores the result; whether another scan has to follow soon.
    fn record(&mut self, name: &BindingName, found: UninjectedPods) -> bool {
        let Some(scan) = self.by_binding.get_mut(name) else { return false };
        let rescan = std::mem::take(&mut scan.rescan);
        let (pods, before) = (found.pods(), scan.pods());
        scan.found = Some(found);
        self.pods = (self.pods + pods).saturating_sub(before);
        rescan
    }
}

impl UninjectedPodScanner {
    /// Queues a scan of the pods of a binding, if it injects pods.
    pub(crate) fn expect_scan(&self, binding: &ManagedIdentityBinding, outcome: &BindingOutcome) {
        let name = Arc::new(NamespacedName::new(&outcome.namespace, &outcome.name));
        let name = self.cache.read().binding_name(&name);
        let injects = outcome.status.client_id.is_some()
            && binding.metadata.deletion_timestamp.is_none()
            && binding.spec.injection.mode == InjectionMode::Pods
            && !self.excluded.contains(&name.namespace);
        if !injects {
            self.remove(&name);
        } else if self.scans.lock().expect(&name, binding) {
            let source = Source::Namespace(name.namespace.clone());
            self.queue.add(Key::UninjectedPods(name), source);
        }
    }

    /// The results of the last scans of a snapshot's bindings.
    pub(crate) fn observed(&self, snapshot: &Snapshot<'_>) -> BTreeMap<NamespacedName, UninjectedPods> {
        let scans = self.scans.lock();
        let bindings = snapshot.namespaces.iter().flat_map(|(namespace, facts)| {
            facts.bindings.iter().map(|binding| (NamespacedName::new(*namespace, binding.name_any()), binding))
        });
        bindings
            .filter_map(|(name, binding)| {
                let scan = scans.by_binding.get(&name).filter(|scan| scan.uid == binding.uid())?;
                let found = scan.found.clone()?;
                Some((name, found))
            })
            .collect()
    }

    /// Scans the pods of a binding; queues its identity if status does not report the result.
    pub(crate) async fn reconcile(&self, name: &BindingName) -> Result<ReconcileOutcome, ReconcileError> {
        let (binding, terminating) = {
            let objects = self.cache.read();
            let binding = objects.binding(&name.namespace, &name.name).cloned();
            (binding, objects.namespace(&name.namespace).terminating)
        };
        let is_expected =
            |uid: Option<String>| self.scans.lock().by_binding.get(name).is_some_and(|scan| scan.uid == uid);
        let Some(binding) = binding.filter(|binding| !terminating && is_expected(binding.uid())) else {
            self.remove(name);
            return Ok(ReconcileOutcome::Nothing);
        };
        let found = self.scan(&name.namespace, &binding).await?;
        let verdict = found.verdict(&name.namespace);
        let conditions = binding.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        let reported = find(conditions, ConditionType::PodsInjected).map(|condition| &condition.message);
        let rescan = self.scans.lock().record(name, found);
        self.count();
        if verdict.as_ref().map(|verdict| &verdict.message) != reported {
            let key = self.cache.read().key_of(&binding.identity_name());
            self.queue.add(key, Source::Namespace(name.namespace.clone()));
        }
        Ok(if rescan { ReconcileOutcome::Again(RESCAN_DELAY) } else { ReconcileOutcome::InSync })
    }

    async fn scan(&self, namespace: &str, binding: &ManagedIdentityBinding) -> Result<UninjectedPods, ReconcileError> {
        let client = self.client.clone();
        if uninjected::depends_on_containers(binding) {
            let api: Api<Pod> = Api::namespaced(client, namespace);
            scan_pages(&api, namespace, binding, SMALL_PAGE_SIZE, containers).await
        } else {
            let api: Api<PartialObjectMeta<Pod>> = Api::namespaced(client, namespace);
            scan_pages(&api, namespace, binding, PAGE_SIZE, |_| Vec::new()).await
        }
    }

    fn remove(&self, name: &BindingName) {
        self.scans.lock().set(name, None);
        self.count();
    }

    fn count(&self) {
        self.metrics.uninjected.set(i64::try_from(self.scans.lock().pods).unwrap_or(i64::MAX));
    }
}

/// Reads the whole list: a part of it proves nothing.
async fn scan_pages<K: Resource + Clone + std::fmt::Debug + DeserializeOwned>(
    api: &Api<K>,
    namespace: &str,
    binding: &ManagedIdentityBinding,
    page_size: u32,
    containers: impl Fn(&K) -> Vec<&str>,
) -> Result<UninjectedPods, ReconcileError> {
    let account = &binding.spec.service_account_name;
    let fields = format!("spec.serviceAccountName={account},status.phase!=Succeeded,status.phase!=Failed");
    let mut pages = Pages::new(ListParams::default().fields(&fields), page_size);
    let mut found = UninjectedPods::default();
    let act = || format!("listing the pods of service account {namespace}/{account}");
    while let Some(page) = within_deadline(act, pages.next(api)).await? {
        for pod in &page.items {
            found.look_at(binding, pod.meta(), &containers(pod));
        }
    }
    Ok(found)
}

fn containers(pod: &Pod) -> Vec<&str> {
    let spec = pod.spec.as_ref();
    let init = spec.and_then(|spec| spec.init_containers.as_ref()).into_iter().flatten();
    let containers = spec.map(|spec| spec.containers.iter()).into_iter().flatten();
    init.chain(containers).map(|container| container.name.as_str()).collect()
}
