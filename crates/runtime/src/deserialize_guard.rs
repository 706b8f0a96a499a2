//! An object that may be malformed, so that a single one does not fail its whole list or watch.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// An object, or why it can't be deserialized.
///
/// `kube::core::DeserializeGuard` does the same through a tree of each object and a copy of it; for lists of thousands that
/// takes several times the memory. Here each object is read from its own text, and its managed fields, which are as large
/// as the rest and never used, are dropped before the next one is read. It can only be deserialized from JSON, and in a
/// watch event the type has to come before the object, as API servers send it.
#[derive(Clone, Debug)]
pub struct DeserializeGuard<K>(pub Result<K, Malformed>);

/// An object that can't be deserialized.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{error}")]
pub struct Malformed {
    /// Why.
    pub error: String,
    /// Its metadata, to name it.
    pub metadata: ObjectMeta,
}

#[derive(Deserialize)]
struct MetadataOnly {
    #[serde(default)]
    metadata: ObjectMeta,
}

impl<'de, K: Resource + DeserializeOwned> Deserialize<'de> for DeserializeGuard<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let mut guarded = Self(match serde_json::from_str(text.get()) {
            Ok(object) => Ok(object),
            Err(error) => {
                let MetadataOnly { metadata } = serde_json::from_str(text.get()).map_err(D::Error::custom)?;
                Err(Malformed { error: error.to_string(), metadata })
            }
        });
        guarded.meta_mut().managed_fields = None;
        Ok(guarded)
    }
}

impl<K: Resource> Resource for DeserializeGuard<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dynamic: &K::DynamicType) -> Cow<'_, str> {
        K::kind(dynamic)
    }

    fn group(dynamic: &K::DynamicType) -> Cow<'_, str> {
        K::group(dynamic)
    }

    fn version(dynamic: &K::DynamicType) -> Cow<'_, str> {
        K::version(dynamic)
    }

    fn plural(dynamic: &K::DynamicType) -> Cow<'_, str> {
        K::plural(dynamic)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.as_ref().map_or_else(|malformed| &malformed.metadata, K::meta)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.as_mut().map_or_else(|malformed| &mut malformed.metadata, K::meta_mut)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::ResourceExt;
    use kube::api::{ObjectList, WatchEvent};

    use super::*;

    type Found = DeserializeGuard<ConfigMap>;

    #[test]
    fn a_malformed_object_is_named_and_the_others_of_its_list_are_read() {
        let list: ObjectList<Found> = serde_json::from_str(
            r#"{"apiVersion":"v1","kind":"ConfigMapList","metadata":{"resourceVersion":"7"},"items":[
                {"metadata":{"name":"good"},"data":{"a":"b"}},
                {"metadata":{"name":"bad","namespace":"shop"},"data":7},
                {"data":{}}]}"#,
        )
        .unwrap();
        let [good, bad, nameless] = list.items.as_slice() else { panic!("three objects") };
        assert_eq!(good.0.as_ref().unwrap().data.as_ref().unwrap()["a"], "b");
        assert_eq!((bad.name_any(), bad.namespace().as_deref()), ("bad".to_owned(), Some("shop")));
        assert!(bad.0.as_ref().unwrap_err().error.contains("invalid type"), "{bad:?}");
        assert!(nameless.0.is_ok());
    }

    #[test]
    fn a_watch_event_has_an_object_or_reports_that_it_is_malformed() {
        let event = |object: &str| -> WatchEvent<Found> {
            serde_json::from_str(&format!(r#"{{"type":"MODIFIED","object":{object}}}"#)).unwrap()
        };
        let WatchEvent::Modified(good) = event(r#"{"metadata":{"name":"good"}}"#) else { panic!("a change") };
        assert_eq!(good.name_any(), "good");
        let WatchEvent::Modified(bad) = event(r#"{"metadata":{"name":"bad"},"data":[]}"#) else { panic!("a change") };
        assert_eq!((bad.name_any(), bad.0.is_err()), ("bad".to_owned(), true));
        let bookmark =
            r#"{"type":"BOOKMARK","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":"9"}}}"#;
        assert!(matches!(serde_json::from_str::<WatchEvent<Found>>(bookmark).unwrap(), WatchEvent::Bookmark(_)));
    }

    #[test]
    fn an_object_without_readable_metadata_is_an_error() {
        assert!(serde_json::from_str::<Found>(r#"{"metadata":7}"#).is_err());
        assert!(serde_json::from_str::<Found>("7").is_err());
    }
}
