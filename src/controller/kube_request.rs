//! Requests to the API server: a deadline for each, and an error that names what was being done.

use std::future::Future;
use std::time::Duration;

use ensign_runtime::clock::SharedClock;
use k8s_openapi::jiff::{RoundMode, Timestamp, TimestampRound, Unit};
use kube::core::Status;

/// Deadline of one request to the API server.
pub(crate) const DEADLINE: Duration = Duration::from_secs(15);

/// The API server's message when a `test` of a JSON patch fails or a path does not exist: always this text, with neither an
/// object nor a cause (`applyJSPatch` in k8s.io/apiserver). A rejected object has both.
const PATCH_DOES_NOT_APPLY: &str = "the server rejected our request due to an error in our request";

/// A request to the API server failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KubeError {
    /// The API server rejected it, or it could not be sent.
    #[error("{act} failed")]
    Request {
        /// What was being done, and to which object.
        act: String,
        #[source]
        source: Box<kube::Error>,
    },
    /// There was no response in time.
    #[error("{act}: no response within {} s", DEADLINE.as_secs())]
    Deadline {
        /// What was being done, and to which object.
        act: String,
    },
}

impl KubeError {
    /// The API server's response, if there was one.
    fn status(&self) -> Option<&Status> {
        match self {
            Self::Request { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            Self::Deadline { .. } => None,
        }
    }

    /// Whether the API server responded with this HTTP status.
    pub(crate) fn has_code(&self, code: u16) -> bool {
        self.status().is_some_and(|status| status.code == code)
    }

    /// Whether the object, or its kind, does not exist.
    pub(crate) fn is_not_found(&self) -> bool {
        self.has_code(404)
    }

    /// The API server's message about a field that another field manager owns.
    pub(crate) fn field_conflict(&self) -> Option<String> {
        let status = self.status().filter(|status| status.code == 409 && status.message.contains("conflict"))?;
        Some(status.message.clone())
    }

    /// The API server's message if it rejected the object, or did not authorize the request.
    pub(crate) fn rejection(&self) -> Option<&str> {
        let status = self.status().filter(|status| matches!(status.code, 403 | 422))?;
        Some(&status.message)
    }

    /// Whether the object changed or was deleted since it was read, so that reading it again helps. A rejected object is not
    /// that: it would be rejected again.
    pub(crate) fn is_outdated(&self) -> bool {
        self.status().is_some_and(|status| match status.code {
            404 | 409 => true,
            422 => status.message == PATCH_DOES_NOT_APPLY,
            _ => false,
        })
    }
}

/// Sends a request with a deadline; `act` names it in the error.
pub(crate) async fn within_deadline<T>(
    act: impl FnOnce() -> String,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, KubeError> {
    match tokio::time::timeout(DEADLINE, request).await {
        Err(_) => Err(KubeError::Deadline { act: act() }),
        Ok(Err(source)) => Err(KubeError::Request { act: act(), source: Box::new(source) }),
        Ok(Ok(value)) => Ok(value),
    }
}

/// The current time in whole seconds, as Kubernetes stores it.
pub(crate) fn now(clock: &SharedClock) -> Timestamp {
    let now = clock.now();
    now.round(TimestampRound::new().smallest(Unit::Second).mode(RoundMode::Trunc)).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: u16, message: &str) -> KubeError {
        let status = Status::failure(message, "Invalid").with_code(code);
        KubeError::Request { act: "writing".to_owned(), source: Box::new(kube::Error::Api(Box::new(status))) }
    }

    #[test]
    fn a_patch_that_does_not_apply_any_more_is_outdated_and_a_rejected_object_is_not() {
        assert!(error(422, PATCH_DOES_NOT_APPLY).is_outdated());
        let rejected = "ManagedIdentity.ensign.dev \"orders\" is invalid: status.bindings: Invalid value: -1";
        assert!(!error(422, rejected).is_outdated());
        assert_eq!(error(422, rejected).rejection(), Some(rejected));
        assert!(error(409, "…").is_outdated() && error(404, "…").is_outdated() && !error(500, "…").is_outdated());
    }
}
