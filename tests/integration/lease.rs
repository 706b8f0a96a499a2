//! Leader election between several controllers.

use ensign_azure_emulator::{Delay, FaultAction, FaultMatch, FaultRule};
use serde_json::json;

use ensign_testkit::objects::{unique, wait_for};
use ensign_testkit::replica::{Replica, ReplicaOptions};
use ensign_testkit::testbed::{Testbed, TestbedLease};

/// Expires soon after its holder is paused.
const SHORT_SECONDS: u64 = 3;
/// Renewed often, but not lost on a busy machine.
const STEADY_SECONDS: u64 = 12;
/// No test waits for this one to expire.
const LONG_SECONDS: u64 = 600;

/// Two controllers, the first of which leads.
struct Pair {
    first: Replica,
    second: Replica,
    names: (String, String),
}

impl Pair {
    fn start(testbed: &Testbed, lease: &TestbedLease<'_>) -> Self {
        lease.create();
        let names = (unique("first"), unique("second"));
        let first = testbed.start(&names.0, ReplicaOptions::with_lease(lease));
        lease.wait_holder(&names.0);
        let second = testbed.start(&names.1, ReplicaOptions::with_lease(lease));
        second.wait_ready();
        Self { first, second, names }
    }
}

#[test]
fn of_two_controllers_only_the_leader_writes_and_the_standby_is_ready() {
    let testbed = Testbed::acquire();
    let lease = testbed.lease(STEADY_SECONDS);
    let Pair { first, second, names } = Pair::start(&testbed, &lease);
    let team = testbed.team("leads");
    team.bind();
    team.wait_ready("app");
    wait_for("the status to be written", || {
        let identity = team.get("mi", &team.name)?;
        (identity["status"]["bindings"] == 1 && identity["status"]["credentials"]["thisCluster"] == 1).then_some(())
    });
    // The lease is still renewed, and nothing else is written.
    let version = || lease.get().map(|lease| lease["metadata"]["resourceVersion"].clone());
    let writes = testbed.kubernetes_writes(&names.0);
    for _ in 0..3 {
        let before = version();
        wait_for("a renewal", || (version() != before).then_some(()));
    }
    assert_eq!(testbed.kubernetes_writes(&names.0), writes);
    assert_eq!(team.arm_writes(&names.0).len(), 1);
    assert_eq!(testbed.kubernetes_writes(&names.1), Vec::<String>::new());
    assert_eq!(team.arm_writes(&names.1).len(), 0);
    assert!(first.is_ready() && second.is_ready());
    assert_eq!(lease.holder(), Some(names.0));
    let lease = lease.get().expect("the lease");
    assert_eq!(lease["metadata"]["labels"]["kept"], "yes", "labels of others are kept");
    assert_eq!(lease["spec"]["leaseDurationSeconds"], STEADY_SECONDS);
}

#[test]
fn a_graceful_shutdown_hands_over_immediately() {
    let testbed = Testbed::acquire();
    let lease = testbed.lease(LONG_SECONDS);
    let Pair { first, second, names } = Pair::start(&testbed, &lease);
    assert_eq!(first.stop(), Ok(()));
    lease.wait_holder(&names.1);
    let team = testbed.team("handed");
    team.bind();
    team.wait_ready("app");
    assert_eq!((team.arm_writes(&names.0).len(), team.arm_writes(&names.1).len()), (0, 1));
    assert_eq!(second.stop(), Ok(()));
    assert_eq!(lease.holder(), None, "the last one releases it too");
}

#[test]
fn a_standby_shuts_down_without_touching_the_lease() {
    let testbed = Testbed::acquire();
    let lease = testbed.lease(LONG_SECONDS);
    let Pair { first, second, names } = Pair::start(&testbed, &lease);
    assert_eq!(second.stop(), Ok(()));
    assert_eq!(lease.holder(), Some(names.0));
    drop(first);
}

