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

mod clock;
mod cluster;
mod gate;
mod goals;
mod history;
mod oracles;
mod plan;
mod probe;
mod scenarios;
mod snapshot;
#[allow(dead_code, reason = "shared with the integration tests, which use more of it")]
#[path = "../integration/support/mod.rs"]
mod support;
mod token;
mod world;

use plan::{Fault, Plan};

fn main() {
    let only = std::env::args().nth(1);
    for scenario in scenarios::ALL {
        if only.as_ref().is_some_and(|only| *only != scenario.name) {
            continue;
        }
        let plan = Plan {
            id: scenario.name.to_owned(),
            rows: vec![],
            scenario,
            fault: Fault::None,
            licence: oracles::Licence::default(),
            compared: true,
            quick: true,
        };
        let outcome = plan.run(None, None);
        println!("{} took {:?}, {} points, problems {:#?}", plan.id, outcome.took, outcome.points.len(), outcome.problems);
        for point in outcome.points {
            println!("    {point}");
        }
    }
}
