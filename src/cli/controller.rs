//! `ensign controller`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use kube::Client;
use uuid::Uuid;

use super::azure_limits::AzureLimitsArgs;
use super::compatibility::CompatibilityArgs;
use super::injection::InjectionArgs;
use super::leader_election::LeaderElectionArgs;
use super::{Failure, block_on, ready_file};
use crate::azure::cloud::{Cloud, CloudArgs};
use crate::azure::{ArmClient, Connection, credential};
use crate::controller::{self, Config, Effects, IssuerWatch, WebhookTarget};
use crate::decide::assess::Settings;
use crate::decide::backoff::Spread;
use crate::decide::ownership::Cluster;
use crate::decide::registration::{Endpoint, excluded_namespaces};
use crate::decide::{issuer, names};
use crate::runtime::clock::SystemClock;
use crate::runtime::health::{self, Readiness};
use crate::runtime::telemetry::{self, TelemetryArgs};
use crate::runtime::{shutdown, tls};

/// Entra's limit is a day; more would only hide drift.
const RESYNC_SECONDS: std::ops::RangeInclusive<u64> = 10..=86_400;
/// A change is believed after three looks; until then, pods with tokens of the new issuer have to wait.
const ISSUER_CHECK_SECONDS: std::ops::RangeInclusive<u64> = 5..=3_600;
const MAX_CLUSTER_ID: usize = 253;

/// Flags of the controller. Each is also an environment variable.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    telemetry: TelemetryArgs,
    #[command(flatten)]
    cloud: CloudArgs,
    /// PEM file with certificates to trust for Azure besides the system's
    #[arg(long, env = "ENSIGN_AZURE_CA_FILE", value_name = "FILE")]
    azure_ca_file: Option<PathBuf>,
    /// Entra tenant of this install [default: the one of the controller's own identity]
    #[arg(long, env = "ENSIGN_AZURE_TENANT_ID", value_name = "GUID")]
    azure_tenant_id: Option<String>,
    /// Service account issuer [default: what the API server's discovery document says]
    #[arg(long, env = "ENSIGN_SERVICE_ACCOUNT_ISSUER", value_name = "URL")]
    service_account_issuer: Option<String>,
    /// Seconds between looks at the API server's discovery document, unless the issuer is set
    #[arg(long, env = "ENSIGN_ISSUER_CHECK_SECONDS", default_value_t = 60, value_name = "SECONDS")]
    issuer_check_seconds: u64,
    /// Accept an issuer that Entra cannot reach; for development with the emulator only
    #[arg(long, env = "ENSIGN_ALLOW_PRIVATE_ISSUER")]
    allow_private_issuer: bool,
    /// ID of this cluster, never shared with another [default: the UID of namespace kube-system]
    #[arg(long, env = "ENSIGN_CLUSTER_ID", value_name = "ID")]
    cluster_id: Option<String>,
    /// ID that this cluster had before: credentials that were written under it stay this cluster's own
    #[arg(long, env = "ENSIGN_PREVIOUS_CLUSTER_ID", value_name = "ID")]
    previous_cluster_id: Option<String>,
    /// Seconds between looks at a steady identity; stretched where there are too many for Azure's limits
    #[arg(long, env = "ENSIGN_RESYNC_SECONDS", default_value_t = 900, value_name = "SECONDS")]
    resync_seconds: u64,
    #[command(flatten)]
    azure_limits: AzureLimitsArgs,
    /// Identities that are reconciled at a time
    #[arg(long, env = "ENSIGN_CONCURRENCY", default_value_t = 8, value_name = "N")]
    concurrency: usize,
    #[command(flatten)]
    leader_election: LeaderElectionArgs,
    #[command(flatten)]
    compatibility: CompatibilityArgs,
    #[command(flatten)]
    injection: InjectionArgs,
    /// Ensign's own namespace
    #[arg(long, env = "ENSIGN_NAMESPACE", default_value = "ensign-system", value_name = "NAME")]
    namespace: String,
    /// Name of the MutatingWebhookConfiguration to fill in
    #[arg(long, env = "ENSIGN_WEBHOOK_CONFIGURATION", default_value = "ensign", value_name = "NAME")]
    webhook_configuration: String,
    /// Service of the webhook in Ensign's own namespace
    #[arg(long, env = "ENSIGN_WEBHOOK_SERVICE", default_value = "ensign-webhook", value_name = "NAME")]
    webhook_service: String,
    /// URL of the webhook, instead of a Service
    #[arg(long, env = "ENSIGN_WEBHOOK_URL", value_name = "URL")]
    webhook_url: Option<String>,
    /// Secret with the webhook's certificates, in Ensign's own namespace
    #[arg(long, env = "ENSIGN_WEBHOOK_SECRET", default_value = "ensign-webhook-tls", value_name = "NAME")]
    webhook_secret: String,
    /// Namespaces whose pods never reach the webhook, besides kube-system and Ensign's own
    #[arg(long, env = "ENSIGN_EXCLUDED_NAMESPACES", value_delimiter = ',', value_name = "NAME,…")]
    excluded_namespaces: Vec<String>,
    /// Address of /livez and /readyz
    #[arg(long, env = "ENSIGN_HEALTH_LISTEN", default_value = "0.0.0.0:8081", value_name = "ADDRESS")]
    health_listen: SocketAddr,
    /// Write a JSON object with the health address here once everything runs
    #[arg(long, env = "ENSIGN_READY_FILE", value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    tls::install_provider();
    telemetry::init(&args.telemetry)?;
    let cloud = args.validate()?;
    block_on(serve(args, cloud))
}

