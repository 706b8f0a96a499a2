//! A plan: one scenario with one fault, and how it is run and judged.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ensign_controller::Phase;
use ensign_mutants::Mutant;
use serde_json::{Value, json};

use super::admission;
use super::clock::lock;
use super::gate::{GateAction, GateRule};
use super::oracles::{self, Licence};
use super::probe::Strike;
use super::scenarios::Scenario;
use super::snapshot;
use super::world::{Checked, RESYNC, World};

const MARK: &str = "faults.ensign.test/mark";
/// What is tried again is tried within this time.
const RETRIES: Duration = Duration::from_secs(700);
/// A request that nobody answers is given up within this real time.
const SLOW: Duration = Duration::from_secs(45);

/// What goes wrong.
#[derive(Clone)]
pub enum Fault {
    /// Nothing: the reference run.
    None,
    /// The process is gone at a moment of an effect.
    Crash(String, Phase),
    /// The effect happens, and its answer is lost.
    AnswerLost(String),
    /// The effect is refused by the server itself, which has trouble of its own.
    Trouble(String),
    /// The controller sees a conflict: the object changed since it was read.
    Conflict(String),
    /// The wall clock jumps by minutes at a moment of an effect.
    ClockJump(String, i64),
    /// A script for Azure.
    Azure(Value),
    /// A rule for the gate: method, parts of the target, how many pass first, how many fail, and how.
    Kube(&'static str, Vec<String>, u32, u32, GateAction),
}

/// One scenario with one fault.
#[derive(Clone)]
pub struct Plan {
    pub id: String,
    pub rows: Vec<u32>,
    pub scenario: &'static Scenario,
    pub fault: Fault,
    pub licence: Licence,
    /// Compare the end with the reference run of the scenario.
    pub compared: bool,
    /// Runs in `make test` too.
    pub quick: bool,
    /// Disturbs every other plan, so that it has the control plane to itself.
    pub alone: bool,
}

/// What a run of a plan came to.
pub struct Outcome {
    pub problems: Vec<String>,
    /// The fault did happen.
    pub fired: bool,
    pub points: Vec<String>,
    pub end: Option<End>,
    pub took: Duration,
}

/// The end of a run.
#[derive(Clone)]
pub struct End {
    pub snapshot: Value,
    pub puts: usize,
    pub deletes: usize,
}

/// A name that no other run has.
fn fresh() -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    format!("p{:04}", COUNTER.fetch_add(1, Ordering::Relaxed))
}

impl Plan {
    /// Runs the plan to its end and judges it.
    pub fn run(&self, mutant: Option<Mutant>, reference: Option<&End>) -> Outcome {
        let begun = Instant::now();
        let world = World::new(&fresh(), mutant);
        let count = self.install(&world);
        let mut problems: Vec<String> = Vec::new();
        let mut end = None;
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (self.scenario.run)(&world)));
        let ran = ran.unwrap_or_else(|panic| Err(format!("the scenario panicked: {}", panic_text(panic.as_ref()))));
        if let Err(problem) = ran.and_then(|()| rest(&world)) {
            problems.push(format!("O1/O4: {problem}"));
        } else {
            let (puts, deletes) = oracles::counts(&world.azure_writes());
            end = Some(End { snapshot: snapshot::take(&world), puts, deletes });
            problems.extend(admission::judge(&world));
        }
        let fired = match &self.fault {
            Fault::None => true,
            Fault::Azure(_) => world.azure.faults().iter().all(|rule| rule.fired > 0),
            Fault::Kube(..) => count.load(Ordering::SeqCst) > 0,
            _ => world.probe.struck() > 0,
        };
        if let Err(problem) = world.stop() {
            problems.push(problem);
        }
        problems.extend(oracles::judge(&world, self.licence));
        if let (Some(end), Some(reference)) = (&end, reference.filter(|_| self.compared)) {
            self.compare(end, reference, &mut problems);
        }
        Outcome { problems, fired, points: world.probe.points(), end, took: begun.elapsed() }
    }

    /// O1 and O2: the end is the reference's, with as many deletes and at most one extra PUT for each fault.
    fn compare(&self, end: &End, reference: &End, problems: &mut Vec<String>) {
        if let Some(difference) = snapshot::difference("", &reference.snapshot, &end.snapshot) {
            problems.push(format!("O1: {difference}"));
        }
        let repairs = usize::from(self.licence.stale_write);
        if end.deletes < reference.deletes || end.deletes > reference.deletes + repairs {
            problems.push(format!("O2: {} deletes instead of {}", end.deletes, reference.deletes));
        }
        let faults = match &self.fault {
            Fault::None => 0,
            Fault::Azure(rules) => rules.as_array().map_or(1, Vec::len),
            _ => 1,
        };
        if end.puts < reference.puts || end.puts > reference.puts + faults {
            problems.push(format!("O2: {} PUTs instead of {} with {faults} fault(s)", end.puts, reference.puts));
        }
    }

    fn install(&self, world: &Arc<World>) -> Arc<AtomicU64> {
        let fired = Arc::new(AtomicU64::new(0));
        match &self.fault {
            Fault::None => {}
            Fault::Crash(point, moment) => world.probe.strike_at(point, *moment, Strike::Crash),
            Fault::AnswerLost(point) => on_the_way(world, point, "apply-then-drop", GateAction::ApplyThenDrop),
            Fault::Trouble(point) => {
                let answer = GateAction::Answer { status: 500, retry_after: None };
                on_the_way(world, point, "500", answer);
            }
            Fault::Conflict(point) if point.starts_with("add-finalizer") => {
                let (inner, target) = (world.clone(), point.clone());
                let meddle = Strike::Do(Arc::new(move || mark(&inner, &target, &json!([MARK]))));
                world.probe.strike_at(point, Phase::Before, meddle);
                let (inner, target) = (world.clone(), point.clone());
                let undo = Strike::Do(Arc::new(move || mark(&inner, &target, &json!([]))));
                world.probe.strike_at(point, Phase::Answered, undo);
            }
            Fault::Conflict(point) => {
                on_the_way(world, point, "", GateAction::Answer { status: 409, retry_after: None });
            }
            Fault::ClockJump(point, minutes) => {
                let (clock, by) = (world.clock.clone(), k8s_openapi::jiff::SignedDuration::from_mins(*minutes));
                let jump = Strike::Do(Arc::new(move || clock.skew(by)));
                world.probe.strike_at(point, Phase::Before, jump);
            }
            Fault::Azure(rules) => {
                if rules.to_string().contains("delayMs") {
                    *lock(&world.settled) = SLOW;
                }
                world.azure_fails(rules);
            }
            Fault::Kube(method, contains, skip, times, action) => world.gate.rule(GateRule {
                method,
                contains: contains.clone(),
                skip: *skip,
                times: *times,
                action: action.clone(),
                fired: fired.clone(),
            }),
        }
        fired
    }
}

