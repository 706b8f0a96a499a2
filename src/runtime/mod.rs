//! What every long-running subcommand needs: telemetry without secrets, metrics, TLS set-up, shutdown, health and time.

pub mod clock;
pub mod guarded;
pub mod health;
pub mod metrics;
pub mod redact;
pub mod shared_text;
pub mod shutdown;
pub mod telemetry;
pub mod tls;
