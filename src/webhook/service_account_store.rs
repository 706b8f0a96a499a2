//! Service accounts in compatibility mode: their annotations for azure-workload-identity, and nothing else.
//!
//! The cache is enough for most pods. A service account that is not in it, or has no client ID there, is read from the API
//! server: the cache may be a moment behind.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, PartialObjectMeta};
use kube::{Client, ResourceExt};
use parking_lot::RwLock;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use ensign_core::admission::azure_workload_identity::{Account, Annotations};
use ensign_runtime::interner::SharedTexts;
use ensign_runtime::latch::Latch;
use ensign_runtime::reflector::{LogContext, Reflector, Store};

/// Metadata of a service account.
pub type Metadata = PartialObjectMeta<ServiceAccount>;

/// Together with the deadline of a list of bindings, still within the five seconds that the API server waits.
const DEADLINE: Duration = Duration::from_millis(1_500);
/// A tenant that creates pods in a loop must not load the API server with reads.
const MAX_CONCURRENT: usize = 8;
/// Longer values are not IDs, and a tenant must not be able to fill the memory: such accounts are read every time.
const MAX_CACHED_BYTES: usize = 1_024;

/// A service account could not be read.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// It took too long, or too many other reads were in progress.
    #[error("reading ServiceAccount {namespace}/{name} took longer than {DEADLINE:?}")]
    TimedOut {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The API server rejected the request, or could not be reached.
    #[error("cannot read ServiceAccount {namespace}/{name}")]
    Refused {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The error.
        #[source]
        source: Box<kube::Error>,
    },
}

/// Reads service accounts as they are now.
#[async_trait]
pub trait ReadAccount: Send + Sync {
    /// Reads one service account.
    async fn read(&self, namespace: &str, name: &str) -> Result<Account, AccountError>;
}

/// Reads service accounts from the API server.
pub struct LiveAccount {
    client: Client,
    slots: Semaphore,
}

impl LiveAccount {
    /// Reads through this client.
    pub fn new(client: Client) -> Self {
        Self { client, slots: Semaphore::new(MAX_CONCURRENT) }
    }
}

#[async_trait]
impl ReadAccount for LiveAccount {
    async fn read(&self, namespace: &str, name: &str) -> Result<Account, AccountError> {
        let (of, named) = (namespace.to_owned(), name.to_owned());
        let read = async {
            // The semaphore is never closed; if it were, the result would still be right.
            let _slot = self.slots.acquire().await.ok();
            let api: Api<Metadata> = Api::namespaced(self.client.clone(), namespace);
            api.get_opt(name).await
        };
        match timeout(DEADLINE, read).await {
            Err(_) => Err(AccountError::TimedOut { namespace: of, name: named }),
            Ok(Err(source)) => Err(AccountError::Refused { namespace: of, name: named, source: Box::new(source) }),
            Ok(Ok(None)) => Ok(Account::Missing),
            Ok(Ok(Some(metadata))) => Ok(Account::Present(Annotations::from(metadata.annotations()))),
        }
    }
}

/// Service accounts: from the cache, or else from the source.
pub struct Accounts {
    index: Arc<Index>,
    source: Arc<dyn ReadAccount>,
}

impl Accounts {
    /// Service accounts from this index, and from this source where the index is not enough.
    pub fn new(index: Arc<Index>, source: Arc<dyn ReadAccount>) -> Self {
        Self { index, source }
    }

    /// The service account.
    pub async fn find(&self, namespace: &str, name: &str) -> Result<Account, AccountError> {
        let cached = self.index.find(namespace, name);
        if let Some(annotations) = cached.as_ref().filter(|annotations| annotations.name_a_client_id()) {
            return Ok(Account::Present(annotations.clone()));
        }
        match (self.source.read(namespace, name).await, cached) {
            (Ok(account), _) => Ok(account),
            (Err(error), Some(annotations)) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(
                    error,
                    namespace,
                    service_account = name,
                    "cannot read a service account; deciding with its cached annotations"
                );
                Ok(Account::Present(annotations))
            }
            (Err(error), None) => Err(error),
        }
    }
}

