//! Flags of role assignments.

use crate::cli::usage_errors::Problems;
use ensign_api::arm_id::is_guid;
use ensign_core::roles::RolePolicy;

/// Whether the controller assigns roles in Azure, and exceptions to which it may assign.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct RoleAssignmentArgs {
    /// Assign the roles that spec.roleAssignments requests; needs the role that `ensign azure-role --feature
    /// role-assignments` prints
    #[arg(long, env = "ENSIGN_ROLE_ASSIGNMENTS", default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set, value_name = "BOOL")]
    role_assignments: bool,
    /// GUIDs of roles that may be assigned although they can write role assignments or federated identity credentials, for
    /// example Contributor; repeatable
    #[arg(long, env = "ENSIGN_ALLOWED_ROLES", value_delimiter = ',', value_name = "GUID,…")]
    allowed_roles: Vec<String>,
    /// ARM IDs of scopes where roles may be assigned although they are wider than a resource group, or outside
    /// --azure-allowed-scopes; repeatable
    #[arg(long, env = "ENSIGN_ALLOWED_ROLE_SCOPES", value_delimiter = ',', value_name = "ARM-ID,…")]
    allowed_role_scopes: Vec<String>,
}

impl RoleAssignmentArgs {
    /// Validates the flags.
    pub(in crate::cli) fn check(&self, problems: &mut Problems) {
        for role in self.allowed_roles.iter().filter(|role| !is_guid(role)) {
            problems.require(false, || format!("--allowed-roles {role:?} is not a GUID"));
        }
        for scope in &self.allowed_role_scopes {
            let parsed = scope.parse::<ensign_core::roles::RoleScope>();
            problems.require(parsed.is_ok(), || {
                parsed.err().map_or_else(String::new, |error| format!("--allowed-role-scopes: {error}"))
            });
        }
    }

    /// What may be assigned; none if role assignments are disabled.
    pub(in crate::cli) fn policy(&self) -> Option<RolePolicy> {
        self.role_assignments.then(|| RolePolicy {
            allowed_roles: self.allowed_roles.iter().map(|role| role.to_lowercase()).collect(),
            allowed_scopes: self.allowed_role_scopes.iter().filter_map(|scope| scope.parse().ok()).collect(),
        })
    }
}
