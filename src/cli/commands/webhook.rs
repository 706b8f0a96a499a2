//! `ensign webhook`.

use std::net::SocketAddr;
use std::path::PathBuf;

use rustls::pki_types::ServerName;
use tokio_util::sync::CancellationToken;

use crate::cli::flags::compatibility::WebhookCompatibilityArgs;
use crate::cli::flags::pod_gates::PodGateArgs;
use crate::cli::flags::webhook_certificates::CertificateArgs;
use crate::cli::flags::webhook_limits::LimitArgs;
use crate::cli::usage_errors::Problems;
use crate::cli::{Failure, block_on};
use crate::cli::{kube_client, ready_file};
use ensign_azure::cloud::CloudName;
use ensign_core::admission;
use ensign_core::webhook_configuration::{MUTATE_PODS_PATH, excluded_namespaces};
use ensign_runtime::clock::SystemClock;
use ensign_runtime::health::{self, Readiness};
use ensign_runtime::metrics;
use ensign_runtime::telemetry::{self, TelemetryArgs};
use ensign_runtime::{shutdown, tls};
use ensign_webhook;
use ensign_webhook::Options;
use ensign_webhook::metrics::WebhookMetrics;

/// Flags of the webhook. Each is also an environment variable.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Address to serve admission reviews on, over HTTPS
    #[arg(long, env = "ENSIGN_LISTEN", default_value = "0.0.0.0:9443", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Address to serve /livez, /readyz and /metrics on, over HTTP
    #[arg(long, env = "ENSIGN_HEALTH_LISTEN", default_value = "0.0.0.0:8080", value_name = "ADDRESS")]
    health_listen: SocketAddr,
    /// Namespace that Ensign runs in
    #[arg(long, env = "ENSIGN_NAMESPACE", default_value = "ensign-system", value_name = "NAME")]
    namespace: String,
    #[command(flatten)]
    certificates: CertificateArgs,
    /// DNS name or IP address under which the API server reaches the webhook; repeatable [default: ensign-webhook.NAMESPACE.svc]
    #[arg(long, env = "ENSIGN_TLS_SAN", value_delimiter = ',', value_name = "NAME")]
    tls_san: Vec<String>,
    #[command(flatten)]
    limits: LimitArgs,
    /// Namespaces whose pods are never changed, in addition to kube-system and Ensign's own; repeatable
    #[arg(long, env = "ENSIGN_EXCLUDED_NAMESPACES", value_delimiter = ',', value_name = "NAME,…")]
    excluded_namespaces: Vec<String>,
    /// Azure cloud of the identities
    #[arg(long, env = "ENSIGN_AZURE_CLOUD", value_enum, default_value_t)]
    azure_cloud: CloudName,
    /// Entra authority that is injected into pods, for --azure-cloud custom
    #[arg(long, env = "ENSIGN_AZURE_AUTHORITY_HOST", value_name = "URL")]
    azure_authority_host: Option<String>,
    /// Audience of the tokens that pods exchange [default: the cloud's]
    #[arg(long, env = "ENSIGN_AZURE_TOKEN_AUDIENCE", value_name = "AUDIENCE")]
    azure_token_audience: Option<String>,
    /// File to write once the webhook is ready: a JSON object with its addresses
    #[arg(long, env = "ENSIGN_READY_FILE", value_name = "FILE")]
    ready_file: Option<PathBuf>,
    #[command(flatten)]
    compatibility: WebhookCompatibilityArgs,
    #[command(flatten)]
    pod_gates: PodGateArgs,
    #[command(flatten)]
    telemetry: TelemetryArgs,
}

pub(in crate::cli) fn run(args: Args) -> Result<(), Failure> {
    tls::install_provider();
    telemetry::init(&args.telemetry)?;
    let options = args.options()?;
    block_on(serve(args, options))
}

async fn serve(args: Args, options: Options) -> Result<(), Failure> {
    let stop = shutdown::on_signal()?;
    let readiness = Readiness::default();
    // Health checks outlive `stop`: probes have to see that the webhook is not ready any more while it drains.
    let health_stop = CancellationToken::new();
    let _end_health = health_stop.clone().drop_guard();
    let mut registry = metrics::registry();
    options.metrics.register(&mut registry);
    let health = health::serve(args.health_listen, readiness.clone(), registry.into(), health_stop).await?;
    let (listener, address) = ensign_webhook::listen(args.listen)?;
    let webhook_url = format!("https://{address}{MUTATE_PODS_PATH}");
    tracing::info!(health_address = %health, webhook_url, version = env!("CARGO_PKG_VERSION"), "starting");

    let client = kube_client::client().await?;
    let running =
        ensign_webhook::run(client, options, listener, readiness.clone(), SystemClock::shared(), stop.clone());
    let announced = ready_file::announce(
        args.ready_file,
        readiness,
        stop,
        move || serde_json::json!({"health_address": health.to_string(), "webhook_url": webhook_url}),
    );
    // A webhook that fails ends at once; one that becomes ready writes its ready file and keeps running.
    let mut running = std::pin::pin!(running);
    tokio::select! {
        result = &mut running => result?,
        announced = announced => {
            announced?;
            running.await?;
        }
    }
    Ok(())
}

