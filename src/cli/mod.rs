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
Exit status of every command: 0 success; 1 failure, or work that remains, as reported on standard error; 2 invalid flags or
variables, and nothing was done.";
const USAGE: u8 = 2;

/// Azure identities for Kubernetes workloads, without secrets.
#[derive(Debug, Parser)]
#[command(name = "ensign", version, propagate_version = true, after_help = EXIT_STATUS)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the controller, which reconciles bindings with federated identity credentials in Azure
    Controller(Box<controller::Args>),
    /// Run the webhook, which injects identities into pods at admission
    Webhook(Box<webhook::Args>),
    /// Print the CRDs
    Crds(crds::Args),
    /// Print the admission policies, for installs whose controller may not create them
    Policies(policies::Args),
    /// Print the controller's least-privilege Azure role, as a script that creates, updates and assigns it
    AzureRole(azure_role::Args),
    /// Verify the install, and print how to fix what does not work
    Check(Box<check::Args>),
    /// Prepare the removal of Ensign: end injection, delete or abandon credentials in Azure, remove finalizers
    Teardown(Box<teardown::Args>),
    /// List the credentials of a deleted cluster, and delete them on request
    Orphans(Box<orphans::Args>),
    /// Print a shell completion script
    Completion(completion::Args),
    /// Print the version of this build
    Version(version::Args),
}

/// The error of a subcommand; it is printed to stderr with its chain of sources.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The command was given in a way that can't work; nothing was done.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(String);

impl Cli {
    /// Runs the subcommand, and reports an error with its sources on stderr.
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

/// Enough for any cluster. Each thread costs memory, and a node may have many processors.
const MAX_THREADS: usize = 4;

/// Runs a subcommand to completion on a new runtime.
fn block_on(future: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let threads = std::thread::available_parallelism().map_or(1, |processors| processors.get().min(MAX_THREADS));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    runtime.block_on(future)
}
