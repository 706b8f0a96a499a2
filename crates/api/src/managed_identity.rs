//! `ManagedIdentity`: an Azure identity, and which subjects of this cluster may use it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::provision::{ClaimRef, ProvisionedIdentity};
use super::role_assignment::{RoleAssignment, RoleAssignmentStatus};
use super::selector::LabelSelector;
use super::{MAX_CREDENTIALS_PER_IDENTITY, MAX_TOKEN_EXPIRATION_SECONDS};

/// An Azure user-assigned managed identity, and the subjects of this cluster that may use it.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "ensign.dev",
    version = "v1alpha1",
    kind = "ManagedIdentity",
    plural = "managedidentities",
    shortname = "mi",
    category = "ensign",
    selectable = ".spec.claimRef.namespace",
    status = "ManagedIdentityStatus",
    derive = "PartialEq",
    doc = "ManagedIdentity is an Azure user-assigned managed identity, and the service accounts of this cluster that may use it. Cluster operators write it. Without an entry in spec.allowedSubjects, none may.",
    printcolumn(name = "Client ID", type_ = "string", json_path = ".status.clientID"),
    printcolumn(name = "Bindings", type_ = "integer", json_path = ".status.bindings"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Class", type_ = "string", json_path = ".spec.className", priority = 1),
    printcolumn(name = "Claim Namespace", type_ = "string", json_path = ".spec.claimRef.namespace", priority = 1),
    printcolumn(name = "Claim", type_ = "string", json_path = ".spec.claimRef.name", priority = 1),
    printcolumn(name = "Resource ID", type_ = "string", json_path = ".status.armID", priority = 1),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    )
)]
#[x_kube(
    validation = Rule::new("has(self.existing) || has(self.provision)")
        .message("exactly one of spec.existing and spec.provision is required: set spec.existing.resourceID to the ARM resource ID of an existing identity, or spec.provision to have Ensign create one")
        .field_path(".existing"),
    validation = Rule::new("!(has(self.existing) && has(self.provision))")
        .message("spec.existing and spec.provision are mutually exclusive: exactly one is required")
        .field_path(".provision"),
    validation = Rule::new("has(self.existing) == has(oldSelf.existing)")
        .message("spec.existing can't be changed to spec.provision, or vice versa: create a new ManagedIdentity instead")
        .field_path(".existing"),
    validation = Rule::new("!has(self.claimRef) || !has(oldSelf.claimRef) || self.claimRef == oldSelf.claimRef")
        .message("spec.claimRef can be removed, but not changed to another binding: pods of the previous binding may still use the identity")
        .field_path(".claimRef"),
    validation = Rule::new("has(self.className) == has(oldSelf.className) && (!has(self.className) || self.className == oldSelf.className)")
        .message("spec.className is immutable: it records the class that the identity was created from")
        .field_path(".className")
)]
pub struct ManagedIdentitySpec {
    /// A reference to an identity that exists in Azure. Exactly one of `existing` and `provision` is required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub existing: Option<ExistingIdentity>,
    /// An identity that Ensign creates and maintains in Azure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provision: Option<ProvisionedIdentity>,
    /// The only binding that may use the identity. When that binding is deleted, the identity is deleted or `Released`,
    /// according to spec.provision.reclaimPolicy; a released identity serves no binding until this field is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim_ref: Option<ClaimRef>,
    /// Name of the class that the identity was created from. Set by Ensign. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub class_name: Option<String>,
    /// Service accounts that may use the identity. Entries are ORed. If absent or empty, none may.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub allowed_subjects: Vec<AllowedSubject>,
    /// Maximum token lifetime that a binding to this identity may request, in seconds.
    #[serde(default = "max_token_expiration_seconds")]
    #[schemars(range(min = 3600, max = 86400))]
    pub max_token_expiration_seconds: u32,
    /// Azure roles to assign to the identity.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["roleDefinition", "scope"])
    )]
    pub role_assignments: Vec<RoleAssignment>,
}

/// A reference to an identity that exists in Azure.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExistingIdentity {
    /// ARM resource ID of the user-assigned managed identity. Immutable.
    #[serde(rename = "resourceID")]
    #[schemars(length(max = 512))]
    #[x_kube(
        validation = Rule::new(r"self.matches(r'^(?i)/subscriptions/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/resourceGroups/[-\p{L}\p{N}._()]{0,89}[-\p{L}\p{N}_()]/providers/Microsoft\.ManagedIdentity/userAssignedIdentities/[a-z0-9][a-z0-9_-]{2,127}$')")
            .message("spec.existing.resourceID must be the ARM resource ID of a user-assigned managed identity: /subscriptions/<guid>/resourceGroups/<name>/providers/Microsoft.ManagedIdentity/userAssignedIdentities/<name>"),
        validation = Rule::new("self == oldSelf")
            .message("spec.existing.resourceID is immutable: create a new ManagedIdentity instead")
    )]
    pub resource_id: String,
    /// Whether Ensign writes federated identity credentials under the identity, or only reports which ones are missing.
    #[serde(default)]
    pub credential_policy: CredentialPolicy,
    /// This cluster's share of Azure's limit of 20 federated identity credentials under one identity.
    #[serde(default = "max_credentials")]
    #[schemars(range(min = 1, max = 20))]
    pub max_credentials: u32,
}

