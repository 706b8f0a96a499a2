//! `ensign check`.

use std::collections::BTreeMap;

use kube::Client;
use serde::Serialize;

use crate::cli::flags::azure::{AzureArgs, AzureSetup};
use crate::cli::kube_client;
use crate::cli::output::{Output, print};
use crate::cli::usage_errors::Problems;
use crate::cli::{Failure, block_on};
use ensign_api::ArmId;
use ensign_azure;
use ensign_azure::ArmClient;
use ensign_controller::{ClusterChecks, ExchangeWay, Installed, Selected, check_cluster, check_exchanges};
use ensign_core::commands::check::{Bootstrap, Check, CheckResult, passes};
use ensign_runtime::clock::{Clock, SystemClock};
use ensign_runtime::error_chain;
use ensign_runtime::telemetry::{self, TelemetryArgs};
use ensign_runtime::tls;

const EXAMPLES: &str = "\
Examples:
  In the controller's pod, with its own identity:
    kubectl exec -n ensign-system deployment/ensign-controller -- ensign check
  From a laptop, with your identity:
    ensign check --azure-allowed-scopes /subscriptions/<guid>/resourceGroups/<name>
  See whether Entra exchanges the tokens of a binding, if your kubeconfig may create serviceaccounts/token there:
    ensign check --exchange shop/orders

Exit status: 0 no check failed, though there may be warnings; 1 a check failed; 2 invalid flags.";

/// Verify the install, and print how to fix what does not work. It writes nothing.
///
/// It checks the API server, the CRDs, the Lease, the webhook configuration or the admission policies, the issuer and its
/// keys, the controller's token from Entra, and each identity that a ManagedIdentity or --azure-allowed-scopes names.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Output format
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
    /// Namespace that Ensign runs in
    #[arg(long, env = "ENSIGN_NAMESPACE", default_value = "ensign-system", value_name = "NAME")]
    namespace: String,
    /// Name of the controller's service account, for the command that creates its federated identity credential
    #[arg(long, env = "ENSIGN_SERVICE_ACCOUNT", default_value = "ensign-controller", value_name = "NAME")]
    service_account: String,
    /// Name of the controller's Lease
    #[arg(long, env = "ENSIGN_LEASE_NAME", default_value = "ensign-controller", value_name = "NAME")]
    lease_name: String,
    /// Name of the MutatingWebhookConfiguration
    #[arg(long, env = "ENSIGN_WEBHOOK_CONFIGURATION", default_value = "ensign", value_name = "NAME")]
    webhook_configuration: String,
    /// Service account issuer, exactly as in the tokens [default: read from the API server's discovery document]
    #[arg(long, env = "ENSIGN_SERVICE_ACCOUNT_ISSUER", value_name = "URL")]
    service_account_issuer: Option<String>,
    /// Only warn about an issuer that Entra cannot reach; for development
    #[arg(long, env = "ENSIGN_ALLOW_PRIVATE_ISSUER")]
    allow_private_issuer: bool,
    /// Bindings to try: request a token of the service account and exchange it at Entra; a namespace means all of its bindings.
    /// This needs permission to create serviceaccounts/token there. The tokens are not shown
    #[arg(long, value_delimiter = ',', value_name = "NAMESPACE[/BINDING],…")]
    exchange: Vec<String>,
    #[command(flatten)]
    azure: AzureArgs,
    #[command(flatten)]
    telemetry: TelemetryArgs,
}

pub(in crate::cli) fn run(args: Args) -> Result<(), Failure> {
    tls::install_provider();
    telemetry::init(&args.telemetry)?;
    let (azure, selected) = args.validate()?;
    block_on(serve(args, azure, selected))
}

/// The output.
#[derive(Debug, Serialize)]
struct Report {
    ok: bool,
    checks: Vec<Check>,
}

impl Args {
    fn validate(&self) -> Result<(AzureSetup, Vec<Selected>), Failure> {
        let mut problems = Problems::default();
        let azure = self.azure.resolve(|name| std::env::var_os(name), &mut problems);
        for (flag, name) in [
            ("--namespace", &self.namespace),
            ("--service-account", &self.service_account),
            ("--lease-name", &self.lease_name),
            ("--webhook-configuration", &self.webhook_configuration),
        ] {
            problems.dns_name(flag, name);
        }
        let mut selected = Vec::new();
        for text in &self.exchange {
            let (namespace, name) =
                text.trim().split_once('/').map_or((text.trim(), None), |(namespace, name)| (namespace, Some(name)));
            problems.dns_name("--exchange", namespace);
            if let Some(name) = name {
                problems.dns_name("--exchange", name);
            }
            selected.push(Selected { namespace: namespace.to_owned(), name: name.map(str::to_owned) });
        }
        problems.finish(azure.map(|azure| (azure, selected)))
    }
}

