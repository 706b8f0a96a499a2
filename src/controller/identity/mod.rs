//! The reconcile of one identity in Azure: [`reconcile`] lists the steps, [`pass`] is their state, [`context`] what they work
//! with; each other file covers one subject.

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
