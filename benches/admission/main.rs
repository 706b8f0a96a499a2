//! Sends admission reviews to the webhook, and to an echo server that it is compared with, which does the same job and decides
//! nothing.
//!
//! ```text
//! seed   creates namespaces and ready bindings through the API server
//! echo   serves the comparison: TLS, a typed parse of the review, a response of a fixed size
//! load   sends reviews to either, in a closed loop, at a fixed rate, or as a burst of new connections
//! ```
//!
//! Each prints one JSON object. `dev/ensign_dev/bench/admission.py` calls them.
#![allow(clippy::print_stdout, reason = "the result of a driver goes to stdout")]

mod client;
mod echo;
mod load;
mod reviews;
mod seed;

use std::process::ExitCode;

use clap::Parser;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Drives the admission benchmark.
#[derive(Parser)]
enum Command {
    /// Creates ready bindings
    Seed(seed::Args),
    /// Serves the comparison
    Echo(echo::Args),
    /// Sends reviews
    Load(load::Args),
}

fn main() -> ExitCode {
    // `cargo test --benches` and `cargo bench` append a flag for the usual harness.
    let arguments = std::env::args().filter(|argument| argument != "--bench");
    let command = Command::parse_from(arguments);
    ensign_runtime::tls::install_provider();
    // One thread: client and server each get one core.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime.map_err(Failure::from).and_then(|runtime| {
        // The tasks of a load share their counts without locks.
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async {
            match command {
                Command::Seed(args) => seed::run(args).await,
                Command::Echo(args) => echo::run(args).await,
                Command::Load(args) => load::run(args).await,
            }
        })
    });
    match result {
        Ok(found) => {
            println!("{found}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            print_failure(failure.as_ref());
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stderr, reason = "the failure of a driver goes to stderr")]
fn print_failure(failure: &dyn std::error::Error) {
    eprintln!("error: {}", ensign_runtime::error_chain::lines(failure));
}
