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
pub mod chosen_cluster;
pub mod clock;
pub mod compatible;
pub mod control_plane;
pub mod dedicated;
pub mod ensign;
pub mod holding;
pub mod install;
pub mod objects;
pub mod paths;
pub mod pods;
pub mod policies;
pub mod process;
pub mod replica;
mod team_pods;
pub mod webhook;
