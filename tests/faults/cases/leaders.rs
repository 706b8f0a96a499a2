//! Row 6, and the leases of row 22: of two controllers, the leader is paused and resumed.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use ensign_controller::Phase;
use k8s_openapi::jiff::SignedDuration;
use serde_json::json;

use super::super::gate::{GateAction, GateRule};
use super::super::harness::{Checked, Harness};
use super::super::probe::Strike;
use super::super::replica::Replica;
use super::{BINDING, BINDINGS};

/// As long as allowed, so that there are few renewals in the plan's time.
const LEASE_SECONDS: u64 = 600;

/// Two controllers, the first of which leads.
fn pair(harness: &Arc<Harness>) -> Result<(Arc<Replica>, Arc<Replica>), String> {
    harness.elect(LEASE_SECONDS);
    harness.namespace("shop", &json!({}));
    harness.identity("orders");
    harness.start();
    harness.identity_ready("orders")?;
    let second = harness.start_second();
    harness.eventually_in_real_time("the second to be ready", |_| !second.is_starting())?;
    harness.eventually("the first to lead", leads(&harness.first()))?;
    Ok((harness.first(), second))
}

fn leads(replica: &Arc<Replica>) -> impl Fn(&Harness) -> Checked + use<> {
    let name = replica.name.clone();
    move |harness| {
        let leader = harness.leader();
        if leader.as_ref() == Some(&name) { Ok(()) } else { Err(format!("{leader:?} leads")) }
    }
}

/// How many writes ARM received from the controller.
fn sent_by(harness: &Harness, replica: &Replica) -> usize {
    let agent = format!("({})", replica.name);
    let from_it = |agent_of: Option<&str>| agent_of.is_some_and(|found| found.contains(&agent));
    harness.azure_writes().iter().filter(|entry| from_it(entry.user_agent.as_deref())).count()
}

/// The second controller leads, and reconciles the binding until it is deleted.
fn second_takes_over(harness: &Arc<Harness>, second: &Arc<Replica>) -> Checked {
    harness.eventually("the second to lead", leads(second))?;
    harness.ready("shop", "app")?;
    harness.delete(BINDING, "shop", "app");
    harness.binding_deleted("shop", "app")?;
    harness.trusts("orders", &[])
}

fn resume(harness: &Harness, first: &Replica) -> Checked {
    first.pause_switch.resume();
    harness.eventually("the first to notice that it lost leadership", |_| {
        if first.losses() == 1 { Ok(()) } else { Err("it continues".to_owned()) }
    })
}

/// The second controller still leads, and works.
fn goes_on(harness: &Arc<Harness>, second: &Arc<Replica>) -> Checked {
    harness.binding("shop", "later", "orders", "later");
    harness.ready("shop", "later")?;
    leads(second)(harness)?;
    harness.trusts("orders", &[("shop", "later")])
}

/// The PUT of the first controller is sent, and held before it reaches ARM.
fn put_on_its_way(harness: &Arc<Harness>, first: &Arc<Replica>) -> Checked {
    let proxy = first.proxy.clone();
    harness.probe.strike_at("put", Phase::Before, Strike::Do(Arc::new(move || proxy.hold())));
    harness.binding("shop", "app", "orders", "app");
    harness.eventually_in_real_time("the PUT to be in flight", |_| first.proxy.is_holding())
}

/// Lets the held PUT arrive, unless the emulator has closed the idle connection on a very busy machine.
fn late_put(harness: &Harness, first: &Replica) -> Checked {
    first.proxy.release();
    harness.eventually_in_real_time("the proxy to hold nothing", |_| !first.proxy.is_holding())?;
    harness.wait_until_idle(Instant::now())
}

pub(super) fn paused_before_a_put(harness: &Arc<Harness>) -> Checked {
    let (first, second) = pair(harness)?;
    harness.probe.strike_at("put", Phase::Before, Strike::Pause(first.pause_switch.clone()));
    harness.binding("shop", "app", "orders", "app");
    harness.eventually_in_real_time("the first to be paused", |_| first.pause_switch.is_paused())?;
    second_takes_over(harness, &second)?;
    let before = first.gate.writes();
    resume(harness, &first)?;
    if sent_by(harness, &first) > 0 || first.gate.writes() != before {
        return Err(format!("the first wrote after it was replaced: {:?}", first.gate.writes()));
    }
    goes_on(harness, &second)
}