impl Args {
    /// Validates all flags; reports all problems at once.
    fn options(&self) -> Result<Options, Failure> {
        let mut problems = Problems::default();
        problems.dns_name("--namespace", &self.namespace);
        self.certificates.check(&mut problems);
        self.limits.check(&mut problems);
        for name in &self.excluded_namespaces {
            problems.dns_name("--excluded-namespaces", name);
        }
        for name in &self.tls_san {
            problems.require(ServerName::try_from(name.as_str()).is_ok(), || {
                format!("--tls-san {name:?} is neither a DNS name nor an IP address")
            });
        }
        self.compatibility.check(&mut problems);
        let entra = problems
            .take(self.azure_cloud.entra(self.azure_authority_host.as_deref(), self.azure_token_audience.as_deref()));
        let options = entra.map(|(authority_host, audience)| Options {
            certificates: self.certificates.certificates(&self.namespace),
            tls_names: match self.tls_san.as_slice() {
                [] => vec![format!("ensign-webhook.{}.svc", self.namespace)],
                names => names.to_vec(),
            },
            config: admission::Config {
                authority_host: authority_host.into(),
                audience,
                excluded: excluded_namespaces(&self.namespace, self.excluded_namespaces.clone()),
                compatibility: self.compatibility.compatibility(),
                gate_pods: self.pod_gates.gate_pods,
            },
            limits: self.limits.limits(),
            lame_duck: self.limits.drain_duration(),
            metrics: WebhookMetrics::default(),
        });
        problems.finish(options)
    }
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

    fn parse(flags: &[&str]) -> Result<Options, String> {
        let args = TestCli::try_parse_from(["ensign"].iter().chain(flags)).unwrap().args;
        args.options().map_err(|failure| failure.to_string())
    }

    #[test]
    fn defaults_are_the_public_cloud_and_the_name_of_the_service() {
        let options = parse(&[]).unwrap();
        assert_eq!(options.config.authority_host, "https://login.microsoftonline.com/");
        assert_eq!(options.config.audience, "api://AzureADTokenExchange");
        assert_eq!(options.tls_names, ["ensign-webhook.ensign-system.svc"]);
        assert!(options.config.excluded.iter().eq(["ensign-system", "kube-system"]));
    }

    #[test]
    fn an_authority_gets_its_trailing_slash() {
        let options = parse(&["--azure-cloud=custom", "--azure-authority-host=https://127.0.0.1:8443"]).unwrap();
        assert_eq!(options.config.authority_host, "https://127.0.0.1:8443/");
    }

    #[test]
    fn a_custom_cloud_needs_no_arm_endpoint_here() {
        let authority = "--azure-authority-host=https://login.example/";
        assert!(parse(&["--azure-cloud=custom", authority]).is_ok());
    }

    #[test]
    fn all_invalid_flags_are_reported_at_once() {
        let flags = [
            "--namespace=Upper",
            "--tls-secret=-x",
            "--tls-san=a b",
            "--excluded-namespaces=fine,kube_public",
            "--azure-cloud=custom",
            "--azure-token-audience=",
            "--webhook-configuration=_",
            "--ca-propagation-delay=0s",
            "--max-connections=1",
            "--max-requests=0",
            "--request-memory-mib=1",
            "--drain-duration=1000s",
        ];
        let problems = parse(&flags).unwrap_err();
        let named = [
            "--namespace",
            "--tls-secret",
            "--excluded-namespaces \"kube_public\"",
            "--tls-san",
            "--azure-authority-host",
            "--azure-token-audience",
            "--webhook-configuration",
            "--ca-propagation-delay",
            "--max-connections",
            "--max-requests",
            "--request-memory-mib",
            "--drain-duration",
        ];
        assert_eq!(problems.lines().count(), named.len() + 1, "{problems}");
        for flag in named {
            assert!(problems.contains(flag), "{flag} is not reported: {problems}");
        }
    }

    #[test]
    fn compatibility_mode_needs_a_tenant() {
        let compat = "--azure-workload-identity-compat";
        assert!(parse(&[]).unwrap().config.compatibility.is_none());
        assert!(parse(&[compat]).unwrap_err().contains("--azure-tenant-id"));
        assert!(parse(&[compat, "--azure-tenant-id=contoso"]).unwrap_err().contains("not a GUID"));
        let tenant = "11111111-2222-4333-8444-555555555555";
        let options = parse(&[compat, &format!("--azure-tenant-id={tenant}")]).unwrap();
        assert_eq!(options.config.compatibility.map(|mode| mode.tenant_id).as_deref(), Some(tenant));
    }

    #[test]
    fn an_authority_over_http_is_rejected() {
        let flags = ["--azure-cloud=custom", "--azure-authority-host=http://login.example/"];
        assert!(parse(&flags).unwrap_err().contains("--azure-authority-host"));
    }
}
