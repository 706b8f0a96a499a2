//! The command line of Ensign. `docs/architecture.md` has the map of the workspace and its invariants.

pub mod cli;
