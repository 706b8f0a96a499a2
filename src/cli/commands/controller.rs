//! `ensign controller`.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use uuid::Uuid;

use crate::cli::flags::azure::{AzureArgs, AzureSetup};
use crate::cli::flags::azure_limits::AzureLimitsArgs;
use crate::cli::flags::cluster::ClusterArgs;
use crate::cli::flags::compatibility::CompatibilityArgs;
use crate::cli::flags::injection::InjectionArgs;
use crate::cli::flags::leader_election::LeaderElectionArgs;
use crate::cli::flags::pod_gates::{PodGateArgs, PropagationArgs};
use crate::cli::flags::role_assignments::RoleAssignmentArgs;
use crate::cli::flags::webhook_registration::RegistrationArgs;
use crate::cli::usage_errors::Problems;
use crate::cli::{Failure, block_on};
use crate::cli::{kube_client, ready_file};
use ensign_azure::ArmClient;
use ensign_controller;
use ensign_controller::{Config, ControllerMetrics, Failpoints, PodSettings, WebhookTarget};
use ensign_core::admission;
use ensign_core::assess::Settings;
use ensign_core::credentials::ownership::Cluster;
use ensign_core::credentials::{issuer_url, names};
use ensign_core::own_writes::READ_LAG;
use ensign_core::scheduling::backoff::Spread;
use ensign_core::webhook_configuration::{Endpoint, excluded_namespaces};
use ensign_runtime::clock::SystemClock;
use ensign_runtime::duration_arg::DurationArg;
use ensign_runtime::health::{self, Readiness};
use ensign_runtime::telemetry::{self, TelemetryArgs};
use ensign_runtime::{shutdown, tls};

/// A longer interval would hide drift for more than a day.
const DRIFT_CHECK_INTERVAL: RangeInclusive<DurationArg> = DurationArg::from_secs(10)..=DurationArg::from_secs(86_400);
/// With a longer lag, what others do in Azure would go unnoticed for longer than it takes them to notice.
const AZURE_READ_LAG: RangeInclusive<DurationArg> = DurationArg::from_secs(0)..=DurationArg::from_secs(600);
const CONCURRENCY: RangeInclusive<usize> = 1..=256;

/// Flags of the controller. Each is also an environment variable.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    telemetry: TelemetryArgs,
    #[command(flatten)]
    azure: AzureArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Interval between drift checks of an identity that is in sync, 10s to 24h; each is one request to Azure, and the
    /// interval grows if there are too many for Azure's rate limits
    #[arg(long, env = "ENSIGN_DRIFT_CHECK_INTERVAL", default_value_t = DurationArg::from_secs(900), value_name = "DURATION")]
    drift_check_interval: DurationArg,
    /// How long Azure's reads may lag behind its writes, 0s to 10m; for so long, what this controller wrote counts for more
    /// than what Azure returns
    #[arg(long, env = "ENSIGN_AZURE_READ_LAG", default_value_t = DurationArg::from_secs(READ_LAG.as_secs()), value_name = "DURATION")]
    azure_read_lag: DurationArg,
    #[command(flatten)]
    azure_limits: AzureLimitsArgs,
    /// Identities that are reconciled concurrently, 1 to 256; writes to any one identity are sequential
    #[arg(long, env = "ENSIGN_CONCURRENCY", default_value_t = 8, value_name = "N")]
    concurrency: usize,
    #[command(flatten)]
    leader_election: LeaderElectionArgs,
    #[command(flatten)]
    compatibility: CompatibilityArgs,
    #[command(flatten)]
    injection: InjectionArgs,
    #[command(flatten)]
    pod_gates: PodGateArgs,
    #[command(flatten)]
    propagation: PropagationArgs,
    /// Namespace that Ensign runs in
    #[arg(long, env = "ENSIGN_NAMESPACE", default_value = "ensign-system", value_name = "NAME")]
    namespace: String,
    /// Name of the MutatingWebhookConfiguration to fill in
    #[arg(long, env = "ENSIGN_WEBHOOK_CONFIGURATION", default_value = "ensign", value_name = "NAME")]
    webhook_configuration: String,
    /// Name of the webhook's Service, in Ensign's namespace
    #[arg(long, env = "ENSIGN_WEBHOOK_SERVICE", default_value = "ensign-webhook", value_name = "NAME")]
    webhook_service: String,
    /// URL of the webhook, instead of its Service
    #[arg(long, env = "ENSIGN_WEBHOOK_URL", value_name = "URL")]
    webhook_url: Option<String>,
    /// Name of the Secret with the webhook's certificates, in Ensign's namespace
    #[arg(long, env = "ENSIGN_WEBHOOK_SECRET", default_value = "ensign-webhook-tls", value_name = "NAME")]
    webhook_secret: String,
    #[command(flatten)]
    registration: RegistrationArgs,
    /// Namespaces whose pods are never sent to the webhook, in addition to kube-system and Ensign's own; repeatable
    #[arg(long, env = "ENSIGN_EXCLUDED_NAMESPACES", value_delimiter = ',', value_name = "NAME,…")]
    excluded_namespaces: Vec<String>,
    /// Address to serve /livez, /readyz and /metrics on
    #[arg(long, env = "ENSIGN_HEALTH_LISTEN", default_value = "0.0.0.0:8081", value_name = "ADDRESS")]
    health_listen: SocketAddr,
    #[command(flatten)]
    roles: RoleAssignmentArgs,
    /// File to write once the controller is ready: a JSON object with its health address
    #[arg(long, env = "ENSIGN_READY_FILE", value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

