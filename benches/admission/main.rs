//! Drives the webhook with admission reviews, and what it is compared with: a server that does the same job and decides
//! nothing.
//!
//! ```text
//! seed   makes namespaces and bindings that are ready, through the API server
//! echo   serves the floor: TLS, a typed parse of the review, an answer of a fixed size
//! load   sends reviews to either, in a closed loop, at a fixed rate, or as a burst of new connections
//! ```
//!
//! Each prints one JSON object. `dev/ensign_dev/bench/admission.py` calls them.
#![allow(clippy::print_stdout, reason = "what a driver found goes to stdout")]

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
    /// Makes bindings that are ready
    Seed(seed::Args),
    /// Serves the floor
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
        // Tasks of a load share what they count without locks.
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
            tell(failure.as_ref());
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stderr, reason = "nobody else tells of a driver's failure")]
fn tell(failure: &dyn std::error::Error) {
    eprintln!("error: {}", ensign_runtime::error_chain::lines(failure));
}
