//! Watches of Kubernetes objects that keep a store current.
//!
//! `kube::runtime::reflector` keeps whole objects in one shape of map. Here each store decides what it keeps of an object
//! and under which key; the watch, its backoff, malformed objects and the log are the same for all of them.
//!
//! A store of its own shape implements [`Store`]: it sees where a list begins and ends, and can collect the list aside. A
//! store that is updated object by object, also by a list, implements [`NamedStore`] and is wrapped in [`Incremental`]. To
//! be notified of changes only, use [`OnChange`].

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::Debug;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::pin;

use futures::{Stream, StreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::api::{Api, PartialObjectMeta};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use serde::de::DeserializeOwned;

use super::deserialize_guard::{DeserializeGuard, Malformed};

/// What a watch can read: objects behind a [`DeserializeGuard`], or metadata only, which is never malformed.
pub trait Watchable: Resource + Clone + Debug + DeserializeOwned + Send + 'static {
    /// What the store gets.
    type Object: Resource + Send;

    /// The object, or what is wrong with it.
    fn into_object(self) -> Result<Self::Object, Box<Malformed>>;
}

impl<K: Resource + Clone + Debug + DeserializeOwned + Send + 'static> Watchable for DeserializeGuard<K> {
    type Object = K;

    fn into_object(self) -> Result<K, Box<Malformed>> {
        self.0.map_err(Box::new)
    }
}

// Not behind a guard: this type makes the client request metadata only.
impl<K: Resource + Clone + Debug + Send + 'static> Watchable for PartialObjectMeta<K>
where
    Self: Resource,
{
    type Object = Self;

    fn into_object(self) -> Result<Self, Box<Malformed>> {
        Ok(self)
    }
}

/// What a watch keeps current.
///
/// A list, the first one or one after an interruption, arrives as `init`, `init_apply` for each object and `init_done`;
/// between lists there are `apply` and `delete`.
pub trait Store {
    /// The objects.
    type Object;

    /// A list begins. What the store holds stays in use until the list is complete.
    fn init(&mut self);

    /// An object of that list.
    fn init_apply(&mut self, object: Self::Object);

    /// The list is complete: objects that were not in it do not exist.
    fn init_done(&mut self);

    /// An object was created or changed.
    fn apply(&mut self, object: Self::Object);

    /// An object was deleted.
    fn delete(&mut self, metadata: &ObjectMeta);

    /// An object, of a list or of a change, that can't be deserialized. It exists; the reflector has logged it.
    fn malformed(&mut self, metadata: &ObjectMeta);
}

/// A store that is updated object by object, also by a list.
pub trait NamedStore {
    /// The objects.
    type Object: Resource;
    /// What it calls an object.
    type Name: Ord;

    /// The name of an object.
    fn name(&self, metadata: &ObjectMeta) -> Self::Name;

    /// The names of all objects it holds.
    fn names(&self) -> BTreeSet<Self::Name>;

    /// An object exists in this version. The store may have that version already.
    fn apply(&mut self, name: Self::Name, object: Self::Object);

    /// An object was deleted, or a list lacks it.
    fn delete(&mut self, name: Self::Name);

    /// A list is complete.
    fn init_done(&mut self) {}
}

/// Makes a [`Store`] of a [`NamedStore`]: objects that a list lacks are deleted when it is complete. A malformed
/// object stays in the store as it was.
#[derive(Debug)]
pub struct Incremental<S: NamedStore> {
    store: S,
    /// Names of objects that have not been in the current list yet.
    unlisted: BTreeSet<S::Name>,
}

impl<S: NamedStore> Incremental<S> {
    /// A store that has seen no list yet.
    pub fn new(store: S) -> Self {
        Self { store, unlisted: BTreeSet::new() }
    }
}

impl<S: NamedStore> Store for Incremental<S> {
    type Object = S::Object;

    fn init(&mut self) {
        self.unlisted = self.store.names();
    }

    fn init_apply(&mut self, object: S::Object) {
        self.apply(object);
    }

    fn init_done(&mut self) {
        for name in std::mem::take(&mut self.unlisted) {
            self.store.delete(name);
        }
        self.store.init_done();
    }

    fn apply(&mut self, object: S::Object) {
        let name = self.store.name(object.meta());
        self.unlisted.remove(&name);
        self.store.apply(name, object);
    }

    fn delete(&mut self, metadata: &ObjectMeta) {
        self.store.delete(self.store.name(metadata));
    }

    fn malformed(&mut self, metadata: &ObjectMeta) {
        self.unlisted.remove(&self.store.name(metadata));
    }
}

/// A store that keeps nothing and calls a function once for each change, and once for each complete list.
#[derive(Debug)]
pub struct OnChange<K, F> {
    changed: F,
    objects: PhantomData<fn(K)>,
}

impl<K, F: FnMut()> OnChange<K, F> {
    /// A store that calls this function.
    pub fn new(changed: F) -> Self {
        Self { changed, objects: PhantomData }
    }
}

