//! Row 27 and its wall clocks: the cluster's issuer changes, alternates first, or only seems to change.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::SignedDuration;
use serde_json::json;

use super::super::harness::{Checked, Harness, ISSUER};
use super::super::lock::lock;
use super::super::scenarios::rolled_over;
use super::{IDENTITY, bound};

const NEW: &str = "https://issuer.faults.test/two";
/// The issuer check interval; a new issuer is accepted after three checks in a row.
const LOOK: Duration = Duration::from_secs(300);

/// Checks that nothing was written, as it would be if the issuer were certain.
fn nothing_new(harness: &Harness, before: usize) -> Checked {
    let writes = harness.azure_writes();
    if writes.len() == before {
        Ok(())
    } else {
        Err(format!("written for an uncertain issuer: {:?}", &writes[before..]))
    }
}

fn names(harness: &Harness) -> Vec<String> {
    harness.credentials("orders").into_iter().map(|credential| credential.name).collect()
}

pub(super) fn an_alternating_issuer(harness: &Arc<Harness>) -> Checked {
    harness.watch_issuer(LOOK);
    bound(harness)?;
    harness.patch(IDENTITY, "", "orders", &json!({"spec": {"maxTokenExpirationSeconds": 3600}}));
    harness.ready("shop", "app")?;
    let (old, before) = (harness.credential_name("shop", "app"), harness.azure_writes().len());
    // API servers are restarted one by one, and each check reaches another one.
    for seen in [NEW, ISSUER, NEW, NEW, ISSUER, NEW, ISSUER] {
        harness.gate.set_issuer(seen);
        harness.advance_in_steps(LOOK)?;
        nothing_new(harness, before)?;
    }
    harness.gate.set_issuer(NEW);
    harness.eventually("the new issuer to be accepted", |harness| {
        if harness.azure_writes().len() > before { Ok(()) } else { Err("nothing is written".to_owned()) }
    })?;
    NEW.clone_into(&mut lock(&harness.issuer));
    rolled_over(harness, &old)
}

pub(super) fn an_uncertain_issuer_at_startup(harness: &Arc<Harness>) -> Checked {
    harness.watch_issuer(LOOK);
    bound(harness)?;
    let before = harness.azure_writes().len();
    // The controller restarts and reaches an API server that is ahead of the others, or misconfigured.
    NEW.clone_into(&mut lock(&harness.issuer));
    harness.gate.set_issuer(NEW);
    harness.probe.crash_now();
    harness.binding("shop", "more", "orders", "more");
    harness.advance_in_steps(LOOK)?;
    nothing_new(harness, before)?;
    ISSUER.clone_into(&mut lock(&harness.issuer));
    harness.gate.set_issuer(ISSUER);
    harness.ready("shop", "more")?;
    harness.trusts("orders", &[("shop", "app"), ("shop", "more")])?;
    if names(harness).contains(&harness.credential_name("shop", "more")) {
        Ok(())
    } else {
        Err(format!("written for the uncertain issuer: {:?}", names(harness)))
    }
}

/// The wall clock is only used for records: its jumps write nothing, revoke nothing, and block nothing.
pub(super) fn wall_clock_jumps_change_nothing(harness: &Arc<Harness>) -> Checked {
    bound(harness)?;
    let before = harness.azure_writes().len();
    for minutes in [10, -10, 600, 0] {
        harness.clock.skew(SignedDuration::from_mins(minutes));
        super::azure_not_written(harness)?;
        harness.probe.crash_now();
        super::azure_not_written(harness)?;
        nothing_new(harness, before)?;
    }
    harness.clock.skew(SignedDuration::from_mins(-10));
    harness.binding("shop", "more", "orders", "more");
    harness.ready("shop", "more")?;
    harness.trusts("orders", &[("shop", "app"), ("shop", "more")])
}
