//! What the tests and benchmarks of Ensign share. Nothing that is released depends on this crate.
//!
//! | Module | Contains |
//! |---|---|
//! | [`control_plane`], [`chosen_cluster`] | a real control plane for each test program, or the cluster that the caller chose |
//! | [`azure`] | the Azure emulator: identities, credentials, a token for ARM |
//! | [`ensign`], [`webhook`], [`policies`] | one emulator, controller and webhook (or admission policies) for all tests of a program |
//! | [`testbed`], [`replica`], [`gating`] | a control plane without a controller, for tests that start, pause and stop their own; pods that stay gated while a simulated clock stands still |
//! | [`azure_workload_identity`] | a webhook in compatibility mode |
//! | [`controller_process`], [`webhook_process`], [`service_account`] | the real program as processes, with the RBAC rules of an install, and a load balancer |
//! | [`objects`], [`pods`], [`dedicated`] | builders of objects, `kubectl`, and waiting for a condition; [`objects::Team`] is a namespace with an identity |
//! | [`clock`] | a simulated clock |
//! | [`audit`], [`processor_time`] | what the API server was asked, and the processor time that processes used |
//! | [`paths`] | the programs under test, the repository, and a folder for the files of each test program |
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::missing_panics_doc,
    missing_docs,
    reason = "helpers of tests fail like tests"
)]

pub mod audit;
pub mod azure;
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
pub mod processor_time;
pub mod replica;
pub mod service_account;
mod team_pods;
pub mod testbed;
pub mod webhook;
pub mod webhook_process;
