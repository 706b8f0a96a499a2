//! `ensign-azure-emulator`: parse, start, serve until a signal.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use tokio_util::sync::CancellationToken;

use ensign_azure_emulator::state::{DirectorySettings, StateDocument};
use ensign_azure_emulator::{Emulator, EmulatorOptions};
use ensign_runtime::duration_arg::DurationArg;
use ensign_runtime::{error_chain, shutdown, telemetry};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// An emulator of Azure Resource Manager and Entra, for tests and development
#[derive(Debug, Parser)]
#[command(name = "ensign-azure-emulator", version)]
struct Args {
    /// Address to serve HTTPS on; port 0 picks a free one
    #[arg(long, env = "ENSIGN_EMULATOR_LISTEN", value_name = "ADDRESS", default_value_t = EmulatorOptions::default().listen)]
    listen: SocketAddr,
    /// Folder to write ca.crt to [default: a temporary one]
    #[arg(long, env = "ENSIGN_EMULATOR_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Initial state, as JSON: what GET /_emulator/state returns
    #[arg(long, env = "ENSIGN_EMULATOR_SEED", value_name = "FILE")]
    seed: Option<PathBuf>,
    /// CA certificates (PEM) to trust when reading the documents of a token issuer; repeatable
    #[arg(long, env = "ENSIGN_EMULATOR_ISSUER_CA_FILE", value_name = "FILE", value_delimiter = ':')]
    issuer_ca_file: Vec<PathBuf>,
    /// How long until Entra accepts a new or changed federated identity credential, in whole seconds
    #[arg(long, env = "ENSIGN_EMULATOR_PROPAGATION_DELAY", value_name = "DURATION", default_value_t = DurationArg::from_secs(0))]
    propagation_delay: DurationArg,
    /// How long until a role can be assigned to a new identity's principal, in whole seconds
    #[arg(long, env = "ENSIGN_EMULATOR_PRINCIPAL_REPLICATION_DELAY", value_name = "DURATION", default_value_t = DurationArg::from_secs(0))]
    principal_replication_delay: DurationArg,
    /// How long until a new role assignment takes effect, in whole seconds
    #[arg(long, env = "ENSIGN_EMULATOR_ROLE_PROPAGATION_DELAY", value_name = "DURATION", default_value_t = DurationArg::from_secs(0))]
    role_propagation_delay: DurationArg,
    /// How long until Microsoft Graph knows a new identity, so that credentials of it can be created, in whole seconds
    #[arg(long, env = "ENSIGN_EMULATOR_GRAPH_REPLICATION_DELAY", value_name = "DURATION", default_value_t = DurationArg::from_secs(0))]
    graph_replication_delay: DurationArg,
    /// Status of the error until then
    #[arg(long, env = "ENSIGN_EMULATOR_GRAPH_REPLICATION_STATUS", value_name = "400|404", value_parser = ["400", "404"], default_value = "404")]
    graph_replication_status: String,
    /// How many of a hundred exchanges with a matching credential fail with AADSTS700213 nevertheless
    #[arg(long, env = "ENSIGN_EMULATOR_SPURIOUS_MISMATCH_PERCENT", value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100))]
    spurious_mismatch_percent: u32,
    /// A resource that tokens can be requested for, besides ARM and Azure's services; repeatable
    #[arg(long, env = "ENSIGN_EMULATOR_RESOURCE", value_name = "URI", value_delimiter = ',')]
    resource: Vec<String>,
    /// How many identities the directory has room for, including those deleted in the last 30 days [default: any number]
    #[arg(long, env = "ENSIGN_EMULATOR_IDENTITY_QUOTA", value_name = "NUMBER")]
    identity_quota: Option<usize>,
    /// How long a write of a federated identity credential takes
    #[arg(long, env = "ENSIGN_EMULATOR_WRITE_LATENCY", value_name = "DURATION", default_value_t = DurationArg::from_millis(EmulatorOptions::default().write_latency_ms))]
    write_latency: DurationArg,
    /// How far reads of ARM lag behind writes, at most and in whole seconds: each is answered by one of several replicas
    #[arg(long, env = "ENSIGN_EMULATOR_READ_LAG", value_name = "DURATION", default_value_t = DurationArg::from_secs(0))]
    read_lag: DurationArg,
    /// Throttle requests beyond Azure's published rate limits, as Azure does
    #[arg(long, env = "ENSIGN_EMULATOR_PUBLISHED_LIMITS")]
    published_limits: bool,
    /// Lifetime of issued tokens, in whole seconds
    #[arg(long, env = "ENSIGN_EMULATOR_TOKEN_LIFETIME", value_name = "DURATION", default_value_t = DurationArg::from_secs(EmulatorOptions::default().token_lifetime_seconds.into()))]
    token_lifetime: DurationArg,
    /// Tenant of the subscription
    #[arg(long, env = "ENSIGN_EMULATOR_TENANT_ID", value_name = "GUID", default_value_t = EmulatorOptions::default().tenant_id)]
    tenant_id: String,
    /// The subscription
    #[arg(long, env = "ENSIGN_EMULATOR_SUBSCRIPTION_ID", value_name = "GUID", default_value_t = EmulatorOptions::default().subscription_id)]
    subscription_id: String,
    /// The resource group of the subscription
    #[arg(long, env = "ENSIGN_EMULATOR_RESOURCE_GROUP", value_name = "NAME", default_value_t = EmulatorOptions::default().resource_group)]
    resource_group: String,
    /// Region of the resource group
    #[arg(long, env = "ENSIGN_EMULATOR_LOCATION", value_name = "REGION", default_value_t = EmulatorOptions::default().location)]
    location: String,
    /// Stop when stdin is closed, so that the emulator does not outlive the process that started it
    #[arg(long, env = "ENSIGN_EMULATOR_STOP_ON_STDIN_EOF")]
    stop_on_stdin_eof: bool,
    #[command(flatten)]
    telemetry: telemetry::TelemetryArgs,
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // If stderr is closed, the error can't be reported.
            let _ = writeln!(std::io::stderr(), "error: {}", error_chain::lines(failure.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<(), Failure> {
    telemetry::init(&args.telemetry)?;
    let stop_on_stdin_eof = args.stop_on_stdin_eof;
    let emulator = Emulator::start(args.into_options()?)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let stop = shutdown::on_signal()?;
        if stop_on_stdin_eof {
            cancel_at_end_of_stdin(stop.clone());
        }
        announce(&emulator)?;
        stop.cancelled().await;
        Ok::<_, Failure>(())
    })
}

impl Args {
    fn into_options(self) -> Result<EmulatorOptions, Failure> {
        let seed = match &self.seed {
            None => StateDocument::default(),
            Some(path) => serde_json::from_str(&read(path, "--seed")?)
                .map_err(|error| format!("{} is not a state document (--seed): {error}", path.display()))?,
        };
        let issuer_ca_pems = self.issuer_ca_file.iter().map(|path| read(path, "--issuer-ca-file"));
        Ok(EmulatorOptions {
            listen: self.listen,
            data_dir: self.data_dir,
            seed,
            issuer_ca_pems: issuer_ca_pems.collect::<Result<_, _>>()?,
            propagation_seconds: seconds("--propagation-delay", self.propagation_delay)?,
            principal_replication_seconds: seconds("--principal-replication-delay", self.principal_replication_delay)?,
            role_propagation_seconds: seconds("--role-propagation-delay", self.role_propagation_delay)?,
            write_latency_ms: u64::try_from(self.write_latency.get().as_millis())?,
            directory: DirectorySettings {
                graph_replication_seconds: seconds("--graph-replication-delay", self.graph_replication_delay)?,
                graph_replication_status: self.graph_replication_status.parse()?,
                spurious_mismatch_percent: self.spurious_mismatch_percent,
                resources: self.resource.into_iter().collect(),
                identity_quota: self.identity_quota,
            },
            read_lag_seconds: seconds("--read-lag", self.read_lag)?,
            published_limits: self.published_limits,
            token_lifetime_seconds: seconds("--token-lifetime", self.token_lifetime)?,
            tenant_id: self.tenant_id,
            subscription_id: self.subscription_id,
            resource_group: self.resource_group,
            location: self.location,
            ..EmulatorOptions::default()
        })
    }
}

/// The emulator's state has whole seconds.
fn seconds(flag: &str, duration: DurationArg) -> Result<u32, Failure> {
    let seconds = duration.whole_seconds().and_then(|seconds| u32::try_from(seconds).ok());
    seconds.ok_or_else(|| format!("{flag} must be whole seconds, at most {}s, not {duration}", u32::MAX).into())
}

fn read(path: &Path, flag: &str) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| format!("cannot read {} ({flag}): {error}", path.display()).into())
}

/// Prints one line of JSON to stdout once the emulator is ready, with its addresses.
fn announce(emulator: &Emulator) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(emulator.info())?)?;
    out.flush()?;
    Ok(())
}

fn cancel_at_end_of_stdin(stop: CancellationToken) {
    // A plain thread, because a read of stdin can't be interrupted and a runtime would wait for it.
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut buffer = [0; 1024];
        while matches!(stdin.read(&mut buffer), Ok(read) if read > 0) {}
        tracing::info!("stopping: stdin was closed");
        stop.cancel();
    });
}
