//! Flags of the webhook's limits on its clients, and of its shutdown.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::cli::usage_errors::Problems;
use ensign_runtime::duration_arg::DurationArg;
use ensign_webhook::server::limits::{DEFAULT_CONNECTIONS, DEFAULT_MEMORY_BYTES, DEFAULT_REQUESTS, RequestLimits};

const MIB: usize = 1024 * 1024;
/// At least one request body of the maximum size has to fit.
const MEMORY_MIB: RangeInclusive<usize> = 4..=4_096;
/// Each API server keeps 25 idle connections.
const CONNECTIONS: RangeInclusive<usize> = 50..=65_536;
const REQUESTS: RangeInclusive<usize> = 1..=65_536;
const DRAIN_DURATION: RangeInclusive<DurationArg> = DurationArg::from_secs(0)..=DurationArg::from_secs(300);

/// Limits on clients. Each flag is also an environment variable.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct LimitArgs {
    /// Maximum number of concurrent connections; at the limit, those without a valid request so far are closed first
    #[arg(long, env = "ENSIGN_MAX_CONNECTIONS", default_value_t = DEFAULT_CONNECTIONS, value_name = "N")]
    max_connections: usize,
    /// Maximum number of concurrent requests; others wait for a second, and then get 503 with Retry-After
    #[arg(long, env = "ENSIGN_MAX_REQUESTS", default_value_t = DEFAULT_REQUESTS, value_name = "N")]
    max_requests: usize,
    /// MiB of memory for the bodies of all concurrent requests
    #[arg(long, env = "ENSIGN_REQUEST_MEMORY_MIB", default_value_t = DEFAULT_MEMORY_BYTES / MIB, value_name = "MIB")]
    request_memory_mib: usize,
    /// How long the webhook keeps serving after SIGTERM, 0s to 5m, so that clients notice that it is not ready any more
    #[arg(long, env = "ENSIGN_DRAIN_DURATION", default_value_t = DurationArg::from_secs(5), value_name = "DURATION")]
    drain_duration: DurationArg,
}

impl LimitArgs {
    /// Validates the flags.
    pub(in crate::cli) fn check(&self, problems: &mut Problems) {
        problems.within("--max-connections", &self.max_connections, &CONNECTIONS);
        problems.within("--max-requests", &self.max_requests, &REQUESTS);
        problems.within("--request-memory-mib", &self.request_memory_mib, &MEMORY_MIB);
        problems.within("--drain-duration", &self.drain_duration, &DRAIN_DURATION);
    }

    /// The limits on clients.
    pub(in crate::cli) fn limits(&self) -> RequestLimits {
        RequestLimits {
            connections: self.max_connections,
            requests: self.max_requests,
            memory_bytes: self.request_memory_mib.saturating_mul(MIB),
            ..RequestLimits::default()
        }
    }

    /// How long the webhook keeps serving after SIGTERM.
    pub(in crate::cli) fn drain_duration(&self) -> Duration {
        self.drain_duration.get()
    }
}