impl<K, F: FnMut()> Store for OnChange<K, F> {
    type Object = K;

    fn init(&mut self) {}

    fn init_apply(&mut self, _: K) {}

    fn init_done(&mut self) {
        (self.changed)();
    }

    fn apply(&mut self, _: K) {
        (self.changed)();
    }

    fn delete(&mut self, _: &ObjectMeta) {
        (self.changed)();
    }

    fn malformed(&mut self, _: &ObjectMeta) {
        (self.changed)();
    }
}

/// A watch, and how it is logged.
#[derive(Debug)]
pub struct Reflector<K> {
    api: Api<K>,
    selection: watcher::Config,
    prune: fn(&mut K),
    log: LogContext,
}

/// How a watch is called in the log, and what follows from its problems.
#[derive(Clone, Copy, Debug)]
pub struct LogContext {
    /// The objects, for example `ManagedIdentityBindings`.
    pub objects: &'static str,
    /// What an interrupted watch means, or what to do about it.
    pub interrupted: &'static str,
    /// What a malformed object means.
    pub malformed: &'static str,
}

impl LogContext {
    /// For these objects, with stores that keep what they know.
    pub fn new(objects: &'static str) -> Self {
        let (interrupted, malformed) = ("keeping the last known objects", "keeping its last known version");
        Self { objects, interrupted, malformed }
    }
}

impl<K: Watchable> Reflector<K> {
    /// A watch of every object that `api` covers.
    pub fn new(api: Api<K>, log: LogContext) -> Self {
        Self { api, selection: watcher::Config::default(), prune: |_| (), log }
    }

    /// Limits the watch, for example to a label.
    #[must_use]
    pub fn select(self, selection: watcher::Config) -> Self {
        Self { selection, ..self }
    }

    /// Drops what the store does not need from each object as soon as it is read.
    #[must_use]
    pub fn prune(self, prune: fn(&mut K)) -> Self {
        Self { prune, ..self }
    }

    /// Keeps the store current for as long as the future is polled. An interrupted watch is resumed with backoff.
    pub fn run<S>(self, store: S) -> impl Future<Output = ()> + Send
    where
        S: Store<Object = K::Object> + Send,
        K::DynamicType: Clone + Send + Sync,
    {
        let Self { api, selection, prune, log } = self;
        follow(watcher(api, selection).default_backoff().modify(prune), log, store)
    }
}

async fn follow<K, S>(events: impl Stream<Item = watcher::Result<Event<K>>> + Send, log: LogContext, mut store: S)
where
    K: Watchable,
    S: Store<Object = K::Object> + Send,
{
    let mut events = pin!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => deliver(event, log, &mut store),
            Err(error) => {
                let LogContext { objects, interrupted, .. } = log;
                tracing::warn!(error = &error as &dyn Error, "watch of {objects} interrupted; {interrupted}");
            }
        }
    }
}

/// Delivers one event of a watch to a store.
pub fn deliver<K: Watchable>(event: Event<K>, log: LogContext, store: &mut impl Store<Object = K::Object>) {
    match event {
        Event::Init => store.init(),
        Event::InitDone => store.init_done(),
        Event::Delete(object) => store.delete(object.meta()),
        Event::InitApply(object) => match object.into_object() {
            Ok(object) => store.init_apply(object),
            Err(malformed) => reject(&malformed, log, store),
        },
        Event::Apply(object) => match object.into_object() {
            Ok(object) => store.apply(object),
            Err(malformed) => reject(&malformed, log, store),
        },
    }
}

