//! Watches that keep the cache current and the queue fed. One malformed object can't stall them.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;

use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DynamicObject, PartialObjectMeta};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::gated_pods::GatedPods;
use super::{Cache, NamespaceFacts};
use crate::engine::key::{Key, Source};
use crate::engine::work_queue::WorkQueue;
use crate::kube_names::{BindingName, policy_resource};
use ensign_api::{ManagedIdentity, ManagedIdentityBinding, ManagedIdentityClass, NamespacedName};
use ensign_core::cel::{Form, policies};
use ensign_runtime::deserialize_guard::DeserializeGuard;

/// Where `kubectl apply` keeps what it was given last.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Watched {
    Identities,
    Bindings,
    Classes,
    Namespaces,
    /// The objects behind the webhook's registration.
    Registration,
    Policies,
}

impl Watched {
    pub(crate) const ALL: [Self; 6] =
        [Self::Identities, Self::Bindings, Self::Classes, Self::Namespaces, Self::Registration, Self::Policies];

    /// Whether its first list has to be in before anything is decided.
    pub(crate) fn is_required(self) -> bool {
        !matches!(self, Self::Registration | Self::Policies)
    }

    /// The task that watches it, for people.
    pub(crate) fn task(self) -> &'static str {
        match self {
            Self::Identities => "the watch of ManagedIdentities",
            Self::Bindings => "the watch of ManagedIdentityBindings",
            Self::Classes => "the watch of ManagedIdentityClasses",
            Self::Namespaces => "the watch of Namespaces",
            Self::Registration => "the watch of the webhook registration",
            Self::Policies => "the watch of the admission policies",
        }
    }
}

/// Says which of the watches have seen everything once.
pub(crate) type Initialised = watch::Sender<BTreeSet<Watched>>;

/// What a watch feeds.
pub(crate) struct Feed {
    pub(crate) cache: Arc<Cache>,
    pub(crate) queue: Arc<WorkQueue<Key, Source>>,
    pub(crate) held: Arc<GatedPods>,
    pub(crate) initialised: Initialised,
}

impl Feed {
    pub(crate) async fn identities(self: Arc<Self>, client: Client) {
        let api: Api<DeserializeGuard<ManagedIdentity>> = Api::all(client);
        let known = |feed: &Self| feed.cache.read().identity_names().cloned().collect();
        let take = |feed: &Self, name: &String, object| feed.cache.identity_changed(name, object);
        let source = |_: &String| Source::Cluster;
        self.follow(Watched::Identities, watch_all(api), (ResourceExt::name_any, source), known, take).await;
    }

    pub(crate) async fn bindings(self: Arc<Self>, client: Client) {
        let api: Api<DeserializeGuard<ManagedIdentityBinding>> = Api::all(client);
        let name = |object: &DeserializeGuard<ManagedIdentityBinding>| -> BindingName {
            Arc::new(NamespacedName::from(object.meta()))
        };
        let known = |feed: &Self| feed.cache.read().binding_names().cloned().collect();
        // Pods wait for what status says, so that our own writes coming back concern them.
        let take = |feed: &Self, name: &BindingName, mut object: Option<ManagedIdentityBinding>| {
            if let Some(status) = object.as_mut().and_then(|object| object.status.as_mut()) {
                // Reading doubled its room until all had it.
                status.conditions.shrink_to_fit();
            }
            let mut keys = feed.cache.binding_changed(name, object);
            keys.extend(feed.held.gated_by(name));
            keys
        };
        let source = |name: &BindingName| Source::Namespace(name.namespace.clone());
        self.follow(Watched::Bindings, watch_all(api), (name, source), known, take).await;
    }

    pub(crate) async fn classes(self: Arc<Self>, client: Client) {
        let api: Api<DeserializeGuard<ManagedIdentityClass>> = Api::all(client);
        let known = |feed: &Self| feed.cache.read().class_names().cloned().collect();
        let take = |feed: &Self, name: &String, object| feed.cache.class_changed(name, object);
        let source = |_: &String| Source::Cluster;
        self.follow(Watched::Classes, watch_all(api), (ResourceExt::name_any, source), known, take).await;
    }

