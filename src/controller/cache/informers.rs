//! Informers: the watches that keep the cache current and feed the work queue.

use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::sync::Arc;

use futures::future::join_all;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DynamicObject, PartialObjectMeta};
use kube::runtime::watcher;
use kube::{Client, Resource};
use tokio::sync::watch;

use super::gated_pods::GatedPods;
use super::{Cache, NamespaceFacts};
use crate::engine::key::{Key, Source};
use crate::engine::work_queue::WorkQueue;
use crate::kube_names::{BindingName, policy_resource};
use ensign_api::{ManagedIdentity, ManagedIdentityBinding, ManagedIdentityClass, NamespacedName};
use ensign_core::cel::{Form, policies};
use ensign_runtime::deserialize_guard::DeserializeGuard;
use ensign_runtime::reflector::{Incremental, LogContext, NamedStore, OnChange, Reflector, Watchable};

/// Where `kubectl apply` keeps the manifest that it applied last.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Watched {
    Identities,
    Bindings,
    Classes,
    Namespaces,
    /// The webhook configuration and the webhook's Secret.
    WebhookConfiguration,
    Policies,
}

impl Watched {
    pub(crate) const ALL: [Self; 6] =
        [Self::Identities, Self::Bindings, Self::Classes, Self::Namespaces, Self::WebhookConfiguration, Self::Policies];

    /// Whether its first list has to be complete before anything is decided.
    pub(crate) fn is_required(self) -> bool {
        !matches!(self, Self::WebhookConfiguration | Self::Policies)
    }

    /// The task that watches it, as it is called in messages.
    pub(crate) fn task(self) -> &'static str {
        match self {
            Self::Identities => "the watch of ManagedIdentities",
            Self::Bindings => "the watch of ManagedIdentityBindings",
            Self::Classes => "the watch of ManagedIdentityClasses",
            Self::Namespaces => "the watch of Namespaces",
            Self::WebhookConfiguration => "the watch of the webhook configuration",
            Self::Policies => "the watch of the admission policies",
        }
    }
}

/// Which of the watches have completed a list.
pub(crate) type Initialised = watch::Sender<BTreeSet<Watched>>;

/// The watches, and what they keep current.
pub(crate) struct Informers {
    pub(crate) cache: Arc<Cache>,
    pub(crate) queue: Arc<WorkQueue<Key, Source>>,
    pub(crate) gated: Arc<GatedPods>,
    pub(crate) initialised: Initialised,
}

impl Informers {
    pub(crate) async fn identities(self: Arc<Self>, client: Client) {
        self.follow::<DeserializeGuard<ManagedIdentity>>(Api::all(client), "ManagedIdentities").await;
    }

    pub(crate) async fn bindings(self: Arc<Self>, client: Client) {
        self.follow::<DeserializeGuard<ManagedIdentityBinding>>(Api::all(client), "ManagedIdentityBindings").await;
    }

    pub(crate) async fn classes(self: Arc<Self>, client: Client) {
        self.follow::<DeserializeGuard<ManagedIdentityClass>>(Api::all(client), "ManagedIdentityClasses").await;
    }

    pub(crate) async fn namespaces(self: Arc<Self>, client: Client) {
        self.follow::<PartialObjectMeta<Namespace>>(Api::all(client), "Namespaces").await;
    }

    async fn follow<K>(self: Arc<Self>, api: Api<K>, objects: &'static str)
    where
        K: Watchable<DynamicType = ()>,
        K::Object: CachedKind,
    {
        let store = Incremental::new(CacheStore::<K::Object>::new(self));
        Reflector::new(api, LogContext::new(objects)).prune(|object| strip(object.meta_mut())).run(store).await;
    }

    /// Watches the webhook configuration and the webhook's Secret, so that a removed CA bundle or a new certificate takes
    /// effect at once.
    pub(crate) async fn webhook_configuration(
        self: Arc<Self>,
        client: Client,
        configuration: String,
        namespace: String,
        secret: String,
    ) {
        let configurations: Api<PartialObjectMeta<MutatingWebhookConfiguration>> = Api::all(client.clone());
        let secrets: Api<PartialObjectMeta<Secret>> = Api::namespaced(client, &namespace);
        let configurations = Reflector::new(configurations, log_of_injection("the MutatingWebhookConfiguration"));
        let secrets = Reflector::new(secrets, log_of_injection("the webhook's Secret"));
        tokio::join!(
            configurations.select(named(&configuration)).run(self.on_change()),
            secrets.select(named(&secret)).run(self.on_change())
        );
    }

    /// Watches the admission policies, so that a modified one is repaired at once.
    pub(crate) async fn policies(self: Arc<Self>, client: Client) {
        let watches = policies(Form::Inert).into_iter().map(|policy| {
            let resource = policy_resource(policy.kind);
            let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(client.clone(), &resource);
            let reflector = Reflector::new(api, log_of_injection("the admission policies"));
            reflector.select(named(policy.name)).run(self.on_change())
        });
        join_all(watches).await;
    }

    /// Queues injection at every change.
    fn on_change<K>(&self) -> OnChange<K, impl FnMut() + use<K>> {
        let queue = self.queue.clone();
        OnChange::new(move || queue.add(Key::Injection, Source::Cluster))
    }
}

fn log_of_injection(objects: &'static str) -> LogContext {
    LogContext { interrupted: "changes are noticed at the next drift check", ..LogContext::new(objects) }
}

fn named(name: &str) -> watcher::Config {
    watcher::Config::default().fields(&format!("metadata.name={name}"))
}

/// A kind of objects that the cache holds.
trait CachedKind: Resource<DynamicType = ()> + Send {
    const WATCHED: Watched;
    type Name: Ord + Send;

