//! Pods after admission: gates are removed, and pods that were not injected are found.

pub(crate) mod ungate;
pub(crate) mod uninjected;
