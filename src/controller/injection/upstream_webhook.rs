//! Looks now and then whether azure-workload-identity's own webhook runs too. In compatibility mode both would inject the
//! same pods; Ensign says so and leaves the other alone.

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

/// How soon to look again after a look that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(60);

/// What the last look told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UpstreamWebhook {
    /// There was none yet.
    NotYet,
    /// It failed.
    Unknown,
    /// There is no such webhook.
    Absent,
    /// It is there.
    Present,
}

impl UpstreamWebhook {
    /// Whether it is there, if that is known.
    pub(crate) fn present(self) -> Option<bool> {
        match self {
            Self::NotYet | Self::Unknown => None,
            Self::Absent => Some(false),
            Self::Present => Some(true),
        }
    }
}

/// Looks for the upstream's webhook.
pub(crate) struct UpstreamWatch {
    pub(crate) client: Client,
    pub(crate) every: Duration,
    pub(crate) cache: Arc<Cache>,
    pub(crate) queue: Arc<WorkQueue<Key, Source>>,
    pub(crate) clock: SharedClock,
}

impl UpstreamWatch {
    /// Looks until the end of time, and tells.
    pub(crate) async fn run(self, told: watch::Sender<UpstreamWebhook>) {
        loop {
            let look = match self.look().await {
                Ok(true) => UpstreamWebhook::Present,
                Ok(false) => UpstreamWebhook::Absent,
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, "cannot see whether azure-workload-identity's webhook runs too");
                    UpstreamWebhook::Unknown
                }
            };
            let before = *told.borrow();
            // What was known stands while it can't be looked at.
            if look != before && (look != UpstreamWebhook::Unknown || before == UpstreamWebhook::NotYet) {
                told.send_replace(look);
                self.tell(before, look);
            }
            let wait = if look == UpstreamWebhook::Unknown { AFTER_FAILURE.min(self.every) } else { self.every };
            self.clock.sleep_until(self.clock.monotonic() + wait).await;
        }
    }

    async fn look(&self) -> Result<bool, KubeError> {
        let configurations: Api<PartialObjectMeta<MutatingWebhookConfiguration>> = Api::all(self.client.clone());
        let act = || format!("reading MutatingWebhookConfiguration {UPSTREAM_WEBHOOK}");
        let found = within_deadline(act, configurations.get_opt(UPSTREAM_WEBHOOK)).await?;
        Ok(found.is_some())
    }

    fn tell(&self, before: UpstreamWebhook, now: UpstreamWebhook) {
        match (before, now) {
            (_, UpstreamWebhook::Present) => tracing::warn!(
                configuration = UPSTREAM_WEBHOOK,
                "azure-workload-identity's webhook runs too and injects the same pods; uninstall it"
            ),
            (UpstreamWebhook::Present, _) => tracing::info!("azure-workload-identity's webhook is gone"),
            _ => {}
        }
        // Before the first look nothing was reconciled.
        if before != UpstreamWebhook::NotYet {
            let keys = self.cache.read().keys();
            for key in keys {
                self.queue.add(key, Source::Cluster);
            }
        }
    }
}