    fn name(metadata: &ObjectMeta) -> Self::Name;

    /// The names of the objects in the cache.
    fn names(cache: &Cache) -> BTreeSet<Self::Name>;

    /// Applies a change to the cache, `None` for a deletion; returns the keys that it concerns.
    fn changed(informers: &Informers, name: &Self::Name, object: Option<Self>) -> BTreeSet<Key>
    where
        Self: Sized;

    /// On whose account the keys are queued.
    fn source(name: &Self::Name) -> Source;
}

impl CachedKind for ManagedIdentity {
    const WATCHED: Watched = Watched::Identities;
    type Name = String;

    fn name(metadata: &ObjectMeta) -> String {
        metadata.name.clone().unwrap_or_default()
    }

    fn names(cache: &Cache) -> BTreeSet<String> {
        cache.read().identity_names().cloned().collect()
    }

    fn changed(informers: &Informers, name: &String, object: Option<Self>) -> BTreeSet<Key> {
        informers.cache.identity_changed(name, object)
    }

    fn source(_: &String) -> Source {
        Source::Cluster
    }
}

impl CachedKind for ManagedIdentityBinding {
    const WATCHED: Watched = Watched::Bindings;
    type Name = BindingName;

    fn name(metadata: &ObjectMeta) -> BindingName {
        Arc::new(NamespacedName::from(metadata))
    }

    fn names(cache: &Cache) -> BTreeSet<BindingName> {
        cache.read().binding_names().cloned().collect()
    }

    /// Gated pods wait for what status reports, so that they are queued by this controller's own writes as well.
    fn changed(informers: &Informers, name: &BindingName, mut object: Option<Self>) -> BTreeSet<Key> {
        if let Some(status) = object.as_mut().and_then(|object| object.status.as_mut()) {
            // Deserializing doubled the capacity until everything fit.
            status.conditions.shrink_to_fit();
        }
        let mut keys = informers.cache.binding_changed(name, object);
        keys.extend(informers.gated.gated_by(name));
        keys
    }

    fn source(name: &BindingName) -> Source {
        Source::Namespace(name.namespace.clone())
    }
}

impl CachedKind for ManagedIdentityClass {
    const WATCHED: Watched = Watched::Classes;
    type Name = String;

    fn name(metadata: &ObjectMeta) -> String {
        metadata.name.clone().unwrap_or_default()
    }

    fn names(cache: &Cache) -> BTreeSet<String> {
        cache.read().class_names().cloned().collect()
    }

    fn changed(informers: &Informers, name: &String, object: Option<Self>) -> BTreeSet<Key> {
        informers.cache.class_changed(name, object)
    }

    fn source(_: &String) -> Source {
        Source::Cluster
    }
}

impl CachedKind for PartialObjectMeta<Namespace> {
    const WATCHED: Watched = Watched::Namespaces;
    type Name = String;

    fn name(metadata: &ObjectMeta) -> String {
        metadata.name.clone().unwrap_or_default()
    }

    fn names(cache: &Cache) -> BTreeSet<String> {
        cache.read().namespace_names().cloned().collect()
    }

    fn changed(informers: &Informers, name: &String, object: Option<Self>) -> BTreeSet<Key> {
        informers.cache.namespace_changed(name, object.map(|object| NamespaceFacts::from(object.metadata)))
    }

    fn source(name: &String) -> Source {
        Source::Namespace(name.clone())
    }
}

/// Passes the objects of a watch on to the cache, and the keys that they concern to the queue.
struct CacheStore<K> {
    informers: Arc<Informers>,
    kind: PhantomData<fn(K)>,
}

impl<K: CachedKind> CacheStore<K> {
    fn new(informers: Arc<Informers>) -> Self {
        Self { informers, kind: PhantomData }
    }

