//! `ensign webhook`.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use kube::{Client, Config as KubeConfig};
use rustls::pki_types::ServerName;
use url::Url;

use super::Failure;
use crate::decide::admit;
use crate::decide::registration::excluded_namespaces;
use crate::runtime::clock::SystemClock;
use crate::runtime::telemetry::{self, TelemetryArgs};
use crate::runtime::{shutdown, tls};
use crate::webhook::{self, Options};

/// Longer than any watch that the API server lets stand, so that only a connection that died counts as silent.
const KUBERNETES_READ_TIMEOUT: Duration = Duration::from_secs(310);

/// Flags of the subcommand.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Address for admission reviews over HTTPS
    #[arg(long, env = "ENSIGN_LISTEN", default_value = "0.0.0.0:9443", value_name = "ADDRESS")]
    listen: String,
    /// Address for health checks over HTTP
    #[arg(long, env = "ENSIGN_HEALTH_LISTEN", default_value = "0.0.0.0:8080", value_name = "ADDRESS")]
    health_listen: String,
    /// Namespace that Ensign runs in
    #[arg(long, env = "ENSIGN_NAMESPACE", default_value = "ensign-system", value_name = "NAME")]
    namespace: String,
    /// Secret in that namespace that the webhook fills with its certificates; it has to exist
    #[arg(long, env = "ENSIGN_TLS_SECRET", default_value = "ensign-webhook-tls", value_name = "NAME")]
    tls_secret: String,
    /// DNS name or address under which the API server reaches the webhook; repeatable [default: ensign-webhook.<namespace>.svc]
    #[arg(long, env = "ENSIGN_TLS_SAN", value_delimiter = ',', value_name = "NAME")]
    tls_san: Vec<String>,
    /// Namespace whose pods are never touched, besides kube-system and Ensign's own; repeatable
    #[arg(long, env = "ENSIGN_EXCLUDED_NAMESPACE", value_delimiter = ',', value_name = "NAME")]
    excluded_namespace: Vec<String>,
    /// Azure cloud of the identities
    #[arg(long, env = "ENSIGN_AZURE_CLOUD", value_enum, default_value_t)]
    azure_cloud: Cloud,
    /// Entra authority that pods get [default: the cloud's]
    #[arg(long, env = "ENSIGN_AZURE_AUTHORITY_HOST", value_name = "URL")]
    azure_authority_host: Option<String>,
    /// Audience of the tokens that pods get [default: the cloud's]
    #[arg(long, env = "ENSIGN_AZURE_TOKEN_AUDIENCE", value_name = "AUDIENCE")]
    azure_token_audience: Option<String>,
    /// File to write once the webhook is ready: JSON with its addresses
    #[arg(long, env = "ENSIGN_READY_FILE", value_name = "FILE")]
    ready_file: Option<PathBuf>,
    #[command(flatten)]
    telemetry: TelemetryArgs,
}

/// Azure clouds, as far as pods have to know of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Cloud {
    #[default]
    Public,
    #[value(name = "usgov")]
    UsGov,
    China,
    /// Any other: --azure-authority-host has to say where
    Custom,
}

impl Cloud {
    fn authority_host(self) -> Option<&'static str> {
        match self {
            Self::Public => Some("https://login.microsoftonline.com/"),
            Self::UsGov => Some("https://login.microsoftonline.us/"),
            Self::China => Some("https://login.chinacloudapi.cn/"),
            Self::Custom => None,
        }
    }

    fn token_audience(self) -> &'static str {
        match self {
            Self::Public | Self::Custom => "api://AzureADTokenExchange",
            Self::UsGov => "api://AzureADTokenExchangeUSGov",
            Self::China => "api://AzureADTokenExchangeChina",
        }
    }
}

/// Every flag that can't be used, at once.
#[derive(Debug, PartialEq, Eq)]
struct InvalidFlags(Vec<String>);

impl fmt::Display for InvalidFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration can't be used:")?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for InvalidFlags {}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    telemetry::init(&args.telemetry)?;
    tls::install_provider();
    let options = options(args)?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let stop = shutdown::on_signal()?;
        let mut config = KubeConfig::infer().await?;
        config.read_timeout.get_or_insert(KUBERNETES_READ_TIMEOUT);
        let client = Client::try_from(config)?;
        Ok(webhook::run(client, options, SystemClock::shared(), stop).await?)
    })
}

