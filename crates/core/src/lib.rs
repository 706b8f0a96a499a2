//! Every decision, as a pure function: no I/O, no clock (now is an argument), no client of Kubernetes or Azure.
//!
//! [`assess`] is the centre: it turns a snapshot of the cluster and Azure's responses into a plan and a status. Each of
//! the other modules decides one subject. The manifest lists no runtime and no client, so nothing here can do I/O.

pub mod acceptance;
pub mod admission;
pub mod api_versions;
pub mod assess;
pub mod azure_failures;
pub mod cel;
pub mod commands;
pub mod credentials;
pub mod events;
pub mod failure;
pub mod own_writes;
pub mod pods;
pub mod provisioning;
pub mod roles;
pub mod scheduling;
pub mod webhook_configuration;