    fn changed(&self, name: &K::Name, object: Option<K>) {
        let keys = K::changed(&self.informers, name, object);
        // The first list queues nothing: work begins with every key there is, and a standby that had queued them all would
        // have to work through them before what changed meanwhile.
        if self.informers.initialised.borrow().contains(&K::WATCHED) {
            let source = K::source(name);
            for key in keys {
                self.informers.queue.add(key, source.clone());
            }
        }
    }
}

impl<K: CachedKind> NamedStore for CacheStore<K> {
    type Object = K;
    type Name = K::Name;

    fn name(&self, metadata: &ObjectMeta) -> K::Name {
        K::name(metadata)
    }

    fn names(&self) -> BTreeSet<K::Name> {
        K::names(&self.informers.cache)
    }

    fn apply(&mut self, name: K::Name, object: K) {
        self.changed(&name, Some(object));
    }

    fn delete(&mut self, name: K::Name) {
        self.changed(&name, None);
    }

    fn init_done(&mut self) {
        self.informers.initialised.send_if_modified(|all| all.insert(K::WATCHED));
    }
}

/// Drops metadata that no decision reads, because thousands of objects are kept. An empty list would keep its capacity, so
/// that it is dropped as a whole.
fn strip(metadata: &mut ObjectMeta) {
    metadata.managed_fields = None;
    if let Some(annotations) = &mut metadata.annotations {
        // `kubectl apply` stores the whole object in it.
        annotations.remove(LAST_APPLIED);
        if annotations.is_empty() {
            metadata.annotations = None;
        }
    }
    if let Some(finalizers) = &mut metadata.finalizers {
        finalizers.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use kube::runtime::watcher::Event;
    use serde_json::json;

    use super::*;
    use crate::metrics::ControllerMetrics;
    use ensign_runtime::clock::SystemClock;
    use ensign_runtime::reflector;

    type Guarded = DeserializeGuard<ManagedIdentity>;

    fn object(generation: i64, spec: &serde_json::Value) -> Guarded {
        let object = json!({
            "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentity",
            "metadata": {"name": "orders", "generation": generation},
            "spec": spec,
        });
        serde_json::from_str(&object.to_string()).unwrap()
    }

    fn identity(generation: i64) -> Guarded {
        let id = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg/providers/Microsoft.ManagedIdentity/userAssignedIdentities/orders";
        object(generation, &json!({"existing": {"resourceID": id}, "allowedSubjects": []}))
    }

    struct Watch {
        informers: Arc<Informers>,
        store: Incremental<CacheStore<ManagedIdentity>>,
    }

    impl Watch {
        fn new() -> Self {
            let informers = Arc::new(Informers {
                cache: Arc::default(),
                queue: Arc::new(WorkQueue::new(SystemClock::shared())),
                gated: Arc::new(GatedPods::new(ControllerMetrics::default())),
                initialised: watch::Sender::new(BTreeSet::new()),
            });
            Self { store: Incremental::new(CacheStore::new(informers.clone())), informers }
        }

        /// Delivers these events; whether they queued a key.
        fn queues(&mut self, events: impl IntoIterator<Item = Event<Guarded>>) -> bool {
            for event in events {
                reflector::deliver(event, LogContext::new("ManagedIdentities"), &mut self.store);
            }
            let mut queued = false;
            while let Some(key) = self.informers.queue.next().now_or_never() {
                self.informers.queue.done(key, None);
                queued = true;
            }
            queued
        }

        fn generation(&self) -> Option<i64> {
            self.informers.cache.read().identity("orders").and_then(|object| object.metadata.generation)
        }
    }

    #[test]
    fn the_first_list_fills_the_cache_and_later_events_queue_keys() {
        let mut watch = Watch::new();
        assert!(!watch.queues([Event::Init, Event::InitApply(identity(1))]));
        assert!(!watch.informers.initialised.borrow().contains(&Watched::Identities));
        assert!(!watch.queues([Event::InitDone]));
        assert!(watch.informers.initialised.borrow().contains(&Watched::Identities));
        assert_eq!(watch.generation(), Some(1));
        assert!(watch.queues([Event::Apply(identity(2))]), "a change");
        assert!(!watch.queues([Event::Init, Event::InitApply(identity(2)), Event::InitDone]), "nothing is new");
        assert!(watch.queues([Event::Init, Event::InitApply(identity(3)), Event::InitDone]), "a change in a list");
        assert!(watch.queues([Event::Init, Event::InitDone]), "an object that a list lacks");
        assert_eq!(watch.generation(), None);
    }

    #[test]
    fn a_malformed_object_keeps_its_last_known_version() {
        let mut watch = Watch::new();
        watch.queues([Event::Init, Event::InitApply(identity(1)), Event::InitDone]);
        assert!(!watch.queues([Event::Apply(object(2, &json!(7)))]));
        assert!(!watch.queues([Event::Init, Event::InitApply(object(2, &json!(7))), Event::InitDone]));
        assert_eq!(watch.generation(), Some(1));
    }
}
