//! A plan: one scenario with one fault, and how it is run and judged.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ensign_controller::Phase;
use ensign_mutants::Mutant;
use serde_json::{Value, json};

use super::admission;
use super::gate::{GateAction, GateRule};
use super::harness::{Checked, Harness, RESYNC};
use super::lock::lock;
use super::oracles::{self, Allowances};
use super::probe::Strike;
use super::scenarios::Scenario;
use super::snapshot;

const MARK: &str = "faults.ensign.test/mark";
/// Retries happen within this time.
const RETRIES: Duration = Duration::from_secs(700);
/// A request without a response times out within this real time.
const SLOW: Duration = Duration::from_secs(45);

/// A fault.
#[derive(Clone)]
pub enum Fault {
    /// Nothing: the reference run.
    None,
    /// The process crashes at a moment of an effect.
    Crash(String, Phase),
    /// The effect is applied, and its response is lost.
    AnswerLost(String),
    /// The server responds with 500.
    Trouble(String),
    /// The controller sees a conflict: the object changed since it was read.
    Conflict(String),
    /// The wall clock jumps by minutes at a moment of an effect.
    ClockJump(String, i64),
    /// A script for Azure.
    Azure(Value),
    /// A rule for the gate: method, texts in the target, how many pass first, how many fail, and how.
    Kube(&'static str, Vec<String>, u32, u32, GateAction),
}

/// One scenario with one fault.
#[derive(Clone)]
pub struct Plan {
    pub id: String,
    pub rows: Vec<u32>,
    pub scenario: &'static Scenario,
    pub fault: Fault,
    pub allowances: Allowances,
    /// Compare the end with that of the reference run.
    pub compared: bool,
    /// Runs in `make test` as well.
    pub quick: bool,
    /// Disturbs every other plan, so it runs alone.
    pub alone: bool,
}

/// The outcome of a plan.
pub struct Outcome {
    pub problems: Vec<String>,
    /// The fault occurred.
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

/// A name that no other run uses.
fn fresh() -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    format!("p{:04}", COUNTER.fetch_add(1, Ordering::Relaxed))
}

impl Plan {
    /// Runs the plan to its end and judges it.
    pub fn run(&self, mutant: Option<Mutant>, reference: Option<&End>) -> Outcome {
        let begun = Instant::now();
        let harness = Harness::new(&fresh(), mutant);
        let count = self.install(&harness);
        let mut problems: Vec<String> = Vec::new();
        let mut end = None;
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (self.scenario.run)(&harness)));
        let ran = ran.unwrap_or_else(|panic| Err(format!("the scenario panicked: {}", panic_text(panic.as_ref()))));
        if let Err(problem) = ran.and_then(|()| rest(&harness)) {
            problems.push(format!("O1/O4: {problem}"));
        } else {
            let (puts, deletes) = oracles::counts(&harness.azure_writes());
            end = Some(End { snapshot: snapshot::take(&harness), puts, deletes });
            problems.extend(admission::judge(&harness));
        }
        let fired = match &self.fault {
            Fault::None => true,
            Fault::Azure(_) => harness.azure.faults().iter().all(|rule| rule.fired > 0),
            Fault::Kube(..) => count.load(Ordering::SeqCst) > 0,
            _ => harness.probe.struck() > 0,
        };
        if let Err(problem) = harness.stop() {
            problems.push(problem);
        }
        problems.extend(oracles::judge(&harness, self.allowances));
        if let (Some(end), Some(reference)) = (&end, reference.filter(|_| self.compared)) {
            self.compare(end, reference, &mut problems);
        }
        Outcome { problems, fired, points: harness.probe.points(), end, took: begun.elapsed() }
    }

    /// O1 and O2: the end state equals the reference's, with as many deletes and at most one additional PUT per fault, or one for
    /// each PUT of a process that crashed.
    fn compare(&self, end: &End, reference: &End, problems: &mut Vec<String>) {
        if let Some(difference) = snapshot::difference("", &reference.snapshot, &end.snapshot) {
            problems.push(format!("O1: {difference}"));
        }
        let repairs = usize::from(self.allowances.stale_write);
        if end.deletes < reference.deletes || end.deletes > reference.deletes + repairs {
            problems.push(format!("O2: {} deletes instead of {}", end.deletes, reference.deletes));
        }
        let faults = match &self.fault {
            Fault::None => 0,
            // Reads lag, and the next process does not know what this one wrote: it may write all of it once more.
            Fault::Crash(..) => reference.puts,
            Fault::Azure(rules) => rules.as_array().map_or(1, |rules| rules.iter().map(repeats).sum()),
            _ => 1,
        };
        if end.puts < reference.puts || end.puts > reference.puts + faults {
            problems.push(format!("O2: {} PUTs instead of {}, and at most {faults} more", end.puts, reference.puts));
        }
    }

    fn install(&self, harness: &Arc<Harness>) -> Arc<AtomicU64> {
        let fired = Arc::new(AtomicU64::new(0));
        match &self.fault {
            Fault::None => {}
            Fault::Crash(point, moment) => harness.probe.strike_at(point, *moment, Strike::Crash),
            Fault::AnswerLost(point) => on_the_way(harness, point, "apply-then-drop", GateAction::ApplyThenDrop),
            Fault::Trouble(point) => {
                let answer = GateAction::Answer { status: 500, retry_after: None };
                on_the_way(harness, point, "500", answer);
            }
            Fault::Conflict(point) if point.starts_with("add-finalizer") => {
                let (inner, target) = (harness.clone(), point.clone());
                let meddle = Strike::Do(Arc::new(move || mark(&inner, &target, &json!([MARK]))));
                harness.probe.strike_at(point, Phase::Before, meddle);
                let (inner, target) = (harness.clone(), point.clone());
                let undo = Strike::Do(Arc::new(move || mark(&inner, &target, &json!([]))));
                harness.probe.strike_at(point, Phase::Answered, undo);
            }
            Fault::Conflict(point) => {
                on_the_way(harness, point, "", GateAction::Answer { status: 409, retry_after: None });
            }
            Fault::ClockJump(point, minutes) => {
                let (clock, by) = (harness.clock.clone(), k8s_openapi::jiff::SignedDuration::from_mins(*minutes));
                let jump = Strike::Do(Arc::new(move || clock.skew(by)));
                harness.probe.strike_at(point, Phase::Before, jump);
            }
            Fault::Azure(rules) => {
                if rules.to_string().contains("delayMs") {
                    *lock(&harness.real_time_limit) = SLOW;
                }
                harness.azure_fails(rules);
            }
            Fault::Kube(method, contains, skip, times, action) => harness.gate.rule(GateRule {
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

/// Disturbs the request of an effect, at the gate or in Azure.
fn on_the_way(harness: &Arc<Harness>, point: &str, azure: &str, gate: GateAction) {
    let (inner, target) = (harness.clone(), point.to_owned());
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
    harness.probe.strike_at(point, Phase::Before, Strike::Do(Arc::new(disturb)));
}

/// Sets a foreign finalizer, so that what is about to be written is out of date.
fn mark(harness: &Harness, point: &str, finalizers: &Value) {
    if let Target::Object { kind, namespace, name, .. } = parse(point) {
        harness.patch(&kind, &namespace, &name, &json!({"metadata": {"finalizers": finalizers}}));
    }
}

/// The target of an effect, parsed from its point.
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
        // Its name contains a UID.
        "ManagedIdentity" if act == "create" => "/managedidentities".to_owned(),
        "ManagedIdentity" => "/managedidentities/mib-".to_owned(),
        _ => format!("-{namespace}/managedidentitybindings/{name}"),
    };
    let method = match act {
        "create" => "POST",
        "reclaim" => "DELETE",
        _ => "PATCH",
    };
    let status = act == "status";
    Target::Object { kind, namespace: namespace.to_owned(), name: name.to_owned(), path, method, status }
}

/// O4: the right state stays, and nothing is written for two drift check intervals.
fn rest(harness: &Harness) -> Checked {
    // Watches reconnect in real time.
    harness.eventually_in_real_time("the watches to be open", |harness| harness.gate.is_watched())?;
    // A pending fault occurs at a later check, and after a fault there are retries.
    let mut time = RETRIES;
    for _ in 0..4 {
        let struck = strikes(harness);
        harness.advance_in_steps(time)?;
        time = match strikes(harness) {
            (_, true) => RESYNC * 5 / 4 + RETRIES,
            now if now == struck => break,
            _ => RETRIES,
        };
    }
    let writes = || (harness.kube_writes().len(), harness.azure_writes().len());
    let reads = || harness.azure_log().len();
    let (before, looked) = (writes(), reads());
    harness.advance_in_steps(RESYNC * 23 / 10)?;
    let managed = harness.cluster.list("ManagedIdentity", &harness.plan);
    if !managed.is_empty() {
        // The check is due; on a busy machine it takes a moment.
        let looked_at =
            harness.eventually_in_real_time("a check of Azure within two drift check intervals", |_| reads() > looked);
        looked_at.map_err(|problem| format!("O4: {problem}"))?;
        harness.wait_until_idle(Instant::now())?;
    }
    let after = writes();
    if after != before {
        return Err(format!(
            "O4: {before:?} writes to Kubernetes and Azure became {after:?} with nothing to do: {:?}",
            harness.kube_writes().iter().skip(before.0).collect::<Vec<_>>()
        ));
    }
    Ok(())
}

/// How many PUTs a rule of Azure's script may cost: one for each response that is lost, because a late read does not show what was
/// applied; none for reads that are no later than the controller expects; one for anything else.
fn repeats(rule: &Value) -> usize {
    match rule["action"].as_str() {
        Some("apply-then-drop" | "apply-then-500" | "truncated-json") => {
            rule["times"].as_u64().and_then(|times| usize::try_from(times).ok()).unwrap_or(1)
        }
        _ => usize::from(rule["action"]["stale"].is_null()),
    }
}

/// How often faults have struck in Azure, and whether more are to come.
fn strikes(harness: &Harness) -> (u64, bool) {
    let rules = harness.azure.faults();
    (rules.iter().map(|rule| rule.fired).sum(), rules.iter().any(|rule| rule.fired < rule.times))
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}
