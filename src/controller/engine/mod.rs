//! What runs reconciles, whatever they are about: the work queue and its keys, requeue delays, leader election, the gate that
//! every write passes, and failpoints for tests.

pub(crate) mod failpoints;
pub(crate) mod key;
pub(crate) mod leader_election;
pub(crate) mod outcome;
pub(crate) mod requeue;
pub(crate) mod work_queue;
pub(crate) mod write_gate;