fn reject(Malformed { error, metadata }: &Malformed, log: LogContext, store: &mut impl Store) {
    let (namespace, name) = (metadata.namespace.as_deref(), metadata.name.as_deref());
    let LogContext { objects, malformed, .. } = log;
    tracing::error!(namespace, name, error, "cannot deserialize one of the {objects}; {malformed}");
    store.malformed(metadata);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use futures::FutureExt;
    use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
    use serde_json::json;

    use super::*;

    type Guarded = DeserializeGuard<ConfigMap>;

    fn object(name: &str, data: &serde_json::Value) -> Guarded {
        serde_json::from_value(json!({"metadata": {"name": name}, "data": data})).unwrap()
    }

    fn good(name: &str, value: &str) -> Guarded {
        object(name, &json!({"value": value}))
    }

    /// Values by name, and everything that happened.
    #[derive(Default)]
    struct Values {
        values: BTreeMap<String, String>,
        log: Vec<String>,
    }

    impl NamedStore for &mut Values {
        type Object = ConfigMap;
        type Name = String;

        fn name(&self, metadata: &ObjectMeta) -> String {
            metadata.name.clone().unwrap_or_default()
        }

        fn names(&self) -> BTreeSet<String> {
            self.values.keys().cloned().collect()
        }

        fn apply(&mut self, name: String, object: ConfigMap) {
            self.log.push(format!("apply {name}"));
            self.values.insert(name, object.data.unwrap_or_default().remove("value").unwrap_or_default());
        }

        fn delete(&mut self, name: String) {
            self.log.push(format!("delete {name}"));
            self.values.remove(&name);
        }

        fn init_done(&mut self) {
            self.log.push("done".to_owned());
        }
    }

    fn feed(values: &mut Values, events: Vec<watcher::Result<Event<Guarded>>>) -> Vec<String> {
        let stream = futures::stream::iter(events);
        let log = LogContext::new("ConfigMaps");
        follow(stream, log, Incremental::new(&mut *values)).now_or_never().unwrap();
        std::mem::take(&mut values.log)
    }

    #[test]
    fn objects_that_a_list_lacks_are_deleted_when_it_is_complete() {
        let mut values = Values::default();
        let list = |names: [&str; 2]| {
            let objects = names.map(|name| Ok(Event::InitApply(good(name, "1"))));
            [Ok(Event::Init)].into_iter().chain(objects).chain([Ok(Event::InitDone)]).collect::<Vec<_>>()
        };
        assert_eq!(feed(&mut values, list(["a", "b"])), ["apply a", "apply b", "done"]);
        assert_eq!(feed(&mut values, list(["b", "c"])), ["apply b", "apply c", "delete a", "done"]);
        assert_eq!(values.values.keys().collect::<Vec<_>>(), ["b", "c"]);
    }

    #[test]
    fn changes_and_deletions_are_delivered_and_an_error_ends_nothing() {
        let mut values = Values::default();
        let events = vec![
            Ok(Event::Apply(good("a", "1"))),
            Err(watcher::Error::NoResourceVersion),
            Ok(Event::Apply(good("a", "2"))),
            Ok(Event::Apply(good("b", "1"))),
            Ok(Event::Delete(good("b", "1"))),
        ];
        assert_eq!(feed(&mut values, events), ["apply a", "apply a", "apply b", "delete b"]);
        assert_eq!(values.values, BTreeMap::from([("a".to_owned(), "2".to_owned())]));
    }

    #[test]
    fn a_malformed_object_keeps_its_last_known_version_and_does_not_disturb_others() {
        let mut values = Values::default();
        feed(&mut values, vec![Ok(Event::Apply(good("a", "1"))), Ok(Event::Apply(object("a", &json!(7))))]);
        assert_eq!(values.values["a"], "1");
        let list = [Event::Init, Event::InitApply(object("a", &json!(7))), Event::InitApply(good("b", "1"))];
        feed(&mut values, list.into_iter().chain([Event::InitDone]).map(Ok).collect());
        assert_eq!(values.values.keys().collect::<Vec<_>>(), ["a", "b"], "it exists");
        feed(&mut values, vec![Ok(Event::Delete(object("a", &json!(7))))]);
        assert!(!values.values.contains_key("a"));
    }

    /// Takes a list as a whole.
    #[derive(Default)]
    struct Names {
        collected: Option<BTreeSet<String>>,
        names: BTreeSet<String>,
    }

    impl Store for Names {
        type Object = PartialObjectMeta<Namespace>;

        fn init(&mut self) {
            self.collected = Some(BTreeSet::new());
        }

        fn init_apply(&mut self, object: Self::Object) {
            self.collected.get_or_insert_default().extend(object.metadata.name);
        }

        fn init_done(&mut self) {
            self.names = self.collected.take().unwrap_or_default();
        }

        fn apply(&mut self, object: Self::Object) {
            self.names.extend(object.metadata.name);
        }

        fn delete(&mut self, metadata: &ObjectMeta) {
            self.names.retain(|name| metadata.name.as_ref() != Some(name));
        }

        fn malformed(&mut self, _: &ObjectMeta) {}
    }

    #[test]
    fn a_change_and_a_complete_list_are_each_reported_once() {
        let mut changes = 0;
        let mut store = OnChange::new(|| changes += 1);
        let list = [Event::Init, Event::InitApply(good("a", "1")), Event::InitApply(good("b", "1")), Event::InitDone];
        for event in list.into_iter().chain([Event::Apply(good("a", "2")), Event::Delete(good("b", "1"))]) {
            deliver(event, LogContext::new("ConfigMaps"), &mut store);
        }
        assert_eq!(changes, 3);
    }

    #[test]
    fn a_store_can_collect_a_list_aside_and_metadata_needs_no_guard() {
        let namespace = |name: &str| -> PartialObjectMeta<Namespace> {
            serde_json::from_value(json!({"metadata": {"name": name}})).unwrap()
        };
        let mut names = Names::default();
        let mut feed = |event| {
            deliver(event, LogContext::new("Namespaces"), &mut names);
            names.names.iter().cloned().collect::<Vec<_>>()
        };
        feed(Event::Apply(namespace("old")));
        feed(Event::Init);
        assert_eq!(feed(Event::InitApply(namespace("new"))), ["old"]);
        assert_eq!(feed(Event::InitDone), ["new"]);
        assert!(feed(Event::Delete(namespace("new"))).is_empty());
    }
}
