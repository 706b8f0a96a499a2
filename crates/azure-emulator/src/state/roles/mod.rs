//! Role definitions and assignments.

mod builtin;
mod document;

use k8s_openapi::jiff::Timestamp;

pub use builtin::builtin;
pub use document::{RoleAssignmentDocument, RoleDefinitionDocument};
pub(super) use document::{assignment_documents, definition_documents, read_assignments, read_definitions};

use super::has_propagated;
use super::model::{State, is_within};

/// How roles behave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleSettings {
    /// Seconds after which the directory knows the principal of a new identity, so that roles can be assigned to it.
    pub principal_replication_seconds: u32,
    /// Seconds after which a written assignment takes effect.
    pub propagation_seconds: u32,
    /// Maximum number of assignments in a subscription.
    pub limit: usize,
    /// Assignments on a page.
    pub page_size: usize,
}

impl Default for RoleSettings {
    fn default() -> Self {
        Self { principal_replication_seconds: 0, propagation_seconds: 0, limit: 4000, page_size: 100 }
    }
}

/// A role definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleDefinition {
    /// Its GUID.
    pub name: String,
    /// Its display name.
    pub role_name: String,
    /// What it is for.
    pub description: String,
    /// Whether it is built in.
    pub builtin: bool,
    /// What it allows. Each block applies on its own.
    pub permissions: Vec<Permission>,
    /// Scopes at or below which it may be assigned; `/` allows all.
    pub assignable_scopes: Vec<String>,
}

/// A block of permissions. Exclusions apply only to their own block.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Permission {
    /// Allowed actions in ARM.
    pub actions: Vec<String>,
    /// Exceptions from the actions.
    pub not_actions: Vec<String>,
    /// Allowed actions on data.
    pub data_actions: Vec<String>,
    /// Exceptions from the data actions.
    pub not_data_actions: Vec<String>,
}

/// A role assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleAssignment {
    /// Its GUID, unique in the tenant.
    pub name: String,
    /// Where it applies, as it was written; `/` is the root.
    pub scope: String,
    /// GUID of the role definition.
    pub role: String,
    /// Object ID of the principal.
    pub principal_id: String,
    /// The principal's type.
    pub principal_type: String,
    /// A description.
    pub description: Option<String>,
    /// An ABAC condition. It is stored and returned; an assignment with a condition grants nothing in the emulator.
    pub condition: Option<String>,
    /// Version of the condition's language.
    pub condition_version: Option<String>,
    /// When it was created.
    pub created_on: Timestamp,
    /// When it was last written.
    pub updated_on: Timestamp,
    /// Object ID of its creator.
    pub created_by: String,
}

/// What a principal is granted at one scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    scope: String,
    permissions: Vec<Permission>,
}

impl Permission {
    fn allows(&self, action: &str) -> bool {
        any_matches(&self.actions, action) && !any_matches(&self.not_actions, action)
    }

    fn allows_data(&self, action: &str) -> bool {
        any_matches(&self.data_actions, action) && !any_matches(&self.not_data_actions, action)
    }
}

impl Grant {
    /// Where it applies.
    pub fn scope(&self) -> &str {
        &self.scope
    }

    /// Whether the grant allows an ARM action on a resource.
    pub fn allows(&self, action: &str, resource: &str) -> bool {
        is_within(resource, &self.scope) && self.permissions.iter().any(|block| block.allows(action))
    }

    /// Whether the grant allows an action on a resource's data.
    pub fn allows_data(&self, action: &str, resource: &str) -> bool {
        is_within(resource, &self.scope) && self.permissions.iter().any(|block| block.allows_data(action))
    }
}

impl RoleDefinition {
    /// Whether the role can be assigned at a scope.
    pub fn is_assignable(&self, scope: &str) -> bool {
        self.assignable_scopes.iter().any(|assignable| is_within(scope, assignable))
    }
}

impl State {
    /// The role definition with this GUID, case-insensitive.
    pub fn role_definition(&self, name: &str) -> Option<&RoleDefinition> {
        let own = self.role_definitions.get(&name.to_lowercase());
        own.or_else(|| builtin().iter().find(|role| role.name.eq_ignore_ascii_case(name)))
    }

    /// The principal's grants that are in effect at `now`.
    pub fn grants(&self, principal_id: &str, now: Timestamp) -> Vec<Grant> {
        let seconds = self.settings.roles.propagation_seconds;
        self.role_assignments
            .values()
            .filter(|assignment| assignment.principal_id.eq_ignore_ascii_case(principal_id))
            .filter(|assignment| assignment.condition.is_none() && has_propagated(assignment.created_on, now, seconds))
            .filter_map(|assignment| {
                let permissions = self.role_definition(&assignment.role)?.permissions.clone();
                Some(Grant { scope: assignment.scope.clone(), permissions })
            })
            .collect()
    }
}

/// Whether an action matches one of the patterns.
pub(super) fn any_matches(patterns: &[String], action: &str) -> bool {
    patterns.iter().any(|pattern| matches(&pattern.to_lowercase(), &action.to_lowercase()))
}

/// Whether an action matches a pattern, in which `*` matches anything, including slashes.
fn matches(pattern: &str, action: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| action.strip_prefix(first)) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_matches_anything() {
        for (pattern, action, fits) in [
            ("*", "a/b/read", true),
            ("*/read", "a/b/read", true),
            ("*/read", "a/b/write", false),
            ("a/*/read", "a/b/c/read", true),
            ("a/*/read", "a/read", false),
            ("a/b", "a/b", true),
            ("a/b", "a/b/c", false),
            ("a/*", "a/", true),
            ("a*b*c", "abc", true),
            ("a*b*b", "ab", false),
        ] {
            assert_eq!(matches(pattern, action), fits, "{pattern} {action}");
        }
    }

    #[test]
    fn what_one_block_excludes_another_may_allow() {
        let block = |actions: &[&str], not_actions: &[&str]| Permission {
            actions: actions.iter().map(ToString::to_string).collect(),
            not_actions: not_actions.iter().map(ToString::to_string).collect(),
            ..Permission::default()
        };
        let grant = |permissions| Grant { scope: "/subscriptions/s".to_owned(), permissions };
        let narrow = grant(vec![block(&["*"], &["A/*/Write"])]);
        assert!(narrow.allows("a/b/read", "/subscriptions/S/resourceGroups/rg"));
        assert!(!narrow.allows("a/b/write", "/subscriptions/S"));
        assert!(!narrow.allows("a/b/read", "/subscriptions/t"));
        let wide = grant(vec![block(&["*"], &["A/*/Write"]), block(&["a/b/write"], &[])]);
        assert!(wide.allows("a/b/write", "/subscriptions/S"));
        assert!(!wide.allows_data("a/b/read", "/subscriptions/S"), "data are apart");
    }

    #[test]
    fn builtin_roles_have_one_guid_and_one_name_each() {
        for (number, role) in builtin().iter().enumerate() {
            assert!(crate::state::arm::names::is_guid(&role.name), "{}", role.role_name);
            for other in &builtin()[number + 1..] {
                assert!(role.name != other.name && role.role_name != other.role_name, "{}", role.role_name);
            }
        }
    }
}
