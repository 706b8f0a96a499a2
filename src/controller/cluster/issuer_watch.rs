//! Reads the API server's discovery document periodically: a cluster can change its issuer.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use kube::Client;
use tokio::sync::watch;

use super::discovery::read_issuer;
use crate::cache::Cache;
use crate::engine::key::{Key, Source};
use crate::engine::work_queue::WorkQueue;
use ensign_core::assess::Settings;
use ensign_core::credentials::issuer_url;
use ensign_core::credentials::issuers::{IssuerChange, Sightings, Stability, doubted};
use ensign_core::credentials::ownership::Cluster;
use ensign_runtime::clock::SharedClock;

/// How many times in a row a new issuer has to be read before it is adopted.
const READS: u32 = 3;

/// How the API server's issuer is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IssuerWatch {
    /// How often it is read.
    pub every: Duration,
    /// Accept an issuer that Entra cannot reach; for development only.
    pub allow_private: bool,
}

/// Keeps the settings in sync with the cluster's issuer.
pub(crate) struct IssuerKeeper {
    pub(crate) client: Client,
    pub(crate) watch: IssuerWatch,
    pub(crate) settings: Arc<ArcSwap<Settings>>,
    pub(crate) cache: Arc<Cache>,
    pub(crate) queue: Arc<WorkQueue<Key, Source>>,
    pub(crate) clock: SharedClock,
}

impl IssuerKeeper {
    /// Runs forever; sets `is_sure` once it is certain which issuer the cluster has. The cache has to be complete.
    pub(crate) async fn run(self, is_sure: watch::Sender<bool>) {
        let found = self.settings.load().cluster.issuer.clone();
        let recorded = self.cache.read().recorded_issuers();
        let doubted = doubted(&recorded, &found);
        if let Some(recorded) = doubted {
            tracing::warn!(
                issuer = found,
                recorded,
                "the cluster may have a new issuer; waiting until it is confirmed"
            );
        }
        is_sure.send_replace(doubted.is_none());
        let stability = Stability { looks: READS, time: self.watch.every * (READS - 1) };
        let mut sightings = Sightings::new(doubted.unwrap_or(&found), stability);
        let origin = self.clock.monotonic();
        let mut next = origin;
        loop {
            match read_issuer(&self.client).await {
                Ok(issuer) => {
                    let now = self.clock.monotonic().saturating_duration_since(origin);
                    let change = sightings.saw(&issuer, now);
                    if change == IssuerChange::Doubtful {
                        tracing::warn!(
                            issuer,
                            current = sightings.believed(),
                            "the API server reports another issuer; it is adopted once the API server keeps reporting it"
                        );
                    } else {
                        self.adopt(&issuer);
                        is_sure.send_replace(true);
                    }
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "cannot read the service account issuer");
                }
            }
            // Reads that a pause of the clock has missed are not made up for: several in quick succession prove little.
            next = (next + self.watch.every).max(self.clock.monotonic());
            self.clock.sleep_until(next).await;
        }
    }

    /// Makes every decision use this issuer from now on.
    fn adopt(&self, issuer: &str) {
        let before = self.settings.load_full();
        if before.cluster.issuer == issuer {
            return;
        }
        let refusal = issuer_url::refusal(issuer).filter(|_| !self.watch.allow_private);
        tracing::warn!(issuer, before = before.cluster.issuer, refusal, "the cluster has a new issuer");
        self.settings.store(Arc::new(Settings {
            cluster: Cluster { issuer: issuer.to_owned(), ..before.cluster.clone() },
            issuer_refusal: refusal,
            ..Settings::clone(&before)
        }));
        let keys = self.cache.read().keys();
        for key in keys {
            self.queue.add(key, Source::Cluster);
        }
    }
}
