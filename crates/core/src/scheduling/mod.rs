//! When to act, and who may: leader election, rate limits, backoff and drift checks. Nothing here knows of an identity.

pub mod backoff;
pub mod ca_rotation;
pub mod leader_election;
pub mod rate_limiter;
pub mod resource_versions;
pub mod resync;
pub mod token_bucket;