#[test]
fn a_paused_leader_is_replaced_and_writes_nothing_when_resumed() {
    let testbed = Testbed::acquire();
    let lease = testbed.lease(SHORT_SECONDS);
    let Pair { first, second, names } = Pair::start(&testbed, &lease);
    let team = testbed.team("paused");
    team.bind();
    team.wait_ready("app");
    let paused = first.pause();
    // Work that the paused one would do as soon as it resumed.
    team.bind_account("worker");
    lease.wait_holder(&names.1);
    team.wait_ready("worker");
    team.unbind("app");
    // What was in flight when it was paused has arrived long ago.
    let (arm_before, before) = (team.arm_writes(&names.0).len(), testbed.kubernetes_writes(&names.0));
    drop(paused);
    let ended = first.wait_exit().expect_err("it has lost");
    assert!(ended.contains("lost leadership") && ended.contains("joins as standby"), "{ended}");
    assert_eq!(team.arm_writes(&names.0).len(), arm_before);
    assert_eq!(testbed.kubernetes_writes(&names.0), before);
    assert_eq!(team.credentials().len(), 1);
    assert_eq!(lease.holder(), Some(names.1));
    assert!(second.is_ready());
}

#[test]
fn at_most_the_put_in_flight_of_a_paused_leader_arrives_late() {
    let testbed = Testbed::acquire();
    let lease = testbed.lease(SHORT_SECONDS);
    let Pair { first, second, names } = Pair::start(&testbed, &lease);
    let team = testbed.team("midput");
    let matching = FaultMatch {
        method: Some("PUT".to_owned()),
        path_contains: Some(format!("/{}/", team.name)),
        ..FaultMatch::default()
    };
    let delay_ms = (SHORT_SECONDS + 2) * 1000;
    testbed.azure.set_faults(vec![FaultRule {
        matching,
        nth: 1,
        times: 1,
        action: FaultAction::Delay(Delay { delay_ms }),
        matched: 0,
        fired: 0,
    }]);
    team.bind();
    team.bind_account("worker");
    wait_for("the PUT to arrive", || testbed.azure.faults().first().filter(|rule| rule.fired > 0).map(|_| ()));
    let paused = first.pause();
    lease.wait_holder(&names.1);
    team.wait_ready("app");
    team.wait_ready("worker");
    drop(paused);
    first.wait_exit().expect_err("it has lost");
    wait_for("the late PUT to be answered", || (team.arm_writes(&names.0).len() == 1).then_some(()));
    assert_eq!(team.credentials().len(), 2);
    assert_eq!(team.wait_ready("app")["status"]["credential"]["origin"], "Created");
    testbed.azure.set_faults(Vec::new());
    assert!(second.is_ready());
}

#[test]
fn a_deleted_lease_is_recreated_by_the_leader_which_keeps_leading() {
    let testbed = Testbed::acquire();
    let lease = testbed.lease(STEADY_SECONDS);
    let Pair { first, second, names } = Pair::start(&testbed, &lease);
    lease.delete();
    lease.wait_holder(&names.0);
    let team = testbed.team("deleted");
    team.bind();
    team.wait_ready("app");
    assert_eq!((team.arm_writes(&names.0).len(), team.arm_writes(&names.1).len()), (1, 0));
    assert_eq!((first.stop(), second.stop()), (Ok(()), Ok(())));
}

#[test]
fn without_a_lease_a_controller_creates_one_and_leads_after_its_duration() {
    let testbed = Testbed::acquire();
    let lease = testbed.lease(SHORT_SECONDS);
    let name = unique("only");
    let only = testbed.start(&name, ReplicaOptions::with_lease(&lease));
    only.wait_ready();
    let team = testbed.team("only");
    team.bind();
    team.wait_ready("app");
    assert_eq!(lease.holder(), Some(name));
}

#[test]
fn no_controller_leads_with_a_malformed_lease_until_it_is_deleted() {
    let testbed = Testbed::acquire();
    let lease = testbed.lease(SHORT_SECONDS);
    lease.write(&json!({"holderIdentity": "somebody"}));
    let name = unique("only");
    let only = testbed.start(&name, ReplicaOptions::with_lease(&lease));
    wait_for("the lease to be read twice", || (testbed.lease_reads(&name) >= 2).then_some(()));
    assert!(!only.is_ready());
    assert_eq!(lease.holder().as_deref(), Some("somebody"));
    lease.delete();
    only.wait_ready();
    lease.wait_holder(&name);
}
