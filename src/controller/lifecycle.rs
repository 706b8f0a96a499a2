//! The controller's life cycle: watch, take part in the election, work, stop.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::future::{Future, pending};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::FutureExt;
use kube::Client;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::cache::Cache;
use crate::cache::catch_up;
use crate::cache::gated_pods::{self, GatedPods};
use crate::cache::informers::{Informers, Watched};
use crate::cluster::issuer_watch::{IssuerKeeper, IssuerWatch};
use crate::dispatch::Dispatcher;
use crate::engine::failpoints::Failpoints;
use crate::engine::key::{Key, Source};
use crate::engine::leader_election::{Election, Leadership, LeaseConfig};
use crate::engine::requeue::Requeues;
use crate::engine::work_queue::WorkQueue;
use crate::engine::write_gate::WriteGate;
use crate::identity::context::Context;
use crate::identity::reconcile::IdentityReconciler;
use crate::identity::role_definitions::RoleDefinitions;
use crate::injection::policies::{InjectionTarget, PolicyWriter};
use crate::injection::reconcile::InjectionReconciler;
use crate::injection::upstream_webhook::{UpstreamWatch, UpstreamWebhook};
use crate::injection::webhook_configuration::{Registrar, WebhookTarget};
use crate::metrics::ControllerMetrics;
use crate::pods::ungate::{GatedPodReconciler, PodSettings};
use crate::pods::uninjected::UninjectedPodScanner;
use crate::writers::azure::AzureWriter;
use crate::writers::kubernetes::KubeWriter;
use crate::writers::own_writes::OwnWritesByIdentity;
use ensign_azure::{ArmClient, RateLimiter};
use ensign_core::assess::Settings;
use ensign_core::cel::Mode;
use ensign_core::scheduling::backoff::Spread;
use ensign_core::scheduling::leader_election::Loss;
use ensign_core::scheduling::rate_limiter::RateLimits;
use ensign_runtime::clock::SharedClock;
use ensign_runtime::health::Readiness;

/// What the controller is made from.
pub struct Config {
    /// The cluster.
    pub client: Client,
    /// Azure.
    pub arm: ArmClient,
    /// What decisions depend on.
    pub settings: Settings,
    /// Interval between drift checks of an identity that is in sync, if rate limits allow it.
    pub resync: Duration,
    /// How long Azure's reads may lag behind its writes.
    pub azure_read_lag: Duration,
    /// How fast requests to Azure may go out.
    pub azure_limits: RateLimits,
    /// Spreads delays; every process should have its own.
    pub spread: Spread,
    /// How many keys are reconciled at a time.
    pub concurrency: usize,
    /// The webhook configuration to fill in, if this install has a webhook.
    pub webhook: Option<WebhookTarget>,
    /// How pods are injected; by default by the webhook, if this install has one.
    pub injection: Option<InjectionTarget>,
    /// Time.
    pub clock: SharedClock,
    /// Name of this process in events, for example the pod's name.
    pub instance: Option<String>,
    /// Set once every watch has completed its first list, also on a standby.
    pub readiness: Readiness,
    /// The lease that has to be held to write; without leader election, no other controller may run.
    pub leadership: Option<LeaseConfig>,
    /// How the API server's issuer is watched; by default the issuer in the settings is used.
    pub issuer_watch: Option<IssuerWatch>,
    /// Failpoints of every write, for tests.
    pub failpoints: Failpoints,
    /// How pods are handled; by default pods are ignored, and no permissions on pods are needed.
    pub pods: Option<PodSettings>,
    /// The metrics to count in.
    pub metrics: ControllerMetrics,
}

/// The controller can't go on.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// A task that must not end has ended.
    #[error("{0} ended unexpectedly; exiting")]
    TaskEnded(&'static str),
    /// Another process may lead now.
    #[error("lost leadership; exiting (after a restart it joins as standby)")]
    LeadershipLost(#[source] Loss),
}

/// Runs the controller until `stop`. Writes in flight are finished first; everything else is left to the next leader.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), ControllerError> {
    let (readiness, metrics) = (config.readiness.clone(), config.metrics.clone());
    let mut life = Life::new(stop.clone());
    let Err(end) = live(config, &mut life).await;
    readiness.set(false);
    stop.cancel();
    life.finish().await;
    metrics.leads_no_more();
    match end {
        End::Stopped => Ok(()),
        End::Failed(error) => Err(error),
    }
}

