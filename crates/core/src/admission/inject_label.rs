//! Which pods admission applies to, by their label.

use super::config::Config;
use super::pod::Pod;
use ensign_api::keys::INJECT_LABEL;

/// What the pod's label `ensign.dev/inject` requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InjectLabel {
    /// Inject the pod, or deny it.
    Required,
    /// Inject the pod if a binding matches.
    IfMatched,
    /// Leave the pod unchanged.
    OptOut,
}

impl InjectLabel {
    /// Reads the label; values other than `true` and `false` count as absent.
    pub fn of(pod: &Pod<'_>) -> Self {
        match pod.labels().and_then(|labels| labels.get(INJECT_LABEL)).map(String::as_str) {
            Some("true") => Self::Required,
            Some("false") => Self::OptOut,
            _ => Self::IfMatched,
        }
    }
}

/// Whether no binding applies to the pod: it opted out, its namespace is excluded, or it mirrors a static pod.
pub fn is_exempt(pod: &Pod<'_>, namespace: &str, config: &Config) -> bool {
    config.excluded.contains(namespace)
        || InjectLabel::of(pod) == InjectLabel::OptOut
        || pod.annotations().is_some_and(|annotations| annotations.mirror)
}
