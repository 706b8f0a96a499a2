//! What every long-running subcommand needs: telemetry without secrets, metrics, TLS set-up, shutdown, health and time.

pub mod clock;
pub mod deserialize_guard;
pub mod duration_arg;
pub mod error_chain;
pub mod health;
pub mod interner;
pub mod metrics;
pub mod redact;
pub mod shutdown;
pub mod telemetry;
pub mod tls;