async fn live(config: Config, life: &mut Life) -> Result<Infallible, End> {
    let cache = Arc::new(Cache::default());
    let queue = Arc::new(WorkQueue::new(config.clock.clone()));
    let gated = Arc::new(GatedPods::new(config.metrics.clone()));
    let full = life.watch(&config, &cache, &queue, &gated, &Watched::ALL);
    life.until(full).await?;

    let settings = Arc::new(ArcSwap::from_pointee(config.settings.clone()));
    let (is_sure, mut issuer_is_sure) = watch::channel(config.issuer_watch.is_none());
    if let Some(watch) = config.issuer_watch {
        let (client, clock) = (config.client.clone(), config.clock.clone());
        let (settings, cache, queue) = (settings.clone(), cache.clone(), queue.clone());
        let keeper = IssuerKeeper { client, watch, settings, cache, queue, clock };
        life.tasks.spawn(keeper.run(is_sure).map(|()| "the watch of the issuer"));
    }
    if let Some(lease) = config.leadership.clone() {
        let mut leadership = life.join_election(lease, config.clock.clone());
        life.until(is(&mut leadership, |now| *now != Leadership::Unknown)).await?;
        config.readiness.set(true);
        tracing::info!("ready");
        life.until(is(&mut leadership, |now| *now == Leadership::Leading)).await?;
        // The former leader may have written objects that the watches have not delivered yet. What is read now includes all
        // of them: a list of the kinds with few objects, and the versions of the others.
        let few = life.watch(&config, &cache, &queue, &gated, &[Watched::Classes, Watched::Namespaces]);
        // Requests are large.
        let current = Box::pin(catch_up::current(&config.client, &cache, &config.clock));
        let current = life.until(current).await?;
        let behind = life.watch(&config, &cache, &queue, &gated, &current.behind());
        life.until(few).await?;
        life.until(behind).await?;
    } else {
        life.gate = Some(WriteGate::unlimited(config.clock.clone()));
        config.readiness.set(true);
        tracing::info!("ready");
    }
    life.until(is(&mut issuer_is_sure, |sure| *sure)).await?;
    let mut upstream = life.watch_upstream(&config, &cache, &queue);
    life.until(is(&mut upstream, |webhook| *webhook != UpstreamWebhook::NotChecked)).await?;

    cache.read().keys().into_iter().chain([Key::Injection]).for_each(|key| queue.add(key, Source::Cluster));
    if config.pods.is_some() {
        queue.add(Key::UnlabelledPods, Source::Cluster);
        life.watch_gated_pods(config.client.clone(), &gated, &queue);
    }
    life.work(config, cache, &queue, settings, upstream, gated);
    life.until(pending()).await
}

/// What runs, and how it ends.
struct Life {
    stop: CancellationToken,
    /// Tasks that must not end.
    tasks: JoinSet<&'static str>,
    /// Those of them that list and watch.
    watches: BTreeMap<Watched, AbortHandle>,
    election: Option<Election>,
    gate: Option<WriteGate>,
    workers: JoinSet<()>,
}

/// Why the controller ends.
enum End {
    Stopped,
    Failed(ControllerError),
}

impl Life {
    fn new(stop: CancellationToken) -> Self {
        let (tasks, workers) = (JoinSet::new(), JoinSet::new());
        Self { stop, tasks, watches: BTreeMap::new(), election: None, gate: None, workers }
    }