    pub(crate) async fn namespaces(self: Arc<Self>, client: Client) {
        let api: Api<PartialObjectMeta<Namespace>> = Api::all(client);
        let known = |feed: &Self| feed.cache.read().namespace_names().cloned().collect();
        let take = |feed: &Self, name: &String, object: Option<PartialObjectMeta<Namespace>>| {
            let facts = object.map(|object| NamespaceFacts {
                terminating: object.metadata.deletion_timestamp.is_some(),
                uid: object.metadata.uid,
                labels: object.metadata.labels.unwrap_or_default(),
            });
            feed.cache.namespace_changed(name, facts)
        };
        let source = |name: &String| Source::Namespace(name.clone());
        // Only metadata is asked for, which a guard around the type would hide; there is nothing in it that can be malformed.
        let events = watch_all(api).map_ok(guarded);
        self.follow(Watched::Namespaces, events, (ResourceExt::name_any, source), known, take).await;
    }

    /// Watches the two objects behind the webhook's registration, so that a wiped CA bundle or a new certificate is
    /// noticed at once.
    pub(crate) async fn registration(
        self: Arc<Self>,
        client: Client,
        configuration: String,
        namespace: String,
        secret: String,
    ) {
        let configurations: Api<PartialObjectMeta<MutatingWebhookConfiguration>> = Api::all(client.clone());
        let secrets: Api<PartialObjectMeta<Secret>> = Api::namespaced(client, &namespace);
        let by_name = |name: &str| watcher::Config::default().fields(&format!("metadata.name={name}"));
        let configurations =
            watcher(configurations, by_name(&configuration)).default_backoff().map(|event| event.map(|_| ()));
        let secrets = watcher(secrets, by_name(&secret)).default_backoff().map(|event| event.map(|_| ()));
        let mut events = futures::stream::select(Box::pin(configurations), Box::pin(secrets));
        while let Some(event) = events.next().await {
            match event {
                Ok(()) => self.queue.add(Key::Injection, Source::Cluster),
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "watch of the webhook registration");
                }
            }
        }
    }

    /// Watches the admission policies, so that one that somebody changed is repaired at once.
    pub(crate) async fn policies(self: Arc<Self>, client: Client) {
        let mut events = futures::stream::SelectAll::new();
        for policy in policies(Form::Inert) {
            let resource = policy_resource(policy.kind);
            let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(client.clone(), &resource);
            let by_name = watcher::Config::default().fields(&format!("metadata.name={}", policy.name));
            events.push(watcher(api, by_name).default_backoff().boxed());
        }
        while let Some(event) = events.next().await {
            match event {
                Ok(_) => self.queue.add(Key::Injection, Source::Cluster),
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "watch of the admission policies");
                }
            }
        }
    }

    async fn follow<K, N>(
        self: Arc<Self>,
        what: Watched,
        events: impl Stream<Item = watcher::Result<Event<DeserializeGuard<K>>>> + Send,
        (name_of, source_of): (impl Fn(&DeserializeGuard<K>) -> N + Send, impl Fn(&N) -> Source + Send),
        known: impl Fn(&Self) -> BTreeSet<N> + Send,
        take: impl Fn(&Self, &N, Option<K>) -> BTreeSet<Key> + Send,
    ) where
        N: Ord + Clone + Debug + Send,
        K: Resource<DynamicType = ()> + Send,
    {
        let kind = &*K::kind(&());
        let mut events = std::pin::pin!(events);
        // With the first list, whoever decides begins with every key there is. A standby that had them all in its queue
        // would have to take what changed meanwhile in between.
        let add = |keys, name: &N| {
            if self.initialised.borrow().contains(&what) {
                self.add(keys, &source_of(name));
            }
        };
        // Objects of a list that is still coming in; what it does not mention at its end is gone.
        let mut unseen: BTreeSet<N> = BTreeSet::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => unseen = known(&self),
                Ok(Event::InitApply(object) | Event::Apply(object)) => {
                    let name = name_of(&object);
                    unseen.remove(&name);
                    match object.0 {
                        Ok(object) => add(take(&self, &name, Some(object)), &name),
                        Err(error) => {
                            tracing::error!(kind, name = ?name, error = error.error, "object can't be understood; it is left as it was");
                        }
                    }
                }
                Ok(Event::Delete(object)) => {
                    let name = name_of(&object);
                    add(take(&self, &name, None), &name);
                }
                Ok(Event::InitDone) => {
                    for name in std::mem::take(&mut unseen) {
                        add(take(&self, &name, None), &name);
                    }
                    self.initialised.send_if_modified(|all| all.insert(what));
                }
                Err(error) => {
                    tracing::warn!(kind, error = &error as &dyn std::error::Error, "watch");
                }
            }
        }
    }

    fn add(&self, keys: BTreeSet<Key>, source: &Source) {
        for key in keys {
            self.queue.add(key, source.clone());
        }
    }
}

