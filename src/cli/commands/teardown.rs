//! `ensign teardown`.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::cli::flags::azure::{AzureArgs, AzureSetup};
use crate::cli::flags::azure_limits::AzureLimitsArgs;
use crate::cli::flags::cluster::ClusterArgs;
use crate::cli::flags::leader_election::LeaderElectionArgs;
use crate::cli::kube_client;
use crate::cli::output::{Output, confirm, print, progress};
use crate::cli::usage_errors::Problems;
use crate::cli::{Failure, block_on};
use ensign_azure::ArmClient;
use ensign_controller::{TeardownConfig, TeardownStep, discover, teardown};
use ensign_core::assess::Settings;
use ensign_core::commands::teardown::{Disposal, Report};
use ensign_core::credentials::names;
use ensign_core::credentials::ownership::Cluster;
use ensign_runtime::clock::SystemClock;
use ensign_runtime::duration_arg::DurationArg;
use ensign_runtime::telemetry::{self, TelemetryArgs};
use ensign_runtime::{shutdown, tls};

const TIMEOUT: RangeInclusive<DurationArg> = DurationArg::from_secs(1)..=DurationArg::from_secs(86_400);

const EXAMPLES: &str = "\
Examples:
  Before `helm uninstall`, so that no service account is trusted any more:
    ensign teardown --credentials delete --stop-controller ensign-controller
  Remove Ensign, and leave the trust in Azure in place:
    ensign teardown --credentials abandon --yes
  Unblock a namespace that hangs in deletion because Ensign was removed first:
    ensign teardown --credentials delete

Exit status: 0 everything is done; 1 something remains to be done, listed under TO DO; 2 invalid flags.";

/// Prepare the removal of Ensign from this cluster: end injection, delete or abandon the credentials in Azure, and remove
/// finalizers.
///
/// It removes the webhook's entries and empties the admission policies, ungates pods, deletes or abandons the federated
/// identity credentials that this cluster's Ensign wrote, removes finalizers, and prints what remains in Azure. It holds the
/// controller's Lease while it runs, so that no controller works against it. The objects stay, and a later install
/// continues with them. It is safe to run again.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// What happens to the credentials that this cluster's Ensign wrote
    #[arg(long, env = "ENSIGN_TEARDOWN_CREDENTIALS", value_enum, value_name = "WHAT")]
    credentials: Credentials,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
    /// Name of the controller's Deployment in Ensign's namespace, to scale to 0 first
    #[arg(long, env = "ENSIGN_TEARDOWN_STOP_CONTROLLER", value_name = "NAME")]
    stop_controller: Option<String>,
    /// How long to wait until no controller leads, and for Azure problems that may resolve on their own, 1s to 24h
    #[arg(long, env = "ENSIGN_TEARDOWN_TIMEOUT", default_value_t = DurationArg::from_secs(300), value_name = "DURATION")]
    timeout: DurationArg,
    /// Output format
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
    /// Namespace that Ensign runs in
    #[arg(long, env = "ENSIGN_NAMESPACE", default_value = "ensign-system", value_name = "NAME")]
    namespace: String,
    /// Name of the MutatingWebhookConfiguration to remove Ensign's entries from
    #[arg(long, env = "ENSIGN_WEBHOOK_CONFIGURATION", default_value = "ensign", value_name = "NAME")]
    webhook_configuration: String,
    #[command(flatten)]
    leader_election: LeaderElectionArgs,
    #[command(flatten)]
    azure: AzureArgs,
    #[command(flatten)]
    azure_limits: AzureLimitsArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    telemetry: TelemetryArgs,
}

/// Values of the flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Credentials {
    /// Delete them in Azure: the service accounts are not trusted any more
    Delete,
    /// Leave them in Azure: the service accounts stay trusted
    Abandon,
}

pub(in crate::cli) fn run(args: Args) -> Result<(), Failure> {
    tls::install_provider();
    telemetry::init(&args.telemetry)?;
    let azure = args.validate()?;
    block_on(serve(args, azure))
}

impl Args {
    fn validate(&self) -> Result<AzureSetup, Failure> {
        let mut problems = Problems::default();
        let azure = self.azure.resolve(|name| std::env::var_os(name), &mut problems);
        self.cluster.check(&mut problems);
        self.leader_election.check(&mut problems);
        self.azure_limits.check(&mut problems);
        problems.dns_name("--namespace", &self.namespace);
        problems.dns_name("--webhook-configuration", &self.webhook_configuration);
        if let Some(name) = &self.stop_controller {
            problems.dns_name("--stop-controller", name);
        }
        problems.within("--timeout", &self.timeout, &TIMEOUT);
        problems.finish(azure)
    }

    fn disposal(&self) -> Disposal {
        match self.credentials {
            Credentials::Delete => Disposal::Delete,
            Credentials::Abandon => Disposal::Abandon,
        }
    }
}