pub(super) fn paused_during_a_put(harness: &Arc<Harness>) -> Checked {
    let (first, second) = pair(harness)?;
    put_on_its_way(harness, &first)?;
    first.pause_switch.pause();
    harness.eventually_in_real_time("the first to be paused", |_| first.pause_switch.is_paused())?;
    second_takes_over(harness, &second)?;
    let before = first.gate.writes();
    resume(harness, &first)?;
    // What is in flight can't be cancelled.
    late_put(harness, &first)?;
    harness.trusts("orders", &[])?;
    if sent_by(harness, &first) > 1 || first.gate.writes() != before {
        return Err("more than one write came late".to_owned());
    }
    goes_on(harness, &second)
}

pub(super) fn paused_before_the_response(harness: &Arc<Harness>) -> Checked {
    let (first, second) = pair(harness)?;
    harness.probe.strike_at("put", Phase::Applied, Strike::Pause(first.pause_switch.clone()));
    harness.binding("shop", "app", "orders", "app");
    harness.eventually_in_real_time("the first to be paused", |_| first.pause_switch.is_paused())?;
    let before = first.gate.writes();
    harness.eventually("the second to lead", leads(&second))?;
    harness.ready("shop", "app")?;
    if sent_by(harness, &second) != 0 {
        return Err("the second wrote what the first had written".to_owned());
    }
    harness.delete(BINDING, "shop", "app");
    harness.binding_deleted("shop", "app")?;
    resume(harness, &first)?;
    if first.gate.writes() != before {
        return Err(format!("the first wrote a status after it was replaced: {:?}", first.gate.writes()));
    }
    goes_on(harness, &second)
}

pub(super) fn a_write_is_abandoned_before_the_lease_expires(harness: &Arc<Harness>) -> Checked {
    let (first, second) = pair(harness)?;
    put_on_its_way(harness, &first)?;
    let from = harness.clock.passed();
    // The first runs, but can't renew the lease.
    first.gate.rule(GateRule {
        method: "PUT",
        contains: vec!["/leases/".to_owned()],
        skip: 0,
        times: 1000,
        action: GateAction::DropBefore,
        fired: Arc::new(AtomicU64::new(0)),
    });
    harness.eventually("the first to exit", |_| {
        if first.losses() == 1 { Ok(()) } else { Err("it still waits for its PUT".to_owned()) }
    })?;
    if harness.clock.passed() >= from + Duration::from_secs(LEASE_SECONDS) || leads(&second)(harness).is_ok() {
        return Err("the write outlived the lease".to_owned());
    }
    harness.eventually("the second to lead", leads(&second))?;
    harness.ready("shop", "app")?;
    late_put(harness, &first)?;
    harness.trusts("orders", &[("shop", "app")])?;
    harness.delete(BINDING, "shop", "app");
    harness.binding_deleted("shop", "app")?;
    goes_on(harness, &second)
}

pub(super) fn a_new_leader_reads_what_its_watch_did_not_deliver(harness: &Arc<Harness>) -> Checked {
    let (first, second) = pair(harness)?;
    second.gate.stall(BINDINGS);
    harness.binding("shop", "app", "orders", "app");
    harness.ready("shop", "app")?;
    first.pause_switch.pause();
    harness.eventually_in_real_time("the first to be paused", |_| first.pause_switch.is_paused())?;
    second_takes_over(harness, &second)?;
    if sent_by(harness, &first) != 1 {
        return Err("the first wrote more than the credential".to_owned());
    }
    resume(harness, &first)?;
    goes_on(harness, &second)
}

pub(super) fn wall_clocks_do_not_affect_leadership(harness: &Arc<Harness>) -> Checked {
    let (first, second) = pair(harness)?;
    for (mine, theirs) in [(10, -10), (-10, 10), (0, 24 * 60), (-24 * 60, 0)] {
        first.clock.skew(SignedDuration::from_mins(mine));
        second.clock.skew(SignedDuration::from_mins(theirs));
        harness.advance_in_steps(Duration::from_secs(2 * LEASE_SECONDS))?;
        leads(&first)(harness)?;
    }
    harness.binding("shop", "app", "orders", "app");
    harness.ready("shop", "app")?;
    if first.losses() + second.losses() > 0 || sent_by(harness, &second) > 0 {
        return Err("a wall clock took the lease".to_owned());
    }
    harness.trusts("orders", &[("shop", "app")])
}
