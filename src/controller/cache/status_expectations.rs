//! Statuses that were written and that the watch has not delivered yet.
//!
//! While the watch is behind, a new decision can equal the status in the cache, but not the one that was written since.
//! Without these expectations it would not be written, and the status would stay wrong until the next drift check.

use std::collections::HashMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::status_fingerprint::StatusFingerprint;

/// Fingerprints of statuses, by the UIDs of their objects. An entry is removed as soon as the watch delivers its object.
#[derive(Default)]
pub(crate) struct StatusExpectations(HashMap<String, StatusFingerprint>);

impl StatusExpectations {
    /// The status that was written to this object, if the watch has not delivered the object since.
    pub(crate) fn get(&self, object: &ObjectMeta) -> Option<StatusFingerprint> {
        self.0.get(object.uid.as_ref()?).copied()
    }

    /// Records that a status was written to the version of the object that was decided about. If the cache has another
    /// version by now, the watch was faster, and nothing is expected.
    pub(crate) fn written(&mut self, object: &ObjectMeta, cached: Option<&ObjectMeta>, status: StatusFingerprint) {
        let as_decided =
            |cached: &&ObjectMeta| (&cached.uid, &cached.resource_version) == (&object.uid, &object.resource_version);
        if let (Some(uid), Some(_)) = (&object.uid, cached.filter(as_decided)) {
            self.0.insert(uid.clone(), status);
        }
    }

    /// Records that the watch has delivered the object.
    pub(crate) fn seen(&mut self, object: &ObjectMeta) {
        if let Some(uid) = &object.uid {
            self.0.remove(uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(version: &str) -> ObjectMeta {
        ObjectMeta { uid: Some("one".to_owned()), resource_version: Some(version.to_owned()), ..ObjectMeta::default() }
    }

    #[test]
    fn a_written_status_is_expected_until_the_watch_delivers_the_object() {
        let (mut expectations, status) =
            (StatusExpectations::default(), StatusFingerprint::of(&json!({"bindings": 2})));
        expectations.written(&object("7"), Some(&object("7")), status);
        assert_eq!(expectations.get(&object("7")), Some(status));
        assert_ne!(status, StatusFingerprint::of(&json!({"bindings": 1})));
        expectations.seen(&object("7"));
        assert_eq!(expectations.get(&object("7")), None);
    }

    #[test]
    fn nothing_is_expected_of_an_object_that_was_delivered_or_deleted_meanwhile() {
        let (mut expectations, status) = (StatusExpectations::default(), StatusFingerprint::of(&json!({})));
        expectations.written(&object("7"), Some(&object("8")), status);
        expectations.written(&object("7"), None, status);
        assert!(expectations.0.is_empty());
    }
}
