//! Roles in Azure that an identity is given.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::CredentialOrigin;

/// A role that the identity has in a scope.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RoleAssignment {
    /// The role: its name, for example `Storage Blob Data Reader`, or the GUID of its definition.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[\p{L}\p{N}]([^'\x00-\x1f\x7f]*[^'\s\x00-\x1f\x7f])?$"))]
    pub role_definition: String,
    /// ARM ID of a resource group, or of a resource below one.
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(
        validation = Rule::new(r"self.matches(r'^(?i)/subscriptions/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(/[^/?#%\\\s]+)*$')")
            .message("scope must be an ARM ID: /subscriptions/<guid>/resourceGroups/<name>, or that of a resource below it, without a slash at its end"),
        validation = Rule::new(r"!self.matches(r'/\.{1,2}(/|$)')").message("scope must not have a segment . or ..")
    )]
    pub scope: String,
}

/// A role assignment. It is written down before it is made, and until it is gone.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RoleAssignmentStatus {
    /// The role, as the spec names it.
    pub role_definition: String,
    /// The scope, as the spec names it.
    pub scope: String,
    /// GUID of the role's definition.
    #[serde(rename = "roleDefinitionID")]
    pub role_definition_id: String,
    /// GUID of the assignment.
    pub name: String,
    /// Whether Ensign made it or found it.
    pub origin: CredentialOrigin,
}
