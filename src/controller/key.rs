//! What a reconcile is about.

use std::fmt;

use crate::api::ArmId;

/// The key of a reconcile.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Key {
    /// An identity in Azure, with every `ManagedIdentity` that names it and every binding to those.
    Identity(ArmId),
    /// A name under which there is no usable `ManagedIdentity`, with the bindings that ask for it.
    Name(String),
    /// The registration of the admission webhook.
    Webhook,
}

/// On whose account a key is looked at; sources take turns.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    /// The cluster's: cluster-scoped objects, a resync, a retry.
    #[default]
    Cluster,
    /// A namespace, in which something changed.
    Namespace(String),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity(id) => write!(f, "{id}"),
            Self::Name(name) => write!(f, "ManagedIdentity {name}"),
            Self::Webhook => f.write_str("webhook registration"),
        }
    }
}
