//! Runs reference runs, plans and mutants, several at a time.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Instant;

use ensign_mutants::Mutant;

use super::cases;
use super::lock::lock;
use super::matrix;
use super::mutant_coverage;
use super::plan::{End, Outcome, Plan};
use super::report::{MutantResult, Report};
use super::scenarios::{self, Scenario};

/// Plans that run concurrently: they wait more than they work.
const JOBS: usize = 8;
/// How often a plan is repeated whose point was not reached.
const TRIES: usize = 3;

/// The command line.
#[derive(Default)]
pub struct Options {
    full: bool,
    list: bool,
    only_mutants: bool,
    plan: Option<String>,
    mutant: Option<Mutant>,
    report: Option<PathBuf>,
    jobs: Option<usize>,
}

/// Whether this program was built from the copy of the workspace that has the seeded mistakes in it.
const HAS_MUTANTS: bool = cfg!(feature = "mutants");

impl Options {
    pub fn from_arguments(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self::default();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--full" => options.full = true,
                "--list" => options.list = true,
                "--only-mutants" => options.only_mutants = true,
                "--plan" => options.plan = Some(value()?),
                "--report" => options.report = Some(value()?.into()),
                "--jobs" => options.jobs = Some(value()?.parse().map_err(|_| "--jobs needs a number")?),
                "--mutant" => {
                    let name = value()?;
                    let found = Mutant::ALL.iter().find(|mutant| mutant.as_str() == name);
                    options.mutant = Some(*found.ok_or(format!("unknown mutant {name}"))?);
                }
                other => return Err(format!("unknown argument {other}")),
            }
        }
        if (options.only_mutants || options.mutant.is_some()) && !HAS_MUTANTS {
            return Err("the released source has no mutants: `make faults` builds a copy that has".to_owned());
        }
        Ok(options)
    }

    /// Whether the reference run of a scenario is needed.
    fn needs(&self, scenario: &str) -> bool {
        if let (Some(mutant), None) = (self.mutant, &self.plan) {
            let of =
                |plan: &&str| matches!(plan.split('/').next(), Some(start) if start == scenario || start == "azure");
            return mutant_coverage::of(mutant).iter().any(of);
        }
        let Some(wanted) = &self.plan else { return true };
        let others = matrix::azure_failures()
            .into_iter()
            .chain(matrix::late_reads())
            .chain(matrix::unknown_in_entra())
            .chain(matrix::role_failures())
            .chain(matrix::kubernetes_failures());
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
            None => !self.only_mutants && (self.full || plan.quick),
        }
    }
}

/// Which plans survive without a mutant, as far as known.
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

/// Runs what was requested; returns whether everything passed.
pub fn run(options: &Options) -> bool {
    let begun = Instant::now();
    let jobs = options.jobs.unwrap_or(JOBS);
    let mut report = Report::default();
    let wanted = scenarios::ALL.iter().filter(|scenario| options.needs(scenario.name)).collect();
    let references = references(wanted, jobs, &mut report);
    let mut plans: Vec<Plan> = cases::plans();
    for scenario in scenarios::ALL {
        if let Some((points, _)) = references.get(scenario.name) {
            plans.extend(matrix::at_points(scenario, points));
        }
    }
    plans.extend(matrix::azure_failures());
    plans.extend(matrix::late_reads());
    plans.extend(matrix::unknown_in_entra());
    plans.extend(matrix::role_failures());
    plans.extend(matrix::kubernetes_failures());
    if options.list {
        for plan in &plans {
            println!("{}", plan.id);
        }
        return true;
    }
    if let Some(mutant) = options.mutant {
        let killed = kill(mutant, &plans, &references, &Survived::default(), options.plan.as_deref());
        println!("{}: {killed:#?}", mutant.as_str());
        return killed.by.is_some();
    }
    let (alone, together): (Vec<&Plan>, Vec<&Plan>) =
        plans.iter().filter(|plan| options.takes(plan)).partition(|plan| plan.alone);
    let total = alone.len() + together.len();
    if !options.only_mutants {
        println!("{total} plans, {jobs} at a time");
    }
    let run_one = |number: usize, plan: &Plan| {
        let outcome = attempt(plan, &references);
        if (number + 1).is_multiple_of(50) {
            println!("{} of {total} plans started, {} s", number + 1, begun.elapsed().as_secs());
        }
        print_failure(plan, &outcome);
        lock(&report.lock).push((plan.id.clone(), plan.rows.clone(), outcome));
    };
    for_each(together, jobs, run_one);
    for_each(alone, 1, run_one);
    if options.only_mutants {
        let survived = Survived::default();
        for (id, _, outcome) in lock(&report.lock).iter() {
            lock(&survived.0).insert(id.clone(), outcome.problems.is_empty());
        }
        let all: Vec<Mutant> = Mutant::ALL.to_vec();
        let wanted = all.into_iter().filter(|mutant| options.full || mutant_coverage::QUICK.contains(mutant)).collect();
        for_each(wanted, jobs, |_, mutant| {
            let killed = kill(mutant, &plans, &references, &survived, None);
            match &killed.by {
                Some(plan) => println!("mutant {} is caught by {plan}", mutant.as_str()),
                None => println!("MUTANT {} IS NOT CAUGHT by {:?}", mutant.as_str(), killed.tried),
            }
            lock(&report.mutants).push(killed);
        });
    }
    // Mutants alone say nothing of the rows of the matrix.
    report.finish(begun.elapsed(), options.report.as_deref(), options.full && !options.only_mutants)
}

fn references(scenarios: Vec<&'static Scenario>, jobs: usize, report: &mut Report) -> References {
    let found = Mutex::new(References::new());
    let broken = Mutex::new(Vec::new());
    for_each(scenarios, jobs, |_, scenario| {
        let plan = matrix::reference(scenario);
        let outcome = plan.run(None, None);
        print_failure(&plan, &outcome);
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

fn print_failure(plan: &Plan, outcome: &Outcome) {
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

/// Runs the plans that should catch a mutant, until one does.
fn kill(
    mutant: Mutant,
    plans: &[Plan],
    references: &References,
    survived: &Survived,
    only: Option<&str>,
) -> MutantResult {
    let mut killed = MutantResult { mutant: mutant.as_str(), by: None, how: None, tried: Vec::new() };
    for wanted in only.map_or_else(|| mutant_coverage::of(mutant).to_vec(), |plan| vec![plan]) {
        let starts = |plan: &&Plan| match wanted.strip_suffix('*') {
            Some(start) => plan.id.starts_with(start),
            None => plan.id == wanted,
        };
        let extra = scenarios::ALL.iter().filter(|scenario| format!("{}/reference", scenario.name) == wanted);
        let extra: Vec<Plan> = extra.map(matrix::reference).collect();
        for plan in plans.iter().filter(starts).chain(&extra) {
            // A plan that also fails without the mutant proves nothing.
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

/// Processes each item, several at a time.
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
