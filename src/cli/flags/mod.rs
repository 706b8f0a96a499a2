//! Groups of flags, most of which several subcommands share.

pub(super) mod azure;
pub(super) mod azure_limits;
pub(super) mod cluster;
pub(super) mod compatibility;
pub(super) mod injection;
pub(super) mod leader_election;
pub(super) mod pod_gates;
pub(super) mod role_assignments;
pub(super) mod webhook_certificates;
pub(super) mod webhook_limits;
pub(super) mod webhook_registration;
