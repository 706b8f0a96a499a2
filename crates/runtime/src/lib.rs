//! What every long-running subcommand needs: telemetry without secrets, metrics, TLS set-up, shutdown, health and time.

pub mod clock;
pub mod deserialize_guard;
pub mod error_chain;
pub mod health;
pub mod interner;
#[cfg(feature = "kubernetes")]
pub mod kube_pages;
pub mod latch;
pub mod metrics;
pub mod redact;
#[cfg(feature = "kubernetes")]
pub mod reflector;
pub mod server;
pub mod shutdown;
pub mod telemetry;
pub mod tls;
