//! The requests to ARM.

use crate::scheduling::rate_limiter::RequestKind;

/// A request to ARM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// LIST or GET of a role definition.
    ReadRole,
    /// LIST or GET of the identity's role assignments.
    ReadRoleAssignments,
    /// PUT of a role assignment.
    PutRoleAssignment,
    /// DELETE of a role assignment.
    DeleteRoleAssignment,
    /// GET of the identity.
    ReadIdentity,
    /// LIST of its credentials.
    ListCredentials,
    /// PUT of a credential.
    PutCredential,
    /// DELETE of a credential.
    DeleteCredential,
    /// PUT of the identity.
    PutIdentity,
    /// DELETE of the identity.
    DeleteIdentity,
}

impl Operation {
    /// The start of a message: what was being done, to be followed by the identity's resource ID.
    pub fn describe(self) -> &'static str {
        match self {
            Self::ReadRole => "looking up a role for",
            Self::ReadRoleAssignments => "listing the role assignments of",
            Self::PutRoleAssignment => "assigning a role to",
            Self::DeleteRoleAssignment => "removing a role assignment of",
            Self::ReadIdentity => "reading identity",
            Self::ListCredentials => "listing the federated identity credentials of",
            Self::PutCredential => "writing a federated identity credential under",
            Self::DeleteCredential => "deleting a federated identity credential under",
            Self::PutIdentity => "writing identity",
            Self::DeleteIdentity => "deleting identity",
        }
    }

    /// Its name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadRole => "read_role",
            Self::ReadRoleAssignments => "read_role_assignments",
            Self::PutRoleAssignment => "put_role_assignment",
            Self::DeleteRoleAssignment => "delete_role_assignment",
            Self::ReadIdentity => "read_identity",
            Self::ListCredentials => "list_credentials",
            Self::PutCredential => "put_credential",
            Self::DeleteCredential => "delete_credential",
            Self::PutIdentity => "put_identity",
            Self::DeleteIdentity => "delete_identity",
        }
    }

    /// Which of Azure's rate limits it counts against.
    pub fn kind(self) -> RequestKind {
        match self {
            Self::ReadIdentity => RequestKind::Get,
            Self::ListCredentials => RequestKind::List,
            Self::PutCredential | Self::DeleteCredential | Self::PutIdentity | Self::DeleteIdentity => {
                RequestKind::Write
            }
            Self::ReadRole | Self::ReadRoleAssignments => RequestKind::RoleRead,
            Self::PutRoleAssignment | Self::DeleteRoleAssignment => RequestKind::RoleWrite,
        }
    }

    /// Every operation on roles.
    pub const OF_ROLES: [Self; 4] =
        [Self::ReadRole, Self::ReadRoleAssignments, Self::PutRoleAssignment, Self::DeleteRoleAssignment];

    /// Every operation on identities and what is under them.
    pub const ALL: [Self; 6] = [
        Self::ReadIdentity,
        Self::ListCredentials,
        Self::PutCredential,
        Self::DeleteCredential,
        Self::PutIdentity,
        Self::DeleteIdentity,
    ];

    /// The Azure RBAC action that a role has to allow for it.
    pub fn action(self) -> &'static str {
        match self {
            Self::ReadRole => "Microsoft.Authorization/roleDefinitions/read",
            Self::ReadRoleAssignments => "Microsoft.Authorization/roleAssignments/read",
            Self::PutRoleAssignment => "Microsoft.Authorization/roleAssignments/write",
            Self::DeleteRoleAssignment => "Microsoft.Authorization/roleAssignments/delete",
            Self::ReadIdentity => "Microsoft.ManagedIdentity/userAssignedIdentities/read",
            Self::ListCredentials => {
                "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials/read"
            }
            Self::PutCredential => {
                "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials/write"
            }
            Self::DeleteCredential => {
                "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials/delete"
            }
            Self::PutIdentity => "Microsoft.ManagedIdentity/userAssignedIdentities/write",
            Self::DeleteIdentity => "Microsoft.ManagedIdentity/userAssignedIdentities/delete",
        }
    }
}
