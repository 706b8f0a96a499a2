//! Row 29: clusters with a copied ID, on the same identities in Azure.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::super::clock::lock;
use super::super::oracles;
use super::super::world::{CLUSTER_ID, Checked, RESYNC, World};
use super::{BINDING, IDENTITY, settled};

/// Steps of the long run.
const STEPS: usize = 120;
const ACCOUNTS: [&str; 4] = ["app", "worker", "batch", "web"];
const NAMES: [&str; 2] = ["orders", "audit"];

/// A cluster beside the plan's own, with an issuer of its own, on the same Azure.
fn another(world: &World, letter: &str, cluster_id: &str) -> Arc<World> {
    let name = format!("{}{letter}", world.plan);
    let twin = World::beside(&name, world.mutant, world.azure.clone(), cluster_id);
    *lock(&twin.issuer) = format!("https://issuer.faults.test/{letter}");
    twin.namespace("shop", &json!({}));
    twin
}

pub(super) fn clone_of_a_cluster(world: &Arc<World>) -> Checked {
    let twin = another(world, "c", CLUSTER_ID);
    settled(world)?;
    twin.managed_identity("orders", "orders", &json!([twin.grant("shop")]), &json!({}));
    twin.start();
    let result = beside(world, &twin);
    twin.stop()?;
    result?;
    judged(&twin)
}

/// The oracles of a world that is not the plan's own.
fn judged(world: &World) -> Checked {
    let licence = oracles::Licence { rivals: true, ..oracles::Licence::NONE };
    let broken = oracles::judge(world, licence);
    if broken.is_empty() { Ok(()) } else { Err(format!("{}: {}", world.plan, broken.join("; "))) }
}

fn beside(world: &Arc<World>, twin: &Arc<World>) -> Checked {
    twin.binding("shop", "app", "orders", "app");
    twin.ready("shop", "app")?;
    let both = [world.subject("shop", "app").to_string(), twin.subject("shop", "app").to_string()];
    let stand = |wanted: &[String]| {
        let found: Vec<String> = world.credentials("orders").into_iter().map(|found| found.subject).collect();
        let right = wanted.len() == found.len() && wanted.iter().all(|one| found.contains(one));
        if right { Ok(()) } else { Err(format!("{found:?} stand instead of {wanted:?}")) }
    };
    for one in [world, twin] {
        one.probe.crash_now();
        one.pass_slowly(RESYNC * 5 / 2)?;
        stand(&both)?;
        one.condition(IDENTITY, "", "orders", "ClusterIDUnique", "False", "ClusterIDShared")?;
        let warnings = one.probe.points().iter().filter(|point| point.starts_with("event ManagedIdentity ")).count();
        if warnings != 1 {
            return Err(format!("{warnings} events say that the ID is shared"));
        }
    }
    if world.azure_writes().len() != 2 {
        return Err("the two clusters wrote more than one credential each".to_owned());
    }
    world.delete(BINDING, "shop", "app");
    world.binding_gone("shop", "app")?;
    stand(&both[1..])
}

/// A cluster, its clone, and one with an ID of its own bind, revoke, crash and rest at random on two identities.
pub(super) fn three_clusters_share_identities(world: &Arc<World>) -> Checked {
    world.namespace("shop", &json!({}));
    for name in NAMES {
        world.azure_identity(name, &[]);
    }
    let all = [world.clone(), another(world, "c", CLUSTER_ID), another(world, "d", "another")];
    for one in &all {
        for name in NAMES {
            one.managed_identity(name, name, &json!([one.grant("shop")]), &json!({}));
        }
        one.start();
    }
    let result = long_run(&all);
    for one in &all[1..] {
        one.stop()?;
    }
    result?;
    all[1..].iter().try_for_each(|one| judged(one))
}

fn long_run(all: &[Arc<World>]) -> Checked {
    let mut random = 11_u64;
    let mut pick = |limit: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(random >> 33).expect("31 bits") % limit
    };
    for _ in 0..STEPS {
        let (one, name, account) = (&all[pick(all.len())], NAMES[pick(2)], ACCOUNTS[pick(4)]);
        let binding = format!("{account}-{name}");
        match pick(10) {
            0..=3 if one.live(BINDING, "shop", &binding).is_none() => {
                // Variables of their own: this is not about conflicts.
                one.binding_with("shop", &binding, name, account, &json!({"clientIDEnv": format!("CLIENT_{name}")}));
            }
            4 | 5 if one.live(BINDING, "shop", &binding).is_some() => one.delete(BINDING, "shop", &binding),
            6 => one.patch(IDENTITY, "", name, &json!({"spec": {"allowedSubjects": []}})),
            7 => one.patch(IDENTITY, "", name, &json!({"spec": {"allowedSubjects": [one.grant("shop")]}})),
            8 => one.probe.crash_now(),
            _ => one.pass_slowly(Duration::from_secs(60 * (1 + u64::try_from(pick(20)).unwrap_or_default())))?,
        }
    }
    for one in all {
        for name in NAMES {
            one.patch(IDENTITY, "", name, &json!({"spec": {"allowedSubjects": [one.grant("shop")]}}));
        }
    }
    // They met in Azure and wait for each other, each on its own clock.
    for round in 0..3 {
        for one in all {
            one.pass_slowly(RESYNC * 5 / 4).map_err(|problem| format!("round {round}: {problem}"))?;
        }
    }
    for one in all {
        for name in NAMES {
            stands(one, name)?;
        }
    }
    Ok(())
}

/// Under the identity exactly what the cluster's bindings ask for stands of this cluster.
fn stands(world: &World, identity: &str) -> Checked {
    let issuer = lock(&world.issuer).clone();
    let found = world.credentials(identity).into_iter().filter(|one| one.issuer == issuer).map(|one| one.subject);
    let mut found: Vec<String> = found.collect();
    let is_bound = |account: &&&str| world.live(BINDING, "shop", &format!("{account}-{identity}")).is_some();
    let bound = ACCOUNTS.iter().filter(is_bound).map(|account| world.subject("shop", account).to_string());
    let mut wanted: Vec<String> = bound.collect();
    found.sort();
    wanted.sort();
    if found == wanted { Ok(()) } else { Err(format!("{}: {found:?} stand instead of {wanted:?}", world.plan)) }
}
