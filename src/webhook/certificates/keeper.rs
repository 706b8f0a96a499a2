//! Keeps the Secret filled and the resolver loaded.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, PostParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watch_object;
use rustls::sign::CertifiedKey;
use tokio::time::timeout;

use super::bundle::{Bundle, Fault, IssueError, Usable};
use super::resolver::Resolver;
use crate::runtime::clock::{SharedClock, deadline};

/// Owner of the entries in the eyes of server-side apply.
const FIELD_MANAGER: &str = "ensign-webhook";
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// A leaf is renewed weeks before it ends; this is how often it is looked at when nothing else happens.
const CHECK_INTERVAL: Duration = Duration::from_secs(60 * 60);
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// Every lost race means that another replica has written, so one more look nearly always ends it.
const MAX_RACES: usize = 5;

/// The Secret can't be read or filled.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// It does not exist.
    #[error(
        "Secret {namespace:?}/{name:?} does not exist; the webhook fills it but never creates it: run \
         `kubectl create secret generic {name} -n {namespace}`, or name another one with --tls-secret"
    )]
    Absent {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The API server refused, or could not be reached.
    #[error("cannot {verb} Secret {namespace:?}/{name:?}")]
    Kubernetes {
        /// What was tried.
        verb: &'static str,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// What the API server said.
        #[source]
        source: Box<kube::Error>,
    },
    /// The API server did not answer.
    #[error("cannot {verb} Secret {namespace:?}/{name:?}: no answer within {REQUEST_DEADLINE:?}")]
    TimedOut {
        /// What was tried.
        verb: &'static str,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// Somebody else's certificates are in it and can't be served.
    #[error(
        "Secret {namespace:?}/{name:?} holds a certificate that is not Ensign's, since there is no ca.key: renew it where \
         it comes from, or empty the Secret to let the webhook make its own"
    )]
    Foreign {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Why they can't be served.
        #[source]
        source: Fault,
    },
    /// Certificates can't be made.
    #[error("cannot make certificates for Secret {namespace:?}/{name:?}")]
    Issue {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: IssueError,
    },
    /// Other replicas were always faster, and what they wrote can't be served.
    #[error(
        "cannot settle on the content of Secret {namespace:?}/{name:?} with the other replicas; do all of them have \
         the same --tls-san?"
    )]
    Contended {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Why what they wrote can't be served.
        #[source]
        source: Fault,
    },
}

/// Keeps one Secret filled and one resolver loaded.
pub struct Keeper {
    secrets: Api<Secret>,
    namespace: String,
    name: String,
    names: Vec<String>,
    clock: SharedClock,
    resolver: Arc<Resolver>,
    served: Option<Bundle>,
}

impl Keeper {
    /// A keeper of the Secret `namespace`/`name`, with leaves for the DNS names and addresses `names`.
    pub fn new(
        client: Client,
        namespace: String,
        name: String,
        names: Vec<String>,
        clock: SharedClock,
        resolver: Arc<Resolver>,
    ) -> Self {
        let secrets = Api::namespaced(client, &namespace);
        Self { secrets, namespace, name, names, clock, resolver, served: None }
    }

