//! The two writers: nothing else in this crate writes to Azure or to Kubernetes, except for the `Lease`.

pub(crate) mod azure;
pub(crate) mod azure_plan;
pub(crate) mod injection;
mod json_patch;
pub(crate) mod kubernetes;
pub(crate) mod own_writes;
