//! Teardown: ends injection, ungates pods, deletes or abandons the credentials in Azure, and removes all finalizers.
//!
//! It holds the Lease meanwhile, so that no controller works against it, and writes with the controller's writers. It decides
//! what the controller would decide if every object were being deleted.

mod identity;

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ListParams, PartialObjectMeta};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::cache::snapshot::CacheView;
use crate::cache::{Cache, NamespaceFacts};
use crate::engine::failpoints::Failpoints;
use crate::engine::key::Key;
use crate::engine::leader_election::{Election, Leadership, LeaseConfig};
use crate::engine::write_gate::WriteGate;
use crate::error::ReconcileError;
use crate::injection::policies;
use crate::kube_request::{KubeError, within_deadline};
use crate::metrics::ControllerMetrics;
use crate::pods::ungate::all_gated;
use crate::writers::azure::AzureWriter;
use crate::writers::kubernetes::{KubeWriter, stop_deployment};
use crate::writers::own_writes::OwnWritesByIdentity;
use ensign_api::conditions::Reason;
use ensign_api::{ManagedIdentity, ManagedIdentityBinding, NamespacedName};
use ensign_azure::{ArmClient, RateLimiter};
use ensign_core::assess::Settings;
use ensign_core::commands::teardown::{Disposal, Report};
use ensign_core::events::Event;
use ensign_core::own_writes::READ_LAG;
use ensign_core::scheduling::backoff::Spread;
use ensign_core::scheduling::leader_election::Loss;
use ensign_core::scheduling::rate_limiter::RateLimits;
use ensign_core::webhook_configuration::drift::differs;
use ensign_runtime::clock::SharedClock;
use ensign_runtime::deserialize_guard::DeserializeGuard;
use ensign_runtime::error_chain;
use ensign_runtime::kube_pages::Pages;

/// Attempts to ungate all pods; they may be modified meanwhile.
const UNGATE_ROUNDS: usize = 5;
/// Objects in a page of a list.
const PAGE_SIZE: u32 = 500;

/// Configuration of a teardown.
pub struct TeardownConfig {
    /// The cluster.
    pub client: Client,
    /// Azure.
    pub arm: ArmClient,
    /// What decisions depend on.
    pub settings: Settings,
    /// What happens to the credentials.
    pub disposal: Disposal,
    /// Ensign's own namespace.
    pub namespace: String,
    /// A Deployment in it to scale to zero first.
    pub stop: Option<String>,
    /// The lease to hold; without leader election, no controller may run.
    pub leadership: Option<LeaseConfig>,
    /// Name of the `MutatingWebhookConfiguration`.
    pub webhook_configuration: String,
    /// How fast requests to Azure may go out.
    pub azure_limits: RateLimits,
    /// Time.
    pub clock: SharedClock,
    /// How long to wait for the lease, and for Azure problems that may resolve by themselves.
    pub timeout: Duration,
}

/// The current step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Waiting until no controller leads.
    Leading,
    /// Ensign's namespace does not exist, so that no controller can run.
    NoNamespace,
    /// Ending injection.
    Injection,
    /// Ungating pods.
    Pods,
    /// Working on an identity: its name, its number, and how many there are.
    Identity(String, usize, usize),
    /// Retrying after this time, for this reason.
    Waiting(Duration, String),
}

/// Teardown failed, or did not finish.
#[derive(Debug, thiserror::Error)]
pub enum TeardownError {
    /// A request to the API server failed.
    #[error("{what}")]
    Kubernetes {
        /// What failed, and what that means.
        what: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A controller leads.
    #[error(
        "a controller still leads ({holder}) and would recreate what is deleted: stop it first, with `kubectl scale deployment ensign-controller --replicas=0 -n {namespace}` or --stop-controller ensign-controller"
    )]
    Led {
        /// Who holds the lease.
        holder: String,
        /// Its namespace.
        namespace: String,
    },
    /// Another process may lead now.
    #[error("lost the Lease before teardown finished; run it again to continue")]
    Lost(#[source] Loss),
    /// It was stopped by a signal.
    #[error("stopped before teardown finished; run it again to continue")]
    Stopped,
}

