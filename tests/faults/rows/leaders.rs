//! Row 6, and the leases of row 22: two controllers, one of which leads, stops where it is, and comes back.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use ensign_controller::Phase;
use k8s_openapi::jiff::SignedDuration;
use serde_json::json;

use super::super::gate::{GateAction, GateRule};
use super::super::probe::Strike;
use super::super::replica::Replica;
use super::super::world::{Checked, World};
use super::{BINDING, BINDINGS};

/// As long as it may be, so that little of the plan's time goes into renewals.
const LEASE_SECONDS: u64 = 600;

/// Two controllers, the first of which leads.
fn pair(world: &Arc<World>) -> Result<(Arc<Replica>, Arc<Replica>), String> {
    world.elect(LEASE_SECONDS);
    world.namespace("shop", &json!({}));
    world.identity("orders");
    world.start();
    world.identity_ready("orders")?;
    let second = world.start_second();
    world.happens("the second to be ready", |_| !second.is_starting())?;
    world.until("the first to lead", leads(&world.first()))?;
    Ok((world.first(), second))
}

fn leads(replica: &Arc<Replica>) -> impl Fn(&World) -> Checked + use<> {
    let name = replica.name.clone();
    move |world| {
        let leader = world.leader();
        if leader.as_ref() == Some(&name) { Ok(()) } else { Err(format!("{leader:?} leads")) }
    }
}

/// Writes that ARM saw from the controller.
fn sent_by(world: &World, replica: &Replica) -> usize {
    let agent = format!("({})", replica.name);
    let from_it = |agent_of: Option<&str>| agent_of.is_some_and(|found| found.contains(&agent));
    world.azure_writes().iter().filter(|entry| from_it(entry.user_agent.as_deref())).count()
}

/// What only the second can do now, up to the end of the binding.
fn second_takes_over(world: &Arc<World>, second: &Arc<Replica>) -> Checked {
    world.until("the second to lead", leads(second))?;
    world.ready("shop", "app")?;
    world.delete(BINDING, "shop", "app");
    world.binding_gone("shop", "app")?;
    world.trusts("orders", &[])
}

fn thaw(world: &World, first: &Replica) -> Checked {
    first.freezer.thaw();
    world.until("the first to know that it leads no longer", |_| {
        if first.losses() == 1 { Ok(()) } else { Err("it goes on".to_owned()) }
    })
}

/// The second still leads, and works.
fn goes_on(world: &Arc<World>, second: &Arc<Replica>) -> Checked {
    world.binding("shop", "later", "orders", "later");
    world.ready("shop", "later")?;
    leads(second)(world)?;
    world.trusts("orders", &[("shop", "later")])
}

/// The PUT of the first controller is on its way to ARM, and is kept there.
fn put_on_its_way(world: &Arc<World>, first: &Arc<Replica>) -> Checked {
    let pipe = first.pipe.clone();
    world.probe.strike_at("put", Phase::Before, Strike::Do(Arc::new(move || pipe.hold())));
    world.binding("shop", "app", "orders", "app");
    world.happens("the PUT to be on its way", |_| first.pipe.is_holding())
}

/// Lets what is on its way arrive. On a machine so busy that ARM has closed the idle connection, nothing does.
fn late_put(world: &World, first: &Replica) -> Checked {
    first.pipe.release();
    world.happens("the pipe to be empty", |_| !first.pipe.is_holding())?;
    world.quiet(Instant::now())
}

pub(super) fn frozen_before_a_put(world: &Arc<World>) -> Checked {
    let (first, second) = pair(world)?;
    world.probe.strike_at("put", Phase::Before, Strike::Freeze(first.freezer.clone()));
    world.binding("shop", "app", "orders", "app");
    world.happens("the first to be frozen", |_| first.freezer.is_frozen())?;
    second_takes_over(world, &second)?;
    let before = first.gate.writes();
    thaw(world, &first)?;
    if sent_by(world, &first) > 0 || first.gate.writes() != before {
        return Err(format!("the first wrote after it was superseded: {:?}", first.gate.writes()));
    }
    goes_on(world, &second)
}

