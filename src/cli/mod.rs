//! The command line: one file for each subcommand.

mod commands;
mod flags;
mod kube_client;
mod output;
mod ready_file;
mod usage_errors;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use ensign_runtime::error_chain;

use self::commands::{azure_role, check, completion, controller, crds, orphans, policies, teardown, version, webhook};

const EXIT_STATUS: &str = "\
Exit status of every command: 0 success; 1 failure, or something is left to do, which standard error says; 2 usage: a flag
or a variable can't be used, and nothing was done.";
const USAGE: u8 = 2;

/// Gives Kubernetes workloads an Azure identity without a secret anywhere.
#[derive(Debug, Parser)]
#[command(name = "ensign", version, propagate_version = true, after_help = EXIT_STATUS)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Reconcile bindings with the federated identity credentials in Azure
    Controller(Box<controller::Args>),
    /// Inject identities into pods at admission
    Webhook(Box<webhook::Args>),
    /// Print the custom resource definitions
    Crds(crds::Args),
    /// Print the admission policies as an install makes them: they do nothing until the controller fills them in
    Policies(policies::Args),
    /// Print the smallest Azure role for the controller, with the commands that make and assign it
    AzureRole(azure_role::Args),
    /// Say whether the install works, and what to do where it does not
    Check(Box<check::Args>),
    /// Take Ensign down: end injection, delete or abandon credentials in Azure, release every object
    Teardown(Box<teardown::Args>),
    /// List the credentials of a cluster that is gone, and delete them on request
    Orphans(Box<orphans::Args>),
    /// Print a script that completes the command line in a shell
    Completion(completion::Args),
    /// Print the version, and what this build can do
    Version(version::Args),
}

/// What a subcommand may fail with; its chain of sources is printed to stderr.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The command can't be carried out as it was given; nothing was done.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(String);

impl Cli {
    /// Runs the chosen subcommand and reports its failure, with every source, on stderr.
    pub fn run(self) -> ExitCode {
        let result = match self.command {
            Command::Controller(args) => controller::run(*args),
            Command::Webhook(args) => webhook::run(*args),
            Command::Crds(args) => crds::run(&args),
            Command::Policies(args) => policies::run(&args),
            Command::AzureRole(args) => azure_role::run(&args),
            Command::Check(args) => check::run(*args),
            Command::Teardown(args) => teardown::run(*args),
            Command::Orphans(args) => orphans::run(*args),
            Command::Completion(args) => completion::run(&args),
            Command::Version(args) => version::run(&args),
        };
        match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                // There is no one to report to once stderr is closed.
                let _ = writeln!(std::io::stderr(), "error: {}", error_chain::lines(failure.as_ref()));
                if failure.is::<Usage>() { ExitCode::from(USAGE) } else { ExitCode::FAILURE }
            }
        }
    }
}

/// No cluster keeps more than these busy, and a node may have very many processors: each thread costs memory.
const MAX_THREADS: usize = 4;

/// Runs a long-lived subcommand on a runtime of its own.
fn block_on(future: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let threads = std::thread::available_parallelism().map_or(1, |processors| processors.get().min(MAX_THREADS));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    runtime.block_on(future)
}
