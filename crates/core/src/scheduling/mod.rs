//! When to act, and which replica may: leader election, rate limits, backoff and drift checks. Nothing here depends on
//! what an identity is.

pub mod backoff;
pub mod ca_rotation;
pub mod leader_election;
pub mod monotonic;
pub mod rate_limiter;
mod rate_limits;
pub mod resource_versions;
pub mod resync;
mod throttles;
pub mod token_bucket;
