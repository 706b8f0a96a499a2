//! Looks at the API server's discovery document now and then: a cluster can change its issuer.

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

/// How often in a row a new issuer has to be seen before it is believed.
const LOOKS: u32 = 3;

/// How the API server's issuer is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IssuerWatch {
    /// How often it is looked at.
    pub every: Duration,
    /// Accept an issuer that Entra cannot reach; for development only.
    pub allow_private: bool,
}

/// Keeps the settings in step with the cluster's issuer.
pub(crate) struct IssuerKeeper {
    pub(crate) client: Client,
    pub(crate) watch: IssuerWatch,
    pub(crate) settings: Arc<ArcSwap<Settings>>,
    pub(crate) cache: Arc<Cache>,
    pub(crate) queue: Arc<WorkQueue<Key, Source>>,
    pub(crate) clock: SharedClock,
}

impl IssuerKeeper {
    /// Looks until the end of time; `settled` is told once it is known which issuer the cluster has. The caches have to
    /// be full.
    pub(crate) async fn run(self, settled: watch::Sender<bool>) {
        let found = self.settings.load().cluster.issuer.clone();
        let recorded = self.cache.read().recorded_issuers();
        let doubted = doubted(&recorded, &found);
        if let Some(recorded) = doubted {
            tracing::warn!(issuer = found, recorded, "the cluster may have a new issuer; waiting until that is sure");
        }
        settled.send_replace(doubted.is_none());
        let stability = Stability { looks: LOOKS, time: self.watch.every * (LOOKS - 1) };
        let mut sightings = Sightings::new(doubted.unwrap_or(&found), stability);
        let origin = self.clock.monotonic();
        let mut next = origin;
        loop {
            match read_issuer(&self.client).await {
                Ok(issuer) => {
                    let now = self.clock.monotonic().saturating_duration_since(origin);
                    let look = sightings.saw(&issuer, now);
                    if look == IssuerChange::Doubtful {
                        tracing::warn!(
                            issuer,
                            believed = sightings.believed(),
                            "the API server names another issuer; it is believed once it is seen stably"
                        );
                    } else {
                        self.believe(&issuer);
                        settled.send_replace(true);
                    }
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "the issuer can't be looked at");
                }
            }
            // A pause of the clock is not caught up with: looks in quick succession would say little.
            next = (next + self.watch.every).max(self.clock.monotonic());
            self.clock.sleep_until(next).await;
        }
    }

    /// Makes the issuer the one that everything is decided with.
    fn believe(&self, issuer: &str) {
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
