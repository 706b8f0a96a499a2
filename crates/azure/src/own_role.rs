//! The smallest Azure role that is enough for Ensign.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::error::Operation;
use ensign_core::acceptance::scopes::AzureScope;

/// What Ensign does in Azure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Feature {
    /// Read identities and write their federated identity credentials (credentialPolicy Manage)
    Bind,
    /// Assign roles to identities (spec.roleAssignments), with a condition that limits which roles
    RoleAssignments,
    /// Read identities and their federated identity credentials and report what is missing (credentialPolicy Observe)
    Observe,
    /// Create, tag and delete identities (spec.provision and classes)
    Provision,
}

impl Feature {
    /// The operations of ARM that it needs.
    fn operations(self) -> &'static [Operation] {
        match self {
            Self::RoleAssignments => &Operation::OF_ROLES,
            Self::Bind => &[
                Operation::ReadIdentity,
                Operation::ListCredentials,
                Operation::PutCredential,
                Operation::DeleteCredential,
            ],
            Self::Observe => &[Operation::ReadIdentity, Operation::ListCredentials],
            Self::Provision => &[Operation::ReadIdentity, Operation::PutIdentity, Operation::DeleteIdentity],
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::RoleAssignments => "role-assignments",
            Self::Observe => "observe",
            Self::Provision => "provision",
        }
    }
}

/// A custom role and the scopes in which it is assigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    name: String,
    actions: BTreeSet<&'static str>,
    scopes: Vec<AzureScope>,
    condition: Option<String>,
}

impl Role {
    /// The role for some features, in some scopes. By default it is named after the features.
    pub fn new(features: &BTreeSet<Feature>, name: Option<&str>, scopes: Vec<AzureScope>) -> Self {
        let features_text = features.iter().map(|feature| feature.name()).collect::<Vec<_>>().join(" ");
        Self {
            name: name.map_or_else(|| format!("Ensign {features_text}"), str::to_owned),
            actions: features.iter().flat_map(|feature| feature.operations()).map(|act| act.action()).collect(),
            scopes,
            condition: None,
        }
    }

    /// The role, assigned with a condition: its holder may assign only these roles, given by GUID, and only to service
    /// principals, which include managed identities.
    #[must_use]
    pub fn assigning(self, roles: &BTreeSet<String>) -> Self {
        Self { condition: Some(condition(roles)), ..self }
    }

    /// The actions that the role allows.
    pub fn actions(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.actions.iter().copied()
    }

    /// The definition in the format of `az role definition create`.
    pub fn definition(&self) -> Value {
        json!({
            "Name": self.name,
            "IsCustom": true,
            "Description": "What the Ensign controller does in Azure, and nothing else.",
            "Actions": self.actions,
            "NotActions": [],
            "DataActions": [],
            "NotDataActions": [],
            // Azure allows nothing below a resource group here; the assignment itself may be narrower.
            "AssignableScopes": self.scopes.iter().map(|scope| scope.assignable().to_string()).collect::<BTreeSet<_>>(),
        })
    }

    /// A shell script that creates the role and assigns it to a principal in each scope.
    pub fn script(&self, principal_id: &str) -> String {
        let definition = format!("{:#}", self.definition());
        let create = format!("az role definition create --role-definition {}\n", quoted(&definition));
        let (role, principal) = (quoted(&self.name), quoted(principal_id));
        let condition = self.condition.as_deref().map_or_else(String::new, |condition| {
            format!(" --condition-version 2.0 --condition {}", quoted(condition))
        });
        let assignments = self.scopes.iter().map(|scope| {
            format!(
                "az role assignment create --role {role} --assignee-object-id {principal} --assignee-principal-type ServicePrincipal --scope {}{condition}\n",
                quoted(&scope.to_string())
            )
        });
        std::iter::once(create).chain(assignments).collect()
    }
}

/// A condition on a role assignment in Azure's language. It limits each of the two actions, and nothing else.
fn condition(roles: &BTreeSet<String>) -> String {
    const ASSIGNMENTS: &str = "Microsoft.Authorization/roleAssignments";
    let roles = roles.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let limited = |action: &str, of: &str| {
        format!(
            "((!(ActionMatches{{'{ASSIGNMENTS}/{action}'}})) OR (@{of}[{ASSIGNMENTS}:RoleDefinitionId] ForAnyOfAnyValues:GuidEquals {{{roles}}} AND @{of}[{ASSIGNMENTS}:PrincipalType] ForAnyOfAnyValues:StringEqualsIgnoreCase {{'ServicePrincipal'}}))"
        )
    };
    // A write has the assignment in the request; a deletion has the existing one.
    format!("{} AND {}", limited("write", "Request"), limited("delete", "Resource"))
}

