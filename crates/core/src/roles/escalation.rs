//! Which roles may be given, and where: none with which an identity could get at more than it was given.

use std::collections::BTreeSet;

use super::scope::RoleScope;
use super::{ActionBlock, RoleDefinition};
use crate::acceptance::scopes::AllowedScopes;
use crate::mutants::{self, Mutant};

/// Actions that give whoever has them the rights of others: writing role assignments and definitions (and everything else
/// that is written in Microsoft.Authorization), elevating oneself, making an identity trust somebody, and having
/// blueprints or delegations do it.
const ESCALATING: [&str; 6] = [
    "microsoft.authorization/*/write",
    "microsoft.authorization/elevateaccess/action",
    "microsoft.managedidentity/userassignedidentities/federatedidentitycredentials/write",
    "microsoft.blueprint/blueprintassignments/write",
    "microsoft.managedservices/registrationassignments/write",
    "microsoft.managedservices/registrationdefinitions/write",
];

/// What whoever runs the controller lets it assign.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RolePolicy {
    /// GUIDs, in lower case, of roles that may be given whatever they allow.
    pub allowed_roles: BTreeSet<String>,
    /// Scopes in which roles may be given though they are wider than a resource group, or outside of the scopes in which
    /// the controller may act.
    pub allowed_scopes: Vec<RoleScope>,
}

impl RolePolicy {
    /// Why no role may be given in the scope, if none may.
    pub(super) fn refuse_scope(&self, scope: &RoleScope, bounds: &AllowedScopes) -> Option<String> {
        if self.allowed_scopes.iter().any(|allowed| allowed.covers(scope)) {
            return None;
        }
        if !scope.is_in_resource_group() {
            return Some(format!(
                "no role is assigned in scope {scope}, because it is wider than a resource group: a cluster operator has to name a narrower scope, or whoever runs Ensign has to list this one in --allowed-role-scopes"
            ));
        }
        (!bounds.contain(scope.key())).then(|| {
            format!(
                "no role is assigned in scope {scope}, because it lies outside of the scopes that this controller is limited to: whoever runs Ensign has to list it in --allowed-role-scopes, or a cluster operator has to name another"
            )
        })
    }

    /// Why the role may not be given, if it may not.
    pub(super) fn refuse_role(&self, role: &RoleDefinition) -> Option<String> {
        if self.allowed_roles.contains(&role.id) {
            return None;
        }
        let action = escalation(role)?;
        Some(format!(
            "role {:?} ({}) is not assigned, because it may allow {action}, with which an identity can get at more than it was given: a cluster operator has to name a smaller role, or whoever runs Ensign has to list its GUID in --allowed-roles",
            role.name, role.id
        ))
    }
}

/// The first escalating action that the role may allow.
fn escalation(role: &RoleDefinition) -> Option<&'static str> {
    ESCALATING.into_iter().find(|wanted| role.blocks.iter().any(|block| may_allow(block, wanted)))
}

/// Whether the block may allow an action that fits the pattern. Where several exclusions together leave nothing over, it
/// still counts: in doubt a role is refused. Conditions are not counted on.
fn may_allow(block: &ActionBlock, wanted: &str) -> bool {
    let fits = |action: &str, wanted: &str| {
        if mutants::active(Mutant::RoleWildcardsIgnored) { action == wanted } else { meet(action, wanted) }
    };
    let excluded = |pattern: &str| block.not_actions.iter().any(|not| covers(&not.to_lowercase(), pattern));
    block
        .actions
        .iter()
        .map(|action| action.to_lowercase())
        .any(|action| fits(&action, wanted) && !excluded(wanted) && !excluded(&action))
}

/// Whether everything that fits `inner` fits `outer`, as far as that can be read off the two: a star of the inner one is
/// covered by a star alone.
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

