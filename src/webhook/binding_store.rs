//! The bindings of every namespace, indexed by namespace and service account, which is what a pod names.
//!
//! Only what admission needs of a binding is kept, so that ten thousand of them stay small. A new list is collected aside
//! and swapped in as a whole; until then the last known bindings are used. Both share the bindings that have not changed.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::Api;
use kube::{Client, ResourceExt};
use parking_lot::RwLock;

use ensign_api::ManagedIdentityBinding;
use ensign_core::admission::Binding;
use ensign_runtime::deserialize_guard::DeserializeGuard;
use ensign_runtime::interner::SharedTexts;
use ensign_runtime::latch::Latch;
use ensign_runtime::reflector::{LogContext, Reflector, Store};

/// An object that may be malformed.
pub type Guarded = DeserializeGuard<ManagedIdentityBinding>;

/// The bindings of one service account.
pub type Bindings = Arc<[Arc<Binding>]>;

/// The index. Readers only copy a pointer under its lock.
#[derive(Debug, Default)]
pub struct Index {
    table: RwLock<Table>,
    initialised: Latch,
}

impl Index {
    /// The bindings of a service account; `None` if there are none.
    pub fn find(&self, namespace: &str, service_account: &str) -> Option<Bindings> {
        self.table.read().find(namespace, service_account).cloned()
    }

    /// Whether the index has been complete at least once.
    pub fn is_initialised(&self) -> bool {
        self.initialised.is_set()
    }

    /// Waits until the index has been complete once.
    pub async fn initialised(&self) {
        self.initialised.wait().await;
    }

    /// The indexed binding if it equals this one, otherwise this one.
    fn shared(&self, namespace: &str, binding: Binding) -> Arc<Binding> {
        let indexed = self.find(namespace, &binding.service_account);
        let equal = indexed.iter().flat_map(|bindings| bindings.iter()).find(|indexed| indexed.as_ref() == &binding);
        equal.cloned().unwrap_or_else(|| Arc::new(binding))
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
}

/// Keeps the index current.
#[derive(Debug)]
pub struct Follower {
    index: Arc<Index>,
    /// The list in progress.
    listed: Option<Table>,
    /// Names of identities, client IDs, tenants: one copy of each for many bindings.
    texts: SharedTexts,
}

impl Follower {
    /// A follower that has seen nothing yet.
    pub fn new(index: Arc<Index>) -> Self {
        Self { index, listed: None, texts: SharedTexts::default() }
    }

    fn read(&mut self, object: &ManagedIdentityBinding) -> (String, Binding) {
        (object.namespace().unwrap_or_default(), Binding::read(object, &mut |text| self.texts.share(text)))
    }
}

impl Store for Follower {
    type Object = ManagedIdentityBinding;

    fn init(&mut self) {
        self.listed = Some(Table::default());
    }

    fn init_apply(&mut self, object: ManagedIdentityBinding) {
        let (namespace, binding) = self.read(&object);
        let binding = self.index.shared(&namespace, binding);
        self.listed.get_or_insert_default().insert(&namespace, binding);
    }

    fn init_done(&mut self) {
        *self.index.table.write() = self.listed.take().unwrap_or_default();
        self.index.initialised.set();
    }

    fn apply(&mut self, object: ManagedIdentityBinding) {
        let (namespace, binding) = self.read(&object);
        self.index.table.write().insert(&namespace, Arc::new(binding));
    }

    fn delete(&mut self, metadata: &ObjectMeta) {
        let (namespace, name) = (metadata.namespace.as_deref(), metadata.name.as_deref());
        self.index.table.write().remove(namespace.unwrap_or_default(), name.unwrap_or_default());
    }

    /// A list simply lacks it.
    fn malformed(&mut self, metadata: &ObjectMeta) {
        if self.listed.is_none() {
            Store::delete(self, metadata);
        }
    }
}

/// How the watch is logged.
pub(super) const LOG: LogContext = LogContext {
    objects: "ManagedIdentityBindings",
    interrupted: "using the last known bindings until it resumes",
    malformed: "it injects nothing; compare it with the CRD",
};

/// Keeps the index current for as long as it is polled.
pub async fn run(client: Client, index: Arc<Index>) {
    Reflector::<Guarded>::new(Api::all(client), LOG).run(Follower::new(index)).await;
}