pub(in crate::cli) fn run(args: Args) -> Result<(), Failure> {
    tls::install_provider();
    telemetry::init(&args.telemetry)?;
    let azure = args.validate(|name| std::env::var_os(name))?;
    block_on(serve(args, azure))
}

impl Args {
    /// Validates all flags, and the variables with the controller's identity in Azure; reports all problems at once.
    fn validate(&self, variable: impl Fn(&str) -> Option<OsString>) -> Result<AzureSetup, Failure> {
        let mut problems = Problems::default();
        let azure = self.azure.resolve(variable, &mut problems);
        self.cluster.check(&mut problems);
        self.leader_election.check(&mut problems);
        problems.within("--drift-check-interval", &self.drift_check_interval, &DRIFT_CHECK_INTERVAL);
        problems.within("--azure-read-lag", &self.azure_read_lag, &AZURE_READ_LAG);
        problems.within("--concurrency", &self.concurrency, &CONCURRENCY);
        problems.dns_name("--namespace", &self.namespace);
        problems.dns_name("--webhook-configuration", &self.webhook_configuration);
        problems.dns_name("--webhook-service", &self.webhook_service);
        problems.dns_name("--webhook-secret", &self.webhook_secret);
        for name in &self.excluded_namespaces {
            problems.dns_name("--excluded-namespaces", name);
        }
        self.injection.check(self.compatibility.compatibility, &mut problems);
        self.azure_limits.check(&mut problems);
        self.registration.check(&mut problems);
        self.propagation.check(&mut problems);
        self.roles.check(&mut problems);
        if let Some(url) = &self.webhook_url {
            let is_https = url::Url::parse(url).is_ok_and(|url| url.scheme() == "https" && url.has_host());
            problems.require(is_https, || format!("--webhook-url {url:?} is not an https URL"));
        }
        problems.finish(azure)
    }

    fn webhook(&self) -> WebhookTarget {
        let endpoint = match &self.webhook_url {
            Some(url) => Endpoint::Url(url.clone()),
            None => Endpoint::Service { namespace: self.namespace.clone(), name: self.webhook_service.clone() },
        };
        WebhookTarget {
            configuration: self.webhook_configuration.clone(),
            namespace: self.namespace.clone(),
            secret: self.webhook_secret.clone(),
            ca: self.registration.ca(),
            endpoint,
            probe: self.registration.probe(),
            excluded: excluded_namespaces(&self.namespace, self.excluded_namespaces.clone()),
            compatibility: self.compatibility.compatibility,
        }
    }
}

async fn serve(args: Args, azure: AzureSetup) -> Result<(), Failure> {
    let stop = shutdown::on_signal()?;
    let readiness = Readiness::default();
    let metrics = ControllerMetrics::default();
    let mut registry = ensign_runtime::metrics::registry();
    metrics.register(&mut registry);
    let health = health::serve(args.health_listen, readiness.clone(), registry.into(), stop.clone()).await?;
    tracing::info!(health_address = %health, version = env!("CARGO_PKG_VERSION"), "starting");
    let config = configure(&args, azure, readiness.clone(), metrics).await?;
    let running = ensign_controller::run(config, stop.clone());
    let announced = ready_file::announce(
        args.ready_file,
        readiness,
        stop,
        move || serde_json::json!({"health_address": health.to_string()}),
    );
    let (result, announced) = tokio::join!(running, announced);
    announced?;
    Ok(result?)
}

