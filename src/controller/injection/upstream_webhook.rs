//! Checks periodically whether azure-workload-identity's own webhook is installed. In compatibility mode both would inject
//! the same pods; Ensign reports that, and leaves the other webhook alone.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::Client;
use kube::api::{Api, PartialObjectMeta};
use tokio::sync::watch;

use crate::cache::Cache;
use crate::engine::key::{Key, Source};
use crate::engine::work_queue::WorkQueue;
use crate::kube_request::{KubeError, within_deadline};
use ensign_core::assess::UPSTREAM_WEBHOOK;
use ensign_runtime::clock::SharedClock;

/// Delay after a failed check.
const RETRY_DELAY: Duration = Duration::from_secs(60);

/// The result of the last check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UpstreamWebhook {
    /// There was no check yet.
    NotChecked,
    /// The check failed.
    Unknown,
    /// It is not installed.
    Absent,
    /// It is installed.
    Present,
}

impl UpstreamWebhook {
    /// Whether it is installed, if that is known.
    pub(crate) fn present(self) -> Option<bool> {
        match self {
            Self::NotChecked | Self::Unknown => None,
            Self::Absent => Some(false),
            Self::Present => Some(true),
        }
    }
}

/// Watches for the upstream webhook.
pub(crate) struct UpstreamWatch {
    pub(crate) client: Client,
    pub(crate) every: Duration,
    pub(crate) cache: Arc<Cache>,
    pub(crate) queue: Arc<WorkQueue<Key, Source>>,
    pub(crate) clock: SharedClock,
}

impl UpstreamWatch {
    /// Runs forever, and publishes the result of each check.
    pub(crate) async fn run(self, published: watch::Sender<UpstreamWebhook>) {
        loop {
            let found = match self.is_installed().await {
                Ok(true) => UpstreamWebhook::Present,
                Ok(false) => UpstreamWebhook::Absent,
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, "cannot check whether azure-workload-identity's webhook is installed");
                    UpstreamWebhook::Unknown
                }
            };
            let before = *published.borrow();
            // The last result is kept while the check fails.
            if found != before && (found != UpstreamWebhook::Unknown || before == UpstreamWebhook::NotChecked) {
                published.send_replace(found);
                self.report(before, found);
            }
            let wait = if found == UpstreamWebhook::Unknown { RETRY_DELAY.min(self.every) } else { self.every };
            self.clock.sleep_until(self.clock.monotonic() + wait).await;
        }
    }

    async fn is_installed(&self) -> Result<bool, KubeError> {
        let configurations: Api<PartialObjectMeta<MutatingWebhookConfiguration>> = Api::all(self.client.clone());
        let act = || format!("reading MutatingWebhookConfiguration {UPSTREAM_WEBHOOK}");
        let found = within_deadline(act, configurations.get_opt(UPSTREAM_WEBHOOK)).await?;
        Ok(found.is_some())
    }

    fn report(&self, before: UpstreamWebhook, now: UpstreamWebhook) {
        match (before, now) {
            (_, UpstreamWebhook::Present) => tracing::warn!(
                configuration = UPSTREAM_WEBHOOK,
                "azure-workload-identity's webhook is installed as well and injects the same pods; uninstall it"
            ),
            (UpstreamWebhook::Present, _) => tracing::info!("azure-workload-identity's webhook was uninstalled"),
            _ => {}
        }
        // Before the first check nothing was reconciled.
        if before != UpstreamWebhook::NotChecked {
            let keys = self.cache.read().keys();
            for key in keys {
                self.queue.add(key, Source::Cluster);
            }
        }
    }
}
