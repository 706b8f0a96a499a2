//! Federated identity credentials: which to write and delete under an identity, their names, and their owners.

pub mod issuer_url;
pub mod issuers;
pub mod names;
pub mod ownership;
pub mod plan;
pub mod propagation;
mod rollover;
mod write;
