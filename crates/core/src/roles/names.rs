//! Names of role assignments. A name proves which object the assignment was created for.

use uuid::Uuid;

use super::role::Assignment;
use super::scope::RoleScope;

/// UUID namespace of the names.
const NAMESPACE: Uuid = Uuid::from_u128(0x9b6c_1f4e_52f7_4d0b_a3ce_1d7a_0e45_6e51);

/// The object for which assignments are created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Maker<'a> {
    /// The cluster's ID.
    pub cluster_id: &'a str,
    /// The cluster's previous ID, if it has one.
    pub previous_id: Option<&'a str>,
    /// UID of the `ManagedIdentity`.
    pub owner_uid: &'a str,
}

impl Maker<'_> {
    /// The name of the assignment of a role to a principal in a scope: a version 5 UUID of cluster, owner, scope, principal
    /// and role, each preceded by its length, the last three in lower case.
    pub fn name(&self, scope: &RoleScope, principal: &str, role: &str) -> String {
        self.name_under(self.cluster_id, scope, principal, role)
    }

    /// The description of the assignment: who created it, with the parts that its name is derived from.
    pub fn description(&self, name: &str) -> String {
        format!("Created by Ensign for ManagedIdentity {} of cluster {}: {name}", self.owner_uid, self.cluster_id)
    }

    /// Whether the assignment was created for this owner: its name can be derived from its other fields.
    pub fn made(&self, assignment: &Assignment) -> bool {
        let Ok(scope) = assignment.scope.parse::<RoleScope>() else { return false };
        let matches = |cluster: &str| {
            let name = self.name_under(cluster, &scope, &assignment.principal, &assignment.role);
            name.eq_ignore_ascii_case(&assignment.name)
        };
        matches(self.cluster_id) || self.previous_id.is_some_and(matches)
    }

    fn name_under(&self, cluster: &str, scope: &RoleScope, principal: &str, role: &str) -> String {
        let (principal, role) = (principal.to_lowercase(), role.to_lowercase());
        let mut bytes = Vec::new();
        for part in [cluster, self.owner_uid, scope.key(), &principal, &role] {
            bytes.extend((part.len() as u64).to_be_bytes());
            bytes.extend(part.as_bytes());
        }
        Uuid::new_v5(&NAMESPACE, &bytes).to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SUBSCRIPTION: &str = "/subscriptions/00000000-0000-0000-0000-00000000000a";

    fn made(maker: &Maker<'_>, scope: &str, principal: &str, role: &str) -> Assignment {
        Assignment {
            name: maker.name(&scope.parse().unwrap(), principal, role),
            scope: scope.to_owned(),
            role: role.to_owned(),
            principal: principal.to_owned(),
            condition: None,
        }
    }

    fn maker<'a>(cluster_id: &'a str, owner_uid: &'a str) -> Maker<'a> {
        Maker { cluster_id, previous_id: None, owner_uid }
    }

    #[test]
    fn the_name_proves_ownership_regardless_of_letter_case() {
        let group = format!("{SUBSCRIPTION}/resourceGroups/Shop-RG");
        let mine = maker("cluster", "uid");
        let mut assignment = made(&mine, &group, "AA", "BB");
        assert!(mine.made(&assignment));
        assignment.scope = group.to_lowercase();
        (assignment.principal, assignment.role) = ("aa".to_owned(), "bb".to_owned());
        assignment.name = assignment.name.to_uppercase();
        assert!(mine.made(&assignment));
    }

    #[test]
    fn an_assignment_under_the_previous_cluster_id_is_owned_if_that_id_is_known() {
        let group = format!("{SUBSCRIPTION}/resourceGroups/rg");
        let before = made(&maker("before", "uid"), &group, "p", "r");
        assert!(!maker("after", "uid").made(&before));
        assert!(Maker { previous_id: Some("before"), ..maker("after", "uid") }.made(&before));
    }

    #[test]
    fn an_assignment_with_an_invalid_scope_has_no_owner() {
        let group = format!("{SUBSCRIPTION}/resourceGroups/rg");
        let mine = maker("cluster", "uid");
        assert!(!mine.made(&Assignment { scope: format!("{group}/.."), ..made(&mine, &group, "p", "r") }));
    }

    proptest! {
        #[test]
        fn names_differ_if_any_part_differs_wherever_the_parts_are_split(
            one in prop::array::uniform4("[a-b-]{0,3}"), other in prop::array::uniform4("[a-b-]{0,3}"),
            group in "[a-b]{1,2}", other_group in "[a-b]{1,2}",
        ) {
            let name = |[cluster, owner, principal, role]: &[String; 4], group: &str| {
                let scope = format!("{SUBSCRIPTION}/resourceGroups/{group}").parse().unwrap();
                maker(cluster, owner).name(&scope, principal, role)
            };
            let same = one == other && group == other_group;
            prop_assert_eq!(name(&one, &group) == name(&other, &other_group), same);
        }

        #[test]
        fn an_assignment_is_not_owned_if_any_part_was_changed(part in 0..6_usize, other in "[a-z]{1,5}") {
            let group = format!("{SUBSCRIPTION}/resourceGroups/rg");
            let (cluster, owner) = (format!("cluster{other}"), format!("uid{other}"));
            let mut changed = made(&maker("cluster", "uid"), &group, "p", "r");
            let mut holder = maker("cluster", "uid");
            match part {
                0 => changed.scope = format!("{group}{other}"),
                1 => changed.principal = format!("p{other}"),
                2 => changed.role = format!("r{other}"),
                3 => changed.name = changed.name.replace('-', &other),
                4 => holder.cluster_id = &cluster,
                _ => holder.owner_uid = &owner,
            }
            prop_assert!(!holder.made(&changed));
        }
    }
}
