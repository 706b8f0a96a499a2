//! The cost of the controller: time, requests and memory, by the number of bindings.
//!
//! The real `ensign` as separate processes, with the RBAC rules of dev/manifests, on a real API server; the emulator
//! runs in this process, whose memory and time are not measured. Prints one JSON object on standard output and
//! progress on standard error. This is one run: dev/bench.py repeats it and takes medians.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a failed measurement ends the run")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "figures go to stdout, progress to stderr")]
#![allow(clippy::cast_precision_loss, reason = "counts are far below 2^52")]

mod audit;
mod baseline;
mod failover;
mod fixture;
mod fleet;
mod limits;
mod memory;
mod one;
mod pending_requests;
mod process;
mod reconcile;
mod restart;
mod soak;
mod steady;

use std::path::PathBuf;

use clap::Parser;
use fixture::Fixture;
use serde_json::{Map, Value};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
enum Part {
    Reconcile,
    Limits,
    Steady,
    Restart,
    Failover,
    One,
    Memory,
    Soak,
}

/// One run.
#[derive(Debug, Parser)]
pub struct Args {
    /// What to measure; the order does not matter
    #[arg(long, value_enum, value_delimiter = ',', default_value = "reconcile")]
    parts: Vec<Part>,
    /// Numbers of bindings for `reconcile`; the other parts use the largest
    #[arg(long, value_delimiter = ',', default_value = "10,100,1000,10000")]
    sizes: Vec<usize>,
    /// Number of namespaces, instead of one per twenty bindings
    #[arg(long)]
    namespaces: Option<usize>,
    /// How long the emulator takes for a write of a credential
    #[arg(long, default_value_t = 0)]
    write_latency_ms: u64,
    /// How often `restart`, `failover` and `one` are repeated
    #[arg(long, default_value_t = 5)]
    repeats: usize,
    /// Number of drift check intervals that `steady` measures
    #[arg(long, default_value_t = 10)]
    periods: u32,
    /// The lease duration of `failover`
    #[arg(long, default_value_t = 15)]
    lease_seconds: u64,
    /// Number of pods in the second half of `memory`
    #[arg(long, default_value_t = 50_000)]
    pods: usize,
    /// Number of reviews of `soak`
    #[arg(long, default_value_t = 1_000_000)]
    reviews: u64,
    /// Number of reconciles of `soak`
    #[arg(long, default_value_t = 100_000)]
    reconciles: u64,
    /// The measured program
    #[arg(long, default_value = env!("CARGO_BIN_EXE_ensign"))]
    ensign: PathBuf,
    /// An environment variable for it, as in the image
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = variable)]
    variables: Vec<(String, String)>,
    /// Passed by cargo to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn variable(text: &str) -> Result<(String, String), &'static str> {
    text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())).ok_or("expected NAME=VALUE")
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut args = Args::parse();
    args.parts.sort_unstable();
    args.parts.dedup();
    let mut fixture = Fixture::start(args).await;
    let mut report = Map::new();
    for part in fixture.args.parts.clone() {
        let name = format!("{part:?}").to_lowercase();
        fixture.progress(&format!("{name} ..."));
        let figures: Value = match part {
            Part::Reconcile => reconcile::measure(&mut fixture).await,
            Part::Limits => limits::measure(&mut fixture).await,
            Part::Steady => steady::measure(&mut fixture).await,
            Part::Restart => restart::measure(&mut fixture).await,
            Part::Failover => failover::measure(&mut fixture).await,
            Part::One => one::measure(&mut fixture).await,
            Part::Memory => memory::measure(&mut fixture).await,
            Part::Soak => soak::measure(&mut fixture).await,
        };
        report.insert(name, figures);
    }
    println!("{}", Value::Object(report));
}
