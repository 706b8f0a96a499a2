//! The integration tests: one program, so that all tests share one control plane.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail like tests")]

use ensign_core::cel::Mode;

mod allowed_scopes;
mod api_provision;
mod api_validation;
mod architecture;
mod azure;
mod classes;
mod cluster_identity;
mod command_line;
mod compatibility;
mod controller;
mod docs_yaml;
mod emulator;
mod generated_pods;
mod kubectl;
mod lease;
mod metrics;
#[path = "../outcomes/mod.rs"]
mod outcomes;
mod provision;
mod role_assignments;
mod teardown;
mod tenancy;
mod webhook;
mod webhook_certificates;
mod webhook_limits;
mod webhook_process;
mod webhook_rollout;

/// Whether the webhook or policies inject the pods of `tests/outcomes`.
const INJECTION: Mode = Mode::Webhook;
