//! Several controllers on one cluster: one leads.

use ensign::emulator::{Delay, FaultAction, FaultMatch, FaultRule};
use serde_json::json;

use crate::support::objects::wait_for;
use crate::support::replica::{Replica, ReplicaOptions, Stage, StageLease};

/// Short, so that a frozen leader is soon superseded, but not so short that a busy machine loses it.
const SHORT_SECONDS: u64 = 4;
/// Nobody waits for the end of this one: whoever takes over was let.
const LONG_SECONDS: u64 = 600;

/// Two controllers, the first of which leads.
fn pair(stage: &Stage, lease: &StageLease<'_>) -> (Replica, Replica) {
    lease.make();
    let first = stage.start("first", ReplicaOptions::with_lease(lease));
    lease.wait_holder("first");
    let second = stage.start("second", ReplicaOptions::with_lease(lease));
    second.wait_ready();
    (first, second)
}

#[test]
fn of_two_controllers_one_leads_and_only_it_writes_while_the_other_is_ready() {
    let stage = Stage::enter();
    let lease = stage.lease(SHORT_SECONDS);
    let (first, second) = pair(&stage, &lease);
    let team = stage.team("leads");
    team.bind();
    team.wait_ready("app");
    // The lease goes on being renewed, and nothing else is written.
    let version = |lease: &StageLease<'_>| lease.get().map(|lease| lease["metadata"]["resourceVersion"].clone());
    wait_for("the status to settle", || {
        let identity = team.get("mi", &team.name)?;
        (identity["status"]["bindings"] == 1 && identity["status"]["credentials"]["thisCluster"] == 1).then_some(())
    });
    let (writes, arm_writes) = (stage.kubernetes_writes("first").len(), team.arm_writes("first").len());
    for _ in 0..3 {
        let before = version(&lease);
        wait_for("a renewal", || (version(&lease) != before).then_some(()));
    }
    assert_eq!(stage.kubernetes_writes("first").len(), writes);
    assert_eq!((team.arm_writes("first").len(), arm_writes), (1, 1));
    assert_eq!(stage.kubernetes_writes("second"), Vec::<serde_json::Value>::new());
    assert_eq!(team.arm_writes("second").len(), 0);
    assert!(first.is_ready() && second.is_ready());
    assert_eq!(lease.holder().as_deref(), Some("first"));
    let lease = lease.get().expect("the lease");
    assert_eq!(lease["metadata"]["labels"]["kept"], "yes", "what others wrote to the object stays");
    assert_eq!(lease["spec"]["leaseDurationSeconds"], SHORT_SECONDS);
}

#[test]
fn a_leader_that_stops_hands_over_at_once() {
    let stage = Stage::enter();
    let lease = stage.lease(LONG_SECONDS);
    let (first, second) = pair(&stage, &lease);
    assert_eq!(first.stop(), Ok(()));
    lease.wait_holder("second");
    let team = stage.team("handed");
    team.bind();
    team.wait_ready("app");
    assert_eq!((team.arm_writes("first").len(), team.arm_writes("second").len()), (0, 1));
    assert_eq!(second.stop(), Ok(()));
    assert_eq!(lease.holder(), None, "the last one gives it back too");
}

#[test]
fn a_controller_that_stands_by_stops_without_touching_the_lease() {
    let stage = Stage::enter();
    let lease = stage.lease(LONG_SECONDS);
    let (first, second) = pair(&stage, &lease);
    assert_eq!(second.stop(), Ok(()));
    assert_eq!(lease.holder().as_deref(), Some("first"));
    drop(first);
}

