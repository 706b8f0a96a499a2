//! One reconcile of one identity in Azure, with every `ManagedIdentity` that names it and every binding to those.

use std::sync::Arc;

use arc_swap::ArcSwap;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;

use super::outcome::ReconcileOutcome;
use super::pass::Pass;
use super::roles::RoleDefinitions;
use crate::cache::Cache;
use crate::engine::key::Key;
use crate::error::ReconcileError;
use crate::injection::upstream_webhook::UpstreamWebhook;
use crate::metrics::ControllerMetrics;
use crate::pods::uninjected::UninjectedPodScanner;
use crate::writers::azure::AzureWriter;
use crate::writers::kubernetes::KubeWriter;
use ensign_azure::{ArmClient, ArmError, RateLimiter};
use ensign_core::assess::{Observed, Settings};
use ensign_core::failure::Failure;
use ensign_runtime::clock::SharedClock;

/// Keeps identities in Azure in sync with the cluster.
pub(crate) struct IdentityReconciler {
    pub(crate) cache: Arc<Cache>,
    pub(crate) arm: ArmClient,
    pub(crate) rate_limiter: RateLimiter,
    pub(crate) writer: Arc<KubeWriter>,
    pub(crate) azure: AzureWriter,
    pub(crate) settings: Arc<ArcSwap<Settings>>,
    pub(crate) clock: SharedClock,
    pub(crate) upstream: watch::Receiver<UpstreamWebhook>,
    pub(crate) uninjected: Option<Arc<UninjectedPodScanner>>,
    pub(crate) role_definitions: RoleDefinitions,
    pub(crate) metrics: ControllerMetrics,
}

impl IdentityReconciler {
    /// Reconciles the key. The second value is when the next credential has propagated in Entra, if one has yet to: then the
    /// key has to be reconciled again.
    pub(crate) async fn reconcile(&self, key: &Key) -> (Result<ReconcileOutcome, ReconcileError>, Option<Timestamp>) {
        let mut pass = match Pass::begin(self, key).await {
            Ok(Some(pass)) => pass,
            Ok(None) => return (Ok(ReconcileOutcome::Nothing), None),
            Err(error) => return (Err(error), None),
        };
        let done = run(&mut pass).await;
        let propagates_at = pass.plan.propagates_at;
        (done.map(|()| pass.outcome(key)), propagates_at)
    }

    /// What an error of Azure means; `None` for a request that waits for its turn. Requests under the identity pause where
    /// Azure asks for it.
    pub(super) fn failure(&self, error: &ArmError, observed: &mut Observed) -> Option<Failure> {
        if let Some(deferral) = error.not_sent() {
            tracing::debug!(error = error as &dyn std::error::Error, "Azure request postponed");
            observed.postponed = Some(deferral.clone());
            return deferral.failure();
        }
        tracing::warn!(
            error = error as &dyn std::error::Error,
            request_id = %error.request_id,
            "Azure request failed"
        );
        let failure = error.failure(self.settings.load().own_client_id.as_deref());
        if let Some(pause) = failure.retry_after {
            self.rate_limiter.hold(&error.identity, pause, &failure);
        }
        Some(failure)
    }
}

/// The steps, in their order: nothing is written to Azure before the objects that it is for say so and have their finalizer,
/// and no finalizer goes before Azure has confirmed.
async fn run(pass: &mut Pass<'_>) -> Result<(), ReconcileError> {
    pass.observe().await;
    pass.write_identity().await?;
    pass.write_credentials().await?;
    pass.write_roles().await?;
    pass.annotate_service_accounts().await?;
    pass.create_dedicated_identities().await?;
    pass.publish_status().await?;
    pass.release_finalizers().await?;
    pass.delete_unclaimed_identities().await
}
