//! What a pod of azure-workload-identity requests by its own metadata.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

use super::config::Config;
use super::inject_label::is_exempt;
use super::pod::Pod;
use super::upstream_keys::{USE_LABEL, VOLUME_PREFIX};
use crate::credentials::names::hex;

/// Hexadecimal digits of the hash in a volume's name; with the prefix, the name has the maximum length.
const VOLUME_HASH_DIGITS: usize = 30;

/// Whether the pod is injected from the annotations of its service account.
pub fn asks(pod: &Pod<'_>, namespace: &str, config: &Config) -> bool {
    config.compatibility.is_some() && is_labelled(pod) && !is_exempt(pod, namespace, config)
}

fn is_labelled(pod: &Pod<'_>) -> bool {
    pod.labels().and_then(|labels| labels.get(USE_LABEL)).is_some_and(|value| value == "true")
}

/// What a pod requests apart from its identity.
pub(super) struct PodOptions<'a> {
    /// Name for its token volume.
    pub(super) volume: Cow<'a, str>,
    skipped: Vec<&'a str>,
}

impl<'a> PodOptions<'a> {
    /// The options of a pod. `default_volume` is the volume's name for pods without the upstream's label.
    pub(super) fn of(pod: &'a Pod<'_>, default_volume: &'a str, config: &Config) -> Self {
        if config.compatibility.is_none() || !is_labelled(pod) {
            return Self { volume: Cow::Borrowed(default_volume), skipped: Vec::new() };
        }
        let skipped = pod.annotations().and_then(|annotations| annotations.skip_containers.as_deref());
        Self {
            volume: Cow::Owned(volume_name(pod)),
            skipped: skipped.unwrap_or_default().split(';').map(str::trim).collect(),
        }
    }

    /// Whether the container is not to be injected.
    pub(super) fn skips(&self, container: &str) -> bool {
        self.skipped.contains(&container)
    }
}

/// The volume's name: opaque, but the same wherever it is computed.
fn volume_name(pod: &Pod<'_>) -> String {
    let mut hash = Sha256::new();
    hash.update(pod.name());
    if pod.own_name().is_none() {
        hash.update(" (prefix)");
    }
    format!("{VOLUME_PREFIX}{}", hex(&hash.finalize(), VOLUME_HASH_DIGITS))
}
