//! Row 27, and what wall clocks do to it: the cluster's issuer changes, is seen unstably first, or only seems to.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::SignedDuration;
use serde_json::json;

use super::super::clock::lock;
use super::super::scenarios::rolled_over;
use super::super::world::{Checked, ISSUER, World};
use super::{IDENTITY, settled};

const NEW: &str = "https://issuer.faults.test/two";
/// How often the controller looks; three looks in a row make a new issuer believed.
const LOOK: Duration = Duration::from_secs(300);

/// Something that would be written at once, if the issuer were sure.
fn nothing_new(world: &World, before: usize) -> Checked {
    let writes = world.azure_writes();
    if writes.len() == before { Ok(()) } else { Err(format!("written for a passing sight: {:?}", &writes[before..])) }
}

fn names(world: &World) -> Vec<String> {
    world.credentials("orders").into_iter().map(|credential| credential.name).collect()
}

pub(super) fn an_issuer_seen_back_and_forth(world: &Arc<World>) -> Checked {
    world.watch_issuer(LOOK);
    settled(world)?;
    world.patch(IDENTITY, "", "orders", &json!({"spec": {"maxTokenExpirationSeconds": 3600}}));
    world.ready("shop", "app")?;
    let (old, before) = (world.credential_name("shop", "app"), world.azure_writes().len());
    // API servers are restarted one by one, and each look meets another one.
    for seen in [NEW, ISSUER, NEW, NEW, ISSUER, NEW, ISSUER] {
        world.gate.say_issuer(seen);
        world.pass_slowly(LOOK)?;
        nothing_new(world, before)?;
    }
    world.gate.say_issuer(NEW);
    world.until("the new issuer to be believed", |world| {
        if world.azure_writes().len() > before { Ok(()) } else { Err("nothing is written".to_owned()) }
    })?;
    NEW.clone_into(&mut lock(&world.issuer));
    rolled_over(world, &old)
}

pub(super) fn an_issuer_doubted_at_start(world: &Arc<World>) -> Checked {
    world.watch_issuer(LOOK);
    settled(world)?;
    let before = world.azure_writes().len();
    // The controller starts anew and meets the one API server that is ahead of the others, or was set up wrongly.
    NEW.clone_into(&mut lock(&world.issuer));
    world.gate.say_issuer(NEW);
    world.probe.crash_now();
    world.binding("shop", "more", "orders", "more");
    world.pass_slowly(LOOK)?;
    nothing_new(world, before)?;
    ISSUER.clone_into(&mut lock(&world.issuer));
    world.gate.say_issuer(ISSUER);
    world.ready("shop", "more")?;
    world.trusts("orders", &[("shop", "app"), ("shop", "more")])?;
    if names(world).contains(&world.credential_name("shop", "more")) {
        Ok(())
    } else {
        Err(format!("written for the passing issuer: {:?}", names(world)))
    }
}

/// The wall clock is for records and for people: its jumps write nothing, revoke nothing, and stop nothing.
pub(super) fn the_wall_clock_jumps_about(world: &Arc<World>) -> Checked {
    settled(world)?;
    let before = world.azure_writes().len();
    for minutes in [10, -10, 600, 0] {
        world.clock.skew(SignedDuration::from_mins(minutes));
        super::azure_untouched(world)?;
        world.probe.crash_now();
        super::azure_untouched(world)?;
        nothing_new(world, before)?;
    }
    world.clock.skew(SignedDuration::from_mins(-10));
    world.binding("shop", "more", "orders", "more");
    world.ready("shop", "more")?;
    world.trusts("orders", &[("shop", "app"), ("shop", "more")])
}
