//! What is for a whole cluster, so that these tests have one of their own, and one of them at a time: admission policies,
//! whose refusals tests of the webhook would hear, and the webhook's registration, which follows everybody's grants. What is
//! about the outcome for pods alone has a second cluster, where a controller has the API server inject all the time.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail like tests")]

use ensign_core::cel::Mode;

mod cel_cost;
mod copied_policies;
mod equivalence;
mod expressions;
mod killed_controllers;
mod load;
mod mode_switch;
#[path = "../outcomes/mod.rs"]
mod outcomes;
mod policy_namespace;
mod registration;

/// Whether the webhook or policies inject the pods of `tests/outcomes`.
const INJECTION: Mode = Mode::Policy;
