//! Takes Ensign down: ends injection, lets held pods go, revokes or abandons what Ensign gave, and releases every object.
//!
//! It leads while it does, so that no controller works against it, and everything passes the writers that the controller
//! uses. What it decides is what the controller decides when every object is being deleted.

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
use ensign_api::conditions::Reason;
use ensign_api::{ManagedIdentity, ManagedIdentityBinding, NamespacedName};
use ensign_azure::{ArmClient, RateLimiter};
use ensign_core::assess::Settings;
use ensign_core::commands::teardown::{Disposal, Report};
use ensign_core::events::Event;
use ensign_core::scheduling::backoff::Spread;
use ensign_core::scheduling::leader_election::Loss;
use ensign_core::scheduling::rate_limiter::RateLimits;
use ensign_core::webhook_configuration::drift::differs;
use ensign_runtime::clock::SharedClock;
use ensign_runtime::deserialize_guard::DeserializeGuard;
use ensign_runtime::error_chain;
use ensign_runtime::kube_pages::Pages;

/// Looks at the pods that are left to be let go; others may change them meanwhile.
const POD_ROUNDS: usize = 5;
/// Objects in a page of a list.
const PAGE_SIZE: u32 = 500;

/// What teardown is made from.
pub struct TeardownConfig {
    /// The cluster.
    pub client: Client,
    /// Azure.
    pub arm: ArmClient,
    /// What decisions depend on.
    pub settings: Settings,
    /// What becomes of the credentials.
    pub disposal: Disposal,
    /// Ensign's own namespace.
    pub namespace: String,
    /// A Deployment in it to scale to nothing first.
    pub stop: Option<String>,
    /// The lease to hold; without one no controller may run.
    pub leadership: Option<LeaseConfig>,
    /// Name of the `MutatingWebhookConfiguration`.
    pub registration: String,
    /// How fast requests to Azure may go out.
    pub azure_limits: RateLimits,
    /// Time.
    pub clock: SharedClock,
    /// How long to wait for the lease, and for what passes by itself.
    pub patience: Duration,
}

/// What is being done, for whoever waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It waits until no controller leads.
    Leading,
    /// There is no namespace of Ensign's, so that no controller can run.
    NoNamespace,
    /// Injection is ended.
    Injection,
    /// Held pods are let go.
    Pods,
    /// An identity is looked at, of so many.
    Identity(String, usize, usize),
    /// It tries again after this time, because of this.
    Waiting(Duration, String),
}

/// Nothing, or not everything, could be done.
#[derive(Debug, thiserror::Error)]
pub enum TeardownError {
    /// A request to the API server failed.
    #[error("{what}")]
    Kubernetes {
        /// What could not be done, and what that means.
        what: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A controller leads.
    #[error(
        "a controller still leads ({holder}), and would write again what is deleted: stop it first, with `kubectl scale deployment ensign-controller --replicas=0 -n {namespace}` or --stop-controller ensign-controller"
    )]
    Led {
        /// Who holds the lease.
        holder: String,
        /// Its namespace.
        namespace: String,
    },
    /// Somebody else leads now.
    #[error("leadership was lost on the way; what was done stays done, and running teardown again goes on")]
    Lost(#[source] Loss),
    /// It was told to stop.
    #[error("stopped on the way; what was done stays done, and running teardown again goes on")]
    Stopped,
}

/// Takes Ensign down. What can't be done is in the report; repeating it goes on where it was.
pub async fn teardown(
    config: TeardownConfig,
    told: impl Fn(Progress) + Send + Sync,
    stop: CancellationToken,
) -> Result<Report, TeardownError> {
    if let Some(name) = &config.stop {
        let stopped = stop_deployment(&config.client, &config.namespace, name).await;
        stopped.map_err(|error| kubernetes("the controller can't be stopped", error))?;
    }
    told(Progress::Leading);
    let (mut election, gate) = lead(&config, &told, &stop).await?;
    let rate_limiter = RateLimiter::new(config.azure_limits, config.clock.clone());
    let teardown = Teardown {
        azure: AzureWriter {
            arm: config.arm.clone().paced(rate_limiter.clone()),
            gate: gate.clone(),
            failpoints: Failpoints::default(),
            metrics: ControllerMetrics::default(),
        },
        rate_limiter,
        writer: KubeWriter::new(config.client.clone(), None, gate.clone(), Failpoints::default()),
        deadline: config.clock.monotonic() + config.patience,
        spread: Spread::seeded(0),
        config: &config,
        told: &told,
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

/// Waits until this process leads. Without the namespace of the lease there is no controller to wait for.
async fn lead(
    config: &TeardownConfig,
    told: &(impl Fn(Progress) + Send + Sync),
    stop: &CancellationToken,
) -> Result<(Option<Election>, WriteGate), TeardownError> {
    let unlimited = || (None, WriteGate::unlimited(config.clock.clone()));
    let Some(lease) = config.leadership.clone() else { return Ok(unlimited()) };
    let namespaces: Api<PartialObjectMeta<Namespace>> = Api::all(config.client.clone());
    let (namespace, name) = (lease.namespace.clone(), lease.name.clone());
    let found = within_deadline(|| format!("reading Namespace {namespace}"), namespaces.get_opt(&namespace)).await;
    if found.map_err(|error| kubernetes("it is not known whether a controller runs", error))?.is_none() {
        told(Progress::NoNamespace);
        return Ok(unlimited());
    }
    let (election, gate) = Election::start(lease, config.clock.clone());
    let mut leadership = election.leadership();
    let late = config.clock.sleep_until(config.clock.monotonic() + config.patience);
    let leads = tokio::select! {
        biased;
        () = stop.cancelled() => Err(TeardownError::Stopped),
        won = leadership.wait_for(|now| *now == Leadership::Leading) => Ok(won.is_ok()),
        () = late => Ok(false),
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
            let holder = holder.unwrap_or_else(|| "the Lease can't be had".to_owned());
            Err(TeardownError::Led { holder, namespace })
        }
    }
}

/// Everything that it takes, once nobody else leads.
pub(crate) struct Teardown<'a, T> {
    pub(crate) config: &'a TeardownConfig,
    azure: AzureWriter,
    rate_limiter: RateLimiter,
    writer: KubeWriter,
    pub(crate) deadline: Instant,
    pub(crate) spread: Spread,
    pub(crate) told: &'a T,
}

