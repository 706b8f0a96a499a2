//! Runs references, plans and mutants, several at a time.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Instant;

use ensign_mutants::Mutant;

use super::clock::lock;
use super::killers;
use super::matrix;
use super::plan::{End, Outcome, Plan};
use super::report::{Killed, Report};
use super::rows;
use super::scenarios::{self, Scenario};

/// Plans that run at a time: they wait more than they work.
const JOBS: usize = 8;
/// A point that another run of the scenario did not come to is tried again this often.
const TRIES: usize = 3;

/// What the caller wants.
#[derive(Default)]
pub struct Wish {
    full: bool,
    list: bool,
    mutants: Mutants,
    plan: Option<String>,
    mutant: Option<Mutant>,
    report: Option<PathBuf>,
    jobs: Option<usize>,
}

/// Whether mutants run too.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Mutants {
    #[default]
    Too,
    Alone,
    None,
}

impl Wish {
    pub fn from_arguments(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut wish = Self::default();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--full" => wish.full = true,
                "--list" => wish.list = true,
                "--only-mutants" => wish.mutants = Mutants::Alone,
                "--no-mutants" => wish.mutants = Mutants::None,
                "--plan" => wish.plan = Some(value()?),
                "--report" => wish.report = Some(value()?.into()),
                "--jobs" => wish.jobs = Some(value()?.parse().map_err(|_| "--jobs needs a number")?),
                "--mutant" => {
                    let name = value()?;
                    let found = Mutant::ALL.iter().find(|mutant| mutant.as_str() == name);
                    wish.mutant = Some(*found.ok_or(format!("there is no mutant {name}"))?);
                }
                other => return Err(format!("unknown argument {other}")),
            }
        }
        Ok(wish)
    }

    /// Whether the reference run of a scenario is needed.
    fn needs(&self, scenario: &str) -> bool {
        if let (Some(mutant), None) = (self.mutant, &self.plan) {
            let of =
                |plan: &&str| matches!(plan.split('/').next(), Some(start) if start == scenario || start == "azure");
            return killers::of(mutant).iter().any(of);
        }
        let Some(wanted) = &self.plan else { return true };
        let others =
            matrix::azure_failures().into_iter().chain(matrix::role_failures()).chain(matrix::kubernetes_failures());
        let mut named = others.filter(|plan| self.takes(plan)).map(|plan| plan.scenario.name);
        self.mutant.is_some()
            || wanted.split(',').any(|wanted| wanted.split('/').next() == Some(scenario) || wanted == "*")
            || named.any(|name| name == scenario)
    }

    fn takes(&self, plan: &Plan) -> bool {
        match &self.plan {
            Some(wanted) => wanted.split(',').any(|wanted| {
                plan.id == wanted || wanted.strip_suffix('*').is_some_and(|start| plan.id.starts_with(start))
            }),
            None => self.mutants != Mutants::Alone && (self.full || plan.quick),
        }
    }
}

/// Plans that are known to survive without a mutant, or not.
#[derive(Default)]
struct Survived(Mutex<BTreeMap<String, bool>>);

impl Survived {
    fn of(&self, plan: &Plan, references: &References) -> bool {
        let known = lock(&self.0).get(&plan.id).copied();
        known.unwrap_or_else(|| {
            let survives = attempt(plan, references).problems.is_empty();
            lock(&self.0).insert(plan.id.clone(), survives);
            survives
        })
    }
}

/// Reference runs by scenario: their points and their ends.
type References = BTreeMap<&'static str, (Vec<String>, End)>;

