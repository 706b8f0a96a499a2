//! JSON patches as typed operations: a mistake does not compile, instead of becoming a patch that does nothing.

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation, RemoveOperation, ReplaceOperation, TestOperation};
use kube::Resource;
use serde_json::Value;

/// A patch of one object. It applies only to the object with this UID, not to a later one of the same name.
pub(super) struct ObjectPatch(Vec<PatchOperation>);

impl ObjectPatch {
    pub(super) fn of<K: Resource>(object: &K) -> Self {
        Self(Vec::new()).test(&["metadata", "uid"], object.meta().uid.clone().into())
    }

    /// The patch applies only if the field has this value.
    pub(super) fn test(mut self, path: &[&str], value: Value) -> Self {
        self.0.push(PatchOperation::Test(TestOperation { path: pointer(path), value }));
        self
    }

    /// Sets the field, whether it exists or not.
    pub(super) fn add(mut self, path: &[&str], value: Value) -> Self {
        self.0.push(PatchOperation::Add(AddOperation { path: pointer(path), value }));
        self
    }

    /// Sets the field, which has to exist.
    pub(super) fn replace(mut self, path: &[&str], value: Value) -> Self {
        self.0.push(PatchOperation::Replace(ReplaceOperation { path: pointer(path), value }));
        self
    }

    /// Removes the field, which has to exist.
    pub(super) fn remove(mut self, path: &[&str]) -> Self {
        self.0.push(PatchOperation::Remove(RemoveOperation { path: pointer(path) }));
        self
    }

    pub(super) fn into_patch(self) -> kube::api::Patch<()> {
        kube::api::Patch::Json(Patch(self.0))
    }
}

/// The pointer of these keys, escaped as needed.
fn pointer(path: &[&str]) -> PointerBuf {
    PointerBuf::from_tokens(path.iter().copied())
}

#[cfg(test)]
mod tests {
    use ensign_api::keys::GATED_LABEL;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_patch_names_its_object_and_escapes_keys() {
        let mut pod = Pod::default();
        pod.metadata.uid = Some("one".to_owned());
        let patch = ObjectPatch::of(&pod).remove(&["metadata", "labels", GATED_LABEL]).0;
        let expected = json!([
            {"op": "test", "path": "/metadata/uid", "value": "one"},
            {"op": "remove", "path": format!("/metadata/labels/{}", GATED_LABEL.replace('/', "~1"))},
        ]);
        assert_eq!(serde_json::to_value(patch).unwrap(), expected);
    }
}
