//! The bindings of every namespace, indexed by what a pod knows of itself: namespace and service account.
//!
//! Only what admission needs of a binding is kept, so that ten thousand of them stay small. A restarted watch is
//! gathered aside and swapped in whole: until then the last known bindings serve. Both share what has not changed.

use std::collections::HashMap;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock};

use futures::StreamExt;
use kube::api::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt};
use tokio::sync::watch;

use ensign_api::ManagedIdentityBinding;
use ensign_core::admission::Binding;
use ensign_runtime::interner::SharedTexts;

/// An object of the watch that may be malformed.
pub type Guarded = ensign_runtime::deserialize_guard::DeserializeGuard<ManagedIdentityBinding>;

/// The bindings of one service account.
pub type Bindings = Arc<[Arc<Binding>]>;

/// The index. Readers only copy a pointer under its lock.
#[derive(Debug)]
pub struct Index {
    table: RwLock<Table>,
    initialised: watch::Sender<bool>,
}

impl Default for Index {
    fn default() -> Self {
        Self { table: RwLock::default(), initialised: watch::Sender::new(false) }
    }
}

impl Index {
    /// The bindings of a service account; `None` if there are none.
    pub fn find(&self, namespace: &str, service_account: &str) -> Option<Bindings> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.find(namespace, service_account).cloned()
    }

    /// Whether the index has once been complete.
    pub fn is_initialised(&self) -> bool {
        *self.initialised.borrow()
    }

    /// Waits until the index has once been complete.
    pub async fn initialised(&self) {
        // An error means that the sender is gone, and it is part of self.
        let _ = self.initialised.subscribe().wait_for(|initialised| *initialised).await;
    }

    /// The binding, or the equal of it that is known already.
    fn shared(&self, namespace: &str, binding: Binding) -> Arc<Binding> {
        let known = self.find(namespace, &binding.service_account);
        let same = known.iter().flat_map(|bindings| bindings.iter()).find(|known| known.as_ref() == &binding);
        same.cloned().unwrap_or_else(|| Arc::new(binding))
    }

    fn change(&self, change: impl FnOnce(&mut Table)) {
        change(&mut self.table.write().unwrap_or_else(PoisonError::into_inner));
    }
}

#[derive(Debug, Default)]
struct Table(HashMap<String, Namespace>);

#[derive(Debug, Default)]
struct Namespace {
    /// Service account of each binding, to find it again when it changes.
    service_accounts: HashMap<Arc<str>, Arc<str>>,
    bindings: HashMap<Arc<str>, Bindings>,
}

impl Table {
    fn find(&self, namespace: &str, service_account: &str) -> Option<&Bindings> {
        self.0.get(namespace)?.bindings.get(service_account)
    }

    fn insert(&mut self, namespace: &str, binding: Arc<Binding>) {
        self.remove(namespace, &binding.name);
        if !self.0.contains_key(namespace) {
            self.0.insert(namespace.to_owned(), Namespace::default());
        }
        let Some(entry) = self.0.get_mut(namespace) else { return };
        entry.service_accounts.insert(binding.name.clone(), binding.service_account.clone());
        let account = binding.service_account.clone();
        let before = entry.bindings.get(&account).into_iter().flat_map(|bindings| bindings.iter().cloned());
        let after = before.chain([binding]).collect();
        entry.bindings.insert(account, after);
    }

    fn remove(&mut self, namespace: &str, name: &str) {
        let Some(entry) = self.0.get_mut(namespace) else { return };
        let Some(account) = entry.service_accounts.remove(name) else { return };
        let rest: Bindings = entry
            .bindings
            .get(&account)
            .into_iter()
            .flat_map(|bindings| bindings.iter())
            .filter(|binding| binding.name.as_ref() != name)
            .cloned()
            .collect();
        if rest.is_empty() {
            entry.bindings.remove(&account);
        } else {
            entry.bindings.insert(account, rest);
        }
        if entry.service_accounts.is_empty() {
            self.0.remove(namespace);
        }
    }

    /// Takes in an object, whose binding `keep` allocates.
    fn apply(&mut self, object: &Guarded, texts: &mut SharedTexts, keep: impl FnOnce(&str, Binding) -> Arc<Binding>) {
        let namespace = object.namespace().unwrap_or_default();
        match &object.0 {
            Ok(binding) => {
                let binding = Binding::read(binding, &mut |text| texts.share(text));
                self.insert(&namespace, keep(&namespace, binding));
            }
            Err(invalid) => {
                let name = object.name_any();
                tracing::warn!(
                    namespace,
                    name,
                    error = %invalid.error,
                    "ManagedIdentityBinding can't be read and injects nothing; compare it with the CRD"
                );
                self.remove(&namespace, &name);
            }
        }
    }
}

/// Makes the index follow a watch.
#[derive(Debug)]
pub struct Follower {
    index: Arc<Index>,
    gathering: Table,
    /// Names of identities, client IDs, tenants: one of each for many bindings.
    texts: SharedTexts,
}

impl Follower {
    /// A follower that has seen nothing yet.
    pub fn new(index: Arc<Index>) -> Self {
        Self { index, gathering: Table::default(), texts: SharedTexts::default() }
    }

    /// Takes in an event.
    pub fn follow(&mut self, event: &Event<Guarded>) {
        match event {
            Event::Init => self.gathering = Table::default(),
            Event::InitApply(object) => {
                let share = |namespace: &str, binding| self.index.shared(namespace, binding);
                self.gathering.apply(object, &mut self.texts, share);
            }
            Event::InitDone => {
                let complete = std::mem::take(&mut self.gathering);
                self.index.change(|table| *table = complete);
                self.index.initialised.send_replace(true);
            }
            Event::Apply(object) => {
                self.index.change(|table| table.apply(object, &mut self.texts, |_, binding| Arc::new(binding)));
            }
            Event::Delete(object) => {
                let namespace = object.namespace().unwrap_or_default();
                self.index.change(|table| table.remove(&namespace, &object.name_any()));
            }
        }
    }
}

/// Keeps the index current for as long as it is polled.
pub async fn run(client: Client, index: Arc<Index>) {
    let api: Api<Guarded> = Api::all(client);
    let mut follower = Follower::new(index);
    let mut events = pin!(watcher(api, watcher::Config::default()).default_backoff());
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => follower.follow(&event),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(
                    error,
                    "watch of ManagedIdentityBindings interrupted; the last known ones serve meanwhile"
                );
            }
        }
    }
}