    /// Starts these watches, in place of earlier ones; the future completes when each required one has completed a list.
    fn watch(
        &mut self,
        config: &Config,
        cache: &Arc<Cache>,
        queue: &Arc<WorkQueue<Key, Source>>,
        gated: &Arc<GatedPods>,
        these: &[Watched],
    ) -> impl Future<Output = ()> + use<> {
        let (initialised, done) = watch::channel(BTreeSet::new());
        let (cache, queue, gated) = (cache.clone(), queue.clone(), gated.clone());
        let informers = Arc::new(Informers { cache, queue, gated, initialised });
        for what in these {
            if let Some(former) = self.watches.remove(what) {
                former.abort();
            }
            let (informers, client) = (informers.clone(), config.client.clone());
            let watch = match what {
                Watched::Identities => informers.identities(client).boxed(),
                Watched::Bindings => informers.bindings(client).boxed(),
                Watched::Classes => informers.classes(client).boxed(),
                Watched::Namespaces => informers.namespaces(client).boxed(),
                Watched::WebhookConfiguration => {
                    let Some(target) = config.webhook.clone() else { continue };
                    let WebhookTarget { configuration, namespace, secret, .. } = target;
                    informers.webhook_configuration(client, configuration, namespace, secret).boxed()
                }
                Watched::Policies => {
                    if config.injection.as_ref().is_none_or(|target| target.mode != Mode::Policy) {
                        continue;
                    }
                    informers.policies(client).boxed()
                }
            };
            let task = what.task();
            self.watches.insert(*what, self.tasks.spawn(watch.map(move |()| task)));
        }
        all_initialised(done, these.iter().copied().filter(|what| what.is_required()).collect())
    }

    /// Starts the watch of gated pods, which only the leader needs.
    fn watch_gated_pods(&mut self, client: Client, gated: &Arc<GatedPods>, queue: &Arc<WorkQueue<Key, Source>>) {
        let watch = gated_pods::watch(gated.clone(), client, queue.clone());
        self.tasks.spawn(watch.map(|()| "the watch of gated pods"));
    }

    fn join_election(&mut self, lease: LeaseConfig, clock: SharedClock) -> watch::Receiver<Leadership> {
        let (election, gate) = Election::start(lease, clock);
        let leadership = election.leadership();
        self.election = Some(election);
        self.gate = Some(gate);
        leadership
    }

    /// In compatibility mode, watches for the webhook of azure-workload-identity.
    fn watch_upstream(
        &mut self,
        config: &Config,
        cache: &Arc<Cache>,
        queue: &Arc<WorkQueue<Key, Source>>,
    ) -> watch::Receiver<UpstreamWebhook> {
        if !config.webhook.as_ref().is_some_and(|target| target.compatibility) {
            return watch::channel(UpstreamWebhook::Absent).1;
        }
        let (found, upstream) = watch::channel(UpstreamWebhook::NotChecked);
        let (client, clock) = (config.client.clone(), config.clock.clone());
        let watch = UpstreamWatch { client, every: config.resync, cache: cache.clone(), queue: queue.clone(), clock };
        self.tasks.spawn(watch.run(found).map(|()| "the check for azure-workload-identity's webhook"));
        upstream
    }

    fn work(
        &mut self,
        config: Config,
        cache: Arc<Cache>,
        queue: &Arc<WorkQueue<Key, Source>>,
        settings: Arc<ArcSwap<Settings>>,
        upstream: watch::Receiver<UpstreamWebhook>,
        gated: Arc<GatedPods>,
    ) {
        let gate = self.gate.get_or_insert_with(|| WriteGate::unlimited(config.clock.clone())).clone();
        let injects = config.injection.as_ref().map(|target| target.mode);
        config.metrics.leads(cache.clone(), injects.or_else(|| config.webhook.as_ref().map(|_| Mode::Webhook)));
        let concurrency = config.concurrency.max(1);
        let dispatcher = Arc::new(dispatcher(config, cache, queue, settings, upstream, gated, gate));
        for _ in 0..concurrency {
            self.workers.spawn(work(dispatcher.clone(), queue.clone(), self.stop.clone()));
        }
    }

    /// Waits for an event, unless the controller ends first.
    async fn until<T>(&mut self, event: impl Future<Output = T>) -> Result<T, End> {
        let failed = |error| Err(End::Failed(error));
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(End::Stopped),
            loss = lost(self.election.as_mut()) => failed(ControllerError::LeadershipLost(loss)),
            name = ended(&mut self.tasks) => failed(ControllerError::TaskEnded(name)),
            Some(_) = self.workers.join_next() => failed(ControllerError::TaskEnded("a worker")),
            happened = event => Ok(happened),
        }
    }

    /// Ends all work, and releases the lease once nothing can be written any more.
    async fn finish(mut self) {
        if let Some(gate) = &self.gate {
            gate.close().await;
        }
        self.workers.shutdown().await;
        if let Some(election) = self.election {
            election.release().await;
        }
    }
}