async fn configure(
    args: &Args,
    azure: AzureSetup,
    readiness: Readiness,
    metrics: ControllerMetrics,
) -> Result<Config, Failure> {
    let client = kube_client::client().await?;
    let cluster = &args.cluster;
    let (cluster_id, issuer) =
        ensign_controller::discover(&client, cluster.cluster_id.clone(), cluster.service_account_issuer.clone())
            .await?;
    let issuer_refusal = issuer_url::refusal(&issuer).filter(|_| !cluster.allow_private_issuer);
    if let Some(refusal) = &issuer_refusal {
        tracing::error!("{refusal}; not writing to Azure");
    }
    let AzureSetup { cloud, connection, own, tenant_id, scopes } = azure;
    let own = own.credential(&cloud, &connection)?;
    let tag = names::cluster_tag(&cluster_id);
    let roles = args.roles.policy();
    let role_scopes = roles.as_ref().map(|policy| policy.allowed_scopes.clone()).unwrap_or_default();
    let arm = ArmClient::new(&cloud, &connection, own.credential, &tag)?
        .bounded(scopes.clone())
        .with_role_scopes(role_scopes);
    let instance = std::env::var("POD_NAME").ok();
    let leadership = args.leader_election.lease(&args.namespace, instance.as_deref()).await?;
    let webhook = args.webhook();
    let excluded = webhook.excluded.clone();
    let proxy = connection.proxy.map(|proxy| proxy.address());
    tracing::info!(cluster_id, cluster_tag = tag, issuer, tenant_id, client_id = own.client_id, proxy, "configured");
    let pods = admission::Config {
        authority_host: cloud.authority_host.to_string(),
        audience: cloud.token_audience.clone(),
        excluded: webhook.excluded.clone(),
        compatibility: None,
        gate_pods: args.pod_gates.gate_pods,
    };
    let compatibility = args.compatibility.compatibility;
    let injection = args.injection.target(&client, compatibility, &args.namespace, pods).await?;
    Ok(Config {
        client,
        arm,
        settings: Settings {
            cluster: Cluster {
                id: cluster_id,
                previous_id: cluster.previous_cluster_id.clone(),
                issuer,
                audience: cloud.token_audience,
            },
            issuer_refusal,
            tenant_id,
            own_client_id: own.client_id,
            allowed_scopes: scopes,
            propagation_delay: args.propagation.delay(),
            roles,
        },
        resync: args.drift_check_interval.get(),
        azure_read_lag: args.azure_read_lag.get(),
        azure_limits: args.azure_limits.limits(),
        spread: Spread::seeded(Uuid::new_v4().as_u64_pair().0),
        concurrency: args.concurrency,
        webhook: Some(webhook),
        injection: Some(injection),
        clock: SystemClock::shared(),
        instance,
        readiness,
        leadership,
        issuer_watch: cluster.issuer_watch(),
        failpoints: Failpoints::default(),
        pods: args.pod_gates.gate_pods.then_some(PodSettings { excluded }),
        metrics,
    })
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

    fn validate(flags: &[&str]) -> Result<AzureSetup, String> {
        let args = TestCli::try_parse_from(["ensign"].iter().chain(flags)).unwrap().args;
        args.validate(|_| None).map_err(|failure| failure.to_string())
    }

    #[test]
    fn the_defaults_are_valid() {
        assert!(validate(&[]).is_ok());
    }

    #[test]
    fn all_invalid_flags_are_reported_at_once() {
        let flags = [
            "--azure-cloud=custom",
            "--azure-tenant-id=contoso",
            "--azure-allowed-scopes=rg",
            "--cluster-id= ",
            "--previous-cluster-id=",
            "--service-account-issuer=not a url",
            "--issuer-check-interval=1s",
            "--drift-check-interval=24h1s",
            "--concurrency=0",
            "--propagation-delay=1h1s",
            "--allowed-roles=Owner",
            "--allowed-role-scopes=/subscriptions/x",
            "--lease-duration=0s",
            "--lease-name=A",
            "--namespace=Upper",
            "--webhook-configuration=-x",
            "--webhook-service=x_y",
            "--webhook-secret=",
            "--webhook-url=http://webhook.example",
            "--excluded-namespaces=fine,kube_public",
        ];
        let problems = validate(&flags).unwrap_err();
        let named = flags[1..].iter().map(|flag| flag.split('=').next().unwrap());
        for flag in named.chain(["needs --azure-arm-endpoint", "needs --azure-authority-host"]) {
            assert!(problems.contains(flag), "{flag} is not reported: {problems}");
        }
        assert_eq!(problems.lines().count(), flags.len() + 2, "{problems}");
    }

    #[test]
    fn the_previous_cluster_id_has_to_differ() {
        let problems = validate(&["--cluster-id=one", "--previous-cluster-id=one"]).unwrap_err();
        assert!(problems.contains("--previous-cluster-id must differ"), "{problems}");
    }

    #[test]
    fn an_out_of_range_value_is_reported_with_its_range() {
        let problems = validate(&["--drift-check-interval=9s"]).unwrap_err();
        assert!(problems.ends_with("--drift-check-interval must be 10s to 24h, not 9s"), "{problems}");
    }
}
