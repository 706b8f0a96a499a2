//! `ManagedIdentityClass`: dedicated identities for bindings that reference a class.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::managed_identity::AllowedSubject;
use super::provision::{IsolationScope, ReclaimPolicy, TagValue};
use super::role_assignment::RoleAssignment;

/// How to create identities for bindings that reference the class, and who may request one.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "ensign.dev",
    version = "v1alpha1",
    kind = "ManagedIdentityClass",
    plural = "managedidentityclasses",
    shortname = "mic",
    category = "ensign",
    derive = "PartialEq",
    doc = "ManagedIdentityClass describes how Ensign creates a dedicated Azure identity for each binding that references the class, and which service accounts may request one. Cluster operators write it. Without an entry in spec.allowedSubjects, none may.",
    printcolumn(name = "Resource Group", type_ = "string", json_path = ".spec.provision.resourceGroup"),
    printcolumn(name = "Location", type_ = "string", json_path = ".spec.provision.location"),
    printcolumn(name = "Reclaim Policy", type_ = "string", json_path = ".spec.reclaimPolicy"),
    printcolumn(name = "Max Per Namespace", type_ = "integer", json_path = ".spec.maxPerNamespace"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Subscription", type_ = "string", json_path = ".spec.provision.subscriptionID", priority = 1)
)]
#[x_kube(validation = Rule::new(
    "has(self.roleAssignments) == has(oldSelf.roleAssignments) && (!has(self.roleAssignments) || self.roleAssignments == oldSelf.roleAssignments)"
).message("spec.roleAssignments is immutable, because each identity has a copy of it: create a new ManagedIdentityClass instead").field_path(".roleAssignments"))]
pub struct ManagedIdentityClassSpec {
    /// Where and how identities are created. Immutable.
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("spec.provision is immutable, because each identity has a copy of it: create a new ManagedIdentityClass instead"))]
    pub provision: ClassProvision,
    /// What happens to an identity when its binding is deleted: it is deleted too, or it is kept with its ManagedIdentity,
    /// which is then `Released` and serves no other binding. Immutable.
    #[serde(default = "delete")]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("spec.reclaimPolicy is immutable, because each identity has a copy of it: create a new ManagedIdentityClass instead"))]
    pub reclaim_policy: ReclaimPolicy,
    /// Service accounts that may request an identity of this class. Entries are ORed. If absent or empty, none may.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub allowed_subjects: Vec<AllowedSubject>,
    /// Maximum number of identities of this class per namespace, including those that were kept after their binding was
    /// deleted.
    #[serde(default = "max_per_namespace")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_per_namespace: u32,
    /// Azure roles to assign to each identity. Immutable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["roleDefinition", "scope"])
    )]
    pub role_assignments: Vec<RoleAssignment>,
}

/// Where and how the identities of a class are created.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClassProvision {
    /// Subscription to create the identities in, a GUID.
    #[serde(rename = "subscriptionID")]
    #[schemars(length(max = 36), regex(pattern = r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"))]
    pub subscription_id: String,
    /// Existing resource group to create the identities in.
    #[schemars(length(min = 1, max = 90), regex(pattern = r"^[-\p{L}\p{N}._()]{0,89}[-\p{L}\p{N}_()]$"))]
    pub resource_group: String,
    /// Azure region of the identities, for example `westeurope`.
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[A-Za-z0-9]([A-Za-z0-9 ]*[A-Za-z0-9])?$"))]
    pub location: String,
    /// Template for the names of the identities: letters, digits, `-`, `_`, and the placeholders `{cluster}`, `{namespace}`
    /// and `{binding}`. Long values of placeholders are truncated. A hash is appended, which makes each name unique.
    #[serde(default = "name_template")]
    #[schemars(
        length(min = 1, max = 100),
        regex(
            pattern = r"^([A-Za-z0-9]|\{(cluster|namespace|binding)\})([A-Za-z0-9_-]|\{(cluster|namespace|binding)\})*$"
        )
    )]
    pub name_template: String,
    /// Tags of each identity. Ensign adds its own tags, including the binding's namespace and name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 40))]
    #[x_kube(validation = Rule::new(r"self.all(key, key.matches(r'^[^<>%&\\?/]{1,512}$') && !key.matches(r'^(?i)ensign\.dev-'))")
        .message("names of tags must have at most 512 characters, must not contain any of <>%&\\?/, and must not start with ensign.dev-, which is reserved for Ensign"))]
    pub tags: BTreeMap<String, TagValue>,
    /// Azure regions from which the identities can be used.
    #[serde(default)]
    pub isolation_scope: IsolationScope,
}

fn delete() -> ReclaimPolicy {
    ReclaimPolicy::Delete
}

fn max_per_namespace() -> u32 {
    10
}

fn name_template() -> String {
    "{cluster}-{namespace}-{binding}".to_owned()
}