/// Disturbs the one request of an effect, at the gate or in Azure.
fn on_the_way(world: &Arc<World>, point: &str, azure: &str, gate: GateAction) {
    let (inner, target) = (world.clone(), point.to_owned());
    let azure = if azure == "500" { json!({"status": 500}) } else { json!(azure) };
    let disturb = move || match parse(&target) {
        Target::Azure(method) => {
            inner.azure_fails(&json!([{"match": {"method": method, "kind": "arm-write"}, "action": azure}]));
        }
        Target::Object { path, method, status, .. } => {
            let mut contains = vec![path];
            contains.extend(status.then(|| "/status".to_owned()));
            let fired = Arc::new(AtomicU64::new(0));
            inner.gate.rule(GateRule { method, contains, skip: 0, times: 1, action: gate.clone(), fired });
        }
    };
    world.probe.strike_at(point, Phase::Before, Strike::Do(Arc::new(disturb)));
}

/// Somebody else's finalizer: what is about to be written is out of date.
fn mark(world: &World, point: &str, finalizers: &Value) {
    if let Target::Object { kind, namespace, name, .. } = parse(point) {
        world.patch(&kind, &namespace, &name, &json!({"metadata": {"finalizers": finalizers}}));
    }
}

/// What an effect is done to, read from its point.
enum Target {
    Azure(&'static str),
    Object { kind: String, namespace: String, name: String, path: String, method: &'static str, status: bool },
}

fn parse(point: &str) -> Target {
    let mut words = point.split(' ');
    let act = words.next().unwrap_or_default();
    match act {
        "put" | "put-identity" | "assign-role" => return Target::Azure("PUT"),
        "delete" | "delete-identity" | "unassign-role" => return Target::Azure("DELETE"),
        _ => {}
    }
    let kind = words.next().unwrap_or_default().to_owned();
    let object = words.next().unwrap_or_default();
    let (namespace, name) = object.split_once('/').unwrap_or(("", object));
    let path = match kind.as_str() {
        _ if namespace.is_empty() => format!("-{name}"),
        // It is named after a UID.
        "ManagedIdentity" if act == "make" => "/managedidentities".to_owned(),
        "ManagedIdentity" => "/managedidentities/mib-".to_owned(),
        _ => format!("-{namespace}/managedidentitybindings/{name}"),
    };
    let method = match act {
        "make" => "POST",
        "reclaim" => "DELETE",
        _ => "PATCH",
    };
    let status = act == "status";
    Target::Object { kind, namespace: namespace.to_owned(), name: name.to_owned(), path, method, status }
}

/// O4: the right state stays, and nothing is written for two drift periods.
fn rest(world: &World) -> Checked {
    // They come back on the real clock.
    world.happens("the watches to be there", |world| world.gate.is_watched())?;
    // A fault that is still to come comes with a later look, and after one that has come there are retries.
    let mut time = RETRIES;
    for _ in 0..4 {
        let struck = strikes(world);
        world.pass_slowly(time)?;
        time = match strikes(world) {
            (_, true) => RESYNC * 5 / 4 + RETRIES,
            now if now == struck => break,
            _ => RETRIES,
        };
    }
    let writes = || (world.kube_writes().len(), world.azure_writes().len());
    let reads = || world.azure_log().len();
    let (before, looked) = (writes(), reads());
    world.pass_slowly(RESYNC * 23 / 10)?;
    let managed = world.cluster.list("ManagedIdentity", &world.plan);
    if !managed.is_empty() {
        // Its time has come; on a busy machine it takes a moment.
        let looked_at = world.happens("a look at Azure within two drift periods", |_| reads() > looked);
        looked_at.map_err(|problem| format!("O4: {problem}"))?;
        world.quiet(Instant::now())?;
    }
    let after = writes();
    if after != before {
        return Err(format!(
            "O4: {before:?} writes to Kubernetes and Azure became {after:?} with nothing to do: {:?}",
            world.kube_writes().iter().skip(before.0).collect::<Vec<_>>()
        ));
    }
    Ok(())
}

/// How often faults have struck in Azure, and whether more are to come.
fn strikes(world: &World) -> (u64, bool) {
    let rules = world.azure.faults();
    (rules.iter().map(|rule| rule.fired).sum(), rules.iter().any(|rule| rule.fired < rule.times))
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}