/// Runs a teardown. The report lists what could not be done; running it again continues.
pub async fn teardown(
    config: TeardownConfig,
    progress: impl Fn(Progress) + Send + Sync,
    stop: CancellationToken,
) -> Result<Report, TeardownError> {
    if let Some(name) = &config.stop {
        let stopped = stop_deployment(&config.client, &config.namespace, name).await;
        stopped.map_err(|error| kubernetes("cannot stop the controller", error))?;
    }
    progress(Progress::Leading);
    let (mut election, gate) = lead(&config, &progress, &stop).await?;
    let rate_limiter = RateLimiter::new(config.azure_limits, config.clock.clone());
    let teardown = Teardown {
        azure: AzureWriter {
            arm: config.arm.clone().paced(rate_limiter.clone()),
            gate: gate.clone(),
            failpoints: Failpoints::default(),
            metrics: ControllerMetrics::default(),
            own_writes: OwnWritesByIdentity::new(READ_LAG, config.clock.clone()),
        },
        rate_limiter,
        writer: KubeWriter::new(config.client.clone(), None, gate.clone(), Failpoints::default()),
        deadline: config.clock.monotonic() + config.timeout,
        spread: Spread::seeded(0),
        config: &config,
        progress: &progress,
    };
    let result = tokio::select! {
        biased;
        () = stop.cancelled() => Err(TeardownError::Stopped),
        loss = lost(election.as_mut()) => Err(TeardownError::Lost(loss)),
        result = teardown.run() => result,
    };
    gate.close().await;
    if let Some(election) = election {
        election.release().await;
    }
    result
}

fn kubernetes(what: &'static str, error: impl Into<ReconcileError>) -> TeardownError {
    TeardownError::Kubernetes { what, source: Box::new(error.into()) }
}

async fn lost(election: Option<&mut Election>) -> Loss {
    match election {
        Some(election) => election.lost().await,
        None => std::future::pending().await,
    }
}

/// Waits until this process leads. If the namespace of the lease does not exist, no controller can run.
async fn lead(
    config: &TeardownConfig,
    progress: &(impl Fn(Progress) + Send + Sync),
    stop: &CancellationToken,
) -> Result<(Option<Election>, WriteGate), TeardownError> {
    let unlimited = || (None, WriteGate::unlimited(config.clock.clone()));
    let Some(lease) = config.leadership.clone() else { return Ok(unlimited()) };
    let namespaces: Api<PartialObjectMeta<Namespace>> = Api::all(config.client.clone());
    let (namespace, name) = (lease.namespace.clone(), lease.name.clone());
    let found = within_deadline(|| format!("reading Namespace {namespace}"), namespaces.get_opt(&namespace)).await;
    if found.map_err(|error| kubernetes("cannot determine whether a controller runs", error))?.is_none() {
        progress(Progress::NoNamespace);
        return Ok(unlimited());
    }
    let (election, gate) = Election::start(lease, config.clock.clone());
    let mut leadership = election.leadership();
    let timeout = config.clock.sleep_until(config.clock.monotonic() + config.timeout);
    let leads = tokio::select! {
        biased;
        () = stop.cancelled() => Err(TeardownError::Stopped),
        won = leadership.wait_for(|now| *now == Leadership::Leading) => Ok(won.is_ok()),
        () = timeout => Ok(false),
    };
    match leads {
        Ok(true) => Ok((Some(election), gate)),
        Err(error) => {
            election.release().await;
            Err(error)
        }
        Ok(false) => {
            election.release().await;
            let leases: Api<Lease> = Api::namespaced(config.client.clone(), &namespace);
            let read = within_deadline(|| format!("reading Lease {namespace}/{name}"), leases.get_opt(&name)).await;
            let holder = read.ok().flatten().and_then(|lease| lease.spec?.holder_identity);
            let holder = holder.unwrap_or_else(|| "unknown: the Lease could not be acquired".to_owned());
            Err(TeardownError::Led { holder, namespace })
        }
    }
}

/// The teardown, once no controller leads.
pub(crate) struct Teardown<'a, T> {
    pub(crate) config: &'a TeardownConfig,
    azure: AzureWriter,
    rate_limiter: RateLimiter,
    writer: KubeWriter,
    pub(crate) deadline: Instant,
    pub(crate) spread: Spread,
    pub(crate) progress: &'a T,
}

