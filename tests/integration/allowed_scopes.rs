//! A controller with allowed scopes, after one without.

use ensign_azure_emulator::LogFilter;
use ensign_core::acceptance::scopes::AllowedScopes;

use ensign_testkit::objects::{condition_of, kubectl, wait_for};
use ensign_testkit::replica::ReplicaOptions;
use ensign_testkit::testbed::Testbed;

const ELSEWHERE: &str = "/subscriptions/00000000-0000-0000-0000-000000000001";

fn limited() -> ReplicaOptions {
    ReplicaOptions {
        allowed_scopes: AllowedScopes::new([ELSEWHERE.parse().expect("a scope")]),
        ..ReplicaOptions::default()
    }
}

#[test]
fn outside_its_scopes_a_controller_sends_nothing_and_a_deletion_waits_for_an_operator() {
    let testbed = Testbed::acquire();
    let team = testbed.team("scopes");
    team.bind();
    let before = testbed.start("unbounded", ReplicaOptions::default());
    team.wait_ready("app");
    before.stop().expect("the controller stops");
    assert_eq!(team.credentials().len(), 1);

    let replica = testbed.start("bounded", limited());
    let reason = |kind: &str, name: &str, condition: &str| {
        let found = condition_of(&team.get(kind, name)?, condition)?.clone();
        (found["status"] == "False").then(|| found["reason"].as_str().unwrap_or_default().to_owned())
    };
    wait_for("the identity to be rejected", || {
        (reason("mi", &team.name, "Accepted")? == "ScopeNotAllowed").then_some(())
    });
    wait_for("the binding to report it", || {
        (reason("mib", "app", "Accepted")? == "ManagedIdentityNotAccepted").then_some(())
    });

    kubectl(testbed.control_plane, &["delete", "mib", "app", "--namespace", &team.name, "--wait=false"]);
    wait_for("the deletion to be blocked", || (reason("mib", "app", "Ready")? == "DeletionBlocked").then_some(()));
    assert_eq!(team.credentials().len(), 1, "the existing credential is kept");

    kubectl(testbed.control_plane, &["annotate", "mi", &team.name, "ensign.dev/abandon=true"]);
    wait_for("the binding to be released", || team.get("mib", "app").is_none().then_some(()));
    assert_eq!(team.credentials().len(), 1, "and Azure is unchanged");
    assert_eq!(replica_requests(&testbed, "bounded"), 0, "nothing was read either");
    replica.stop().expect("the controller stops");
    kubectl(testbed.control_plane, &["delete", "mi", &team.name, "--wait=false"]);
}

/// How many requests a controller has sent to ARM.
fn replica_requests(testbed: &Testbed, replica: &str) -> usize {
    let entries = testbed.azure.log(&LogFilter::default());
    let agent = format!("({replica})");
    entries.iter().filter(|entry| entry.user_agent.as_deref().is_some_and(|found| found.contains(&agent))).count()
}
