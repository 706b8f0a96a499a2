//! Every decision, as a pure function: no I/O, no clock (now is an argument), no client of Kubernetes or Azure.
//!
//! [`assess`] is the centre: it turns a snapshot of the cluster and what Azure returned into a plan and into status. The
//! other neighbourhoods decide about one subject each. What this crate can reach is what its manifest lists.

pub mod acceptance;
pub mod admission;
pub mod assess;
pub mod azure_failures;
pub mod cel;
pub mod commands;
pub mod credentials;
pub mod events;
pub mod failure;
pub mod pods;
pub mod provisioning;
pub mod roles;
pub mod scheduling;
pub mod webhook_configuration;