impl Args {
    /// Checks every flag; all problems are reported at once.
    fn validate(&self) -> Result<Cloud, Failure> {
        let (cloud, mut problems) = match self.cloud.resolve() {
            Ok(cloud) => (Some(cloud), Vec::new()),
            Err(problems) => (None, problems),
        };
        if let Some(tenant) = self.azure_tenant_id.as_deref().filter(|tenant| !crate::api::arm_id::is_guid(tenant)) {
            problems.push(format!("--azure-tenant-id {tenant:?} is not a GUID"));
        }
        for (flag, id) in [("--cluster-id", &self.cluster_id), ("--previous-cluster-id", &self.previous_cluster_id)] {
            if id.as_ref().is_some_and(|id| id.trim().is_empty() || id.len() > MAX_CLUSTER_ID) {
                problems.push(format!("{flag} must have 1 to {MAX_CLUSTER_ID} characters"));
            }
        }
        if !ISSUER_CHECK_SECONDS.contains(&self.issuer_check_seconds) {
            let (least, most) = (ISSUER_CHECK_SECONDS.start(), ISSUER_CHECK_SECONDS.end());
            problems.push(format!("--issuer-check-seconds must be {least} to {most}"));
        }
        problems.extend(self.leader_election.problems());
        problems.extend(self.injection.problems(self.compatibility.compatibility));
        problems.extend(self.azure_limits.problems());
        if !RESYNC_SECONDS.contains(&self.resync_seconds) {
            let (least, most) = (RESYNC_SECONDS.start(), RESYNC_SECONDS.end());
            problems.push(format!("--resync-seconds must be {least} to {most}"));
        }
        if !(1..=256).contains(&self.concurrency) {
            problems.push("--concurrency must be 1 to 256".to_owned());
        }
        if let Some(url) = &self.webhook_url
            && !url::Url::parse(url).is_ok_and(|url| url.scheme() == "https" && url.has_host())
        {
            problems.push(format!("--webhook-url {url:?} is not an https URL"));
        }
        match cloud {
            Some(cloud) if problems.is_empty() => Ok(cloud),
            _ => Err(format!("the flags have {} problem(s):\n  {}", problems.len(), problems.join("\n  ")).into()),
        }
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
            endpoint,
            excluded: excluded_namespaces(&self.namespace, self.excluded_namespaces.clone()),
            compatibility: self.compatibility.compatibility,
        }
    }
}

async fn serve(args: Args, cloud: Cloud) -> Result<(), Failure> {
    let stop = shutdown::on_signal()?;
    let readiness = Readiness::default();
    let health = health::serve(args.health_listen, readiness.clone(), stop.clone()).await?;
    tracing::info!(health_address = %health, version = env!("CARGO_PKG_VERSION"), "starting");
    let config = configure(&args, &cloud, readiness.clone()).await?;
    let running = controller::run(config, stop.clone());
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

async fn configure(args: &Args, cloud: &Cloud, readiness: Readiness) -> Result<Config, Failure> {
    let client = Client::try_default().await.map_err(|error| format!("cannot reach a cluster: {error}"))?;
    let (cluster_id, issuer) =
        controller::discover(&client, args.cluster_id.clone(), args.service_account_issuer.clone()).await?;
    let issuer_refusal = issuer::refusal(&issuer).filter(|_| !args.allow_private_issuer);
    if let Some(refusal) = &issuer_refusal {
        tracing::error!("{refusal}; nothing is written to Azure");
    }
    let connection = Connection { extra_ca: args.azure_ca_file.clone() };
    let own = credential::from_environment(cloud, &connection)?;
    let tag = names::cluster_tag(&cluster_id);
    let arm = ArmClient::new(cloud, &connection, own.credential, &tag)?;
    let issuer_watch = args.service_account_issuer.is_none().then_some(IssuerWatch {
        every: Duration::from_secs(args.issuer_check_seconds),
        allow_private: args.allow_private_issuer,
    });
    let instance = std::env::var("POD_NAME").ok();
    let leadership = args.leader_election.lease(&args.namespace, instance.as_deref()).await?;
    let tenant_id = args.azure_tenant_id.clone().or_else(|| std::env::var("AZURE_TENANT_ID").ok());
    tracing::info!(cluster_id, cluster_tag = tag, issuer, tenant_id, client_id = own.client_id, "configured");
    let (compatibility, excluded) = (args.compatibility.compatibility, &args.excluded_namespaces);
    let injection = args.injection.target(&client, cloud, compatibility, &args.namespace, excluded).await?;
    Ok(Config {
        client,
        arm,
        settings: Settings {
            cluster: Cluster {
                id: cluster_id,
                previous_id: args.previous_cluster_id.clone(),
                issuer,
                audience: cloud.token_audience.clone(),
            },
            issuer_refusal,
            tenant_id,
            own_client_id: own.client_id,
        },
        resync: Duration::from_secs(args.resync_seconds),
        azure_limits: args.azure_limits.limits(),
        spread: Spread::seeded(Uuid::new_v4().as_u64_pair().0),
        concurrency: args.concurrency,
        webhook: Some(args.webhook()),
        injection: Some(injection),
        clock: SystemClock::shared(),
        instance,
        readiness,
        leadership,
        issuer_watch,
        effects: Effects::default(),
    })
}
