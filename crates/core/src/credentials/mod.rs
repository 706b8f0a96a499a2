//! Federated identity credentials: what is written and deleted under an identity, under which names, and whose they are.

pub mod issuer_url;
pub mod issuers;
pub mod names;
pub mod ownership;
pub mod plan;
pub mod propagation;
mod rollover;