    /// Works for as long as it is polled.
    pub async fn run(mut self) {
        let mut changes = pin!(watch_object(self.secrets.clone(), &self.name).default_backoff());
        let mut retry = FIRST_RETRY;
        loop {
            let next = match self.settle().await {
                Ok(()) => {
                    retry = FIRST_RETRY;
                    CHECK_INTERVAL
                }
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::error!(error, retry_after = ?retry, "webhook certificates are not in order");
                    let later = (retry * 2).min(LAST_RETRY);
                    std::mem::replace(&mut retry, later)
                }
            };
            let wake = self.clock.sleep_until(deadline(self.clock.as_ref(), next));
            tokio::select! {
                Some(change) = changes.next() => {
                    if let Err(error) = change {
                        let error: &dyn std::error::Error = &error;
                        tracing::warn!(error, "watch of the webhook's Secret interrupted");
                    }
                }
                () = wake => {}
            }
        }
    }

    /// Serves what the Secret holds, after filling it where it holds nothing that can be served.
    pub async fn settle(&mut self) -> Result<(), KeeperError> {
        let mut races = 0;
        loop {
            let secret = self.get().await?;
            let bundle = Bundle::read(secret.data.as_ref());
            let Some(fault) = self.serve_if_usable(&bundle)? else { return Ok(()) };
            tracing::info!(namespace = self.namespace, secret = self.name, %fault, "filling the webhook's Secret");
            let (repaired, usable) = bundle
                .repaired(self.served.as_ref(), &self.names, self.clock.now(), self.resolver.provider())
                .map_err(|source| self.failure(|namespace, name| KeeperError::Issue { namespace, name, source }))?;
            if self.replace(secret, &repaired).await? {
                self.serve(&repaired, usable.certified);
                return Ok(());
            }
            races += 1;
            if races == MAX_RACES {
                return Err(self.failure(|namespace, name| KeeperError::Contended { namespace, name, source: fault }));
            }
        }
    }

    /// Serves a bundle if it can be served; says why it has to be replaced.
    fn serve_if_usable(&mut self, bundle: &Bundle) -> Result<Option<Fault>, KeeperError> {
        let provider = Arc::clone(self.resolver.provider());
        let foreign = bundle.is_foreign(&provider);
        let fault = match bundle.check(&self.names, self.clock.now(), &provider) {
            Err(fault) => fault,
            Ok(Usable { certified, wanting }) => match wanting {
                // Replicas that start with other names replace the leaf once. Were the older ones to insist on theirs,
                // a roll-out of new names would not end.
                Some(fault @ Fault::LacksName { .. }) if self.served.is_some() => {
                    if self.serve(bundle, certified) {
                        tracing::warn!(%fault, "another replica has replaced the webhook's certificate");
                    }
                    return Ok(None);
                }
                Some(fault @ Fault::LacksName { .. }) => fault,
                Some(fault) => {
                    self.serve(bundle, certified);
                    if foreign {
                        return Ok(None);
                    }
                    fault
                }
                None => {
                    self.serve(bundle, certified);
                    return Ok(None);
                }
            },
        };
        if foreign {
            return Err(self.failure(|namespace, name| KeeperError::Foreign { namespace, name, source: fault }));
        }
        Ok(Some(fault))
    }

    /// Serves a bundle from now on; says whether it is another one than before.
    fn serve(&mut self, bundle: &Bundle, certified: Arc<CertifiedKey>) -> bool {
        if self.served.as_ref() == Some(bundle) {
            return false;
        }
        self.resolver.load(certified);
        self.served = Some(bundle.clone());
        tracing::info!(namespace = self.namespace, secret = self.name, "webhook certificate loaded");
        true
    }

    async fn get(&self) -> Result<Secret, KeeperError> {
        let secret = self.within_deadline("get", self.secrets.get_opt(&self.name)).await?;
        let secret = secret.map_err(|source| self.kubernetes("get", source))?;
        secret.ok_or_else(|| self.failure(|namespace, name| KeeperError::Absent { namespace, name }))
    }

    /// Writes a bundle over the Secret that was read; `false` if somebody else has written meanwhile.
    async fn replace(&self, mut secret: Secret, bundle: &Bundle) -> Result<bool, KeeperError> {
        bundle.write(secret.data.get_or_insert_default());
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        // The resourceVersion that was read goes along, so that of two replicas only one succeeds.
        let replaced = self.within_deadline("update", self.secrets.replace(&self.name, &params, &secret)).await?;
        match replaced {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.is_conflict() => Ok(false),
            Err(source) => Err(self.kubernetes("update", source)),
        }
    }

    async fn within_deadline<T>(&self, verb: &'static str, request: impl Future<Output = T>) -> Result<T, KeeperError> {
        let timed_out = |_| self.failure(|namespace, name| KeeperError::TimedOut { verb, namespace, name });
        timeout(REQUEST_DEADLINE, request).await.map_err(timed_out)
    }

    fn kubernetes(&self, verb: &'static str, source: kube::Error) -> KeeperError {
        let source = Box::new(source);
        self.failure(|namespace, name| KeeperError::Kubernetes { verb, namespace, name, source })
    }

    fn failure(&self, error: impl FnOnce(String, String) -> KeeperError) -> KeeperError {
        error(self.namespace.clone(), self.name.clone())
    }
}
