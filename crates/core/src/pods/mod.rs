//! Pods after admission: when a scheduling gate is removed, and which pods were not injected.

pub mod gate;
pub mod uninjected;