/// Flags to meaning.
fn options(args: Args) -> Result<Options, InvalidFlags> {
    let mut problems = Problems::default();
    let listen = problems.address("--listen", &args.listen);
    let health_listen = problems.address("--health-listen", &args.health_listen);
    problems.dns_name("--namespace", &args.namespace);
    problems.dns_name("--tls-secret", &args.tls_secret);
    for name in &args.excluded_namespace {
        problems.dns_name("--excluded-namespace", name);
    }
    for name in &args.tls_san {
        problems.require(ServerName::try_from(name.as_str()).is_ok(), || {
            format!("--tls-san {name:?} is neither a DNS name nor an IP address")
        });
    }
    let authority_host = args.azure_authority_host.as_deref().or(args.azure_cloud.authority_host());
    let authority_host = problems.authority_host(authority_host);
    let audience = args.azure_token_audience.unwrap_or_else(|| args.azure_cloud.token_audience().to_owned());
    problems.require(!audience.trim().is_empty(), || "--azure-token-audience must not be empty".to_owned());

    let (Some(listen), Some(health_listen), Some(authority_host), true) =
        (listen, health_listen, authority_host, problems.0.is_empty())
    else {
        return Err(InvalidFlags(problems.0));
    };
    let tls_names =
        if args.tls_san.is_empty() { vec![format!("ensign-webhook.{}.svc", args.namespace)] } else { args.tls_san };
    let excluded = excluded_namespaces(&args.namespace, args.excluded_namespace);
    Ok(Options {
        listen,
        health_listen,
        namespace: args.namespace,
        tls_secret: args.tls_secret,
        tls_names,
        config: admit::Config { authority_host, audience, excluded },
        ready_file: args.ready_file,
    })
}

#[derive(Default)]
struct Problems(Vec<String>);

impl Problems {
    fn require(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.0.push(otherwise());
        }
    }

    fn address(&mut self, flag: &str, value: &str) -> Option<SocketAddr> {
        let address = value.parse().ok();
        self.require(address.is_some(), || format!("{flag} {value:?} is not an address such as 0.0.0.0:9443"));
        address
    }

    fn dns_name(&mut self, flag: &str, value: &str) {
        let is_label = |label: &str| {
            let edge = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
            let bytes = label.as_bytes();
            bytes.first().copied().is_some_and(edge)
                && bytes.last().copied().is_some_and(edge)
                && bytes.iter().all(|byte| edge(*byte) || *byte == b'-')
        };
        self.require(value.len() <= 253 && value.split('.').all(is_label), || {
            format!("{flag} {value:?} is not a name of a Kubernetes object")
        });
    }

    /// The authority with its trailing slash, as the Azure SDKs expect it.
    fn authority_host(&mut self, value: Option<&str>) -> Option<String> {
        let Some(value) = value else {
            self.0.push("--azure-authority-host is required with --azure-cloud custom".to_owned());
            return None;
        };
        let usable = Url::parse(value).ok().filter(|url| {
            url.scheme() == "https"
                && url.has_host()
                && url.query().is_none()
                && url.fragment().is_none()
                && url.username().is_empty()
                && url.password().is_none()
        });
        self.require(usable.is_some(), || {
            format!("--azure-authority-host {value:?} is not an https URL such as https://login.microsoftonline.com/")
        });
        usable.map(|_| format!("{}/", value.trim_end_matches('/')))
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

    fn parse(flags: &[&str]) -> Result<Options, InvalidFlags> {
        options(TestCli::try_parse_from(["ensign"].iter().chain(flags)).unwrap().args)
    }

    #[test]
    fn without_flags_the_public_cloud_and_the_service_name_are_used() {
        let options = parse(&[]).unwrap();
        assert_eq!(options.config.authority_host, "https://login.microsoftonline.com/");
        assert_eq!(options.config.audience, "api://AzureADTokenExchange");
        assert_eq!(options.tls_names, ["ensign-webhook.ensign-system.svc"]);
        assert!(options.config.excluded.iter().eq(["ensign-system", "kube-system"]));
    }

    #[test]
    fn an_authority_gets_its_trailing_slash() {
        let options = parse(&["--azure-authority-host", "https://127.0.0.1:8443"]).unwrap();
        assert_eq!(options.config.authority_host, "https://127.0.0.1:8443/");
    }

    #[test]
    fn every_unusable_flag_is_named_at_once() {
        let flags = [
            "--listen=nowhere",
            "--health-listen=8080",
            "--namespace=Upper",
            "--tls-secret=-x",
            "--tls-san=a b",
            "--excluded-namespace=kube_public",
            "--azure-cloud=custom",
            "--azure-token-audience=",
        ];
        let InvalidFlags(problems) = parse(&flags).unwrap_err();
        let named = [
            "--listen",
            "--health-listen",
            "--namespace",
            "--tls-secret",
            "--excluded-namespace",
            "--tls-san",
            "--azure-authority-host",
            "--azure-token-audience",
        ];
        assert_eq!(problems.len(), named.len(), "{problems:#?}");
        for (problem, flag) in problems.iter().zip(named) {
            assert!(problem.starts_with(flag), "{problem}");
        }
    }

    #[test]
    fn an_authority_over_http_is_refused() {
        let InvalidFlags(problems) = parse(&["--azure-authority-host", "http://login.example.com/"]).unwrap_err();
        assert!(problems[0].contains("https URL"), "{problems:?}");
    }
}
