//! The control plane of the tests.

#[allow(dead_code, reason = "not every program uses every part of it")]
#[path = "../../tests/integration/support/control_plane.rs"]
mod of_tests;

use super::audit_log as audit;
use super::chosen_cluster;

pub use of_tests::ControlPlane;
