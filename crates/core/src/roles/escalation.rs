//! Which roles may be assigned, and where: none that allows privilege escalation.

use std::collections::BTreeSet;

use super::role::{ActionBlock, RoleDefinition};
use super::scope::RoleScope;
use crate::acceptance::scopes::AllowedScopes;

/// Actions that allow privilege escalation: writing role assignments and definitions (and anything else in
/// Microsoft.Authorization), elevating one's own access, writing federated identity credentials, and writing blueprints or
/// delegations that do so.
const ESCALATING: [&str; 6] = [
    "microsoft.authorization/*/write",
    "microsoft.authorization/elevateaccess/action",
    "microsoft.managedidentity/userassignedidentities/federatedidentitycredentials/write",
    "microsoft.blueprint/blueprintassignments/write",
    "microsoft.managedservices/registrationassignments/write",
    "microsoft.managedservices/registrationdefinitions/write",
];

/// What the controller may assign, as configured by the administrator of Ensign.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RolePolicy {
    /// GUIDs, in lower case, of roles that may be assigned whatever they allow.
    pub allowed_roles: BTreeSet<String>,
    /// Scopes in which roles may be assigned although they are wider than a resource group, or outside the scopes that the
    /// controller is limited to.
    pub allowed_scopes: Vec<RoleScope>,
}

impl RolePolicy {
    /// Why no role may be assigned in the scope; `None` if roles may be.
    pub(super) fn scope_rejection(&self, scope: &RoleScope, bounds: &AllowedScopes) -> Option<String> {
        if self.allowed_scopes.iter().any(|allowed| allowed.covers(scope)) {
            return None;
        }
        if !scope.is_in_resource_group() {
            return Some(format!(
                "no role is assigned in scope {scope}, because it is wider than a resource group: a cluster operator has to choose a narrower scope, or an administrator of Ensign has to list this one in --allowed-role-scopes"
            ));
        }
        (!bounds.contain(scope.key())).then(|| {
            format!(
                "no role is assigned in scope {scope}, because it is outside the scopes that this controller is limited to: an administrator of Ensign has to list it in --allowed-role-scopes, or a cluster operator has to choose another"
            )
        })
    }

    /// Why the role may not be assigned; `None` if it may be.
    pub(super) fn role_rejection(&self, role: &RoleDefinition) -> Option<String> {
        if self.allowed_roles.contains(&role.id) {
            return None;
        }
        let action = escalation(role)?;
        Some(format!(
            "role {:?} ({}) is not assigned, because it may allow {action}, which an identity could use to get more rights than it was given: a cluster operator has to choose a less privileged role, or an administrator of Ensign has to list its GUID in --allowed-roles",
            role.name, role.id
        ))
    }
}

/// The first escalating action that the role may allow.
fn escalation(role: &RoleDefinition) -> Option<&'static str> {
    ESCALATING.into_iter().find(|wanted| role.blocks.iter().any(|block| may_allow(block, wanted)))
}

/// Whether the block may allow an action that matches the pattern. If only several exclusions together cover it, it still
/// counts as allowed: when in doubt, a role is rejected. Conditions are ignored.
fn may_allow(block: &ActionBlock, wanted: &str) -> bool {
    let fits = meet;
    let excluded = |pattern: &str| block.not_actions.iter().any(|not| covers(&not.to_lowercase(), pattern));
    block
        .actions
        .iter()
        .map(|action| action.to_lowercase())
        .any(|action| fits(&action, wanted) && !excluded(wanted) && !excluded(&action))
}

