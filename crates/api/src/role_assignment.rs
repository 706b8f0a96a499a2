//! Azure roles of an identity.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::CredentialOrigin;

/// An Azure role to assign to the identity in a scope.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RoleAssignment {
    /// Name of the role, for example `Storage Blob Data Reader`, or the GUID of its definition.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[\p{L}\p{N}]([^'\x00-\x1f\x7f]*[^'\s\x00-\x1f\x7f])?$"))]
    pub role_definition: String,
    /// ARM ID of a resource group, or of a resource in one.
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(
        validation = Rule::new(r"self.matches(r'^(?i)/subscriptions/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(/[^/?#%\\\s]+)*$')")
            .message("scope must be an ARM ID: /subscriptions/<guid>/resourceGroups/<name>, or the ARM ID of a resource in it, without a trailing slash"),
        validation = Rule::new(r"!self.matches(r'/\.{1,2}(/|$)')").message("scope must not contain the segments . or ..")
    )]
    pub scope: String,
}

/// A role assignment. It is recorded before it is created, and until it is deleted.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RoleAssignmentStatus {
    /// Role, as in the spec.
    pub role_definition: String,
    /// Scope, as in the spec.
    pub scope: String,
    /// GUID of the role definition.
    #[serde(rename = "roleDefinitionID")]
    pub role_definition_id: String,
    /// Name of the role assignment, a GUID.
    pub name: String,
    /// Whether Ensign created the role assignment.
    pub origin: CredentialOrigin,
}
