//! `ensign orphans`.

use serde::Serialize;

use crate::cli::flags::azure::{AzureArgs, AzureSetup};
use crate::cli::kube_client;
use crate::cli::output::{Output, confirm, print, progress};
use crate::cli::usage_errors::Problems;
use crate::cli::{Failure, Usage, block_on};
use ensign_azure::ArmClient;
use ensign_controller::{OrphanSearch, current_cluster};
use ensign_core::acceptance::scopes::AzureScope;
use ensign_core::commands::orphans::{Orphan, not_gone};
use ensign_core::credentials::names;
use ensign_runtime::clock::SystemClock;
use ensign_runtime::telemetry::{self, TelemetryArgs};
use ensign_runtime::tls;

const EXAMPLES: &str = "\
Examples:
  List what a deleted cluster has left in a subscription:
    ensign orphans --cluster-id 0f1e… --scope /subscriptions/<guid>
  Delete it; the list shows the issuer:
    ensign orphans --cluster-id 0f1e… --scope /subscriptions/<guid> --issuer https://… --delete

The cluster ID was the UID of its namespace kube-system, unless --cluster-id was set; the controller logged it at startup. The
eight digits after `ensign-` in a credential's name are its hash.

Exit status: 0 done; 1 something could not be read or deleted; 2 invalid flags.";

/// List the federated identity credentials of a deleted cluster, and delete them on request.
///
/// A credential belongs to the cluster only if its name recomputes from the cluster's ID and from its own issuer and subject:
/// those of other clusters, and those created by hand or by other tools, are never listed or deleted. The cluster that your
/// kubeconfig points to is rejected: it still exists.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// ID of the deleted cluster
    #[arg(long, value_name = "ID")]
    cluster_id: String,
    /// Where to search: ARM IDs of subscriptions, resource groups or user-assigned identities; comma-separated or repeated
    #[arg(long, required = true, value_delimiter = ',', value_name = "ARM-ID,…")]
    scope: Vec<String>,
    /// Only credentials with this issuer; repeatable. Required with --delete: another cluster may have a copy of the ID
    #[arg(long, value_name = "URL")]
    issuer: Vec<String>,
    /// Delete the credentials that are found
    #[arg(long)]
    delete: bool,
    /// Do not ask for confirmation
    #[arg(long, requires = "delete")]
    yes: bool,
    /// Output format
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
    #[command(flatten)]
    azure: AzureArgs,
    #[command(flatten)]
    telemetry: TelemetryArgs,
}

/// The output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SearchReport {
    #[serde(rename = "clusterID")]
    cluster_id: String,
    identities: usize,
    orphans: Vec<Orphan>,
    deleted: Vec<String>,
    problems: Vec<String>,
}

pub(in crate::cli) fn run(args: Args) -> Result<(), Failure> {
    tls::install_provider();
    telemetry::init(&args.telemetry)?;
    let (azure, scopes) = args.validate()?;
    block_on(serve(args, azure, scopes))
}

impl Args {
    fn validate(&self) -> Result<(AzureSetup, Vec<AzureScope>), Failure> {
        let mut problems = Problems::default();
        let azure = self.azure.resolve(|name| std::env::var_os(name), &mut problems);
        let parsed = self.scope.iter().filter_map(|text| {
            problems.take(text.trim().parse::<AzureScope>().map_err(|error| [format!("--scope: {error}")]))
        });
        let scopes: Vec<AzureScope> = parsed.collect();
        problems.require(!self.cluster_id.trim().is_empty(), || "--cluster-id must not be empty".to_owned());
        problems.require(!self.delete || !self.issuer.is_empty(), || {
            "--delete needs --issuer: list first, and specify the issuer of the deleted cluster".to_owned()
        });
        problems.finish(azure.map(|azure| (azure, scopes)))
    }
}

async fn serve(args: Args, azure: AzureSetup, scopes: Vec<AzureScope>) -> Result<(), Failure> {
    let AzureSetup { cloud, connection, own, scopes: allowed, .. } = azure;
    let own = own.credential(&cloud, &connection)?;
    let tag = names::cluster_tag(&args.cluster_id);
    let arm = ArmClient::new(&cloud, &connection, own.credential, &tag)?.bounded(allowed);
    let search = OrphanSearch::new(arm, args.cluster_id.clone(), args.issuer.clone(), SystemClock::shared());
    progress(&format!("searching for credentials ensign-{tag}-…"));
    let found = search.find(&scopes).await;
    let current = match kube_client::client().await {
        Ok(client) => current_cluster(&client).await,
        Err(error) => Err(error),
    };
    match current {
        Ok(present) => {
            if let Some(refusal) = not_gone(&args.cluster_id, &present, &found.orphans) {
                return Err(Usage(refusal).into());
            }
        }
        Err(error) => {
            progress(&format!("warning: could not verify that your kubeconfig points to another cluster ({error})"));
        }
    }
    let mut report = SearchReport {
        cluster_id: args.cluster_id.clone(),
        identities: found.identities,
        orphans: found.orphans,
        deleted: Vec::new(),
        problems: found.problems,
    };
    if args.delete && !report.orphans.is_empty() {
        let count = report.orphans.len();
        confirm(
            args.yes,
            &format!("This deletes {count} federated identity credential(s) of cluster {}", args.cluster_id),
        )?;
        for orphan in &report.orphans {
            match search.delete(orphan).await {
                Ok(()) => report.deleted.push(orphan.name.clone()),
                Err(problem) => report.problems.push(problem),
            }
        }
    }
    print(args.output, &report, || render(&report))?;
    if report.problems.is_empty() { Ok(()) } else { Err("something remains to be done; see TO DO above".into()) }
}

fn render(report: &SearchReport) -> String {
    let mut lines = vec![format!(
        "{} identities checked, {} credential(s) of cluster {}, {} deleted",
        report.identities,
        report.orphans.len(),
        report.cluster_id,
        report.deleted.len()
    )];
    for orphan in &report.orphans {
        let deleted = if report.deleted.contains(&orphan.name) { "deleted: " } else { "" };
        lines.push(format!("{deleted}{}", orphan.name));
        lines.push(format!("  trusts {} of issuer {}", orphan.subject, orphan.issuer));
        lines.push(format!("  under {}", orphan.identity));
    }
    lines.extend(report.problems.iter().map(|problem| format!("TO DO: {problem}")));
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct TestCli {
        #[command(flatten)]
        args: Args,
    }

    fn problems(flags: &[&str]) -> String {
        let parsed = TestCli::try_parse_from(["ensign"].iter().chain(flags));
        parsed.unwrap().args.validate().map_or_else(|failure| failure.to_string(), |_| String::new())
    }

    #[test]
    fn deleting_requires_the_issuer_of_the_deleted_cluster() {
        let scope = "--scope=/subscriptions/00000000-0000-0000-0000-000000000001";
        assert_eq!(problems(&["--cluster-id=x", scope]), "");
        assert!(problems(&["--cluster-id=x", scope, "--delete"]).contains("--delete needs --issuer"));
        assert_eq!(problems(&["--cluster-id=x", scope, "--delete", "--issuer=https://i"]), "");
    }

    #[test]
    fn all_invalid_flags_are_reported_at_once() {
        let reported = problems(&["--cluster-id= ", "--scope=rg,/subscriptions/y"]);
        for part in ["--cluster-id", "\"rg\"", "\"/subscriptions/y\""] {
            assert!(reported.contains(part), "{part}: {reported}");
        }
    }
}