impl<T: Fn(Progress) + Send + Sync> Teardown<'_, T> {
    async fn run(&self) -> Result<Report, TeardownError> {
        (self.told)(Progress::Injection);
        self.end_injection().await.map_err(|error| {
            kubernetes(
                "injection can't be ended; nothing was deleted, so that no pod is created without its identity",
                error,
            )
        })?;
        let mut problems = Vec::new();
        (self.told)(Progress::Pods);
        let pods_started = match self.start_pods().await {
            Ok(count) => count,
            Err(error) => {
                problems.push(format!(
                    "held pods may be left, which no controller will let go: {}; remove the scheduling gate ensign.dev/identity from the pods that `kubectl get pods -A -l ensign.dev/gated=true` shows, or delete them",
                    error_chain::line(&error)
                ));
                0
            }
        };
        let (cache, unread) = self
            .read()
            .await
            .map_err(|error| kubernetes("the objects of Ensign can't be read; nothing was deleted", error))?;
        problems.extend(unread.into_iter().map(|name| {
            format!("{name} can't be understood by this version: remove its finalizer ensign.dev/credentials by hand, and what it gave in Azure")
        }));
        let keys: Vec<Key> = cache.read().keys().into_iter().collect();
        let mut identities = Vec::new();
        for (number, key) in keys.iter().enumerate() {
            (self.told)(Progress::Identity(key.to_string(), number + 1, keys.len()));
            let gathered = CacheView::new(&cache.read(), key, &self.config.settings);
            if !gathered.is_empty() {
                identities.push(self.identity(key, gathered).await);
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

    /// From now on no pod is sent to the webhook, or changed or refused by a policy.
    async fn end_injection(&self) -> Result<(), ReconcileError> {
        let name = &self.config.registration;
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

    /// Lets every held pod go, also those whose label is gone.
    async fn start_pods(&self) -> Result<usize, ReconcileError> {
        let mut started = 0;
        for _ in 0..POD_ROUNDS {
            let held = all_gated(&self.config.client).await?;
            if held.is_empty() {
                break;
            }
            for (pod, gate) in held {
                let note = Event {
                    reason: Reason::StartedWithoutIdentity,
                    message: "Ensign is taken down in this cluster, so that nobody would let this pod go: a cluster operator has to install it again".to_owned(),
                };
                self.writer.note(&pod, &note, "Lift").await;
                match self.writer.remove_gate(&pod, gate).await {
                    Ok(()) => started += 1,
                    // It changed or went meanwhile: the next round sees it as it is.
                    Err(error) if error.is_outdated() => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(started)
    }

    /// Every object, read now; and names of those that can't be understood.
    async fn read(&self) -> Result<(Arc<Cache>, Vec<String>), KubeError> {
        let (cache, mut unread) = (Cache::default(), Vec::new());
        for object in self.list::<DeserializeGuard<ManagedIdentity>>("ManagedIdentities").await? {
            let name = object.name_any();
            match object.0 {
                Ok(object) => drop(cache.identity_changed(&name, Some(object))),
                Err(_) => unread.push(format!("ManagedIdentity {name}")),
            }
        }
        for object in self.list::<DeserializeGuard<ManagedIdentityBinding>>("ManagedIdentityBindings").await? {
            let name = NamespacedName::from(object.meta());
            match object.0 {
                Ok(object) => drop(cache.binding_changed(&Arc::new(name), Some(object))),
                Err(_) => unread.push(format!("ManagedIdentityBinding {name}")),
            }
        }
        for object in self.list::<PartialObjectMeta<Namespace>>("Namespaces").await? {
            cache.namespace_changed(&object.name_any(), Some(NamespaceFacts::from(object.metadata)));
        }
        Ok((Arc::new(cache), unread))
    }

    /// All objects of a kind; none of one whose definition is gone.
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
