//! Reads the bindings of a namespace from the API server before a pod is denied because of what the cache has.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kube::Client;
use kube::api::{Api, ListParams};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::binding_store::Guarded;
use ensign_core::admission::Binding;

/// Well within the five seconds that the API server waits for the webhook.
const DEADLINE: Duration = Duration::from_millis(2_500);
/// A tenant that creates pods that are denied in a loop must not load the API server with lists.
const MAX_CONCURRENT: usize = 8;

/// The bindings of a namespace could not be listed.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// It took too long, or too many other lookups were in progress.
    #[error("listing the ManagedIdentityBindings of namespace {namespace:?} took longer than {DEADLINE:?}")]
    TimedOut {
        /// The namespace.
        namespace: String,
    },
    /// The API server rejected the request, or could not be reached.
    #[error("cannot list the ManagedIdentityBindings of namespace {namespace:?}")]
    Refused {
        /// The namespace.
        namespace: String,
        /// The error.
        #[source]
        source: Box<kube::Error>,
    },
}

/// Lists the bindings that exist now.
#[async_trait]
pub trait Lookup: Send + Sync {
    /// The bindings of a namespace.
    async fn bindings(&self, namespace: &str) -> Result<Vec<Arc<Binding>>, LookupError>;
}

/// Lists bindings at the API server.
pub struct LiveLookup {
    client: Client,
    slots: Semaphore,
}

impl LiveLookup {
    /// A lookup through this client.
    pub fn new(client: Client) -> Self {
        Self { client, slots: Semaphore::new(MAX_CONCURRENT) }
    }
}

#[async_trait]
impl Lookup for LiveLookup {
    async fn bindings(&self, namespace: &str) -> Result<Vec<Arc<Binding>>, LookupError> {
        let timed_out = |_| LookupError::TimedOut { namespace: namespace.to_owned() };
        let list = async {
            // The semaphore is never closed; if it were, the list would still be right.
            let _slot = self.slots.acquire().await.ok();
            let api: Api<Guarded> = Api::namespaced(self.client.clone(), namespace);
            api.list(&ListParams::default()).await
        };
        let list = timeout(DEADLINE, list).await.map_err(timed_out)?;
        let list =
            list.map_err(|source| LookupError::Refused { namespace: namespace.to_owned(), source: Box::new(source) })?;
        Ok(list.items.iter().filter_map(|object| Some(Arc::new(Binding::from(object.0.as_ref().ok()?)))).collect())
    }
}
