//! What admission is configured with.

use std::collections::BTreeSet;

/// What every injected pod of this install shares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Entra authority for `AZURE_AUTHORITY_HOST`, with its trailing slash.
    pub authority_host: String,
    /// Audience of the projected token.
    pub audience: String,
    /// Namespaces whose pods are never changed.
    pub excluded: BTreeSet<String>,
    /// Set if pods of azure-workload-identity are injected too.
    pub compatibility: Option<Compatibility>,
    /// Whether pods are gated until their identity is ready.
    pub gate_pods: bool,
}

/// Settings of compatibility with azure-workload-identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compatibility {
    /// Entra tenant of service accounts that set none.
    pub tenant_id: String,
}
