//! `ensign azure-role`: the controller's least-privilege role in Azure.

use std::collections::BTreeSet;
use std::io::Write;

use crate::cli::Failure;
use crate::cli::usage_errors::Problems;
use ensign_api::arm_id::is_guid;
use ensign_azure::own_role::{Feature, Holder, Role};
use ensign_core::acceptance::scopes::AzureScope;

const MAX_NAME: usize = 512;
const MAX_CLUSTER: usize = 64;

const EXAMPLES: &str = "\
Examples:
  Create the role, or update it, and assign it:
    ensign azure-role --cluster prod --scope /subscriptions/<guid>/resourceGroups/<name> --principal-id <guid> | sh
  The same, and remove its assignments in other scopes:
    ensign azure-role --cluster prod --scope /subscriptions/<guid>/resourceGroups/<name> --principal-id <guid> | sh -s -- --remove";

/// Print the controller's least-privilege Azure role, as a script that creates and assigns it.
///
/// The script is for someone who may write role definitions and role assignments in the scopes, signed in with the Azure CLI. It
/// can be run again, and says what it changed: after a change of scopes, features or assignable roles, print and run it again.
/// With `-o json` it is only the role definition.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// What the controller does in Azure; repeatable
    #[arg(long, value_enum, value_delimiter = ',', default_value = "bind", value_name = "FEATURE,…")]
    feature: Vec<Feature>,
    /// Where the controller acts: ARM ID of a subscription, a resource group or a user-assigned identity; repeatable
    #[arg(long, required = true, value_delimiter = ',', value_name = "ARM-ID,…")]
    scope: Vec<String>,
    /// GUIDs of the only roles that the controller may assign; required with --feature role-assignments, and only there;
    /// repeatable
    #[arg(long, value_delimiter = ',', value_name = "GUID,…")]
    assignable_roles: Vec<String>,
    /// Object ID (principalId) of the controller's own identity [default: a placeholder]
    #[arg(long, value_name = "GUID")]
    principal_id: Option<String>,
    /// Name of the cluster, for the default name of the role: each cluster of a tenant needs a role of its own
    #[arg(long, value_name = "NAME", conflicts_with = "name")]
    cluster: Option<String>,
    /// Name of the role, unique in the tenant [default: "Ensign", the features, and the cluster or the start of the principal ID]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Output format
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Output {
    /// A shell script that creates or updates the role, and assigns it
    #[default]
    Script,
    /// Only the role definition
    Json,
}

pub(in crate::cli) fn run(args: &Args) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", args.render()?.trim_end())?;
    Ok(())
}

impl Args {
    fn render(&self) -> Result<String, Failure> {
        let mut problems = Problems::default();
        let scopes: Vec<AzureScope> = self
            .scope
            .iter()
            .filter_map(|text| problems.take(text.trim().parse().map_err(|error| [format!("--scope: {error}")])))
            .collect();
        let principal = self.principal_id.as_deref();
        problems.require(principal.is_none_or(is_guid), || {
            format!("--principal-id {:?} is not a GUID", principal.unwrap_or_default())
        });
        let name = self.name.as_deref();
        problems.require(name.is_none_or(|name| !name.trim().is_empty() && name.chars().count() <= MAX_NAME), || {
            format!("--name must have 1 to {MAX_NAME} characters")
        });
        let cluster = self.cluster.as_deref();
        problems.require(cluster.is_none_or(is_plain), || {
            format!("--cluster must have 1 to {MAX_CLUSTER} letters, digits, hyphens, dots and underscores")
        });
        let features: BTreeSet<Feature> = self.feature.iter().copied().collect();
        let assigns = features.contains(&Feature::RoleAssignments);
        problems.require(assigns != self.assignable_roles.is_empty(), || {
            "--assignable-roles is required with --feature role-assignments, and only there".to_owned()
        });
        for role in self.assignable_roles.iter().filter(|role| !is_guid(role)) {
            problems.require(false, || format!("--assignable-roles {role:?} is not a GUID"));
        }
        let assignable: BTreeSet<String> = self.assignable_roles.iter().map(|role| role.to_lowercase()).collect();
        let role = Role::new(&features, name, Holder { cluster, principal_id: principal }, scopes);
        let role = problems.finish(Some(if assigns { role.assigning(&assignable) } else { role }))?;
        Ok(match self.output {
            Output::Json => format!("{:#}", role.definition()),
            Output::Script => role.script(principal.unwrap_or("<object ID of the controller's identity>")),
        })
    }
}