impl<T: Fn(Progress) + Send + Sync> Teardown<'_, T> {
    async fn run(&self) -> Result<Report, TeardownError> {
        (self.progress)(Progress::Injection);
        self.end_injection().await.map_err(|error| {
            kubernetes("cannot end injection; nothing was deleted, so that no pod starts without its identity", error)
        })?;
        let mut problems = Vec::new();
        (self.progress)(Progress::Pods);
        let pods_started = match self.ungate_pods().await {
            Ok(count) => count,
            Err(error) => {
                problems.push(format!(
                    "some pods may still be gated, and no controller will ungate them: {}; remove the scheduling gate ensign.dev/identity from the pods that `kubectl get pods -A -l ensign.dev/gated=true` lists, or delete them",
                    error_chain::line(&error)
                ));
                0
            }
        };
        let (cache, malformed) = self
            .read()
            .await
            .map_err(|error| kubernetes("cannot read Ensign's objects; nothing was deleted", error))?;
        problems.extend(malformed.into_iter().map(|name| {
            format!("cannot deserialize {name}: remove its finalizer ensign.dev/credentials manually, and delete its credentials in Azure")
        }));
        let keys: Vec<Key> = cache.read().keys().into_iter().collect();
        let mut identities = Vec::new();
        for (number, key) in keys.iter().enumerate() {
            (self.progress)(Progress::Identity(key.to_string(), number + 1, keys.len()));
            let view = CacheView::new(&cache.read(), key, &self.config.settings);
            if !view.is_empty() {
                identities.push(self.identity(key, view).await);
            }
        }
        Ok(Report {
            cluster_id: self.config.settings.cluster.id.clone(),
            credentials: self.config.disposal,
            injection_ended: true,
            pods_started,
            identities,
            problems,
        })
    }

    /// From now on no pod is sent to the webhook, or modified or denied by a policy.
    async fn end_injection(&self) -> Result<(), ReconcileError> {
        let name = &self.config.webhook_configuration;
        let api = Api::all(self.config.client.clone());
        let found =
            within_deadline(|| format!("reading MutatingWebhookConfiguration {name}"), api.get_opt(name)).await?;
        if let Some(configuration) = found
            && let Some(others) = differs(&configuration, &[])
        {
            self.writer.register_webhooks(&configuration, others).await?;
        }
        policies::empty(&self.writer).await.map(|_| ())
    }

    /// Ungates every pod, also those that have lost the label.
    async fn ungate_pods(&self) -> Result<usize, ReconcileError> {
        let mut started = 0;
        for _ in 0..UNGATE_ROUNDS {
            let gated = all_gated(&self.config.client).await?;
            if gated.is_empty() {
                break;
            }
            for (pod, gate) in gated {
                let event = Event {
                    reason: Reason::StartedWithoutIdentity,
                    message: "Ensign is being uninstalled from this cluster, so the pod starts without its identity: a cluster operator has to reinstall Ensign, and then the pod has to be recreated".to_owned(),
                };
                self.writer.publish_event(&pod, &event, "Ungate").await;
                match self.writer.remove_gate(&pod, gate).await {
                    Ok(()) => started += 1,
                    // It was modified or deleted meanwhile: the next round reads it again.
                    Err(error) if error.is_outdated() => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(started)
    }

    /// Every object, read now, and the names of malformed ones.
    async fn read(&self) -> Result<(Arc<Cache>, Vec<String>), KubeError> {
        let (cache, mut malformed) = (Cache::default(), Vec::new());
        for object in self.list::<DeserializeGuard<ManagedIdentity>>("ManagedIdentities").await? {
            let name = object.name_any();
            match object.0 {
                Ok(object) => drop(cache.identity_changed(&name, Some(object))),
                Err(_) => malformed.push(format!("ManagedIdentity {name}")),
            }
        }
        for object in self.list::<DeserializeGuard<ManagedIdentityBinding>>("ManagedIdentityBindings").await? {
            let name = NamespacedName::from(object.meta());
            match object.0 {
                Ok(object) => drop(cache.binding_changed(&Arc::new(name), Some(object))),
                Err(_) => malformed.push(format!("ManagedIdentityBinding {name}")),
            }
        }
        for object in self.list::<PartialObjectMeta<Namespace>>("Namespaces").await? {
            cache.namespace_changed(&object.name_any(), Some(NamespaceFacts::from(object.metadata)));
        }
        Ok((Arc::new(cache), malformed))
    }

    /// All objects of a kind; none if its CRD does not exist.
    async fn list<K>(&self, what: &str) -> Result<Vec<K>, KubeError>
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
    {
        let api: Api<K> = Api::all(self.config.client.clone());
        let mut pages = Pages::new(ListParams::default(), PAGE_SIZE);
        let mut objects = Vec::new();
        loop {
            match within_deadline(|| format!("listing {what}"), pages.next(&api)).await {
                Ok(Some(page)) => objects.extend(page.items),
                Ok(None) => return Ok(objects),
                Err(error) if error.is_not_found() => return Ok(Vec::new()),
                Err(error) => return Err(error),
            }
        }
    }
}
