//! The emulator over HTTP: reading requests, fetching issuers' keys, signing, logging and injecting faults.

mod arm;
mod control;
mod discovery;
mod exchange;
pub mod faults;
mod front;
mod graph;
mod issuer;
pub mod log;
mod metadata;
mod protected;
mod shared;
mod signing;
mod token;

pub(super) use front::router;
pub(super) use issuer::{InvalidCertificate, Issuers};
pub(super) use shared::{Limits, Shared};
pub(super) use signing::{Signer, SigningFailed};
