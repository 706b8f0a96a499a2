//! Fixtures that the tests share: one control plane, one Azure, one controller, one webhook.

mod audit;
mod chosen_cluster;
pub mod clock;
pub mod compatible;
pub mod control_plane;
pub mod dedicated;
pub mod ensign;
pub mod holding;
pub mod install;
pub mod objects;
pub mod replica;
pub mod webhook;
