//! What every long-running process needs: watches, a server, health, metrics, logs without secrets, TLS, shutdown, time.

pub mod clock;
pub mod deserialize_guard;
pub mod duration_arg;
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