/// Whether everything that matches `inner` also matches `outer`. May be false although it does: a star in `inner` is only
/// covered by a star.
fn covers(outer: &str, inner: &str) -> bool {
    let mut parts = outer.split('*');
    let Some(mut rest) = parts.next().and_then(|first| inner.strip_prefix(first)) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

/// Whether any text matches both patterns.
fn meet(one: &str, other: &str) -> bool {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    // `below[with]`: whether any text matches both the rest of `one` from `at + 1` on and `other[with..]`.
    let ends_open = |pattern: &[char]| pattern.iter().all(|char| *char == '*');
    let mut below: Vec<bool> = (0..=other.len()).map(|at| ends_open(&other[at..])).collect();
    for at in (0..one.len()).rev() {
        let mut row = vec![false; other.len() + 1];
        row[other.len()] = ends_open(&one[at..]);
        for with in (0..other.len()).rev() {
            row[with] = match (one[at], other[with]) {
                ('*', _) | (_, '*') => below[with] || row[with + 1],
                (a, b) => a == b && below[with + 1],
            };
        }
        below = row;
    }
    below[0]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn role(blocks: &[(&[&str], &[&str])]) -> RoleDefinition {
        let owned = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        RoleDefinition {
            id: "c0500000-0000-4000-8000-000000000001".to_owned(),
            name: "Mine".to_owned(),
            blocks: blocks
                .iter()
                .map(|(actions, not_actions)| ActionBlock { actions: owned(actions), not_actions: owned(not_actions) })
                .collect(),
        }
    }

    const FIC: &str = "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials/write";

    #[test]
    fn roles_that_allow_privilege_escalation_are_rejected() {
        let contributor: (&[&str], &[&str]) = (
            &["*"],
            &[
                "Microsoft.Authorization/*/Delete",
                "Microsoft.Authorization/*/Write",
                "Microsoft.Authorization/elevateAccess/Action",
            ],
        );
        for (name, blocks) in [
            ("Owner", vec![(&["*"][..], &[][..])]),
            ("Contributor, which can write federated identity credentials", vec![contributor]),
            ("User Access Administrator", vec![(&["*/read", "Microsoft.Authorization/*"], &[])]),
            ("RBAC Administrator", vec![(&["Microsoft.Authorization/roleAssignments/write"], &[])]),
            ("any case", vec![(&["MICROSOFT.AUTHORIZATION/ROLEASSIGNMENTS/WRITE"], &[])]),
            ("role definitions", vec![(&["Microsoft.Authorization/roleDefinitions/write"], &[])]),
            (
                "privileged identity management",
                vec![(&["Microsoft.Authorization/roleAssignmentScheduleRequests/*"], &[])],
            ),
            ("elevation", vec![(&["Microsoft.Authorization/elevateAccess/action"], &[])]),
            ("a leading star", vec![(&["*/roleAssignments/write"], &[])]),
            ("a star within a word", vec![(&["Microsoft.Auth*/role*/w*"], &[])]),
            ("every write", vec![(&["*/write"], &[])]),
            ("credentials", vec![(&[FIC], &[])]),
            ("Managed Identity Contributor", vec![(&["Microsoft.ManagedIdentity/userAssignedIdentities/*"], &[])]),
            (
                "an exclusion of a single resource type",
                vec![(&["*/write"], &["Microsoft.Authorization/roleAssignments/write"])],
            ),
            ("what one block excludes and another allows", vec![contributor, (&[FIC], &[])]),
            ("delegation", vec![(&["Microsoft.ManagedServices/registrationAssignments/write"], &[])]),
        ] {
            assert!(RolePolicy::default().role_rejection(&role(&blocks)).is_some(), "{name}");
        }
    }

    #[test]
    fn roles_without_escalating_actions_are_allowed() {
        for (name, blocks) in [
            ("Reader", vec![(&["*/read"][..], &[][..])]),
            ("only data actions", vec![(&[], &[])]),
            (
                "Managed Identity Operator",
                vec![(
                    &[
                        "Microsoft.ManagedIdentity/userAssignedIdentities/*/assign/action",
                        "Microsoft.Authorization/*/read",
                    ],
                    &[],
                )],
            ),
            ("Network Contributor", vec![(&["Microsoft.Network/*", "Microsoft.Resources/deployments/*"], &[])]),
            ("everything is excluded", vec![(&["Microsoft.Authorization/*"], &["Microsoft.Authorization/*"])]),
            (
                "everything but escalating actions",
                vec![(
                    &["*"],
                    &[
                        "microsoft.authorization/*",
                        "Microsoft.ManagedIdentity/*/Write",
                        "Microsoft.Blueprint/*",
                        "Microsoft.ManagedServices/*",
                    ],
                )],
            ),
        ] {
            assert_eq!(RolePolicy::default().role_rejection(&role(&blocks)), None, "{name}");
        }
    }

    #[test]
    fn a_listed_role_is_allowed_whatever_its_actions() {
        let owner = role(&[(&["*"], &[])]);
        let listed = RolePolicy { allowed_roles: [owner.id.clone()].into(), ..RolePolicy::default() };
        assert_eq!(listed.role_rejection(&owner), None);
        let message = RolePolicy::default().role_rejection(&owner).unwrap();
        assert!(message.contains("\"Mine\" (c0500000-") && message.contains("--allowed-roles"), "{message}");
    }

    #[test]
    fn scopes_that_are_too_wide_or_outside_the_allowed_ones_have_to_be_listed() {
        let subscription = "/subscriptions/00000000-0000-0000-0000-00000000000a";
        let (group, other) =
            (format!("{subscription}/resourceGroups/rg"), format!("{subscription}/resourceGroups/rg2"));
        let account = format!("{group}/providers/Microsoft.Storage/storageAccounts/data");
        let is_rejected = |listed: &[&str], bounds: &[&str], scope: &str| {
            let allowed_scopes = listed.iter().map(|scope| scope.parse().unwrap()).collect();
            let bounds = AllowedScopes::new(bounds.iter().map(|scope| scope.parse().unwrap()));
            let policy = RolePolicy { allowed_scopes, ..RolePolicy::default() };
            policy.scope_rejection(&scope.parse().unwrap(), &bounds).is_some()
        };
        for wide in ["/", "/providers/Microsoft.Management/managementGroups/top", subscription] {
            assert!(is_rejected(&[], &[], wide), "{wide}");
            assert!(!is_rejected(&[wide], &[], wide), "{wide}");
            assert!(is_rejected(&[&group], &[], wide), "{wide}");
        }
        assert!(!is_rejected(&[], &[], &account) && !is_rejected(&[], &[&group.to_uppercase()], &account));
        assert!(is_rejected(&[], &[&other], &account) && !is_rejected(&[&group], &[&other], &account));
        assert!(is_rejected(&[], &[&group], &other), "a longer name is another group");
    }

    fn pattern() -> impl Strategy<Value = String> {
        "[ab/*]{0,6}"
    }

    /// Whether a text without stars matches the pattern, by exhaustive search.
    fn fits(pattern: &str, text: &str) -> bool {
        match (pattern.chars().next(), text.chars().next()) {
            (None, None) => true,
            (Some('*'), _) => fits(&pattern[1..], text) || (!text.is_empty() && fits(pattern, &text[1..])),
            (Some(a), Some(b)) => a == b && fits(&pattern[1..], &text[1..]),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn patterns_that_match_the_same_text_meet(one in pattern(), other in pattern(), text in "[ab/]{0,8}") {
            if fits(&one, &text) && fits(&other, &text) {
                prop_assert!(meet(&one, &other));
            }
            prop_assert_eq!(meet(&one, &text), fits(&one, &text));
            prop_assert_eq!(meet(&one, &other), meet(&other, &one));
        }

        #[test]
        fn a_covering_pattern_matches_everything_that_the_covered_one_matches(outer in pattern(), inner in pattern(), text in "[ab/]{0,8}") {
            if covers(&outer, &inner) && fits(&inner, &text) {
                prop_assert!(fits(&outer, &text), "{} {} {}", outer, inner, text);
            }
            prop_assert_eq!(covers(&outer, &text), fits(&outer, &text));
            prop_assert!(covers("*", &inner));
        }
    }
}
