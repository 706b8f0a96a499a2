//! What a reconcile is about.

use std::fmt;
use std::sync::Arc;

use crate::cache::BindingName;
use crate::cache::gated_pods::PodName;
use ensign_api::ArmId;

/// The key of a reconcile. Small, because the queue has one for each binding.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Key {
    /// An identity in Azure, with every `ManagedIdentity` that names it and every binding to those.
    Identity(Arc<ArmId>),
    /// A name under which there is no usable `ManagedIdentity`, with the bindings that ask for it.
    Name(Arc<str>),
    /// The registration of the admission webhook.
    Webhook,
    /// A pod that is held, or may be.
    Pod(Arc<PodName>),
    /// Pods that are held, but have lost the label by which they are watched.
    Unlabelled,
    /// The pods of a binding that were admitted before they could be injected.
    Missed(BindingName),
}

/// On whose account a key is looked at; sources take turns.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
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
            Self::Pod(name) => write!(f, "Pod {}/{}", name.0, name.1),
            Self::Unlabelled => f.write_str("held pods without the label"),
            Self::Missed(name) => write!(f, "missed pods of ManagedIdentityBinding {}/{}", name.0, name.1),
        }
    }
}
