//! What every reconcile of an identity works with.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::role_definitions::RoleDefinitions;
use crate::cache::Cache;
use crate::injection::upstream_webhook::UpstreamWebhook;
use crate::metrics::ControllerMetrics;
use crate::pods::uninjected::UninjectedPodScanner;
use crate::writers::azure::AzureWriter;
use crate::writers::kubernetes::KubeWriter;
use ensign_azure::{ArmClient, ArmError, RateLimiter};
use ensign_core::assess::{Observed, Settings};
use ensign_core::failure::Failure;
use ensign_runtime::clock::SharedClock;

/// The cache, the clients and the writers.
pub(crate) struct Context {
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

impl Context {
    /// What an error of Azure means; `None` if the request waits for rate-limit budget. Requests about the identity pause if
    /// Azure demands it.
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
