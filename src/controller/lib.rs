//! The controller: the only part with rights in Azure.
//!
//! ```text
//! watches ─► cache ─► queue ─► reconcile ─► assess (pure) ─► azure_writes, kube_writes
//!               │                  ▲                            │
//!               └── key per identity in Azure ◄── requeue ──────┘
//! ```
//!
//! Beside it, `holding` lets held pods go and `missed` finds those that were never injected.
//!
//! One identity in Azure is one key: identities go in parallel, and under each one thing happens at a time. Only
//! `azure_writes` writes to Azure and only `kube_writes` to Kubernetes, both through `write_gate`, which is open while
//! this process leads; `lease` writes the `Lease` that says who does.

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
pub use commands::check::{Installed, Seen, look};
pub use commands::orphans::{Found, OrphanSearch, present};
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
