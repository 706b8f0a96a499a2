//! Structured logs to stderr.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One JSON object on each line.
    Json,
    /// Human-readable lines.
    #[default]
    Text,
}

/// Flags of every long-running subcommand.
#[derive(Clone, Debug, clap::Args)]
pub struct TelemetryArgs {
    /// Log filter, for example `info` or `ensign=debug,kube=warn`
    #[arg(long, env = "ENSIGN_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
    /// Log format
    #[arg(long, env = "ENSIGN_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
}

/// The log filter can't be parsed.
#[derive(Debug, thiserror::Error)]
#[error("--log {filter:?} is not a log filter; use, for example, `info` or `ensign=debug,kube=warn`")]
pub struct InvalidFilter {
    filter: String,
    #[source]
    source: tracing_subscriber::filter::ParseError,
}

/// Starts logging for the whole process. A second call keeps the first subscriber.
pub fn init(args: &TelemetryArgs) -> Result<(), InvalidFilter> {
    let filter = EnvFilter::try_new(&args.log).map_err(|source| InvalidFilter { filter: args.log.clone(), source })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_span_events(FmtSpan::NONE)
        .with_ansi(false);
    let _ = match args.log_format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.try_init(),
    };
    Ok(())
}
