//! A controller that is limited to some scopes of Azure, after one that was not.

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
    before.stop().expect("it stops");
    assert_eq!(team.credentials().len(), 1);

    let replica = testbed.start("bounded", limited());
    let reason = |kind: &str, name: &str, condition: &str| {
        let found = condition_of(&team.get(kind, name)?, condition)?.clone();
        (found["status"] == "False").then(|| found["reason"].as_str().unwrap_or_default().to_owned())
    };
    wait_for("the identity to be refused", || {
        (reason("mi", &team.name, "Accepted")? == "ScopeNotAllowed").then_some(())
    });
    wait_for("the binding to say so", || {
        (reason("mib", "app", "Accepted")? == "ManagedIdentityNotAccepted").then_some(())
    });

    kubectl(testbed.control_plane, &["delete", "mib", "app", "--namespace", &team.name, "--wait=false"]);
    wait_for("the deletion to be blocked", || (reason("mib", "app", "Ready")? == "DeletionBlocked").then_some(()));
    assert_eq!(team.credentials().len(), 1, "what was written still stands");

    kubectl(testbed.control_plane, &["annotate", "mi", &team.name, "ensign.dev/abandon=true"]);
    wait_for("the binding to be let go", || team.get("mib", "app").is_none().then_some(()));
    assert_eq!(team.credentials().len(), 1, "and Azure was left alone");
    assert_eq!(replica_requests(&testbed, "bounded"), 0, "nothing was read there either");
    replica.stop().expect("it stops");
    kubectl(testbed.control_plane, &["delete", "mi", &team.name, "--wait=false"]);
}

/// How many requests a controller sent to ARM.
fn replica_requests(testbed: &Testbed, replica: &str) -> usize {
    let entries = testbed.azure.log(&LogFilter::default());
    let agent = format!("({replica})");
    entries.iter().filter(|entry| entry.user_agent.as_deref().is_some_and(|found| found.contains(&agent))).count()
}