/// Runs what is wished for; whether all is as it must be.
pub fn run(wish: &Wish) -> bool {
    let begun = Instant::now();
    let jobs = wish.jobs.unwrap_or(JOBS);
    let mut report = Report::default();
    let wanted = scenarios::ALL.iter().filter(|scenario| wish.needs(scenario.name)).collect();
    let references = references(wanted, jobs, &mut report);
    let mut plans: Vec<Plan> = rows::plans();
    for scenario in scenarios::ALL {
        if let Some((points, _)) = references.get(scenario.name) {
            plans.extend(matrix::at_points(scenario, points));
        }
    }
    plans.extend(matrix::azure_failures());
    plans.extend(matrix::role_failures());
    plans.extend(matrix::kubernetes_failures());
    if wish.list {
        for plan in &plans {
            println!("{}", plan.id);
        }
        return true;
    }
    if let Some(mutant) = wish.mutant {
        let killed = kill(mutant, &plans, &references, &Survived::default(), wish.plan.as_deref());
        println!("{}: {killed:#?}", mutant.as_str());
        return killed.by.is_some();
    }
    let (alone, together): (Vec<&Plan>, Vec<&Plan>) =
        plans.iter().filter(|plan| wish.takes(plan)).partition(|plan| plan.alone);
    let total = alone.len() + together.len();
    println!("{total} plans, {jobs} at a time");
    let run_one = |number: usize, plan: &Plan| {
        let outcome = attempt(plan, &references);
        if (number + 1).is_multiple_of(50) {
            println!("{} of {total} plans begun, {} s", number + 1, begun.elapsed().as_secs());
        }
        say(plan, &outcome);
        lock(&report.lock).push((plan.id.clone(), plan.rows.clone(), outcome));
    };
    for_each(together, jobs, run_one);
    for_each(alone, 1, run_one);
    if wish.mutants != Mutants::None && wish.plan.is_none() {
        let survived = Survived::default();
        for (id, _, outcome) in lock(&report.lock).iter() {
            lock(&survived.0).insert(id.clone(), outcome.problems.is_empty());
        }
        let all: Vec<Mutant> = Mutant::ALL.to_vec();
        let wanted = all
            .into_iter()
            .filter(|mutant| wish.full || wish.mutants == Mutants::Alone || killers::QUICK.contains(mutant))
            .collect();
        for_each(wanted, jobs, |_, mutant| {
            let killed = kill(mutant, &plans, &references, &survived, None);
            match &killed.by {
                Some(plan) => println!("mutant {} is caught by {plan}", mutant.as_str()),
                None => println!("MUTANT {} IS NOT CAUGHT by {:?}", mutant.as_str(), killed.tried),
            }
            lock(&report.mutants).push(killed);
        });
    }
    report.finish(begun.elapsed(), wish.report.as_deref(), wish.full)
}

fn references(scenarios: Vec<&'static Scenario>, jobs: usize, report: &mut Report) -> References {
    let found = Mutex::new(References::new());
    let broken = Mutex::new(Vec::new());
    for_each(scenarios, jobs, |_, scenario| {
        let plan = matrix::reference(scenario);
        let outcome = plan.run(None, None);
        say(&plan, &outcome);
        if outcome.problems.is_empty()
            && let Some(end) = outcome.end.clone()
        {
            lock(&found).insert(scenario.name, (outcome.points, end));
        } else {
            lock(&broken).push((plan.id, plan.rows, outcome));
        }
    });
    lock(&report.lock).extend(broken.into_inner().expect("no thread panicked"));
    found.into_inner().expect("no thread panicked")
}

fn attempt(plan: &Plan, references: &References) -> Outcome {
    let reference = references.get(plan.scenario.name).map(|(_, end)| end);
    let mut last = plan.run(None, reference);
    for _ in 1..TRIES {
        if last.fired || !last.problems.is_empty() {
            break;
        }
        last = plan.run(None, reference);
    }
    last
}

fn say(plan: &Plan, outcome: &Outcome) {
    if outcome.problems.is_empty() {
        return;
    }
    let id = &plan.id;
    let problems = outcome.problems.join("\n    ");
    let points = outcome.points.join("\n        ");
    println!(
        "BROKEN {id} after {:?}\n    {problems}\n    points:\n        {points}\n    alone: make faults PLAN='{id}'",
        outcome.took
    );
}

/// Runs a mutant on the plans that should catch it, until one does.
fn kill(mutant: Mutant, plans: &[Plan], references: &References, survived: &Survived, only: Option<&str>) -> Killed {
    let mut killed = Killed { mutant: mutant.as_str(), by: None, how: None, tried: Vec::new() };
    for wanted in only.map_or_else(|| killers::of(mutant).to_vec(), |plan| vec![plan]) {
        let starts = |plan: &&Plan| match wanted.strip_suffix('*') {
            Some(start) => plan.id.starts_with(start),
            None => plan.id == wanted,
        };
        let extra = scenarios::ALL.iter().filter(|scenario| format!("{}/reference", scenario.name) == wanted);
        let extra: Vec<Plan> = extra.map(matrix::reference).collect();
        for plan in plans.iter().filter(starts).chain(&extra) {
            // A plan that breaks without the mutant too says nothing about it.
            if !survived.of(plan, references) {
                continue;
            }
            let reference = references.get(plan.scenario.name).map(|(_, end)| end);
            let outcome = plan.run(Some(mutant), reference);
            killed.tried.push(plan.id.clone());
            if let Some(problem) = outcome.problems.into_iter().next() {
                killed.by = Some(plan.id.clone());
                killed.how = Some(problem);
                return killed;
            }
        }
    }
    killed
}

/// Does something with each, several at a time.
fn for_each<T: Send>(all: Vec<T>, jobs: usize, act: impl Fn(usize, T) + Sync) {
    let queue: Mutex<VecDeque<(usize, T)>> = Mutex::new(all.into_iter().enumerate().collect());
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let next = lock(&queue).pop_front();
                    let Some((number, one)) = next else { return };
                    act(number, one);
                }
            });
        }
    });
}
