//! What runs reconciles, whatever they are about: the queue and its keys, requeues, leader election, the gate that every
//! write passes, failpoints for tests.

pub(crate) mod failpoints;
pub(crate) mod key;
pub(crate) mod leader_election;
pub(crate) mod requeue;
pub(crate) mod work_queue;
pub(crate) mod write_gate;
