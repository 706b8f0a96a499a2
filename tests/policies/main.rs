//! Injection by admission policies. They are for every labelled pod of a cluster, so that these tests have one of their own:
//! tests of the webhook would hear the policies' refusals, and these the webhook's.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail like tests")]

mod cost;
mod equivalence;
mod expressions;
mod scene;
#[allow(dead_code, reason = "shared with the integration tests, which use more of it")]
#[path = "../integration/support/mod.rs"]
mod support;
mod switch;
