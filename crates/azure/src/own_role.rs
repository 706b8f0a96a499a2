//! The smallest Azure role that is enough for Ensign.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use uuid::Uuid;

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

/// Who a role is for, which its default name tells.
#[derive(Clone, Copy, Debug, Default)]
pub struct Holder<'a> {
    /// A name of the cluster.
    pub cluster: Option<&'a str>,
    /// Object ID of the controller's own identity.
    pub principal_id: Option<&'a str>,
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
    /// The role for some features, in some scopes. By default it is named after the features and after who it is for, because
    /// role names are unique in a tenant.
    pub fn new(features: &BTreeSet<Feature>, name: Option<&str>, holder: Holder<'_>, scopes: Vec<AzureScope>) -> Self {
        let features_text = features.iter().map(|feature| feature.name()).collect::<Vec<_>>().join(" ");
        let default = || format!("Ensign {features_text} {}", suffix(holder, &scopes));
        Self {
            name: name.map_or_else(default, str::to_owned),
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
            "Description": DESCRIPTION,
            "Actions": self.actions,
            "NotActions": [],
            "DataActions": [],
            "NotDataActions": [],
            "AssignableScopes": self.assignable(),
        })
    }

    /// Azure allows nothing below a resource group here; the assignment itself may be narrower.
    fn assignable(&self) -> BTreeSet<String> {
        self.scopes.iter().map(|scope| scope.assignable().to_string()).collect()
    }

    /// A shell script that creates or updates the role, and its assignment to a principal in each scope. It can be run again.
    pub fn script(&self, principal_id: &str) -> String {
        let assignable = self.assignable();
        let role_id = uuid(&[&self.name]);
        let wanted: BTreeMap<String, &AzureScope> =
            self.scopes.iter().map(|scope| (scope.to_string().to_lowercase(), scope)).collect();
        let scopes: Vec<String> = wanted.values().map(ToString::to_string).collect();
        let wanted: Vec<String> =
            wanted.iter().map(|(key, scope)| format!("{} {scope}", uuid(&[&role_id, principal_id, key]))).collect();
        let permission = json!({"actions": self.actions, "notActions": [], "dataActions": [], "notDataActions": []});
        let start = format!(
            r#"{{"properties":{{"roleName":{},"type":"CustomRole","description":{},"permissions":[{permission}],"assignableScopes":["#,
            json!(self.name),
            json!(DESCRIPTION)
        );
        let condition = self.condition.as_deref().unwrap_or_default();
        let condition_json = match self.condition.as_deref() {
            Some(condition) => format!(r#","condition":{},"conditionVersion":"2.0""#, json!(condition)),
            None => String::new(),
        };
        let variables = [
            ("role_name", self.name.clone()),
            ("role_guid", role_id),
            ("role_filter", format!("roleName eq '{}'", self.name.replace('\'', "''"))),
            ("role_actions", self.actions().collect::<Vec<_>>().join(" ")),
            ("role_start", start),
            ("role_end", "]}}".to_owned()),
            ("assignable", assignable.into_iter().collect::<Vec<_>>().join("\n")),
            ("principal", principal_id.to_lowercase()),
            ("condition", condition.to_owned()),
            ("condition_json", condition_json),
            ("scopes", scopes.join("\n")),
            ("wanted", wanted.join("\n")),
            ("newline", "\n".to_owned()),
        ];
        let variables = variables.map(|(name, value)| format!("{name}={}\n", quoted(&value))).concat();
        format!("{HEADER}\n{variables}\n{STEPS}")
    }
}

const DESCRIPTION: &str = "What the Ensign controller does in Azure, and nothing else.";
const HEADER: &str = "\
#!/bin/sh
# Creates or updates the Azure role of an Ensign controller, assigns it to the controller's identity, and says what it changed.
# It can be run again at any time: after a change of its scopes, of the features or of the roles that may be assigned, and
# after a failure. Assignments of the role that are not asked for any more are named, and removed with the argument --remove.
#
# Needs the Azure CLI, signed in as someone who may write role definitions and role assignments in the scopes below.
";
/// What the script does with its variables.
const STEPS: &str = include_str!("own_role.sh");
/// UUID namespace of the role and of its assignments.
const NAMESPACE: Uuid = Uuid::from_u128(0x1c7d_43a5_6f0e_4b58_9d2a_c1f0_36e8_7b94);

/// The same parts always give the same UUID, regardless of case.
fn uuid(parts: &[&str]) -> String {
    Uuid::new_v5(&NAMESPACE, parts.join("\n").to_lowercase().as_bytes()).to_string()
}

