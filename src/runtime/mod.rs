//! What every long-running subcommand needs: telemetry, TLS set-up, shutdown, health and time.

pub mod clock;
pub mod health;
pub mod shutdown;
pub mod telemetry;
pub mod tls;
