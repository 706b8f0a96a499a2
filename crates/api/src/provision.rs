//! Identities that Ensign creates and maintains in Azure.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An identity that Ensign creates and maintains in Azure.
///
/// Two of its tags mark it as owned: the cluster's ID and the UID of the `ManagedIdentity`.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProvisionedIdentity {
    /// Subscription to create the identity in, a GUID. Immutable.
    #[serde(rename = "subscriptionID")]
    #[schemars(length(max = 36), regex(pattern = r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"))]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("spec.provision.subscriptionID is immutable: create a new ManagedIdentity instead"))]
    pub subscription_id: String,
    /// Existing resource group to create the identity in. Immutable.
    #[schemars(length(min = 1, max = 90), regex(pattern = r"^[-\p{L}\p{N}._()]{0,89}[-\p{L}\p{N}_()]$"))]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("spec.provision.resourceGroup is immutable: create a new ManagedIdentity instead"))]
    pub resource_group: String,
    /// Azure region of the identity, for example `westeurope`. Immutable.
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[A-Za-z0-9]([A-Za-z0-9 ]*[A-Za-z0-9])?$"))]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("spec.provision.location is immutable: create a new ManagedIdentity instead"))]
    pub location: String,
    /// Name of the identity in Azure. Immutable.
    #[schemars(length(min = 3, max = 128), regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"))]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("spec.provision.name is immutable: create a new ManagedIdentity instead"))]
    pub name: String,
    /// Tags of the identity. Ensign corrects them if they differ, and does not touch other tags.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 40))]
    #[x_kube(validation = Rule::new(r"self.all(key, key.matches(r'^[^<>%&\\?/]{1,512}$') && !key.matches(r'^(?i)ensign\.dev-'))")
        .message("names of tags must have at most 512 characters, must not contain any of <>%&\\?/, and must not start with ensign.dev-, which is reserved for Ensign"))]
    pub tags: BTreeMap<String, TagValue>,
    /// Azure regions from which the identity can be used. Immutable.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("spec.provision.isolationScope is immutable: create a new ManagedIdentity instead"))]
    pub isolation_scope: IsolationScope,
    /// What to do if an identity of this name already exists that does not belong to this object: report it and do not
    /// touch it, or adopt it, which includes its tags and, according to reclaimPolicy, its deletion.
    #[serde(default)]
    pub if_exists: IfExists,
    /// What happens to the identity in Azure when this object is deleted.
    #[serde(default)]
    pub reclaim_policy: ReclaimPolicy,
}

/// The value of a tag, at most 256 characters.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct TagValue(#[schemars(length(max = 256))] pub String);

impl From<&str> for TagValue {
    fn from(value: &str) -> Self {
        Self(value.to_owned())
    }
}

/// Azure's isolation scope of an identity.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum IsolationScope {
    /// Usable from every region.
    #[default]
    None,
    /// Usable only from the identity's own region.
    Regional,
}

impl IsolationScope {
    /// Name of the scope in Azure.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Regional => "Regional",
        }
    }
}

/// What to do with an identity that Ensign did not create for this object.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum IfExists {
    /// Report it in a condition, and do not touch it.
    #[default]
    Refuse,
    /// Adopt it, unless Ensign in another cluster owns it.
    Adopt,
}

/// What happens to an Azure resource when its object is deleted.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReclaimPolicy {
    /// The resource is deleted too.
    Delete,
    /// The resource is kept.
    #[default]
    Retain,
}

/// The only binding that may use a `ManagedIdentity`, like the claim of a `PersistentVolume`.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimRef {
    /// Namespace of the binding.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// Name of the binding.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// UID of the binding. A later binding of the same name does not match.
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,
}
