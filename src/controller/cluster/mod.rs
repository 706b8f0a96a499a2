//! The cluster's identity: its ID and its service account issuer.

pub(crate) mod discovery;
pub(crate) mod issuer_watch;
