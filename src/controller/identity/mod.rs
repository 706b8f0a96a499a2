//! The reconcile of one identity in Azure.

pub(crate) mod outcome;
pub(crate) mod preconditions;
pub(crate) mod provisioning;
pub(crate) mod reconcile;
pub(crate) mod roles;
pub(crate) mod service_accounts;
