//! Keeps the Secret filled and a certificate loaded.

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

use super::bundle::{Bundle, Usable};
use super::fault::Fault;
use super::issue::IssueError;
use super::resolver::Resolver;
use super::trusted_ca;
use ensign_api::keys::ROTATE_CA_ANNOTATION;
use ensign_core::scheduling::ca_rotation::{CaState, RotationStep, Trust, step};
use ensign_runtime::clock::{SharedClock, deadline};

/// The field manager of the entries.
const FIELD_MANAGER: &str = "ensign-webhook";
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// How often the certificate is checked when nothing else happens. It is renewed weeks before it expires.
const CHECK_INTERVAL: Duration = Duration::from_secs(60 * 60);
/// How often to check whether a new CA is trusted; a replica is not notified of that.
const TRUST_INTERVAL: Duration = Duration::from_secs(10);
/// A larger difference between this machine's clock and the API server's is logged.
const CLOCK_TOLERANCE_SECONDS: i64 = 10 * 60;
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// Every conflict means that another replica has written, so one more attempt nearly always succeeds.
const MAX_CONFLICTS: usize = 5;

/// The Secret can't be read or filled.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// It does not exist.
    #[error(
        "Secret {namespace:?}/{name:?} does not exist. The webhook fills it but never creates it: run \
         `kubectl create secret generic {name} -n {namespace}`, or name another one with --tls-secret"
    )]
    Absent {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The API server rejected the request, or could not be reached.
    #[error("cannot {verb} Secret {namespace:?}/{name:?}")]
    Kubernetes {
        /// The request.
        verb: &'static str,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The error.
        #[source]
        source: Box<kube::Error>,
    },
    /// The API server did not answer.
    #[error("cannot {verb} Secret {namespace:?}/{name:?}: no answer within {REQUEST_DEADLINE:?}")]
    TimedOut {
        /// The request.
        verb: &'static str,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// It holds external certificates, which can't be served.
    #[error(
        "Secret {namespace:?}/{name:?} holds an external certificate (it has no ca.key) that cannot be served: renew it \
         where it was issued, or empty the Secret to let the webhook issue its own"
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
    /// Certificates can't be issued.
    #[error("cannot issue certificates for Secret {namespace:?}/{name:?}")]
    Issue {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: IssueError,
    },
    /// Other replicas were always first, and what they wrote can't be served.
    #[error(
        "cannot agree with the other replicas on the content of Secret {namespace:?}/{name:?}; check that all of them \
         have the same --tls-san"
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

/// The Secret in which replicas share the certificates that they issue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedSecret {
    /// Its namespace, which is the webhook's own.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Name of the `MutatingWebhookConfiguration` that names the CAs to API servers.
    pub registration: String,
    /// How long API servers may take to act on a changed webhook configuration.
    pub propagation: Duration,
}

/// Keeps one Secret filled, and its certificate loaded in one resolver.
pub struct Keeper {
    client: Client,
    secrets: Api<Secret>,
    shared: SharedSecret,
    names: Vec<String>,
    clock: SharedClock,
    resolver: Arc<Resolver>,
    served: Option<Bundle>,
    /// A next CA that is trusted, and when that was first seen.
    trusted: Option<(CertificateDer<'static>, Instant)>,
}

impl Keeper {
    /// Keeps the Secret filled with leaves for the DNS names and addresses `names`.
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

    /// Runs for as long as it is polled.
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
                    tracing::error!(error, retry_after = ?retry, "cannot provide the webhook's certificate");
                    let later = (retry * 2).min(LAST_RETRY);
                    std::mem::replace(&mut retry, later)
                }
            };
            let wake = self.clock.sleep_until(deadline(self.clock.as_ref(), next));
            tokio::select! {
                Some(change) = changes.next() => {
                    if let Err(error) = change {
                        let error: &dyn std::error::Error = &error;
                        tracing::warn!(error, "watch of the webhook's Secret interrupted; retrying");
                    }
                }
                () = wake => {}
            }
        }
    }

    /// Serves the certificate in the Secret, after filling the Secret if it holds none that can be served, and takes the
    /// next step of a CA rotation if one is due. Returns when to check again.
    pub async fn settle(&mut self) -> Result<Duration, KeeperError> {
        let mut conflicts = 0;
        loop {
            let secret = self.get().await?;
            let bundle = Bundle::read(secret.data.as_ref());
            let now = self.now().await;
            let desired = match self.serve_if_usable(&bundle, now)? {
                Ok(usable) => match self.rotate(&secret, &bundle, &usable, now).await? {
                    Some(desired) => desired,
                    None => return Ok(self.next_check(&bundle)),
                },
                Err(fault) => self.repair(&bundle, fault, now)?,
            };
            let Desired { bundle, usable, why } = desired;
            if self.replace(secret, &bundle, matches!(why, Why::Rotation)).await? {
                self.serve(&bundle, &usable);
                return Ok(self.next_check(&bundle));
            }
            conflicts += 1;
            if let Why::Fault(source) = why
                && conflicts == MAX_CONFLICTS
            {
                return Err(self.failure(|namespace, name| KeeperError::Contended { namespace, name, source }));
            }
            if conflicts == MAX_CONFLICTS {
                return Ok(FIRST_RETRY);
            }
        }
    }

    /// Serves a bundle if possible. Returns the fault if it can't be served or should be replaced nevertheless.
    fn serve_if_usable(&mut self, bundle: &Bundle, now: Timestamp) -> Result<Result<Usable, Fault>, KeeperError> {
        let provider = Arc::clone(self.resolver.provider());
        let foreign = bundle.is_foreign(&provider);
        let fault = match bundle.check(&self.names, now, &provider) {
            Err(fault) => fault,
            Ok(usable) => match &usable.wanting {
                // Replicas that start with other names replace the leaf once. If the older ones restored theirs, a rollout
                // of new names would never end.
                Some(fault @ Fault::LacksName { .. }) if self.served.is_some() => {
                    if self.serve(bundle, &usable) {
                        tracing::warn!(%fault, "another replica has replaced the webhook's certificate with one for other names");
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

    fn repair(&self, bundle: &Bundle, fault: Fault, now: Timestamp) -> Result<Desired, KeeperError> {
        let SharedSecret { namespace, name, .. } = &self.shared;
        tracing::info!(namespace, secret = name, %fault, "filling the webhook's Secret");
        let (bundle, usable) = bundle
            .repaired(self.served.as_ref(), &self.names, now, self.resolver.provider())
            .map_err(|source| self.issue(source))?;
        Ok(Desired { bundle, usable, why: Why::Fault(fault) })
    }

    /// The next step of a CA rotation, if one is due.
    async fn rotate(
        &mut self,
        secret: &Secret,
        bundle: &Bundle,
        usable: &Usable,
        now: Timestamp,
    ) -> Result<Option<Desired>, KeeperError> {
        let provider = Arc::clone(self.resolver.provider());
        if bundle.is_foreign(&provider) {
            return Ok(None);
        }
        let successor = match bundle.successor() {
            Some(successor) => Some(self.trust_in(successor).await),
            None => None,
        };
        let annotations = secret.metadata.annotations.as_ref();
        let state = CaState {
            leaf: usable.leaf,
            authority: usable.authority,
            successor,
            predecessors: bundle.has_predecessors(),
            asked: annotations.is_some_and(|annotations| annotations.contains_key(ROTATE_CA_ANNOTATION)),
        };
        let step = step(&state, now, self.shared.propagation);
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
            // The content of the Secret is inconsistent: keep the signing CA only, with a new leaf.
            let pruned = bundle.pruned().with_new_leaf(&self.names, now).map_err(|source| self.issue(source))?;
            let Some(usable) = pruned.flawless(&self.names, now, &provider) else { return Ok(None) };
            (usable, pruned)
        };
        let SharedSecret { namespace, name, .. } = &self.shared;
        tracing::info!(namespace, secret = name, ?step, "rotating the CA of the webhook's certificates");
        Ok(Some(Desired { bundle, usable, why: Why::Rotation }))
    }

    /// How long the next CA has been trusted.
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
                tracing::warn!(
                    error,
                    "cannot check whether API servers trust the webhook's next CA; the rotation waits"
                );
                Trust::None
            }
        }
    }

    /// Serves a bundle from now on; returns whether it differs from the previous one.
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

    fn next_check(&self, bundle: &Bundle) -> Duration {
        if bundle.successor().is_some() { TRUST_INTERVAL.min(self.shared.propagation) } else { CHECK_INTERVAL }
    }

    /// The time at which certificates are issued and checked: the API server's, because API servers have to accept them. So
    /// a wrong or jumping clock on this machine replaces nothing.
    async fn now(&self) -> Timestamp {
        let here = self.clock.now();
        let Some(there) = trusted_ca::api_server_time(&self.client).await else { return here };
        let ahead = here.as_second() - there.as_second();
        if ahead.abs() > CLOCK_TOLERANCE_SECONDS {
            tracing::warn!(
                seconds = ahead,
                "this machine's clock differs from the API server's (positive: it is ahead)"
            );
        }
        there
    }

    async fn get(&self) -> Result<Secret, KeeperError> {
        let secret = self.within_deadline("get", self.secrets.get_opt(&self.shared.name)).await?;
        let secret = secret.map_err(|source| self.kubernetes("get", source))?;
        secret.ok_or_else(|| self.failure(|namespace, name| KeeperError::Absent { namespace, name }))
    }

    /// Writes a bundle into the Secret that was read; `false` if it was changed in the meantime.
    async fn replace(&self, mut secret: Secret, bundle: &Bundle, fulfils_request: bool) -> Result<bool, KeeperError> {
        bundle.write(secret.data.get_or_insert_default());
        if let Some(annotations) = secret.metadata.annotations.as_mut().filter(|_| fulfils_request) {
            annotations.remove(ROTATE_CA_ANNOTATION);
        }
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        // With the resourceVersion that was read, only one of two replicas succeeds.
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
struct Desired {
    bundle: Bundle,
    usable: Usable,
    why: Why,
}

enum Why {
    Fault(Fault),
    Rotation,
}
