//! Tests of what affects a whole cluster, one at a time on their own control plane: admission policies,
//! whose denials would affect tests of the webhook, and the webhook configuration, which depends on all grants. The tests in
//! `tests/outcomes` have a second control plane, where a controller keeps the policies filled in.
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
