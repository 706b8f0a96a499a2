//! The parts of a pod that admission reads.
//!
//! A review is decoded on every pod creation, so these types borrow from the request's bytes and skip the fields that no
//! rule reads. They are never written back: the response is a patch, so fields that are unknown here are preserved.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::upstream_keys::{EXPIRATION_ANNOTATION, PROXY_ANNOTATION, SKIP_CONTAINERS_ANNOTATION};
use ensign_api::keys::{INJECTED_BY_ANNOTATION, MIRROR_ANNOTATION};

/// A string that is borrowed unless the JSON escapes it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// A pod.
#[derive(Debug, Default, Deserialize)]
pub struct Pod<'a> {
    /// Its metadata.
    #[serde(borrow, default)]
    pub metadata: Option<Metadata<'a>>,
    /// Its spec.
    #[serde(borrow, default)]
    pub spec: Option<Spec<'a>>,
}

impl Pod<'_> {
    /// The service account it runs as; `default` if it sets none.
    pub fn service_account(&self) -> &str {
        match self.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref()) {
            None | Some("") => "default",
            Some(name) => name,
        }
    }

    /// The namespace in its metadata. Clients may omit it: use the request's namespace.
    pub fn namespace(&self) -> Option<&str> {
        self.metadata.as_ref()?.namespace.as_deref().filter(|namespace| !namespace.is_empty())
    }

    /// Its name, or the prefix from which the API server generates one.
    pub fn name(&self) -> &str {
        self.own_name().or_else(|| self.metadata.as_ref()?.generate_name.as_deref()).unwrap_or_default()
    }

    /// Its name, unless the API server generates one.
    pub(super) fn own_name(&self) -> Option<&str> {
        self.metadata.as_ref()?.name.as_deref().filter(|name| !name.is_empty())
    }

    /// Its labels.
    pub fn labels(&self) -> Option<&BTreeMap<String, String>> {
        self.metadata.as_ref()?.labels.as_ref()
    }

    pub(super) fn annotations(&self) -> Option<&Annotations<'_>> {
        self.metadata.as_ref()?.annotations.as_ref()
    }
}

/// Metadata of a pod.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata<'a> {
    #[serde(borrow, default)]
    name: Option<Text<'a>>,
    #[serde(borrow, default)]
    generate_name: Option<Text<'a>>,
    #[serde(borrow, default)]
    namespace: Option<Text<'a>>,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(borrow, default)]
    annotations: Option<Annotations<'a>>,
}

/// The annotations that a rule reads; the others are skipped, because they may be large.
#[derive(Debug, Default)]
pub struct Annotations<'a> {
    /// What an earlier admission wrote.
    pub(super) injected_by: Option<Text<'a>>,
    /// Whether the pod mirrors a static pod.
    pub(super) mirror: bool,
    /// Of azure-workload-identity: lifetime of the token.
    pub(super) expiration: Option<Text<'a>>,
    /// Of azure-workload-identity: containers that are not injected.
    pub(super) skip_containers: Option<Text<'a>>,
    /// Of azure-workload-identity: whether the pod requests the proxy sidecar.
    pub(super) proxy: bool,
}

impl<'de: 'a, 'a> Deserialize<'de> for Annotations<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnnotationsVisitor;

        impl<'de> Visitor<'de> for AnnotationsVisitor {
            type Value = Annotations<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of annotations")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut annotations = Annotations::default();
                while let Some(key) = map.next_key::<Text<'de>>()? {
                    match &*key {
                        INJECTED_BY_ANNOTATION => annotations.injected_by = Some(map.next_value()?),
                        EXPIRATION_ANNOTATION => annotations.expiration = Some(map.next_value()?),
                        SKIP_CONTAINERS_ANNOTATION => annotations.skip_containers = Some(map.next_value()?),
                        key @ (MIRROR_ANNOTATION | PROXY_ANNOTATION) => {
                            annotations.mirror |= key == MIRROR_ANNOTATION;
                            annotations.proxy |= key == PROXY_ANNOTATION;
                            map.next_value::<IgnoredAny>()?;
                        }
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(annotations)
            }
        }

        deserializer.deserialize_map(AnnotationsVisitor)
    }
}

/// Spec of a pod. Lists distinguish absent (or null) from present, because a patch has to create what is absent.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec<'a> {
    #[serde(borrow, default)]
    service_account_name: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) node_name: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) scheduling_gates: Option<Vec<SchedulingGate<'a>>>,
    #[serde(borrow, default)]
    pub(super) volumes: Option<Vec<Volume<'a>>>,
    #[serde(borrow, default)]
    pub(super) init_containers: Option<Vec<Container<'a>>>,
    #[serde(borrow, default)]
    pub(super) containers: Option<Vec<Container<'a>>>,
}

/// A scheduling gate.
#[derive(Debug, Deserialize)]
pub struct SchedulingGate<'a> {
    #[serde(borrow)]
    pub(super) name: Text<'a>,
}

/// A container or init container. Ephemeral containers are not injected: they are added later, through a subresource.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container<'a> {
    #[serde(borrow)]
    pub(super) name: Text<'a>,
    #[serde(borrow, default)]
    pub(super) env: Option<Vec<EnvVar<'a>>>,
    #[serde(borrow, default)]
    pub(super) volume_mounts: Option<Vec<VolumeMount<'a>>>,
}

/// An environment variable.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvVar<'a> {
    #[serde(borrow)]
    pub(super) name: Text<'a>,
    #[serde(borrow, default)]
    pub(super) value: Option<Text<'a>>,
    #[serde(default)]
    pub(super) value_from: Option<IgnoredAny>,
}

/// A volume mount.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeMount<'a> {
    #[serde(borrow)]
    pub(super) name: Text<'a>,
    #[serde(borrow)]
    pub(super) mount_path: Text<'a>,
    #[serde(default)]
    pub(super) read_only: Option<bool>,
    #[serde(borrow, default)]
    pub(super) sub_path: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) sub_path_expr: Option<Text<'a>>,
}

/// A volume. Of its possible sources, only the projected one is read.
#[derive(Debug, Deserialize)]
pub struct Volume<'a> {
    #[serde(borrow)]
    pub(super) name: Text<'a>,
    #[serde(borrow, default)]
    pub(super) projected: Option<Projected<'a>>,
}

/// A projected volume.
#[derive(Debug, Deserialize)]
pub struct Projected<'a> {
    #[serde(borrow, default)]
    pub(super) sources: Option<Vec<Source<'a>>>,
}

/// One source of a projected volume.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Source<'a> {
    #[serde(borrow, default)]
    pub(super) service_account_token: Option<TokenSource<'a>>,
}

/// A projected service account token.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenSource<'a> {
    #[serde(borrow, default)]
    pub(super) audience: Option<Text<'a>>,
    #[serde(default)]
    pub(super) expiration_seconds: Option<i64>,
    #[serde(borrow, default)]
    pub(super) path: Option<Text<'a>>,
}