fn is_plain(cluster: &str) -> bool {
    (1..=MAX_CLUSTER).contains(&cluster.len())
        && cluster.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::Value;

    use super::*;

    const SUBSCRIPTION: &str = "/subscriptions/50b00000-0000-4000-8000-00000000050b";
    const GUID: &str = "7e000000-0000-4000-8000-00000000007e";

    #[derive(Parser)]
    struct TestCli {
        #[command(flatten)]
        args: Args,
    }

    fn render(flags: &[&str]) -> Result<String, String> {
        let args = TestCli::try_parse_from(["ensign"].iter().chain(flags)).map_err(|error| error.to_string())?.args;
        args.render().map_err(|failure| failure.to_string())
    }

    #[test]
    fn json_is_only_the_role_definition() {
        let text = render(&["-o", "json", "--scope", SUBSCRIPTION]).unwrap();
        let definition: Value = serde_json::from_str(&text).unwrap();
        assert!(definition["Name"].as_str().unwrap().starts_with("Ensign bind "));
        assert_eq!(definition["AssignableScopes"][0], SUBSCRIPTION);
        assert_eq!(definition["Actions"].as_array().map(Vec::len), Some(4));
    }

    #[test]
    fn the_role_has_the_name_that_is_asked_for() {
        let name = |flags: &[&str]| {
            let text = render(&[&["-o", "json", "--scope", SUBSCRIPTION], flags].concat()).unwrap();
            serde_json::from_str::<Value>(&text).unwrap()["Name"].clone()
        };
        assert_eq!(name(&["--cluster", "prod"]), "Ensign bind (prod)");
        assert_eq!(name(&["--principal-id", GUID]), "Ensign bind 7e000000");
        assert_eq!(name(&["--name", "Mine"]), "Mine");
        assert!(render(&["--scope", SUBSCRIPTION, "--cluster=a", "--name=b"]).unwrap_err().contains("--cluster"));
        assert!(render(&["--scope", SUBSCRIPTION, "--cluster=a b"]).unwrap_err().contains("--cluster"));
    }

    #[test]
    fn observe_is_a_separate_role() {
        let text = render(&["--feature=observe", "-o=json", "--scope", SUBSCRIPTION]).unwrap();
        let definition: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (
                definition["Name"].to_string().contains("Ensign observe "),
                definition["Actions"].as_array().map(Vec::len)
            ),
            (true, Some(2))
        );
    }

    #[test]
    fn assignable_roles_are_required_with_role_assignments_and_only_there() {
        let assigning = ["--scope", SUBSCRIPTION, "--feature=role-assignments"];
        assert!(render(&assigning).unwrap_err().contains("--assignable-roles"));
        assert!(
            render(&["--scope", SUBSCRIPTION, "--assignable-roles", GUID]).unwrap_err().contains("--assignable-roles")
        );
        let script = render(&[&assigning[..], &["--assignable-roles", &GUID.to_uppercase()]].concat()).unwrap();
        assert!(script.contains(&format!("GuidEquals {{{GUID}}}")), "{script}");
        assert!(render(&[&assigning[..], &["--assignable-roles=Owner"]].concat()).unwrap_err().contains("\"Owner\""));
    }

    #[test]
    fn a_scope_is_required_and_all_invalid_flags_are_reported_at_once() {
        assert!(render(&[]).unwrap_err().contains("--scope"));
        let problems = render(&["--scope=x,/subscriptions/y", "--principal-id=me", "--name= "]).unwrap_err();
        for named in ["\"x\"", "\"/subscriptions/y\"", "--principal-id", "--name"] {
            assert!(problems.contains(named), "{named} is not reported: {problems}");
        }
    }
}