#[test]
fn a_frozen_leader_is_superseded_and_writes_nothing_when_it_thaws() {
    let stage = Stage::enter();
    let lease = stage.lease(SHORT_SECONDS);
    let (first, second) = pair(&stage, &lease);
    let team = stage.team("frozen");
    team.bind();
    team.wait_ready("app");
    let frozen = first.freeze();
    let (arm_before, before) = (team.arm_writes("first").len(), stage.kubernetes_writes("first").len());
    // Work that the frozen one would do as soon as it could.
    team.bind_account("worker");
    lease.wait_holder("second");
    team.wait_ready("worker");
    team.unbind("app");
    drop(frozen);
    let ended = first.wait_end().expect_err("it has lost");
    assert!(ended.contains("leadership is lost") && ended.contains("started again, it stands by"), "{ended}");
    assert_eq!(team.arm_writes("first").len(), arm_before);
    assert_eq!(stage.kubernetes_writes("first").len(), before);
    assert_eq!(team.credentials().len(), 1);
    assert_eq!(lease.holder().as_deref(), Some("second"));
    assert!(second.is_ready());
}

#[test]
fn of_a_leader_that_is_frozen_in_the_middle_of_a_put_at_most_that_put_comes_late() {
    let stage = Stage::enter();
    let lease = stage.lease(SHORT_SECONDS);
    let (first, second) = pair(&stage, &lease);
    let team = stage.team("midput");
    let matching = FaultMatch {
        method: Some("PUT".to_owned()),
        path_contains: Some(format!("/{}/", team.name)),
        ..FaultMatch::default()
    };
    let delay_ms = (SHORT_SECONDS + 2) * 1000;
    stage.azure.set_faults(vec![FaultRule {
        matching,
        nth: 1,
        times: 1,
        action: FaultAction::Delay(Delay { delay_ms }),
        matched: 0,
        fired: 0,
    }]);
    team.bind();
    team.bind_account("worker");
    wait_for("the PUT to arrive", || stage.azure.faults().first().filter(|rule| rule.fired > 0).map(|_| ()));
    let frozen = first.freeze();
    lease.wait_holder("second");
    team.wait_ready("app");
    team.wait_ready("worker");
    drop(frozen);
    first.wait_end().expect_err("it has lost");
    wait_for("the late PUT to be answered", || (team.arm_writes("first").len() == 1).then_some(()));
    assert_eq!(team.credentials().len(), 2);
    let binding = team.wait_ready("worker");
    assert_eq!(binding["status"]["credential"]["origin"], "Created");
    stage.azure.set_faults(Vec::new());
    assert!(second.is_ready());
}

#[test]
fn a_deleted_lease_is_made_again_and_the_leader_stays() {
    let stage = Stage::enter();
    let lease = stage.lease(SHORT_SECONDS);
    let (first, second) = pair(&stage, &lease);
    lease.delete();
    // Whoever makes it, at most one leads, and it is never the case that nobody comes to.
    let holder = wait_for("the lease to be held again", || lease.holder());
    let team = stage.team("deleted");
    team.bind();
    team.wait_ready("app");
    let other = if holder == "first" { "second" } else { "first" };
    assert_eq!(team.arm_writes(other).len(), 0);
    drop((first, second));
}

#[test]
fn without_a_lease_a_single_controller_makes_one_and_leads_once_it_has_stood_for_its_duration() {
    let stage = Stage::enter();
    let lease = stage.lease(2);
    let only = stage.start("only", ReplicaOptions::with_lease(&lease));
    only.wait_ready();
    let team = stage.team("only");
    team.bind();
    team.wait_ready("app");
    assert_eq!(lease.holder().as_deref(), Some("only"));
}

#[test]
fn nobody_leads_over_a_malformed_lease_until_it_is_deleted() {
    let stage = Stage::enter();
    let lease = stage.lease(2);
    lease.write(&json!({"holderIdentity": "somebody"}));
    let only = stage.start("only", ReplicaOptions::with_lease(&lease));
    let reads = || {
        let events = stage.control_plane.audit_events();
        let reads = |event: &&serde_json::Value| {
            event["verb"] == "get" && event["objectRef"]["name"] == lease.get().expect("it stands")["metadata"]["name"]
        };
        events.iter().filter(reads).filter(|event| event["userAgent"] == "only").count()
    };
    wait_for("the lease to be looked at twice", || (reads() >= 2).then_some(()));
    assert!(!only.is_ready());
    assert_eq!(lease.holder().as_deref(), Some("somebody"));
    lease.delete();
    only.wait_ready();
    lease.wait_holder("only");
}
