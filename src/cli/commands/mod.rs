//! One file for each subcommand: its flags, and what it runs.

pub(super) mod azure_role;
pub(super) mod check;
pub(super) mod completion;
pub(super) mod controller;
pub(super) mod crds;
pub(super) mod orphans;
pub(super) mod policies;
pub(super) mod teardown;
pub(super) mod version;
pub(super) mod webhook;
