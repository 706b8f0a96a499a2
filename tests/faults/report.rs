//! The results, for people and as JSON.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};

use super::lock::lock;
use super::plan::Outcome;

/// The rows of the matrix that these plans cover. The others concern the webhook.
const ROWS: [std::ops::RangeInclusive<u32>; 3] = [1..=18, 22..=34, 36..=36];

/// The result for a mutant.
#[derive(Debug)]
pub struct MutantResult {
    pub mutant: &'static str,
    pub by: Option<String>,
    pub how: Option<String>,
    pub tried: Vec<String>,
}

/// The results of all runs.
#[derive(Default)]
pub struct Report {
    pub lock: Mutex<Vec<(String, Vec<u32>, Outcome)>>,
    pub mutants: Mutex<Vec<MutantResult>>,
}

impl Report {
    /// Prints and writes the results; returns whether everything passed.
    pub fn finish(&self, took: Duration, to: Option<&Path>, full: bool) -> bool {
        let runs = lock(&self.lock);
        let mutants = lock(&self.mutants);
        let ran: Vec<_> = runs.iter().filter(|(_, _, outcome)| outcome.fired || !outcome.problems.is_empty()).collect();
        let never_struck: Vec<&str> = runs
            .iter()
            .filter(|(_, _, outcome)| !outcome.fired && outcome.problems.is_empty())
            .map(|(id, ..)| id.as_str())
            .collect();
        let broken: Vec<&str> =
            ran.iter().filter(|(_, _, outcome)| !outcome.problems.is_empty()).map(|(id, ..)| id.as_str()).collect();
        let mut rows: BTreeMap<u32, (usize, usize)> = BTreeMap::new();
        for (_, numbers, outcome) in &ran {
            for number in numbers {
                let (plans, survived) = rows.entry(*number).or_default();
                *plans += 1;
                *survived += usize::from(outcome.problems.is_empty());
            }
        }
        let unrun: Vec<u32> = ROWS.into_iter().flatten().filter(|row| !rows.contains_key(row)).collect();
        let caught = mutants.iter().filter(|killed| killed.by.is_some()).count();
        let uncaught: Vec<&str> =
            mutants.iter().filter(|killed| killed.by.is_none()).map(|killed| killed.mutant).collect();

        let survived = ran.len() - broken.len();
        if !ran.is_empty() {
            let (plans, struck, seconds) = (ran.len(), never_struck.len(), took.as_secs());
            println!("{plans} plans, {survived} survived, {struck} never struck, {seconds} s");
        }
        if !mutants.is_empty() {
            println!("{} mutants, {caught} caught", mutants.len());
        }
        for (title, list) in [("broken", &broken), ("never struck", &never_struck), ("not caught", &uncaught)] {
            if !list.is_empty() {
                println!("{title}: {}", list.join(", "));
            }
        }
        if full && !unrun.is_empty() {
            println!("rows without a plan: {unrun:?}");
        }
        let rows: serde_json::Map<String, Value> = rows
            .into_iter()
            .map(|(row, (plans, survived))| (row.to_string(), json!({"plans": plans, "survived": survived})))
            .collect();
        let killed: Vec<Value> = mutants
            .iter()
            .map(|killed| json!({"mutant": killed.mutant, "caught_by": killed.by, "how": killed.how}))
            .collect();
        let document = json!({
            "plans": ran.len(), "survived": survived, "broken": broken, "never_struck": never_struck, "rows": rows,
            "rows_without_a_plan": unrun, "seconds": took.as_secs(),
            "mutants": {"made": mutants.len(), "caught": caught, "each": killed},
        });
        if let Some(path) = to {
            let folder = path.parent().expect("a folder");
            std::fs::create_dir_all(folder).expect("create the folder of the report");
            std::fs::write(path, format!("{document:#}\n")).expect("write the report");
            println!("report: {}", path.display());
        }
        let complete = !full || unrun.is_empty();
        let ran_something = !ran.is_empty() || !mutants.is_empty();
        ran_something && complete && broken.is_empty() && uncaught.is_empty() && never_struck.is_empty()
    }
}
