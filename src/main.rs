//! The `ensign` binary: parse, pick a subcommand.

use std::process::ExitCode;

use clap::Parser;
use ensign::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().run()
}