/// Quotes a word for a POSIX shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBSCRIPTION: &str = "/subscriptions/00000000-0000-0000-0000-000000000001";

    fn role(features: &[Feature], scopes: &[&str]) -> Role {
        let scopes = scopes.iter().map(|scope| scope.parse().unwrap()).collect();
        Role::new(&features.iter().copied().collect(), None, scopes)
    }

    #[test]
    fn observing_needs_only_reads() {
        let actions: Vec<_> = role(&[Feature::Observe], &[]).actions().collect();
        assert_eq!(actions.len(), 2);
        assert!(actions.iter().all(|action| action.ends_with("/read")), "{actions:?}");
        let both: Vec<_> = role(&[Feature::Observe, Feature::Bind], &[]).actions().collect();
        assert_eq!(both, role(&[Feature::Bind], &[]).actions().collect::<Vec<_>>());
    }

    #[test]
    fn no_action_is_a_wildcard_and_none_writes_an_identity() {
        for action in role(&[Feature::Bind], &[]).actions() {
            assert!(!action.contains('*'), "{action}");
            let writes = !action.ends_with("/read");
            assert!(!writes || action.contains("/federatedIdentityCredentials/"), "{action}");
        }
    }

    #[test]
    fn provisioning_needs_three_actions_and_none_on_credentials() {
        let actions: Vec<_> = role(&[Feature::Provision], &[]).actions().collect();
        let kind = "Microsoft.ManagedIdentity/userAssignedIdentities";
        assert_eq!(actions, ["delete", "read", "write"].map(|verb| format!("{kind}/{verb}")));
    }

    #[test]
    fn a_role_for_an_identity_is_defined_in_its_resource_group_and_assigned_at_the_identity() {
        let identity = format!(
            "{SUBSCRIPTION}/resourceGroups/rg/providers/Microsoft.ManagedIdentity/userAssignedIdentities/orders"
        );
        let group = format!("{SUBSCRIPTION}/resourceGroups/rg");
        let role = role(&[Feature::Bind], &[&identity, &group]);
        assert_eq!(role.definition()["AssignableScopes"], json!([group]));
        let script = role.script("7e000000-0000-4000-8000-00000000007e");
        let assigned: Vec<_> = script.lines().filter(|line| line.starts_with("az role assignment create")).collect();
        assert_eq!(assigned.len(), 2, "{script}");
        assert!(assigned[0].ends_with(&format!("--scope '{identity}'")), "{script}");
        assert!(assigned[0].contains("--assignee-object-id '7e000000-0000-4000-8000-00000000007e'"), "{script}");
    }

    #[test]
    fn assigning_roles_is_limited_to_listed_roles_and_to_service_principals() {
        let roles = ["2a2b9908-6ea1-4ae2-8e65-a410df84e7d1", "4633458b-17de-408a-b874-0445c86b69e6"].map(str::to_owned);
        let role = role(&[Feature::RoleAssignments], &[SUBSCRIPTION]).assigning(&roles.into());
        let expected = "((!(ActionMatches{'Microsoft.Authorization/roleAssignments/write'})) OR (@Request[Microsoft.Authorization/roleAssignments:RoleDefinitionId] ForAnyOfAnyValues:GuidEquals {2a2b9908-6ea1-4ae2-8e65-a410df84e7d1, 4633458b-17de-408a-b874-0445c86b69e6} AND @Request[Microsoft.Authorization/roleAssignments:PrincipalType] ForAnyOfAnyValues:StringEqualsIgnoreCase {'ServicePrincipal'})) AND ((!(ActionMatches{'Microsoft.Authorization/roleAssignments/delete'})) OR (@Resource[Microsoft.Authorization/roleAssignments:RoleDefinitionId] ForAnyOfAnyValues:GuidEquals {2a2b9908-6ea1-4ae2-8e65-a410df84e7d1, 4633458b-17de-408a-b874-0445c86b69e6} AND @Resource[Microsoft.Authorization/roleAssignments:PrincipalType] ForAnyOfAnyValues:StringEqualsIgnoreCase {'ServicePrincipal'}))";
        let script = role.script("me");
        assert!(script.contains(&format!("--condition-version 2.0 --condition {}", quoted(expected))), "{script}");
        assert_eq!(role.actions().count(), 4);
    }

    #[test]
    fn the_script_is_safe_in_a_shell() {
        assert_eq!(quoted("it's"), r"'it'\''s'");
        let role = Role::new(&[Feature::Bind].into(), Some("Bob's $(role)"), vec![SUBSCRIPTION.parse().unwrap()]);
        assert!(role.script("<object ID>").contains(r"--role 'Bob'\''s $(role)' --assignee-object-id '<object ID>'"));
    }
}
