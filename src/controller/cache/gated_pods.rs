//! The gated pods: their names, and the bindings that they wait for. Only gated pods are watched, by their label and
//! without their specs, so that this stays small whatever runs in the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{Api, PartialObjectMeta};
use kube::runtime::watcher;
use parking_lot::{Mutex, MutexGuard};

use crate::engine::key::{Key, Source};
use crate::engine::work_queue::WorkQueue;
use crate::kube_names::{BindingName, PodName};
use crate::metrics::ControllerMetrics;
use ensign_api::conditions::Reason;
use ensign_api::keys::{GATED_LABEL, INJECTED_BY_ANNOTATION};
use ensign_core::events::Event;
use ensign_core::pods::gate::injected_bindings;
use ensign_runtime::reflector::{Incremental, LogContext, NamedStore, Reflector};

/// The gated pods.
#[derive(Default)]
pub(crate) struct GatedPods {
    pods: Mutex<BTreeMap<PodName, GatedPod>>,
    metrics: ControllerMetrics,
}

#[derive(Default)]
struct GatedPod {
    uid: Option<String>,
    bindings: BTreeSet<String>,
    /// Its gate was removed. Gates can't be added again, so that there is nothing left to do about it.
    ungated: bool,
    /// Reasons of the events that were published on the pod.
    published: BTreeSet<Reason>,
}

impl GatedPods {
    pub(crate) fn new(metrics: ControllerMetrics) -> Self {
        Self { pods: Mutex::default(), metrics }
    }

    /// Applies a pod's metadata; returns the key to queue, unless there is nothing to do about the pod.
    pub(crate) fn seen(&self, pod: &ObjectMeta) -> Option<Key> {
        let name = PodName::from(pod);
        let injected_by = pod.annotations.as_ref().and_then(|annotations| annotations.get(INJECTED_BY_ANNOTATION));
        let bindings =
            injected_bindings(injected_by.map_or("", String::as_str)).map(|claim| claim.binding.to_owned()).collect();
        let ungated = self.change(&name, |pods| {
            let known = pods.entry(name.clone()).or_default();
            if known.uid != pod.uid {
                *known = GatedPod { uid: pod.uid.clone(), ..GatedPod::default() };
            }
            known.bindings = bindings;
            known.ungated
        });
        (!ungated).then_some(Key::Pod(name.into()))
    }

    /// Removes a pod that was deleted or is no longer gated.
    pub(crate) fn remove(&self, name: &PodName) {
        self.change(name, |pods| pods.remove(name));
    }

    /// Records that the pod has the label but not the gate. The label means nothing by itself and is left alone.
    pub(crate) fn record_ungated(&self, name: &PodName) {
        self.change(name, |pods| {
            if let Some(pod) = pods.get_mut(name) {
                pod.ungated = true;
            }
        });
    }

    /// The keys of the pods that wait for a binding.
    pub(crate) fn gated_by(&self, name: &BindingName) -> Vec<Key> {
        let pods = self.lock();
        pods.range(PodName::new(name.namespace.clone(), "")..)
            .take_while(|(found, _)| found.namespace == name.namespace)
            .filter(|(_, pod)| !pod.ungated && pod.bindings.contains(&name.name))
            .map(|(name, _)| Key::Pod(name.clone().into()))
            .collect()
    }

    /// Those of the events whose reasons were not published on the pod yet; records them as published.
    pub(crate) fn unpublished(&self, name: &PodName, events: Vec<Event>) -> Vec<Event> {
        let mut pods = self.lock();
        let Some(pod) = pods.get_mut(name) else { return events };
        events.into_iter().filter(|event| pod.published.insert(event.reason)).collect()
    }

    fn names(&self) -> BTreeSet<PodName> {
        self.lock().keys().cloned().collect()
    }

    /// Changes the entry of one pod, and keeps the metric current.
    fn change<T>(&self, name: &PodName, change: impl FnOnce(&mut BTreeMap<PodName, GatedPod>) -> T) -> T {
        let count = |pods: &BTreeMap<PodName, GatedPod>| i64::from(pods.get(name).is_some_and(|pod| !pod.ungated));
        let mut pods = self.lock();
        let before = count(&pods);
        let answer = change(&mut pods);
        self.metrics.gated.inc_by(count(&pods) - before);
        answer
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PodName, GatedPod>> {
        self.pods.lock()
    }
}

/// Keeps the gated pods current for as long as it is polled, and queues each that changes. A controller that may not watch
/// pods does everything else.
pub(crate) async fn watch(pods: Arc<GatedPods>, client: Client, queue: Arc<WorkQueue<Key, Source>>) {
    let api: Api<PartialObjectMeta<Pod>> = Api::all(client);
    let labelled = watcher::Config::default().labels(&format!("{GATED_LABEL}=true"));
    Reflector::new(api, LOG).select(labelled).run(Incremental::new(Follower { pods, queue })).await;
}

const LOG: LogContext = LogContext {
    objects: "gated pods",
    interrupted: "keeping the last known ones; without permission to watch pods, run controller and webhook with --gate-pods=false",
    malformed: "keeping its last known version",
};

/// Follows the watch of gated pods.
struct Follower {
    pods: Arc<GatedPods>,
    queue: Arc<WorkQueue<Key, Source>>,
}

impl NamedStore for Follower {
    type Object = PartialObjectMeta<Pod>;
    type Name = PodName;