async fn serve(args: Args, azure: AzureSetup) -> Result<(), Failure> {
    let client = kube_client::client().await?;
    let cluster = &args.cluster;
    let (id, issuer) = discover(&client, cluster.cluster_id.clone(), cluster.service_account_issuer.clone()).await?;
    let tag = names::cluster_tag(&id);
    let effect = match args.disposal() {
        Disposal::Delete => "deletes every federated identity credential that Ensign wrote for",
        Disposal::Abandon => {
            "leaves in Azure, still trusted, every federated identity credential that Ensign wrote for"
        }
    };
    confirm(args.yes, &format!("This ends injection in cluster {id} ({tag}), and {effect} issuer {issuer}"))?;
    let stop = shutdown::on_signal()?;
    let AzureSetup { cloud, connection, own, tenant_id, scopes } = azure;
    let own = own.credential(&cloud, &connection)?;
    let arm = ArmClient::new(&cloud, &connection, own.credential, &tag)?.bounded(scopes.clone());
    let instance = std::env::var("POD_NAME").unwrap_or_else(|_| "ensign-teardown".to_owned());
    let config = TeardownConfig {
        arm,
        settings: Settings {
            cluster: Cluster {
                id,
                previous_id: cluster.previous_cluster_id.clone(),
                issuer,
                audience: cloud.token_audience,
            },
            issuer_refusal: None,
            tenant_id,
            own_client_id: own.client_id,
            propagation_delay: Duration::ZERO,
            // Role assignments are kept; the report lists them.
            roles: None,
            allowed_scopes: scopes,
        },
        disposal: args.disposal(),
        namespace: args.namespace.clone(),
        stop: args.stop_controller.clone(),
        leadership: args.leader_election.lease(&args.namespace, Some(&instance)).await?,
        webhook_configuration: args.webhook_configuration.clone(),
        azure_limits: args.azure_limits.limits(),
        clock: SystemClock::shared(),
        timeout: args.timeout.get(),
        client,
    };
    let report = teardown(config, |step| progress(&describe(&step)), stop).await?;
    print(args.output, &report, || render(&report))?;
    if report.is_complete() { Ok(()) } else { Err("something remains to be done; see TO DO above".into()) }
}

fn describe(step: &TeardownStep) -> String {
    match step {
        TeardownStep::Leading => "waiting until no controller leads".to_owned(),
        TeardownStep::NoNamespace => "Ensign's namespace does not exist, so no controller can run".to_owned(),
        TeardownStep::Injection => "ending injection: the webhook configuration and the admission policies".to_owned(),
        TeardownStep::Pods => "ungating pods".to_owned(),
        TeardownStep::Identity(name, number, count) => format!("[{number}/{count}] {name}"),
        TeardownStep::Waiting(wait, reason) => format!("  retrying in {} s: {reason}", wait.as_secs().max(1)),
    }
}

fn render(report: &Report) -> String {
    let mut text = String::new();
    let mut line = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    line(format!("cluster {}: injection ended, {} pod(s) ungated", report.cluster_id, report.pods_started));
    for identity in &report.identities {
        let name =
            if identity.arm_id.is_empty() { "bindings without a ManagedIdentity" } else { identity.arm_id.as_str() };
        let (deleted, released) = (identity.deleted.len(), identity.released.len());
        line(format!("{name}: {deleted} credential(s) deleted, {released} object(s) released"));
        for left in &identity.remaining {
            let owner = if left.ours { "Ensign's own" } else { "not Ensign's" };
            let source = if identity.asked_azure { "" } else { ", according to the status" };
            line(format!("  remains in Azure ({owner}{source}) and trusts {}: {}", left.subject, left.name));
            line(format!("    {}", left.command));
        }
        if let Some(problem) = &identity.problem {
            line(format!("  TO DO: {problem}"));
        }
    }
    for problem in &report.problems {
        line(format!("TO DO: {problem}"));
    }
    line("Azure still has the controller's own identity, its federated identity credential and its role assignment, which were created when Ensign was installed; delete them once no cluster uses them.".to_owned());
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use ensign_core::commands::teardown::{IdentityReport, Remaining};

    #[derive(Parser)]
    struct TestCli {
        #[command(flatten)]
        args: Args,
    }

    fn parse(flags: &[&str]) -> Result<Args, clap::Error> {
        TestCli::try_parse_from(["ensign"].iter().chain(flags)).map(|cli| cli.args)
    }

    #[test]
    fn credentials_is_a_required_flag() {
        assert!(parse(&[]).is_err());
        assert_eq!(parse(&["--credentials=delete"]).unwrap().disposal(), Disposal::Delete);
        assert_eq!(parse(&["--credentials=abandon"]).unwrap().disposal(), Disposal::Abandon);
    }

    #[test]
    fn all_invalid_flags_are_reported_at_once() {
        let flags = ["--credentials=delete", "--namespace=Upper", "--stop-controller=_", "--timeout=0s"];
        let problems = parse(&flags).unwrap().validate().unwrap_err().to_string();
        for flag in &flags[1..] {
            let flag = flag.split('=').next().unwrap();
            assert!(problems.contains(flag), "{flag} is not reported: {problems}");
        }
    }

    #[test]
    fn what_remains_is_listed_with_the_command_that_deletes_it() {
        let left = Remaining {
            name: "fic".to_owned(),
            subject: "system:serviceaccount:a:b".to_owned(),
            issuer: String::new(),
            ours: true,
            command: "az identity x".to_owned(),
        };
        let identity =
            IdentityReport { remaining: vec![left], problem: Some("ask".to_owned()), ..IdentityReport::default() };
        let report = Report {
            cluster_id: "one".to_owned(),
            credentials: Disposal::Delete,
            injection_ended: true,
            pods_started: 0,
            identities: vec![identity],
            problems: Vec::new(),
        };
        assert!(!report.is_complete());
        let text = render(&report);
        for part in ["according to the status", "az identity x", "TO DO: ask"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
