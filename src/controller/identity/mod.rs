//! The reconcile of one identity in Azure: [`reconcile`] has the steps, [`pass`] what they share, the other files one subject
//! each.

pub(crate) mod context;
mod credentials;
mod kubernetes;
mod observe;
mod outcome;
mod pass;
pub(crate) mod preconditions;
mod provisioning;
pub(crate) mod reconcile;
pub(crate) mod role_definitions;
mod roles;
pub(crate) mod service_accounts;
