//! Row 29: clusters with a copied cluster ID that use the same identities in Azure.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::super::harness::{CLUSTER_ID, Checked, Harness, RESYNC};
use super::super::lock::lock;
use super::super::oracles;
use super::{BINDING, IDENTITY, bound};

/// Steps of the long run.
const STEPS: usize = 120;
const ACCOUNTS: [&str; 4] = ["app", "worker", "batch", "web"];
const NAMES: [&str; 2] = ["orders", "audit"];

/// Another cluster with its own issuer, on the same emulator.
fn another(harness: &Harness, letter: &str, cluster_id: &str) -> Arc<Harness> {
    let name = format!("{}{letter}", harness.plan);
    let twin = Harness::beside(&name, harness.mutant, harness.azure.clone(), cluster_id);
    *lock(&twin.issuer) = format!("https://issuer.faults.test/{letter}");
    twin.namespace("shop", &json!({}));
    twin
}

pub(super) fn cloned_cluster(harness: &Arc<Harness>) -> Checked {
    let twin = another(harness, "c", CLUSTER_ID);
    bound(harness)?;
    twin.managed_identity("orders", "orders", &json!([twin.grant("shop")]), &json!({}));
    twin.start();
    let result = beside(harness, &twin);
    twin.stop()?;
    result?;
    judged(&twin)
}

/// Judges a harness that is not the plan's own.
fn judged(harness: &Harness) -> Checked {
    let allowances = oracles::Allowances { rivals: true, ..oracles::Allowances::NONE };
    let broken = oracles::judge(harness, allowances);
    if broken.is_empty() { Ok(()) } else { Err(format!("{}: {}", harness.plan, broken.join("; "))) }
}

fn beside(harness: &Arc<Harness>, twin: &Arc<Harness>) -> Checked {
    twin.binding("shop", "app", "orders", "app");
    twin.ready("shop", "app")?;
    let both = [harness.subject("shop", "app").to_string(), twin.subject("shop", "app").to_string()];
    let stand = |wanted: &[String]| {
        let found: Vec<String> = harness.credentials("orders").into_iter().map(|found| found.subject).collect();
        let right = wanted.len() == found.len() && wanted.iter().all(|one| found.contains(one));
        if right { Ok(()) } else { Err(format!("{found:?} exist instead of {wanted:?}")) }
    };
    for one in [harness, twin] {
        one.probe.crash_now();
        one.advance_in_steps(RESYNC * 5 / 2)?;
        stand(&both)?;
        one.condition(IDENTITY, "", "orders", "ClusterIDUnique", "False", "ClusterIDShared")?;
        let warnings = one.probe.points().iter().filter(|point| point.starts_with("event ManagedIdentity ")).count();
        if warnings != 1 {
            return Err(format!("{warnings} events report that the ID is shared"));
        }
    }
    if harness.azure_writes().len() != 2 {
        return Err("the two clusters wrote more than one credential each".to_owned());
    }
    harness.delete(BINDING, "shop", "app");
    harness.binding_deleted("shop", "app")?;
    stand(&both[1..])
}

/// A cluster, its clone, and one with another ID bind, revoke, crash and wait at random on two identities.
pub(super) fn three_clusters_share_identities(harness: &Arc<Harness>) -> Checked {
    harness.namespace("shop", &json!({}));
    for name in NAMES {
        harness.azure_identity(name, &[]);
    }
    let all = [harness.clone(), another(harness, "c", CLUSTER_ID), another(harness, "d", "another")];
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

fn long_run(all: &[Arc<Harness>]) -> Checked {
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
            _ => one.advance_in_steps(Duration::from_secs(60 * (1 + u64::try_from(pick(20)).unwrap_or_default())))?,
        }
    }
    for one in all {
        for name in NAMES {
            one.patch(IDENTITY, "", name, &json!({"spec": {"allowedSubjects": [one.grant("shop")]}}));
        }
    }
    // They conflicted in Azure and back off, each on its own clock.
    for round in 0..3 {
        for one in all {
            one.advance_in_steps(RESYNC * 5 / 4).map_err(|problem| format!("round {round}: {problem}"))?;
        }
    }
    for one in all {
        for name in NAMES {
            matches_bindings(one, name)?;
        }
    }
    Ok(())
}

/// Checks that the identity has exactly the credentials that the cluster's bindings want.
fn matches_bindings(harness: &Harness, identity: &str) -> Checked {
    let issuer = lock(&harness.issuer).clone();
    let found = harness.credentials(identity).into_iter().filter(|one| one.issuer == issuer).map(|one| one.subject);
    let mut found: Vec<String> = found.collect();
    let is_bound = |account: &&&str| harness.live(BINDING, "shop", &format!("{account}-{identity}")).is_some();
    let bound = ACCOUNTS.iter().filter(is_bound).map(|account| harness.subject("shop", account).to_string());
    let mut wanted: Vec<String> = bound.collect();
    found.sort();
    wanted.sort();
    if found == wanted { Ok(()) } else { Err(format!("{}: {found:?} exist instead of {wanted:?}", harness.plan)) }
}