/// What distinguishes the role from that of another cluster.
fn suffix(holder: Holder<'_>, scopes: &[AzureScope]) -> String {
    let short = |text: &str| text.chars().take(8).collect::<String>().to_lowercase();
    match (holder.cluster, holder.principal_id) {
        (Some(cluster), _) => format!("({cluster})"),
        (None, Some(principal)) => short(principal),
        (None, None) => {
            let keys: BTreeSet<String> = scopes.iter().map(|scope| scope.to_string().to_lowercase()).collect();
            short(&uuid(&keys.iter().map(String::as_str).collect::<Vec<_>>()))
        }
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
        Role::new(&features.iter().copied().collect(), None, Holder::default(), scopes)
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
        let script = role.script("7E000000-0000-4000-8000-00000000007e");
        assert!(script.contains(&format!("assignable='{group}'\n")), "{script}");
        assert!(script.contains(&format!("scopes='{group}\n{identity}'\n")), "{script}");
        assert!(script.contains("principal='7e000000-0000-4000-8000-00000000007e'\n"), "{script}");
    }

    #[test]
    fn the_script_depends_on_nothing_but_the_flags() {
        let group = format!("{SUBSCRIPTION}/resourceGroups/rg");
        let one = role(&[Feature::Bind], &[SUBSCRIPTION, &group]);
        let other = role(&[Feature::Bind], &[&group, SUBSCRIPTION]);
        assert_eq!(one.script("p"), other.script("p"), "whatever their order");
        assert_ne!(one.name, role(&[Feature::Bind], &[SUBSCRIPTION]).name);
    }

    #[test]
    fn two_clusters_of_a_tenant_have_two_roles() {
        let role_of = |cluster, principal_id| {
            let holder = Holder { cluster, principal_id };
            Role::new(&[Feature::Bind].into(), None, holder, vec![SUBSCRIPTION.parse().unwrap()])
        };
        let roles = [
            role_of(Some("prod"), None),
            role_of(Some("test"), None),
            role_of(None, Some("7E000000-0000")),
            role_of(None, None),
        ];
        let names: BTreeSet<&str> = roles.iter().map(|role| role.name.as_str()).collect();
        assert_eq!(names.len(), 4, "{names:?}");
        assert!(names.contains("Ensign bind (prod)") && names.contains("Ensign bind 7e000000"), "{names:?}");
        let ids: BTreeSet<String> = roles.iter().map(|role| variable(&role.script("p"), "role_guid")).collect();
        assert_eq!(ids.len(), 4, "{ids:?}");
    }

    fn variable(script: &str, name: &str) -> String {
        let found = script.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
        found.unwrap_or_else(|| panic!("{name} is not in the script")).to_owned()
    }

    #[test]
    fn assigning_roles_is_limited_to_listed_roles_and_to_service_principals() {
        let roles = ["2a2b9908-6ea1-4ae2-8e65-a410df84e7d1", "4633458b-17de-408a-b874-0445c86b69e6"].map(str::to_owned);
        let role = role(&[Feature::RoleAssignments], &[SUBSCRIPTION]).assigning(&roles.into());
        let expected = "((!(ActionMatches{'Microsoft.Authorization/roleAssignments/write'})) OR (@Request[Microsoft.Authorization/roleAssignments:RoleDefinitionId] ForAnyOfAnyValues:GuidEquals {2a2b9908-6ea1-4ae2-8e65-a410df84e7d1, 4633458b-17de-408a-b874-0445c86b69e6} AND @Request[Microsoft.Authorization/roleAssignments:PrincipalType] ForAnyOfAnyValues:StringEqualsIgnoreCase {'ServicePrincipal'})) AND ((!(ActionMatches{'Microsoft.Authorization/roleAssignments/delete'})) OR (@Resource[Microsoft.Authorization/roleAssignments:RoleDefinitionId] ForAnyOfAnyValues:GuidEquals {2a2b9908-6ea1-4ae2-8e65-a410df84e7d1, 4633458b-17de-408a-b874-0445c86b69e6} AND @Resource[Microsoft.Authorization/roleAssignments:PrincipalType] ForAnyOfAnyValues:StringEqualsIgnoreCase {'ServicePrincipal'}))";
        let script = role.script("me");
        assert_eq!(variable(&script, "condition"), quoted(expected));
        let json = format!(r#","condition":{},"conditionVersion":"2.0""#, json!(expected));
        assert_eq!(variable(&script, "condition_json"), quoted(&json));
        assert_eq!(role.actions().count(), 4);
    }

    #[test]
    fn the_script_is_safe_in_a_shell() {
        assert_eq!(quoted("it's"), r"'it'\''s'");
        let scopes = vec![SUBSCRIPTION.parse().unwrap()];
        let role = Role::new(&[Feature::Bind].into(), Some("Bob's $(role)"), Holder::default(), scopes);
        let script = role.script("<object ID>");
        assert_eq!(variable(&script, "role_name"), quoted("Bob's $(role)"));
        assert_eq!(variable(&script, "role_filter"), quoted("roleName eq 'Bob''s $(role)'"));
    }
}

#[cfg(test)]
#[path = "own_role_tests.rs"]
mod script_tests;