async fn serve(args: Args, azure: AzureSetup, selected: Vec<Selected>) -> Result<(), Failure> {
    let client = kube_client::client().await;
    let seen = see_cluster(&args, client.as_ref().map_err(ToString::to_string)).await;
    let mut checks = seen.checks;
    let issuer = args.service_account_issuer.clone().or(seen.issuer);
    if let Some(issuer) = &issuer {
        checks.extend(ensign_azure::check::issuer(&azure.connection, issuer, args.allow_private_issuer).await);
    }
    let (seen, arm) = see_azure(&args, &azure, issuer.as_deref(), seen.identities).await;
    checks.extend(seen);
    let way = ExchangeWay {
        cloud: &azure.cloud,
        connection: &azure.connection,
        arm: arm.as_ref(),
        issuer: issuer.as_deref(),
    };
    if let Ok(client) = &client {
        for one in &selected {
            checks.extend(check_exchanges(client, one, way, SystemClock.now()).await);
        }
    }
    let report = Report { ok: passes(&checks), checks };
    print(args.output, &report, || render(&report.checks))?;
    if report.ok { Ok(()) } else { Err("the install does not work yet; each FAIL above has a fix".into()) }
}

async fn see_cluster(args: &Args, client: Result<&Client, String>) -> ClusterChecks {
    let installed = Installed {
        namespace: args.namespace.clone(),
        lease: args.lease_name.clone(),
        webhook_configuration: args.webhook_configuration.clone(),
    };
    match client {
        Ok(client) => check_cluster(client, &installed, SystemClock.now()).await,
        Err(error) => {
            let unreachable = Check::fail("api-server", error, "set KUBECONFIG, or run this in a pod");
            ClusterChecks { checks: vec![unreachable], ..ClusterChecks::default() }
        }
    }
}

/// The checks, and a client of Azure if there is a token for it.
async fn see_azure(
    args: &Args,
    azure: &AzureSetup,
    issuer: Option<&str>,
    named: Vec<ArmId>,
) -> (Vec<Check>, Option<ArmClient>) {
    let AzureSetup { cloud, connection, own, tenant_id, scopes } = azure;
    let failed = |error: &dyn std::error::Error| {
        (vec![Check::fail("credential", error.to_string(), "follow the message")], None)
    };
    let own = match own.credential(cloud, connection) {
        Ok(own) => own,
        Err(error) => return failed(&error),
    };
    let bootstrap = Bootstrap {
        issuer,
        namespace: &args.namespace,
        service_account: &args.service_account,
        audience: &cloud.token_audience,
        client_id: own.client_id.as_deref(),
        tenant_id: tenant_id.as_deref(),
    };
    let credential = ensign_azure::check::credential(cloud, own.credential.as_ref(), &bootstrap).await;
    if credential.outcome == CheckResult::Fail {
        return (vec![credential], None);
    }
    let arm = match ArmClient::new(cloud, connection, own.credential.clone(), "check") {
        Ok(arm) => arm.bounded(scopes.clone()),
        Err(error) => return failed(&error),
    };
    let mut checks = vec![credential];
    let mut identities: BTreeMap<String, ArmId> = named.into_iter().map(|id| (id.key().to_owned(), id)).collect();
    for scope in scopes.iter() {
        match arm.list_identities(scope).await {
            Ok(listed) => identities.extend(listed.into_iter().map(|id| (id.key().to_owned(), id))),
            Err(error) => {
                let cure =
                    format!("an Azure administrator runs the script that `ensign azure-role --scope {scope}` prints");
                checks.push(Check::fail("role", error_chain::line(&error), cure));
            }
        }
    }
    if identities.is_empty() {
        let cure = "create a ManagedIdentity, or set --azure-allowed-scopes, and run the check again";
        checks.push(Check::warn("role", "no identity to verify the role with", cure));
    }
    for id in identities.values() {
        checks.extend(ensign_azure::check::identity(&arm, id, &bootstrap).await);
    }
    (checks, Some(arm))
}

fn render(checks: &[Check]) -> String {
    let mut lines = Vec::new();
    for Check { check, outcome, said, cure } in checks {
        let outcome = match outcome {
            CheckResult::Ok => "ok  ",
            CheckResult::Warn => "WARN",
            CheckResult::Fail => "FAIL",
        };
        lines.push(format!("{outcome}  {check:<12}  {said}"));
        lines.extend(cure.as_ref().map(|cure| format!("                      -> {cure}")));
    }
    lines.join("\n") + "\n"
}
