//! The controller: the only part with rights in Azure.
//!
//! ```text
//! informers ─► cache ─► work queue ─► reconcile ─► assess (pure) ─► writers
//!                             ▲           │
//!                             └─ requeue ─┘
//! ```
//!
//! A key is one identity in Azure: identities are reconciled in parallel, but each by one worker at a time. Other keys are
//! injection (`injection`) and gated and uninjected pods (`pods`). Only `writers` writes to Azure and to Kubernetes, through
//! `engine::write_gate`, which is open while this process leads; `engine::leader_election` writes the `Lease`.
//!
//! The rooms are stacked: each uses only those of its own floor and below. From the lowest: names and requests; `engine`;
//! `metrics`; `cache`; `writers`; `cluster`, `injection` and `pods`; `identity`; `commands` and `dispatch`; `lifecycle`.

mod cache;
mod cluster;
mod commands;
mod dispatch;
mod engine;
mod error;
mod identity;
mod injection;
mod kube_names;
mod kube_request;
mod lifecycle;
mod metrics;
mod pods;
mod status_fingerprint;
mod writers;

pub use cluster::discovery::{DiscoveryError, discover};
pub use cluster::issuer_watch::IssuerWatch;
pub use commands::check::{ClusterChecks, Installed, check_cluster};
pub use commands::exchange::{Selected, Way as ExchangeWay, check_exchanges};
pub use commands::orphans::{Found, OrphanSearch, current_cluster};
pub use commands::teardown::{Progress as TeardownStep, TeardownConfig, TeardownError, teardown};
pub use engine::failpoints::{Failpoints, Phase, Probe, SideEffect};
pub use engine::leader_election::LeaseConfig;
pub use injection::policies::InjectionTarget;
pub use injection::webhook_configuration::{CaInjection, WebhookTarget};
pub use injection::webhook_probe::WebhookProbe;
pub use injection::{InjectionError, choose_injection};
pub use lifecycle::{Config, ControllerError, run};
pub use metrics::ControllerMetrics;
pub use pods::ungate::PodSettings;
