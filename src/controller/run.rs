//! The controller's life: learn, watch, work, stop.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use kube::Client;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::cache::Cache;
use super::effects::Effects;
use super::key::Key;
use super::kube_writes::KubeWriter;
use super::queue::Queue;
use super::reconcile::{Attempts, Reconciler};
use super::registration::WebhookTarget;
use super::watches::{Feed, REQUIRED};
use crate::azure::ArmClient;
use crate::decide::assess::Settings;
use crate::runtime::clock::SharedClock;
use crate::runtime::health::Readiness;

/// What the controller is made from.
pub struct Config {
    /// The cluster.
    pub client: Client,
    /// Azure.
    pub arm: ArmClient,
    /// What decisions depend on.
    pub settings: Settings,
    /// How often a steady identity is looked at.
    pub resync: Duration,
    /// How many identities are reconciled at a time.
    pub concurrency: usize,
    /// The registration to fill in, if this install has a webhook.
    pub webhook: Option<WebhookTarget>,
    /// Time.
    pub clock: SharedClock,
    /// Name of this process in events, for example the pod's name.
    pub instance: Option<String>,
    /// Told once every watch has seen everything.
    pub readiness: Readiness,
    /// The way of every write.
    pub effects: Effects,
}

/// The controller can't go on.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// A task that must not end has ended.
    #[error("{0} ended, and the controller with it")]
    TaskEnded(&'static str),
}

/// Runs the controller until `stop`. Reconciles under way are finished first.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), ControllerError> {
    let cache = Arc::new(Cache::default());
    let queue = Arc::new(Queue::new(config.clock.clone()));
    let (initialised, seen) = watch::channel(BTreeSet::new());
    let feed = Arc::new(Feed { cache: cache.clone(), queue: queue.clone(), initialised });

    let mut tasks: JoinSet<&'static str> = JoinSet::new();
    let client = || config.client.clone();
    tasks.spawn(feed.clone().identities(client()).map(|()| "the watch of ManagedIdentities"));
    tasks.spawn(feed.clone().bindings(client()).map(|()| "the watch of ManagedIdentityBindings"));
    tasks.spawn(feed.clone().namespaces(client()).map(|()| "the watch of Namespaces"));
    if let Some(target) = config.webhook.clone() {
        let watch = feed.clone().registration(client(), target.configuration, target.namespace, target.secret);
        tasks.spawn(watch.map(|()| "the watch of the webhook registration"));
    }
    let reconciler = Arc::new(Reconciler {
        cache: cache.clone(),
        arm: config.arm,
        writer: KubeWriter::new(config.client.clone(), config.instance, config.effects.clone()),
        effects: config.effects,
        settings: config.settings,
        resync: config.resync,
        clock: config.clock,
        webhook: config.webhook,
        attempts: Attempts::default(),
    });

    let ended = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        ended = tasks.join_next() => Some(ended),
        () = initialised_all(seen) => None,
    };
    if let Some(ended) = ended {
        return Err(task_ended(ended));
    }
    cache.read().keys().into_iter().chain([Key::Webhook]).for_each(|key| queue.add(key));
    config.readiness.set(true);
    tracing::info!("ready");

    let mut workers = JoinSet::new();
    for _ in 0..config.concurrency.max(1) {
        workers.spawn(work(reconciler.clone(), queue.clone(), stop.clone()));
    }
    let result = tokio::select! {
        () = stop.cancelled() => Ok(()),
        ended = tasks.join_next() => Err(task_ended(ended)),
        ended = workers.join_next() => match ended {
            Some(Ok(())) if stop.is_cancelled() => Ok(()),
            _ => Err(ControllerError::TaskEnded("a worker")),
        },
    };
    config.readiness.set(false);
    stop.cancel();
    while workers.join_next().await.is_some() {}
    result
}

async fn initialised_all(mut seen: watch::Receiver<BTreeSet<&'static str>>) {
    let all = |kinds: &BTreeSet<&'static str>| REQUIRED.iter().all(|kind| kinds.contains(kind));
    if seen.wait_for(all).await.is_err() {
        // Only when the watches are gone, which their tasks report.
        std::future::pending::<()>().await;
    }
}

fn task_ended(ended: Option<Result<&'static str, tokio::task::JoinError>>) -> ControllerError {
    let name = ended.and_then(Result::ok).unwrap_or("a task");
    ControllerError::TaskEnded(name)
}

async fn work(reconciler: Arc<Reconciler>, queue: Arc<Queue<Key>>, stop: CancellationToken) {
    loop {
        let key = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            key = queue.next() => key,
        };
        let again = reconciler.reconcile(&key).await;
        queue.done(key, again);
    }
}
