//! Fixtures that tests and benchmarks share: one control plane, one Azure, one controller, one webhook.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::missing_panics_doc,
    missing_docs,
    reason = "helpers of tests fail like tests"
)]

pub mod audit;
pub mod azure_workload_identity;
pub mod chosen_cluster;
pub mod clock;
pub mod control_plane;
pub mod controller_process;
pub mod dedicated;
pub mod ensign;
pub mod gating;
pub mod objects;
pub mod paths;
pub mod pods;
pub mod policies;
mod team_pods;
pub mod testbed;
pub mod webhook;
pub mod webhook_process;
