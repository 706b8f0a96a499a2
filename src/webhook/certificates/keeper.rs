//! Keeps the Secret filled and the resolver loaded.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, PostParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watch_object;
use rustls::pki_types::CertificateDer;
use tokio::time::timeout;

use super::bundle::{Bundle, Fault, Usable};
use super::issue::IssueError;
use super::resolver::Resolver;
use super::trusted_ca;
use ensign_api::keys::ROTATE_CA_ANNOTATION;
use ensign_core::scheduling::ca_rotation::{CaState, RotationStep, Trust, step};
use ensign_runtime::clock::{SharedClock, deadline};

/// Owner of the entries in the eyes of server-side apply.
const FIELD_MANAGER: &str = "ensign-webhook";
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// A leaf is renewed weeks before it ends; this is how often it is looked at when nothing else happens.
const CHECK_INTERVAL: Duration = Duration::from_secs(60 * 60);
/// How often it is looked whether a new authority is trusted; nothing tells a replica.
const TRUST_INTERVAL: Duration = Duration::from_secs(10);
/// A difference that is worth a word between this machine's clock and the API server's.
const CLOCK_TOLERANCE_SECONDS: i64 = 10 * 60;
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

/// The Secret in which replicas share certificates that they make themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedSecret {
    /// Its namespace, which is the webhook's own.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Name of the `MutatingWebhookConfiguration` from which API servers learn whom to trust.
    pub registration: String,
    /// How long API servers may take to act on what is registered.
    pub propagation: Duration,
}

/// Keeps one Secret filled and one resolver loaded.
pub struct Keeper {
    client: Client,
    secrets: Api<Secret>,
    shared: SharedSecret,
    names: Vec<String>,
    clock: SharedClock,
    resolver: Arc<Resolver>,
    served: Option<Bundle>,
    /// A successor that is trusted, and since when that was seen.
    trusted: Option<(CertificateDer<'static>, Instant)>,
}

impl Keeper {
    /// A keeper of the Secret, with leaves for the DNS names and addresses `names`.
    pub fn new(
        client: Client,
        shared: SharedSecret,
        names: Vec<String>,
        clock: SharedClock,
        resolver: Arc<Resolver>,
    ) -> Self {
        let secrets = Api::namespaced(client.clone(), &shared.namespace);
        Self { client, secrets, shared, names, clock, resolver, served: None, trusted: None }
    }

