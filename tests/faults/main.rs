//! Faults of every kind, and the oracles that judge how the controller survives them.
//!
//! Without arguments a representative part runs; `make faults` runs all of it.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test program"
)]

mod admission;
mod clock;
mod cluster;
mod dedicated;
mod freezer;
mod gate;
mod goals;
mod history;
mod killers;
mod matrix;
mod oracles;
mod pipe;
mod plan;
mod probe;
mod replica;
mod report;
mod roles;
mod rows;
mod runner;
mod scenarios;
mod snapshot;
mod token;
mod waiting;
mod world;

use std::process::ExitCode;

use runner::Wish;

fn main() -> ExitCode {
    let wish = match Wish::from_arguments(std::env::args().skip(1)) {
        Ok(wish) => wish,
        Err(problem) => {
            eprintln!("faults: {problem}");
            return ExitCode::from(2);
        }
    };
    if runner::run(&wish) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
