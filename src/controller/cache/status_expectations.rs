//! Statuses that were written and that no watch has brought back yet.
//!
//! A watch may be behind. What is decided then can be what the cache still has, and not what was written since: without
//! this memory it would not be written, and the status would stay wrong until the next look.

use std::collections::HashMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::status_fingerprint::StatusFingerprint;

/// Fingerprints of statuses, by the UIDs of their objects. An entry goes as soon as a watch brings anything of its object.
#[derive(Default)]
pub(crate) struct StatusExpectations(HashMap<String, StatusFingerprint>);

impl StatusExpectations {
    /// The status that was written to this very object, if no watch has brought anything of it since.
    pub(crate) fn get(&self, object: &ObjectMeta) -> Option<StatusFingerprint> {
        self.0.get(object.uid.as_ref()?).copied()
    }

    /// A status was written to the object as the decision had it. Where the cache has it in another version by now, the
    /// watch was faster, and there is nothing to remember.
    pub(crate) fn written(&mut self, object: &ObjectMeta, cached: Option<&ObjectMeta>, status: StatusFingerprint) {
        let as_decided =
            |cached: &&ObjectMeta| (&cached.uid, &cached.resource_version) == (&object.uid, &object.resource_version);
        if let (Some(uid), Some(_)) = (&object.uid, cached.filter(as_decided)) {
            self.0.insert(uid.clone(), status);
        }
    }

    /// A watch has brought something of the object.
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
    fn what_was_written_is_known_until_a_watch_brings_the_object() {
        let (mut unseen, status) = (StatusExpectations::default(), StatusFingerprint::of(&json!({"bindings": 2})));
        unseen.written(&object("7"), Some(&object("7")), status);
        assert_eq!(unseen.get(&object("7")), Some(status));
        assert_ne!(status, StatusFingerprint::of(&json!({"bindings": 1})));
        unseen.seen(&object("7"));
        assert_eq!(unseen.get(&object("7")), None);
    }

    #[test]
    fn nothing_is_remembered_of_an_object_that_a_watch_has_brought_or_taken_meanwhile() {
        let (mut unseen, status) = (StatusExpectations::default(), StatusFingerprint::of(&json!({})));
        unseen.written(&object("7"), Some(&object("8")), status);
        unseen.written(&object("7"), None, status);
        assert!(unseen.0.is_empty());
    }
}
