//! What every long-running subcommand needs: telemetry, metrics, TLS set-up, shutdown, health and time.

pub mod clock;
pub mod health;
pub mod metrics;
pub mod shutdown;
pub mod telemetry;
pub mod tls;