async fn lost(election: Option<&mut Election>) -> Loss {
    match election {
        Some(election) => election.lost().await,
        None => pending().await,
    }
}

/// Waits for the end of a task that was not aborted.
async fn ended(tasks: &mut JoinSet<&'static str>) -> &'static str {
    loop {
        match tasks.join_next().await {
            Some(Ok(name)) => return name,
            Some(Err(error)) if error.is_cancelled() => {}
            Some(Err(_)) => return "a task",
            None => pending().await,
        }
    }
}

/// Waits until the value satisfies the condition.
async fn is<T>(value: &mut watch::Receiver<T>, condition: impl FnMut(&T) -> bool) {
    if value.wait_for(condition).await.is_err() {
        // The task that sets it has ended, which is reported elsewhere.
        pending::<()>().await;
    }
}

async fn all_initialised(mut initialised: watch::Receiver<BTreeSet<Watched>>, required: BTreeSet<Watched>) {
    is(&mut initialised, |all| required.is_subset(all)).await;
}

/// The reconcilers of a process that leads.
fn dispatcher(
    config: Config,
    cache: Arc<Cache>,
    queue: &Arc<WorkQueue<Key, Source>>,
    settings: Arc<ArcSwap<Settings>>,
    upstream: watch::Receiver<UpstreamWebhook>,
    gated: Arc<GatedPods>,
    gate: WriteGate,
) -> Dispatcher {
    let Config { client, clock, metrics, .. } = config;
    let rate_limiter = RateLimiter::new(config.azure_limits, clock.clone());
    let arm = config.arm.paced(rate_limiter.clone()).counted(metrics.azure.clone());
    let failpoints = config.failpoints;
    let own_writes = OwnWritesByIdentity::new(config.azure_read_lag, clock.clone());
    let writer = Arc::new(KubeWriter::new(client.clone(), config.instance, gate.clone(), failpoints.clone()));
    let uninjected = config.pods.as_ref().map(|pods| {
        Arc::new(UninjectedPodScanner {
            client: client.clone(),
            cache: cache.clone(),
            queue: queue.clone(),
            excluded: pods.excluded.clone(),
            metrics: metrics.clone(),
            scans: Mutex::default(),
        })
    });
    Dispatcher {
        identities: IdentityReconciler(Context {
            cache: cache.clone(),
            arm: arm.clone(),
            rate_limiter: rate_limiter.clone(),
            writer: writer.clone(),
            azure: AzureWriter { arm, gate, failpoints, metrics: metrics.clone(), own_writes },
            settings,
            clock: clock.clone(),
            upstream,
            uninjected: uninjected.clone(),
            role_definitions: RoleDefinitions::default(),
            metrics: metrics.clone(),
        }),
        injection: InjectionReconciler {
            cache: cache.clone(),
            writer: writer.clone(),
            webhook: config.webhook.map(|target| Registrar::new(target, clock.clone())),
            policies: config.injection.map(PolicyWriter::new),
        },
        gated_pods: config.pods.map(|_| GatedPodReconciler {
            cache: cache.clone(),
            writer,
            gated,
            queue: queue.clone(),
            metrics: metrics.clone(),
        }),
        uninjected_pods: uninjected,
        requeues: Requeues::new(config.resync, config.azure_limits, config.spread, &clock),
        cache,
        rate_limiter,
        clock,
        metrics,
    }
}

async fn work(dispatcher: Arc<Dispatcher>, queue: Arc<WorkQueue<Key, Source>>, stop: CancellationToken) {
    loop {
        let key = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            key = queue.next() => key,
        };
        let delay = dispatcher.reconcile(&key).instrument(tracing::info_span!("reconcile", %key)).await;
        queue.done(key, delay);
    }
}
