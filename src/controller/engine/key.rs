//! What a reconcile is about.

use std::fmt;
use std::sync::Arc;

use crate::kube_names::{BindingName, PodName};
use ensign_api::ArmId;

/// The key of a reconcile. Small, because the queue has one for each binding.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Key {
    /// An identity in Azure, with every `ManagedIdentity` that names it and every binding to those.
    Identity(Arc<ArmId>),
    /// A name under which there is no usable `ManagedIdentity`, with the bindings that reference it.
    Name(Arc<str>),
    /// The configuration of the admission webhook, or the admission policies.
    Injection,
    /// A pod that is gated, or may be.
    Pod(Arc<PodName>),
    /// Gated pods that have lost the label by which they are watched.
    UnlabelledPods,
    /// The pods of a binding that were admitted before they could be injected.
    UninjectedPods(BindingName),
}

/// On whose account a key is queued; sources take turns.
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
            Self::Injection => f.write_str("webhook configuration"),
            Self::Pod(name) => write!(f, "Pod {name}"),
            Self::UnlabelledPods => f.write_str("gated pods without the label"),
            Self::UninjectedPods(name) => write!(f, "pods that ManagedIdentityBinding {name} did not inject"),
        }
    }
}