/// Whether Ensign may write federated identity credentials under an identity.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CredentialPolicy {
    /// Ensign creates and deletes its own federated identity credentials.
    #[default]
    Manage,
    /// Ensign does not write to Azure; the status reports missing credentials.
    Observe,
}

/// A grant to service accounts of one namespace, or of all namespaces with matching labels.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.namespace) != has(self.namespaceSelector)")
        .message("an entry of spec.allowedSubjects needs exactly one of namespace and namespaceSelector")
        .field_path(".namespace"),
    validation = Rule::new("!has(self.namespaceSelector) || (has(self.namespaceSelector.matchLabels) && size(self.namespaceSelector.matchLabels) > 0) || (has(self.namespaceSelector.matchExpressions) && size(self.namespaceSelector.matchExpressions) > 0)")
        .message("namespaceSelector must not be empty: it would select all namespaces of the cluster")
        .field_path(".namespaceSelector")
)]
pub struct AllowedSubject {
    /// Name of the grant, unique in this list. Used in audit records and messages.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Namespace of the service accounts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub namespace: Option<String>,
    /// Selects namespaces by their labels. Anyone who may label namespaces thereby decides who may use the identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Names of the service accounts, or the single entry `*` for all of them.
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "set"))]
    #[x_kube(validation = Rule::new("!self.exists(name, name == '*') || size(self) == 1")
        .message("serviceAccounts must be either the single entry \"*\" or a list of names"))]
    pub service_accounts: Vec<ServiceAccountPattern>,
    /// Maximum number of subjects per namespace under this grant. If absent, only the identity's own limits apply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 20))]
    pub max_per_namespace: Option<u32>,
}

/// The name of a service account, or `*`.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
#[schemars(inline)]
pub struct ServiceAccountPattern(
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^(\*|[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*)$")
    )]
    pub String,
);

impl ServiceAccountPattern {
    /// Whether the pattern matches a service account of this name.
    pub fn matches(&self, service_account: &str) -> bool {
        self.0 == "*" || self.0 == service_account
    }
}

/// Observed state of the identity.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManagedIdentityStatus {
    /// ARM resource ID, as returned by Azure.
    #[serde(default, rename = "armID", skip_serializing_if = "Option::is_none")]
    pub arm_id: Option<String>,
    /// Client ID of the identity.
    #[serde(default, rename = "clientID", skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Object ID of the identity's service principal.
    #[serde(default, rename = "principalID", skip_serializing_if = "Option::is_none")]
    pub principal_id: Option<String>,
    /// Entra tenant of the identity.
    #[serde(default, rename = "tenantID", skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<String>,
    /// Azure region of the identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// Service account issuers under which this cluster has written credentials.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["url"]))]
    pub issuers: Vec<IssuerRecord>,
    /// Number of federated identity credentials under the identity, by owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<CredentialCounts>,
    /// Role assignments that exist, or are about to be created or deleted. The condition PermissionsReady reports whether
    /// Azure confirmed them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["roleDefinition", "scope"])
    )]
    pub role_assignments: Vec<RoleAssignmentStatus>,
    /// Number of accepted bindings.
    #[serde(default)]
    pub bindings: u32,
    /// The metadata.generation this status was computed for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions of the identity: Ready, Accepted and IdentityResolved; Claimed if spec.claimRef is set; PermissionsReady if
    /// spec.roleAssignments is set; ClusterIDUnique and UpstreamWebhookAbsent while false; and Reconciling or Stalled while
    /// true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A service account issuer of this cluster.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IssuerRecord {
    /// URL of the issuer, exactly as in the tokens.
    #[schemars(length(max = 600))]
    pub url: String,
    /// Whether the cluster currently issues tokens with this issuer.
    pub state: IssuerState,
    /// Time of the last change of the state.
    pub since: Time,
}

/// Whether an issuer is in use.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IssuerState {
    /// The cluster issues tokens with this issuer.
    Current,
    /// The cluster used to; its credentials are deleted once the last token has expired.
    Retiring,
}

/// Number of federated identity credentials under an identity, by owner.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CredentialCounts {
    /// Written by this cluster.
    pub this_cluster: u32,
    /// Written by Ensign in other clusters.
    pub other_clusters: u32,
    /// Written by hand or by other tools.
    pub foreign: u32,
    /// Azure's limit for one identity.
    pub limit: u32,
}

impl ManagedIdentity {
    /// How messages refer to the object: by its name, or by the namespace and name of the binding that it belongs to.
    pub fn known_as(&self) -> String {
        match &self.spec.claim_ref {
            Some(claim) => format!("{}/{}", claim.namespace, claim.name),
            None => self.metadata.name.clone().unwrap_or_default(),
        }
    }

    /// Whether Ensign may write federated identity credentials under the identity. It manages those that it created.
    pub fn credential_policy(&self) -> CredentialPolicy {
        self.spec.existing.as_ref().map_or(CredentialPolicy::Manage, |existing| existing.credential_policy)
    }

    /// This cluster's share of Azure's limit of federated identity credentials.
    pub fn max_credentials(&self) -> u32 {
        self.spec.existing.as_ref().map_or(MAX_CREDENTIALS_PER_IDENTITY, |existing| existing.max_credentials)
    }
}

fn max_credentials() -> u32 {
    MAX_CREDENTIALS_PER_IDENTITY
}

fn max_token_expiration_seconds() -> u32 {
    MAX_TOKEN_EXPIRATION_SECONDS
}