fn watch_all<K>(api: Api<K>) -> impl Stream<Item = watcher::Result<Event<K>>> + Send
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    watcher(api, watcher::Config::default()).default_backoff().modify(|object| strip(object.meta_mut()))
}

/// Leaves of the metadata what decisions look at: ten thousand objects are kept. An empty list still has its room, so that
/// what goes is taken away and not cleared.
fn strip(metadata: &mut ObjectMeta) {
    metadata.managed_fields = None;
    if let Some(annotations) = &mut metadata.annotations {
        // The whole object once more, by `kubectl apply`.
        annotations.remove(LAST_APPLIED);
        if annotations.is_empty() {
            metadata.annotations = None;
        }
    }
    if let Some(finalizers) = &mut metadata.finalizers {
        finalizers.shrink_to_fit();
    }
}

fn guarded<K>(event: Event<K>) -> Event<DeserializeGuard<K>> {
    let guard = |object| DeserializeGuard(Ok(object));
    match event {
        Event::Apply(object) => Event::Apply(guard(object)),
        Event::Delete(object) => Event::Delete(guard(object)),
        Event::Init => Event::Init,
        Event::InitApply(object) => Event::InitApply(guard(object)),
        Event::InitDone => Event::InitDone,
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use kube::runtime::watcher::Error;
    use serde_json::json;

    use super::*;
    use crate::metrics::ControllerMetrics;
    use ensign_runtime::clock::SystemClock;

    fn identity(generation: i64) -> DeserializeGuard<ManagedIdentity> {
        let id = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg/providers/Microsoft.ManagedIdentity/userAssignedIdentities/orders";
        let object = json!({
            "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentity",
            "metadata": {"name": "orders", "generation": generation},
            "spec": {"existing": {"resourceID": id}, "allowedSubjects": []},
        });
        DeserializeGuard(Ok(serde_json::from_value(object).unwrap()))
    }

    /// Feeds these events; answers whether they brought a key.
    fn brings(feed: &Arc<Feed>, events: Vec<Event<DeserializeGuard<ManagedIdentity>>>) -> bool {
        let events = futures::stream::iter(events.into_iter().map(Ok::<_, Error>));
        let known = |feed: &Feed| feed.cache.read().identity_names().cloned().collect();
        let take = |feed: &Feed, name: &String, object| feed.cache.identity_changed(name, object);
        let names = (ResourceExt::name_any, |_: &String| Source::Cluster);
        feed.clone().follow(Watched::Identities, events, names, known, take).now_or_never().unwrap();
        let mut brought = false;
        while let Some(key) = feed.queue.next().now_or_never() {
            feed.queue.done(key, None);
            brought = true;
        }
        brought
    }

    #[test]
    fn a_first_list_fills_the_cache_and_what_comes_later_the_queue() {
        let initialised = watch::Sender::new(BTreeSet::new());
        let feed = Arc::new(Feed {
            cache: Arc::default(),
            queue: Arc::new(WorkQueue::new(SystemClock::shared())),
            held: Arc::new(GatedPods::new(ControllerMetrics::default())),
            initialised,
        });
        assert!(!brings(&feed, vec![Event::Init, Event::InitApply(identity(1)), Event::InitDone]));
        assert!(feed.cache.read().identity("orders").is_some());
        assert!(brings(&feed, vec![Event::Apply(identity(2))]), "a change");
        assert!(!brings(&feed, vec![Event::Init, Event::InitApply(identity(2)), Event::InitDone]), "nothing is new");
        assert!(brings(&feed, vec![Event::Init, Event::InitApply(identity(3)), Event::InitDone]), "a change in a list");
        assert!(brings(&feed, vec![Event::Init, Event::InitDone]), "an object that a list lacks");
        assert!(feed.cache.read().identity("orders").is_none());
    }
}
