//! The one integration binary: one link, one control plane shared by every test.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail like tests")]

mod allowed_scopes;
mod api_provision;
mod api_validation;
mod architecture;
mod azure;
mod classes;
mod cluster_identity;
mod compatibility;
mod controller;
mod docs_yaml;
mod emulator;
mod generated_pods;
mod holding;
mod kubectl;
mod lease;
mod metrics;
mod missed;
mod provision;
#[allow(dead_code, reason = "shared with other test programs, some of which use more of it")]
mod support;
mod tenancy;
mod webhook;
mod webhook_certificates;
mod webhook_fresh;
mod webhook_limits;
mod webhook_process;
mod webhook_rollout;
