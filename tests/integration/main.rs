//! The one integration binary: one link, one control plane shared by every test.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail like tests")]

use ensign::decide::policy::Mode;

mod allowed_scopes;
mod api_validation;
mod architecture;
mod azure;
mod cluster_identity;
mod compatibility;
mod controller;
mod emulator;
mod generated_pods;
mod kubectl;
mod lease;
mod metrics;
#[path = "../outcomes/mod.rs"]
mod outcomes;
#[allow(dead_code, reason = "shared with other test programs, some of which use more of it")]
mod support;
mod tenancy;
mod webhook;
mod webhook_certificates;
mod webhook_limits;
mod webhook_process;
mod webhook_rollout;

/// Who injects the pods of the tests that are about outcomes.
const INJECTION: Mode = Mode::Webhook;
