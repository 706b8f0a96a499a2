//! Ensign gives Kubernetes workloads an Azure identity without a secret anywhere.
//!
//! `docs/architecture.md` has the map and the invariants; [`api`] the kinds, [`decide`] every decision as a pure
//! function, and the other modules the I/O around them.

pub mod api;
pub mod azure;
pub mod cli;
pub mod controller;
pub mod decide;
#[cfg(feature = "emulator")]
pub mod emulator;
pub mod mutants;
pub mod runtime;
pub mod webhook;