type Table = HashMap<String, HashMap<String, Annotations>>;

/// The annotations of every service account, by namespace and name.
#[derive(Debug, Default)]
pub struct Index {
    table: RwLock<Table>,
    initialised: Latch,
}

impl Index {
    /// The annotations of a service account, if it is known.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Annotations> {
        self.table.read().get(namespace)?.get(name).cloned()
    }
}

/// Waits until the index has been complete once, if there is one.
pub async fn initialised(index: Option<&Index>) {
    if let Some(index) = index {
        index.initialised.wait().await;
    }
}

/// Keeps the index current.
#[derive(Debug)]
pub struct Follower {
    index: Arc<Index>,
    /// The list in progress.
    listed: Table,
    /// Client IDs and tenants: one copy of each for many service accounts.
    texts: SharedTexts,
}

impl Follower {
    /// A follower that has seen nothing yet.
    pub fn new(index: Arc<Index>) -> Self {
        Self { index, listed: Table::default(), texts: SharedTexts::default() }
    }
}

impl Store for Follower {
    type Object = Metadata;

    fn init(&mut self) {
        self.listed = Table::default();
    }

    fn init_apply(&mut self, account: Metadata) {
        apply(&mut self.listed, &account, &mut self.texts);
    }

    fn init_done(&mut self) {
        *self.index.table.write() = std::mem::take(&mut self.listed);
        self.index.initialised.set();
    }

    fn apply(&mut self, account: Metadata) {
        apply(&mut self.index.table.write(), &account, &mut self.texts);
    }

    fn delete(&mut self, metadata: &ObjectMeta) {
        remove(&mut self.index.table.write(), metadata);
    }

    /// Metadata is never malformed.
    fn malformed(&mut self, _: &ObjectMeta) {}
}

fn apply(table: &mut Table, account: &Metadata, texts: &mut SharedTexts) {
    let annotations = Annotations::from(account.annotations());
    if annotations.size() > MAX_CACHED_BYTES {
        return remove(table, &account.metadata);
    }
    // Only now, because the shared copy of a text stays for a while even if nothing uses it.
    let annotations = annotations.shared(|text| texts.share(text));
    table.entry(account.namespace().unwrap_or_default()).or_default().insert(account.name_any(), annotations);
}

fn remove(table: &mut Table, metadata: &ObjectMeta) {
    let (namespace, name) = (metadata.namespace.as_deref(), metadata.name.as_deref());
    let namespace = namespace.unwrap_or_default();
    let Some(accounts) = table.get_mut(namespace) else { return };
    accounts.remove(name.unwrap_or_default());
    if accounts.is_empty() {
        table.remove(namespace);
    }
}

/// How the watch is logged.
pub(super) const LOG: LogContext = LogContext {
    objects: "ServiceAccounts",
    interrupted: "using the last known annotations until it resumes",
    malformed: "it is ignored",
};

/// Keeps the index current for as long as it is polled; without one there is nothing to do.
pub async fn run(client: Client, index: Option<Arc<Index>>) {
    let Some(index) = index else { return std::future::pending().await };
    Reflector::<Metadata>::new(Api::all(client), LOG).prune(strip).run(Follower::new(index)).await;
}

/// Reduces the metadata to what is used.
pub(super) fn strip(account: &mut Metadata) {
    let mut annotations = account.metadata.annotations.take().unwrap_or_default();
    annotations.retain(|key, _| Annotations::has(key));
    account.metadata = ObjectMeta {
        name: account.metadata.name.take(),
        namespace: account.metadata.namespace.take(),
        resource_version: account.metadata.resource_version.take(),
        annotations: Some(annotations),
        ..ObjectMeta::default()
    };
}
