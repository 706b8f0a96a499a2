//! Errors that end a reconcile before its last step.

use crate::engine::write_gate::Refused;
use crate::kube_request::KubeError;

/// A step of a reconcile, or a write, failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReconcileError {
    /// Nothing was sent: an object that the write depends on is not as the cache has it.
    #[error("{act}: the cache is behind")]
    CacheBehind {
        /// What was about to be done.
        act: String,
    },
    /// Nothing was sent, or the response was not awaited: this process does not lead any more, or is shutting down.
    #[error("{act}: not leading")]
    NotLeading {
        /// What was about to be done.
        act: String,
        #[source]
        source: Refused,
    },
    /// The object to write can't be serialized.
    #[error("{act}: the object can't be serialized")]
    Serialize {
        /// What was about to be done.
        act: String,
        #[source]
        source: serde_json::Error,
    },
    /// A request to the API server failed.
    #[error(transparent)]
    Kubernetes(#[from] KubeError),
}

impl ReconcileError {
    /// Nothing was sent, because the cache is behind.
    pub(crate) fn behind(act: impl Into<String>) -> Self {
        Self::CacheBehind { act: act.into() }
    }

    /// The request to the API server that failed, if that is what happened.
    pub(crate) fn kubernetes(&self) -> Option<&KubeError> {
        match self {
            Self::Kubernetes(error) => Some(error),
            _ => None,
        }
    }

    /// Whether the object, or its kind, does not exist.
    pub(crate) fn is_not_found(&self) -> bool {
        self.kubernetes().is_some_and(KubeError::is_not_found)
    }

    /// Whether reading again helps: the cache is behind, or the object changed or was deleted since.
    pub(crate) fn is_outdated(&self) -> bool {
        matches!(self, Self::CacheBehind { .. }) || self.kubernetes().is_some_and(KubeError::is_outdated)
    }

    /// The API server's message if it rejected the object, or did not authorize the request.
    pub(crate) fn rejection(&self) -> Option<&str> {
        self.kubernetes().and_then(KubeError::rejection)
    }
}
