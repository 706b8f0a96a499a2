//! What the controller costs: time, requests, memory, by the number of bindings.
//!
//! The real `ensign` as processes of their own, with exactly the rights of dev/manifests, on a real API server; the stand-in
//! for Azure runs in this process, whose memory and time are nobody's figures. Prints one JSON object on standard output and
//! progress on standard error. It is one run: dev/bench.py repeats it and takes medians.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a measurement that can't be made ends the run"
)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "figures go to one, progress to the other")]
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
    /// What to measure, in the order of the list of parts whatever the order here
    #[arg(long, value_enum, value_delimiter = ',', default_value = "reconcile")]
    parts: Vec<Part>,
    /// Numbers of bindings for `reconcile`; the other parts take the last one
    #[arg(long, value_delimiter = ',', default_value = "10,100,1000,10000")]
    sizes: Vec<usize>,
    /// Namespaces that the bindings are in, instead of one for each twenty
    #[arg(long)]
    namespaces: Option<usize>,
    /// How long the stand-in for Azure takes for a write of a credential
    #[arg(long, default_value_t = 0)]
    write_latency_ms: u64,
    /// How often restart, failover and one are repeated
    #[arg(long, default_value_t = 5)]
    repeats: usize,
    /// Resyncs that `steady` watches
    #[arg(long, default_value_t = 10)]
    periods: u32,
    /// The lease of `failover`
    #[arg(long, default_value_t = 15)]
    lease_seconds: u64,
    /// Pods that are there in the second half of `memory`
    #[arg(long, default_value_t = 50_000)]
    pods: usize,
    /// Reviews of `soak`
    #[arg(long, default_value_t = 1_000_000)]
    reviews: u64,
    /// Reconciles of `soak`
    #[arg(long, default_value_t = 100_000)]
    reconciles: u64,
    /// The program to measure
    #[arg(long, default_value = env!("CARGO_BIN_EXE_ensign"))]
    ensign: PathBuf,
    /// An environment variable of it, as the image has one
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = variable)]
    variables: Vec<(String, String)>,
    /// What cargo says to every bench
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