pub(super) fn frozen_in_the_middle_of_a_put(world: &Arc<World>) -> Checked {
    let (first, second) = pair(world)?;
    put_on_its_way(world, &first)?;
    first.freezer.freeze();
    world.happens("the first to be frozen", |_| first.freezer.is_frozen())?;
    second_takes_over(world, &second)?;
    let before = first.gate.writes();
    thaw(world, &first)?;
    // Nothing can call back what is on its way.
    late_put(world, &first)?;
    world.trusts("orders", &[])?;
    if sent_by(world, &first) > 1 || first.gate.writes() != before {
        return Err("more than the one write came late".to_owned());
    }
    goes_on(world, &second)
}

pub(super) fn frozen_before_the_answer(world: &Arc<World>) -> Checked {
    let (first, second) = pair(world)?;
    world.probe.strike_at("put", Phase::Applied, Strike::Freeze(first.freezer.clone()));
    world.binding("shop", "app", "orders", "app");
    world.happens("the first to be frozen", |_| first.freezer.is_frozen())?;
    let before = first.gate.writes();
    world.until("the second to lead", leads(&second))?;
    world.ready("shop", "app")?;
    if sent_by(world, &second) != 0 {
        return Err("what the first had written was written again".to_owned());
    }
    world.delete(BINDING, "shop", "app");
    world.binding_gone("shop", "app")?;
    thaw(world, &first)?;
    if first.gate.writes() != before {
        return Err(format!("the first told of it after it was superseded: {:?}", first.gate.writes()));
    }
    goes_on(world, &second)
}

pub(super) fn a_write_is_given_up_before_the_lease_ends(world: &Arc<World>) -> Checked {
    let (first, second) = pair(world)?;
    put_on_its_way(world, &first)?;
    let from = world.clock.passed();
    // The first can't renew any more, though it runs.
    first.gate.rule(GateRule {
        method: "PUT",
        contains: vec!["/leases/".to_owned()],
        skip: 0,
        times: 1000,
        action: GateAction::DropBefore,
        fired: Arc::new(AtomicU64::new(0)),
    });
    world.until("the first to give up", |_| {
        if first.losses() == 1 { Ok(()) } else { Err("it waits for its PUT".to_owned()) }
    })?;
    if world.clock.passed() >= from + Duration::from_secs(LEASE_SECONDS) || leads(&second)(world).is_ok() {
        return Err("the write outlived the lease".to_owned());
    }
    world.until("the second to lead", leads(&second))?;
    world.ready("shop", "app")?;
    late_put(world, &first)?;
    world.trusts("orders", &[("shop", "app")])?;
    world.delete(BINDING, "shop", "app");
    world.binding_gone("shop", "app")?;
    goes_on(world, &second)
}

pub(super) fn a_new_leader_learns_what_its_watch_did_not_bring(world: &Arc<World>) -> Checked {
    let (first, second) = pair(world)?;
    second.gate.stall(BINDINGS);
    world.binding("shop", "app", "orders", "app");
    world.ready("shop", "app")?;
    first.freezer.freeze();
    world.happens("the first to be frozen", |_| first.freezer.is_frozen())?;
    second_takes_over(world, &second)?;
    if sent_by(world, &first) != 1 {
        return Err("the first wrote more than the credential".to_owned());
    }
    thaw(world, &first)?;
    goes_on(world, &second)
}

pub(super) fn wall_clocks_decide_nothing(world: &Arc<World>) -> Checked {
    let (first, second) = pair(world)?;
    for (mine, theirs) in [(10, -10), (-10, 10), (0, 24 * 60), (-24 * 60, 0)] {
        first.clock.skew(SignedDuration::from_mins(mine));
        second.clock.skew(SignedDuration::from_mins(theirs));
        world.pass_slowly(Duration::from_secs(2 * LEASE_SECONDS))?;
        leads(&first)(world)?;
    }
    world.binding("shop", "app", "orders", "app");
    world.ready("shop", "app")?;
    if first.losses() + second.losses() > 0 || sent_by(world, &second) > 0 {
        return Err("a wall clock took the lease".to_owned());
    }
    world.trusts("orders", &[("shop", "app")])
}
