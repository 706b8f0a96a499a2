//! `ManagedIdentityClass`: identities of their own for bindings that ask for one.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::managed_identity::AllowedSubject;
use super::provision::{IsolationScope, ReclaimPolicy, TagValue};
use super::role_assignment::RoleAssignment;

/// How identities are made for bindings that reference the class, and who may ask for one.
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
    doc = "ManagedIdentityClass says how Ensign makes an Azure identity of its own for each binding that references the class, and who may ask for one. Cluster operators write it; without an entry in spec.allowedSubjects nobody may.",
    printcolumn(name = "Resource Group", type_ = "string", json_path = ".spec.provision.resourceGroup"),
    printcolumn(name = "Location", type_ = "string", json_path = ".spec.provision.location"),
    printcolumn(name = "Reclaim Policy", type_ = "string", json_path = ".spec.reclaimPolicy"),
    printcolumn(name = "Max Per Namespace", type_ = "integer", json_path = ".spec.maxPerNamespace"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Subscription", type_ = "string", json_path = ".spec.provision.subscriptionID", priority = 1)
)]
#[x_kube(validation = Rule::new(
    "has(self.roleAssignments) == has(oldSelf.roleAssignments) && (!has(self.roleAssignments) || self.roleAssignments == oldSelf.roleAssignments)"
).message("spec.roleAssignments is immutable, because each identity has a copy: create a new ManagedIdentityClass beside this one").field_path(".roleAssignments"))]
pub struct ManagedIdentityClassSpec {
    /// Where and how identities are made. Immutable.
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("spec.provision is immutable, because each identity has a copy: create a new ManagedIdentityClass beside this one"))]
    pub provision: ClassProvision,
    /// What happens to an identity when its binding is deleted: it is deleted too, or stays with its ManagedIdentity, which
    /// is then `Released` and serves no other binding. Immutable.
    #[serde(default = "delete")]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("spec.reclaimPolicy is immutable, because each identity has a copy: create a new ManagedIdentityClass beside this one"))]
    pub reclaim_policy: ReclaimPolicy,
    /// Who may ask for an identity of this class. Entries are ORed. Absent or empty: nobody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub allowed_subjects: Vec<AllowedSubject>,
    /// How many identities of this class there may be for one namespace, those counted that stay after their binding.
    #[serde(default = "max_per_namespace")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_per_namespace: u32,
    /// Roles in Azure that each identity is given. Immutable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["roleDefinition", "scope"])
    )]
    pub role_assignments: Vec<RoleAssignment>,
}

/// Where and how the identities of a class are made.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClassProvision {
    /// Subscription in which identities are made.
    #[serde(rename = "subscriptionID")]
    #[schemars(length(max = 36), regex(pattern = r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"))]
    pub subscription_id: String,
    /// Resource group in which identities are made; it has to exist.
    #[schemars(length(min = 1, max = 90), regex(pattern = r"^[-\p{L}\p{N}._()]{0,89}[-\p{L}\p{N}_()]$"))]
    pub resource_group: String,
    /// Azure region of the identities, for example `westeurope`.
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[A-Za-z0-9]([A-Za-z0-9 ]*[A-Za-z0-9])?$"))]
    pub location: String,
    /// Names of identities: letters, digits, `-`, `_`, and `{cluster}`, `{namespace}` and `{binding}` for what they say.
    /// What they stand for is shortened where it is long; a hash, which makes each name another one, comes last.
    #[serde(default = "name_template")]
    #[schemars(
        length(min = 1, max = 100),
        regex(
            pattern = r"^([A-Za-z0-9]|\{(cluster|namespace|binding)\})([A-Za-z0-9_-]|\{(cluster|namespace|binding)\})*$"
        )
    )]
    pub name_template: String,
    /// Tags of each identity. Ensign adds its own, among them the binding's namespace and name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 40))]
    #[x_kube(validation = Rule::new(r"self.all(key, key.matches(r'^[^<>%&\\?/]{1,512}$') && !key.matches(r'^(?i)ensign\.dev-'))")
        .message("names of tags have at most 512 characters, none of <>%&\\?/, and do not begin with ensign.dev-, which Ensign keeps for its own"))]
    pub tags: BTreeMap<String, TagValue>,
    /// Where tokens of the identities can be asked for.
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
