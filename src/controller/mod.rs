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

mod azure_writes;
mod cache;
mod census;
mod check;
mod classes;
mod discover;
mod effects;
mod freshness;
mod gather;
mod held;
mod holding;
mod injection;
mod issuer_watch;
mod key;
mod kube_writes;
mod lease;
mod metrics;
mod missed;
mod orphans;
mod outcome;
mod permissions;
mod policies;
mod provision;
mod queue;
mod reconcile;
mod registration;
mod run;
mod service_accounts;
mod takeover;
mod teardown;
mod teardown_identity;
mod unseen;
mod upstream_webhook;
mod waits;
mod watches;
mod webhook_probe;
mod write_gate;

pub use check::{Installed, Seen, look};
pub use discover::{DiscoveryError, discover};
pub use effects::{Effect, Effects, Moment, Probe};
pub use holding::Pods;
pub use injection::{InjectionError, choose_injection};
pub use issuer_watch::IssuerWatch;
pub use lease::LeaseConfig;
pub use metrics::ControllerMetrics;
pub use orphans::{Found, OrphanSearch, present};
pub use policies::InjectionTarget;
pub use registration::{CaInjection, WebhookTarget};
pub use run::{Config, ControllerError, run};
pub use teardown::{Step as TeardownStep, TeardownConfig, TeardownError, teardown};
pub use webhook_probe::WebhookProbe;
