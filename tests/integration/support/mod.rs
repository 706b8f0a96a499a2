//! Fixtures that the tests share: one control plane, one Azure, one controller, one webhook.

mod audit;
mod chosen_cluster;
pub mod clock;
pub mod compatible;
pub mod control_plane;
pub mod ensign;
pub mod holding;
pub mod install;
pub mod objects;
pub mod pods;
pub mod policies;
pub mod process;
pub mod replica;
pub mod webhook;