    /// Works for as long as it is polled.
    pub async fn run(mut self) {
        let mut changes = pin!(watch_object(self.secrets.clone(), &self.shared.name).default_backoff());
        let mut retry = FIRST_RETRY;
        loop {
            let next = match self.settle().await {
                Ok(next) => {
                    retry = FIRST_RETRY;
                    next
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

    /// Serves what the Secret holds, after filling it where it holds nothing that can be served, and takes the next step
    /// to a new authority if one is due. Answers when to look again.
    pub async fn settle(&mut self) -> Result<Duration, KeeperError> {
        let mut races = 0;
        loop {
            let secret = self.get().await?;
            let bundle = Bundle::read(secret.data.as_ref());
            let now = self.now().await;
            let wanted = match self.serve_if_usable(&bundle, now)? {
                Ok(usable) => match self.succeed(&secret, &bundle, &usable, now).await? {
                    Some(wanted) => wanted,
                    None => return Ok(self.next_look(&bundle)),
                },
                Err(fault) => self.repair(&bundle, fault, now)?,
            };
            let Wanted { bundle, usable, why } = wanted;
            if self.replace(secret, &bundle, matches!(why, Why::Succession)).await? {
                self.serve(&bundle, &usable);
                return Ok(self.next_look(&bundle));
            }
            races += 1;
            if let Why::Fault(source) = why
                && races == MAX_RACES
            {
                return Err(self.failure(|namespace, name| KeeperError::Contended { namespace, name, source }));
            }
            if races == MAX_RACES {
                return Ok(FIRST_RETRY);
            }
        }
    }

    /// Serves a bundle if it can be served; otherwise, or if it should be replaced all the same, says why.
    fn serve_if_usable(&mut self, bundle: &Bundle, now: Timestamp) -> Result<Result<Usable, Fault>, KeeperError> {
        let provider = Arc::clone(self.resolver.provider());
        let foreign = bundle.is_foreign(&provider);
        let fault = match bundle.check(&self.names, now, &provider) {
            Err(fault) => fault,
            Ok(usable) => match &usable.wanting {
                // Replicas that start with other names replace the leaf once. Were the older ones to insist on theirs,
                // a roll-out of new names would not end.
                Some(fault @ Fault::LacksName { .. }) if self.served.is_some() => {
                    if self.serve(bundle, &usable) {
                        tracing::warn!(%fault, "another replica has replaced the webhook's certificate");
                    }
                    return Ok(Ok(usable));
                }
                Some(fault @ Fault::LacksName { .. }) => fault.clone(),
                Some(fault) => {
                    self.serve(bundle, &usable);
                    if foreign {
                        return Ok(Ok(usable));
                    }
                    fault.clone()
                }
                None => {
                    self.serve(bundle, &usable);
                    return Ok(Ok(usable));
                }
            },
        };
        if foreign {
            return Err(self.failure(|namespace, name| KeeperError::Foreign { namespace, name, source: fault }));
        }
        Ok(Err(fault))
    }

    fn repair(&self, bundle: &Bundle, fault: Fault, now: Timestamp) -> Result<Wanted, KeeperError> {
        let SharedSecret { namespace, name, .. } = &self.shared;
        tracing::info!(namespace, secret = name, %fault, "filling the webhook's Secret");
        let (bundle, usable) = bundle
            .repaired(self.served.as_ref(), &self.names, now, self.resolver.provider())
            .map_err(|source| self.issue(source))?;
        Ok(Wanted { bundle, usable, why: Why::Fault(fault) })
    }

    /// The next step to a new authority, if one is due.
    async fn succeed(
        &mut self,
        secret: &Secret,
        bundle: &Bundle,
        usable: &Usable,
        now: Timestamp,
    ) -> Result<Option<Wanted>, KeeperError> {
        let provider = Arc::clone(self.resolver.provider());
        if bundle.is_foreign(&provider) {
            return Ok(None);
        }
        let successor = match bundle.successor() {
            Some(successor) => Some(self.trust_in(successor).await),
            None => None,
        };
        let annotations = secret.metadata.annotations.as_ref();
        let standing = CaState {
            leaf: usable.leaf,
            authority: usable.authority,
            successor,
            predecessors: bundle.has_predecessors(),
            asked: annotations.is_some_and(|annotations| annotations.contains_key(ROTATE_CA_ANNOTATION)),
        };
        let step = step(&standing, now, self.shared.propagation);
        let changed = match step {
            RotationStep::Keep => return Ok(None),
            RotationStep::Prepare => bundle.prepared(now),
            RotationStep::Switch => bundle.switched(&self.names, now),
            RotationStep::Prune => Ok(bundle.pruned()),
        };
        let changed = changed.ok().and_then(|changed| Some((changed.flawless(&self.names, now, &provider)?, changed)));
        let (usable, bundle) = if let Some(changed) = changed {
            changed
        } else {
            // What the Secret holds does not fit together: the authority that signs does so anew, and stands alone.
            let alone = bundle.pruned().with_new_leaf(&self.names, now).map_err(|source| self.issue(source))?;
            let Some(usable) = alone.flawless(&self.names, now, &provider) else { return Ok(None) };
            (usable, alone)
        };
        let SharedSecret { namespace, name, .. } = &self.shared;
        tracing::info!(namespace, secret = name, ?step, "the webhook's certificates get another authority");
        Ok(Some(Wanted { bundle, usable, why: Why::Succession }))
    }

    /// For how long the successor has been seen to be trusted.
    async fn trust_in(&mut self, successor: CertificateDer<'static>) -> Trust {
        let now = self.clock.monotonic();
        match trusted_ca::is_trusted(&self.client, &self.shared.registration, &successor).await {
            Ok(true) => {
                let known = self.trusted.take().filter(|(known, _)| *known == successor);
                let since = known.map_or(now, |(_, since)| since);
                self.trusted = Some((successor, since));
                Trust::Since(now.duration_since(since))
            }
            Ok(false) => {
                self.trusted = None;
                Trust::None
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "cannot see whether the webhook's next authority is trusted; it has to wait");
                Trust::None
            }
        }
    }

    /// Serves a bundle from now on; says whether it is another one than before.
    fn serve(&mut self, bundle: &Bundle, usable: &Usable) -> bool {
        if self.served.as_ref() == Some(bundle) {
            return false;
        }
        self.resolver.load(usable);
        self.served = Some(bundle.clone());
        tracing::info!(
            namespace = self.shared.namespace,
            secret = self.shared.name,
            until = %usable.leaf.until,
            "webhook certificate loaded"
        );
        true
    }

    fn next_look(&self, bundle: &Bundle) -> Duration {
        if bundle.successor().is_some() { TRUST_INTERVAL.min(self.shared.propagation) } else { CHECK_INTERVAL }
    }

    /// The time by which certificates are made and judged: that of the API server, since that is who has to accept them.
    /// So a clock that jumps here, or is wrong, replaces nothing.
    async fn now(&self) -> Timestamp {
        let here = self.clock.now();
        let Some(there) = trusted_ca::api_server_time(&self.client).await else { return here };
        let ahead = here.as_second() - there.as_second();
        if ahead.abs() > CLOCK_TOLERANCE_SECONDS {
            tracing::warn!(seconds = ahead, "this machine's clock is ahead of the API server's, or behind it");
        }
        there
    }

    async fn get(&self) -> Result<Secret, KeeperError> {
        let secret = self.within_deadline("get", self.secrets.get_opt(&self.shared.name)).await?;
        let secret = secret.map_err(|source| self.kubernetes("get", source))?;
        secret.ok_or_else(|| self.failure(|namespace, name| KeeperError::Absent { namespace, name }))
    }

    /// Writes a bundle over the Secret that was read; `false` if somebody else has written meanwhile.
    async fn replace(&self, mut secret: Secret, bundle: &Bundle, does_as_asked: bool) -> Result<bool, KeeperError> {
        bundle.write(secret.data.get_or_insert_default());
        if let Some(annotations) = secret.metadata.annotations.as_mut().filter(|_| does_as_asked) {
            annotations.remove(ROTATE_CA_ANNOTATION);
        }
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        // The resourceVersion that was read goes along, so that of two replicas only one succeeds.
        let replaced =
            self.within_deadline("update", self.secrets.replace(&self.shared.name, &params, &secret)).await?;
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

    fn issue(&self, source: IssueError) -> KeeperError {
        self.failure(|namespace, name| KeeperError::Issue { namespace, name, source })
    }

    fn failure(&self, error: impl FnOnce(String, String) -> KeeperError) -> KeeperError {
        error(self.shared.namespace.clone(), self.shared.name.clone())
    }
}

/// A bundle to write.
struct Wanted {
    bundle: Bundle,
    usable: Usable,
    why: Why,
}

enum Why {
    Fault(Fault),
    Succession,
}
