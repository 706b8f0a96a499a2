//! Passes a key from the work queue to its reconciler, and turns the outcome into the requeue delay.

use std::sync::Arc;
use std::time::Duration;

use crate::cache::Cache;
use crate::engine::key::Key;
use crate::engine::outcome::ReconcileOutcome;
use crate::engine::requeue::Requeues;
use crate::error::ReconcileError;
use crate::identity::reconcile::IdentityReconciler;
use crate::injection::reconcile::InjectionReconciler;
use crate::metrics::{ControllerMetrics, Subject};
use crate::pods::ungate::GatedPodReconciler;
use crate::pods::uninjected::UninjectedPodScanner;
use ensign_api::conditions::Reason;
use ensign_azure::RateLimiter;
use ensign_core::failure::Failure;
use ensign_core::scheduling::resync::Sharers;
use ensign_runtime::clock::SharedClock;

/// The reconcilers of one process. Those that this install does not have are `None`.
pub(crate) struct Dispatcher {
    pub(crate) identities: IdentityReconciler,
    pub(crate) injection: InjectionReconciler,
    pub(crate) gated_pods: Option<GatedPodReconciler>,
    pub(crate) uninjected_pods: Option<Arc<UninjectedPodScanner>>,
    pub(crate) cache: Arc<Cache>,
    pub(crate) requeues: Requeues,
    pub(crate) rate_limiter: RateLimiter,
    pub(crate) clock: SharedClock,
    pub(crate) metrics: ControllerMetrics,
}

impl Dispatcher {
    /// Reconciles the key; returns the requeue delay, or `None` where only an event brings it again.
    pub(crate) async fn reconcile(&self, key: &Key) -> Option<Duration> {
        let (outcome, again_in) = match key {
            Key::Identity(_) | Key::Name(_) => self.identities.reconcile(key).await,
            Key::Injection => (self.injection.reconcile().await, None),
            Key::Pod(name) => (self.gated_pod(name).await, None),
            Key::UnlabelledPods => (self.unlabelled_pods().await, None),
            Key::UninjectedPods(binding) => (self.uninjected_pods(binding).await, None),
        };
        let outcome = outcome.unwrap_or_else(|error| judge(key, &error));
        self.metrics.reconciled(subject(key), &outcome);
        let delay = self.delay(key, outcome)?;
        Some(again_in.map_or(delay, |again| delay.min(again)))
    }

    async fn gated_pod(&self, name: &crate::kube_names::PodName) -> Result<ReconcileOutcome, ReconcileError> {
        match &self.gated_pods {
            Some(pods) => pods.reconcile(name).await,
            None => Ok(ReconcileOutcome::Nothing),
        }
    }

    async fn unlabelled_pods(&self) -> Result<ReconcileOutcome, ReconcileError> {
        match &self.gated_pods {
            Some(pods) => pods.reconcile_unlabelled().await,
            None => Ok(ReconcileOutcome::Nothing),
        }
    }

    async fn uninjected_pods(
        &self,
        binding: &crate::kube_names::BindingName,
    ) -> Result<ReconcileOutcome, ReconcileError> {
        match &self.uninjected_pods {
            Some(scanner) => scanner.reconcile(binding).await,
            None => Ok(ReconcileOutcome::Nothing),
        }
    }

    fn delay(&self, key: &Key, outcome: ReconcileOutcome) -> Option<Duration> {
        match outcome {
            ReconcileOutcome::Nothing => {
                self.requeues.succeeded(key);
                None
            }
            ReconcileOutcome::Again(delay) | ReconcileOutcome::RateLimited(delay) => {
                self.requeues.succeeded(key);
                Some(delay)
            }
            ReconcileOutcome::InSync => {
                self.requeues.succeeded(key);
                Some(self.requeues.in_sync(key, self.sharers(key), self.clock.monotonic()))
            }
            ReconcileOutcome::InjectionWaits(delay) | ReconcileOutcome::Paused(delay) => Some(delay),
            // The key is queued when the watch delivers what the cache lacks; the delay is for a slow watch.
            ReconcileOutcome::Behind | ReconcileOutcome::Retry => {
                Some(self.requeues.failed(key, Reason::Pending, None))
            }
            ReconcileOutcome::AzureFailed(failure) => Some(self.back_off(key, &failure)),
        }
    }

    fn sharers(&self, key: &Key) -> Sharers {
        match key {
            Key::Identity(id) => self.cache.read().sharers(id),
            _ => Sharers::default(),
        }
    }

    /// The delay after a failure of Azure. If it may resolve by itself, no requests are sent meanwhile, even if an event
    /// queues the key.
    fn back_off(&self, key: &Key, failure: &Failure) -> Duration {
        let delay = self.requeues.failed(key, failure.reason, failure.retry_after);
        if let Key::Identity(id) = key
            && failure.is_transient()
        {
            self.rate_limiter.hold(id, delay, failure);
        }
        delay
    }
}

/// What an error means for the key.
fn judge(key: &Key, error: &ReconcileError) -> ReconcileOutcome {
    let shown = error as &dyn std::error::Error;
    if error.is_outdated() {
        tracing::debug!(%key, error = shown, "changed meanwhile; reconciling again");
        return ReconcileOutcome::Behind;
    }
    if matches!(error, ReconcileError::NotLeading { .. }) {
        tracing::debug!(%key, error = shown, "left to the next leader");
        return ReconcileOutcome::Behind;
    }
    tracing::warn!(%key, error = shown, "Kubernetes request failed; retrying");
    ReconcileOutcome::Retry
}

/// What kind of object a key is about, for metrics.
fn subject(key: &Key) -> Subject {
    match key {
        Key::Identity(_) | Key::Name(_) => Subject::Identity,
        Key::Injection => Subject::Webhook,
        Key::Pod(_) => Subject::Pod,
        Key::UnlabelledPods => Subject::Unlabelled,
        Key::UninjectedPods(_) => Subject::Uninjected,
    }
}