/// Whether anything fits both patterns.
fn meet(one: &str, other: &str) -> bool {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    // Whether the rest of `one` from a place on, and all of `other` from each place on, have something in common.
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
            ("Contributor, which makes identities trust others", vec![contributor]),
            ("User Access Administrator", vec![(&["*/read", "Microsoft.Authorization/*"], &[])]),
            ("RBAC Administrator", vec![(&["Microsoft.Authorization/roleAssignments/write"], &[])]),
            ("any case", vec![(&["MICROSOFT.AUTHORIZATION/ROLEASSIGNMENTS/WRITE"], &[])]),
            ("role definitions", vec![(&["Microsoft.Authorization/roleDefinitions/write"], &[])]),
            (
                "privileged identity management",
                vec![(&["Microsoft.Authorization/roleAssignmentScheduleRequests/*"], &[])],
            ),
            ("elevation", vec![(&["Microsoft.Authorization/elevateAccess/action"], &[])]),
            ("a star at the front", vec![(&["*/roleAssignments/write"], &[])]),
            ("a star within a word", vec![(&["Microsoft.Auth*/role*/w*"], &[])]),
            ("every write", vec![(&["*/write"], &[])]),
            ("credentials", vec![(&[FIC], &[])]),
            ("Managed Identity Contributor", vec![(&["Microsoft.ManagedIdentity/userAssignedIdentities/*"], &[])]),
            (
                "an exclusion that excludes one kind",
                vec![(&["*/write"], &["Microsoft.Authorization/roleAssignments/write"])],
            ),
            ("what one block excludes and another allows", vec![contributor, (&[FIC], &[])]),
            ("delegation", vec![(&["Microsoft.ManagedServices/registrationAssignments/write"], &[])]),
        ] {
            assert!(RolePolicy::default().refuse_role(&role(&blocks)).is_some(), "{name}");
        }
    }

    #[test]
    fn roles_without_escalating_actions_are_allowed() {
        for (name, blocks) in [
            ("Reader", vec![(&["*/read"][..], &[][..])]),
            ("data alone", vec![(&[], &[])]),
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
            ("nothing is left", vec![(&["Microsoft.Authorization/*"], &["Microsoft.Authorization/*"])]),
            (
                "everything but",
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
            assert_eq!(RolePolicy::default().refuse_role(&role(&blocks)), None, "{name}");
        }
    }

    #[test]
    fn a_listed_role_is_allowed_whatever_its_actions() {
        let owner = role(&[(&["*"], &[])]);
        let listed = RolePolicy { allowed_roles: [owner.id.clone()].into(), ..RolePolicy::default() };
        assert_eq!(listed.refuse_role(&owner), None);
        let refused = RolePolicy::default().refuse_role(&owner).unwrap();
        assert!(refused.contains("\"Mine\" (c0500000-") && refused.contains("--allowed-roles"), "{refused}");
    }

    #[test]
    fn scopes_that_are_too_wide_or_outside_the_allowed_ones_have_to_be_listed() {
        let subscription = "/subscriptions/00000000-0000-0000-0000-00000000000a";
        let (group, other) =
            (format!("{subscription}/resourceGroups/rg"), format!("{subscription}/resourceGroups/rg2"));
        let account = format!("{group}/providers/Microsoft.Storage/storageAccounts/data");
        let refused = |listed: &[&str], bounds: &[&str], scope: &str| {
            let allowed_scopes = listed.iter().map(|scope| scope.parse().unwrap()).collect();
            let bounds = AllowedScopes::new(bounds.iter().map(|scope| scope.parse().unwrap()));
            let policy = RolePolicy { allowed_scopes, ..RolePolicy::default() };
            policy.refuse_scope(&scope.parse().unwrap(), &bounds).is_some()
        };
        for wide in ["/", "/providers/Microsoft.Management/managementGroups/top", subscription] {
            assert!(refused(&[], &[], wide), "{wide}");
            assert!(!refused(&[wide], &[], wide), "{wide}");
            assert!(refused(&[&group], &[], wide), "{wide}");
        }
        assert!(!refused(&[], &[], &account) && !refused(&[], &[&group.to_uppercase()], &account));
        assert!(refused(&[], &[&other], &account) && !refused(&[&group], &[&other], &account));
        assert!(refused(&[], &[&group], &other), "a longer name is another group");
    }

    fn pattern() -> impl Strategy<Value = String> {
        "[ab/*]{0,6}"
    }

    /// Whether a text without stars fits the pattern, by trying everything.
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
