//! Identities that Ensign creates and keeps in Azure.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An identity that Ensign creates and keeps in Azure.
///
/// It is Ensign's own by two of its tags: the cluster's ID and the UID of the `ManagedIdentity`.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProvisionedIdentity {
    /// Subscription in which the identity is made. Immutable.
    #[serde(rename = "subscriptionID")]
    #[schemars(length(max = 36), regex(pattern = r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"))]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("spec.provision.subscriptionID is immutable: create a new ManagedIdentity beside this one"))]
    pub subscription_id: String,
    /// Resource group in which the identity is made; it has to exist. Immutable.
    #[schemars(length(min = 1, max = 90), regex(pattern = r"^[-\p{L}\p{N}._()]{0,89}[-\p{L}\p{N}_()]$"))]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("spec.provision.resourceGroup is immutable: create a new ManagedIdentity beside this one"))]
    pub resource_group: String,
    /// Azure region of the identity, for example `westeurope`. Immutable.
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[A-Za-z0-9]([A-Za-z0-9 ]*[A-Za-z0-9])?$"))]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("spec.provision.location is immutable: create a new ManagedIdentity beside this one"))]
    pub location: String,
    /// Name of the identity in Azure. Immutable.
    #[schemars(length(min = 3, max = 128), regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"))]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("spec.provision.name is immutable: create a new ManagedIdentity beside this one"))]
    pub name: String,
    /// Tags of the identity. Ensign sets them right where they differ and leaves other tags alone.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 40))]
    #[x_kube(validation = Rule::new(r"self.all(key, key.matches(r'^[^<>%&\\?/]{1,512}$') && !key.matches(r'^(?i)ensign\.dev-'))")
        .message("names of tags have at most 512 characters, none of <>%&\\?/, and do not begin with ensign.dev-, which Ensign keeps for its own"))]
    pub tags: BTreeMap<String, TagValue>,
    /// Where tokens of the identity can be asked for. Immutable.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("spec.provision.isolationScope is immutable: create a new ManagedIdentity beside this one"))]
    pub isolation_scope: IsolationScope,
    /// What to do where an identity of this name exists that is not this object's: leave it alone and say so, or make it
    /// this object's own, with its tags and its end.
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
    /// Usable from the identity's own region only.
    Regional,
}

impl IsolationScope {
    /// Its name in Azure.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Regional => "Regional",
        }
    }
}

/// What to do with an identity that Ensign did not make for this object.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum IfExists {
    /// It is left alone, and the object says so.
    #[default]
    Refuse,
    /// It becomes the object's own. One that another cluster's Ensign owns is left alone all the same.
    Adopt,
}

/// What happens to an Azure resource when its object is deleted.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReclaimPolicy {
    /// It is deleted too.
    Delete,
    /// It stays.
    #[default]
    Retain,
}

/// The one binding that a `ManagedIdentity` is for, as a `PersistentVolume` has one claim.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimRef {
    /// Namespace of the binding.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// Name of the binding.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// UID of the binding. Another binding of the same name is another binding.
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,
}
