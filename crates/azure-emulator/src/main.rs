//! `ensign-azure-emulator`: parse, start, serve until a signal.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use tokio_util::sync::CancellationToken;

use ensign_azure_emulator::state::StateDocument;
use ensign_azure_emulator::{Emulator, EmulatorOptions};
use ensign_runtime::{error_chain, shutdown, telemetry};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// An emulator of Azure Resource Manager and Entra, for tests and development
#[derive(Debug, Parser)]
#[command(name = "ensign-azure-emulator", version)]
struct Args {
    /// Address to serve https on; port 0 takes a free one
    #[arg(long, env = "ENSIGN_EMULATOR_LISTEN", value_name = "ADDRESS", default_value_t = EmulatorOptions::default().listen)]
    listen: SocketAddr,
    /// Folder for ca.crt; a temporary one by default
    #[arg(long, env = "ENSIGN_EMULATOR_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// State to start from, as JSON: what GET /_emulator/state answers
    #[arg(long, env = "ENSIGN_EMULATOR_SEED", value_name = "FILE")]
    seed: Option<PathBuf>,
    /// CA certificates (PEM) to trust when a token issuer's documents are read; repeatable
    #[arg(long, env = "ENSIGN_EMULATOR_ISSUER_CA_FILE", value_name = "FILE", value_delimiter = ':')]
    issuer_ca_file: Vec<PathBuf>,
    /// Seconds before a written federated identity credential gives tokens
    #[arg(long, env = "ENSIGN_EMULATOR_PROPAGATION_SECONDS", value_name = "N", default_value_t = 0)]
    propagation_seconds: u32,
    /// Seconds before a role can be assigned to a new identity's principal
    #[arg(long, env = "ENSIGN_EMULATOR_PRINCIPAL_REPLICATION_SECONDS", value_name = "N", default_value_t = 0)]
    principal_replication_seconds: u32,
    /// Seconds before a written role assignment gives access
    #[arg(long, env = "ENSIGN_EMULATOR_ROLE_PROPAGATION_SECONDS", value_name = "N", default_value_t = 0)]
    role_propagation_seconds: u32,
    /// How long a write of a federated identity credential takes, in milliseconds
    #[arg(long, env = "ENSIGN_EMULATOR_WRITE_LATENCY_MS", value_name = "N", default_value_t = EmulatorOptions::default().write_latency_ms)]
    write_latency_ms: u64,
    /// Refuse requests beyond Azure's published limits, as Azure does
    #[arg(long, env = "ENSIGN_EMULATOR_PUBLISHED_LIMITS")]
    published_limits: bool,
    /// Lifetime of the tokens that are given, in seconds
    #[arg(long, env = "ENSIGN_EMULATOR_TOKEN_LIFETIME_SECONDS", value_name = "N", default_value_t = EmulatorOptions::default().token_lifetime_seconds)]
    token_lifetime_seconds: u32,
    /// Tenant of the subscription
    #[arg(long, env = "ENSIGN_EMULATOR_TENANT_ID", value_name = "GUID", default_value_t = EmulatorOptions::default().tenant_id)]
    tenant_id: String,
    /// The subscription
    #[arg(long, env = "ENSIGN_EMULATOR_SUBSCRIPTION_ID", value_name = "GUID", default_value_t = EmulatorOptions::default().subscription_id)]
    subscription_id: String,
    /// The resource group in it
    #[arg(long, env = "ENSIGN_EMULATOR_RESOURCE_GROUP", value_name = "NAME", default_value_t = EmulatorOptions::default().resource_group)]
    resource_group: String,
    /// Region of the resource group
    #[arg(long, env = "ENSIGN_EMULATOR_LOCATION", value_name = "REGION", default_value_t = EmulatorOptions::default().location)]
    location: String,
    /// Stop when stdin is closed, so that the emulator never outlives the process that started it
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
            propagation_seconds: self.propagation_seconds,
            principal_replication_seconds: self.principal_replication_seconds,
            role_propagation_seconds: self.role_propagation_seconds,
            write_latency_ms: self.write_latency_ms,
            published_limits: self.published_limits,
            token_lifetime_seconds: self.token_lifetime_seconds,
            tenant_id: self.tenant_id,
            subscription_id: self.subscription_id,
            resource_group: self.resource_group,
            location: self.location,
            ..EmulatorOptions::default()
        })
    }
}

fn read(path: &Path, flag: &str) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| format!("cannot read {} ({flag}): {error}", path.display()).into())
}

/// Prints one line of JSON to stdout: it is ready, and how to reach it.
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
