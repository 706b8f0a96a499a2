//! The controller under faults of every kind, and the oracles that judge the outcome.
//!
//! Without arguments, a representative subset runs; `make faults` runs everything.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test program"
)]

mod admission;
mod cases;
mod cluster;
mod dedicated;
mod eventually;
mod gate;
mod harness;
mod history;
mod lock;
mod matrix;
mod mutant_coverage;
mod oracles;
mod pause;
mod plan;
mod probe;
mod replica;
mod report;
mod roles;
mod runner;
mod scenarios;
mod simulated_time;
mod snapshot;
mod tcp_proxy;
mod token_credential;

use std::process::ExitCode;

use runner::Options;

fn main() -> ExitCode {
    let options = match Options::from_arguments(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("faults: {problem}");
            return ExitCode::from(2);
        }
    };
    if runner::run(&options) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
