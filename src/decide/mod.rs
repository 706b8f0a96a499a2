//! Every decision, as a pure function: no I/O, no clock (now is an argument), no client of Kubernetes or Azure.

pub mod acceptance;
pub mod admit;
pub mod assess;
pub mod authority;
pub mod backoff;
pub mod conflicts;
pub mod credentials;
pub mod failure;
pub mod grants;
pub mod identities;
pub mod issuer;
pub mod issuers;
pub mod lease;
pub mod names;
pub mod notes;
mod overlap;
pub mod ownership;
pub mod pace;
pub mod policy;
pub mod rate;
pub mod registration;
pub mod resync;
pub mod rivals;
pub mod scopes;
pub mod status;