    fn name(&self, metadata: &ObjectMeta) -> PodName {
        PodName::from(metadata)
    }

    fn names(&self) -> BTreeSet<PodName> {
        self.pods.names()
    }

    fn apply(&mut self, name: PodName, pod: PartialObjectMeta<Pod>) {
        if let Some(key) = self.pods.seen(&pod.metadata) {
            self.queue.add(key, Source::Namespace(name.namespace));
        }
    }

    /// The label may be gone and the gate not: the reconcile finds out.
    fn delete(&mut self, name: PodName) {
        let source = Source::Namespace(name.namespace.clone());
        self.queue.add(Key::Pod(name.into()), source);
    }
}

#[cfg(test)]
mod tests {
    use std::marker::PhantomData;

    use futures::FutureExt;
    use serde_json::json;

    use super::*;
    use ensign_runtime::clock::SystemClock;
    use ensign_runtime::reflector;

    type WatchEvent = watcher::Event<PartialObjectMeta<Pod>>;

    fn pod(name: &str, uid: &str, by: &str) -> ObjectMeta {
        serde_json::from_value(json!({
            "namespace": "shop", "name": name, "uid": uid, "annotations": {INJECTED_BY_ANNOTATION: by},
        }))
        .unwrap()
    }

    fn key(name: &str) -> Key {
        Key::Pod(PodName::new("shop", name).into())
    }

    fn by(gated: &GatedPods, binding: &str) -> Vec<Key> {
        gated.gated_by(&Arc::new(PodName::new("shop", binding)))
    }

    #[test]
    fn a_binding_finds_the_pods_that_it_gates() {
        let gated = GatedPods::default();
        assert_eq!(gated.seen(&pod("a", "1", "orders=ManagedIdentity/x,pay=ManagedIdentity/y")), Some(key("a")));
        gated.seen(&pod("b", "2", "pay=ManagedIdentity/y"));
        assert_eq!((by(&gated, "orders"), by(&gated, "pay")), (vec![key("a")], vec![key("a"), key("b")]));
        gated.remove(&PodName::new("shop", "a"));
        assert!(by(&gated, "orders").is_empty());
        assert_eq!(gated.metrics.gated.get(), 1);
    }

    #[test]
    fn a_pod_with_the_label_alone_is_queued_once_and_a_new_pod_of_its_name_again() {
        let gated = GatedPods::default();
        gated.seen(&pod("a", "1", "orders=ManagedIdentity/x"));
        gated.record_ungated(&PodName::new("shop", "a"));
        assert_eq!(gated.seen(&pod("a", "1", "orders=ManagedIdentity/x")), None);
        assert!(by(&gated, "orders").is_empty());
        assert_eq!(gated.metrics.gated.get(), 0);
        assert_eq!(gated.seen(&pod("a", "2", "orders=ManagedIdentity/x")), Some(key("a")));
    }

    #[test]
    fn the_watch_queues_pods_that_change_and_pods_that_a_list_lacks() {
        let pods = Arc::new(GatedPods::default());
        let queue = Arc::new(WorkQueue::new(SystemClock::shared()));
        let mut store = Incremental::new(Follower { pods, queue: queue.clone() });
        let mut queued = |events: Vec<WatchEvent>| {
            for event in events {
                reflector::deliver(event, LOG, &mut store);
            }
            let mut keys = Vec::new();
            while let Some(key) = queue.next().now_or_never() {
                queue.done(key.clone(), None);
                keys.push(key);
            }
            keys
        };
        let partial = |name: &str| PartialObjectMeta {
            types: None,
            metadata: pod(name, "1", "orders=ManagedIdentity/x"),
            _phantom: PhantomData,
        };
        let (init, done) = (WatchEvent::Init, WatchEvent::InitDone);
        assert_eq!(queued(vec![init.clone(), WatchEvent::InitApply(partial("a")), done.clone()]), [key("a")]);
        assert_eq!(queued(vec![WatchEvent::Apply(partial("b"))]), [key("b")]);
        assert_eq!(queued(vec![WatchEvent::Delete(partial("b"))]), [key("b")]);
        assert_eq!(queued(vec![init, done]), [key("a"), key("b")]);
    }

    #[test]
    fn each_reason_is_published_once_on_a_pod() {
        let gated = GatedPods::default();
        let name = PodName::new("shop", "a");
        let event = |reason| Event { reason, message: String::new() };
        gated.seen(&pod("a", "1", "orders=ManagedIdentity/x"));
        assert_eq!(gated.unpublished(&name, vec![event(Reason::Forbidden)]).len(), 1);
        let then = gated.unpublished(&name, vec![event(Reason::Forbidden), event(Reason::Propagating)]);
        assert_eq!(then, [event(Reason::Propagating)]);
        gated.seen(&pod("a", "2", "orders=ManagedIdentity/x"));
        assert_eq!(gated.unpublished(&name, vec![event(Reason::Forbidden)]).len(), 1, "another pod");
    }
}
