//! Flags that say what clients of the webhook may take, and how it goes.

use std::time::Duration;

use ensign_webhook::server::limits::{DEFAULT_CONNECTIONS, DEFAULT_MEMORY_BYTES, DEFAULT_REQUESTS, RequestLimits};

const MIB: usize = 1024 * 1024;
/// One body of the largest size has to fit.
const MEMORY_MIB: std::ops::RangeInclusive<usize> = 4..=4_096;
/// An API server keeps 25 connections that rest.
const CONNECTIONS: std::ops::RangeInclusive<usize> = 50..=65_536;
const REQUESTS: std::ops::RangeInclusive<usize> = 1..=65_536;
const DRAIN_SECONDS: std::ops::RangeInclusive<u64> = 0..=300;

/// What clients may take. Each flag is also an environment variable.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct LimitArgs {
    /// Connections at a time; when they are used up, those go first that never sent a good request
    #[arg(long, env = "ENSIGN_MAX_CONNECTIONS", default_value_t = DEFAULT_CONNECTIONS, value_name = "N")]
    max_connections: usize,
    /// Requests at a time; others wait for a second and are then told to come again
    #[arg(long, env = "ENSIGN_MAX_REQUESTS", default_value_t = DEFAULT_REQUESTS, value_name = "N")]
    max_requests: usize,
    /// MiB of memory for the bodies of all requests together
    #[arg(long, env = "ENSIGN_REQUEST_MEMORY_MIB", default_value_t = DEFAULT_MEMORY_BYTES / MIB, value_name = "MIB")]
    request_memory_mib: usize,
    /// Seconds for which the webhook goes on serving after it was told to stop, while whoever sends requests learns that
    /// it is no longer ready
    #[arg(long, env = "ENSIGN_DRAIN_SECONDS", default_value_t = 5, value_name = "SECONDS")]
    drain_seconds: u64,
}

impl LimitArgs {
    /// What is wrong with the flags.
    pub(in crate::cli) fn problems(&self) -> Vec<String> {
        let sizes = [
            ("--max-connections", CONNECTIONS, self.max_connections),
            ("--max-requests", REQUESTS, self.max_requests),
            ("--request-memory-mib", MEMORY_MIB, self.request_memory_mib),
        ];
        let wrong = sizes.into_iter().filter(|(_, range, value)| !range.contains(value));
        let mut problems: Vec<String> =
            wrong.map(|(flag, range, _)| format!("{flag} must be {} to {}", range.start(), range.end())).collect();
        if !DRAIN_SECONDS.contains(&self.drain_seconds) {
            problems.push(format!("--drain-seconds must be {} to {}", DRAIN_SECONDS.start(), DRAIN_SECONDS.end()));
        }
        problems
    }

    /// What clients may take.
    pub(in crate::cli) fn limits(&self) -> RequestLimits {
        RequestLimits {
            connections: self.max_connections,
            requests: self.max_requests,
            memory_bytes: self.request_memory_mib.saturating_mul(MIB),
            ..RequestLimits::default()
        }
    }

    /// How long it goes on serving.
    pub(in crate::cli) fn lame_duck(&self) -> Duration {
        Duration::from_secs(self.drain_seconds)
    }
}
