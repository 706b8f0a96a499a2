//! The cluster's issuer and ID, and what happens when they change or are copied.

use std::time::Duration;

use ensign_azure_emulator::state::Credential;
use ensign_controller::IssuerWatch;
use ensign_core::credentials::names::{Subject, credential_name};
use k8s_openapi::jiff::Timestamp;

use ensign_testkit::clock::FakeClock;
use ensign_testkit::objects::{Team, condition_of, kubectl, unique, wait_for};
use ensign_testkit::replica::ReplicaOptions;
use ensign_testkit::testbed::Testbed;

const FORMER: &str = "https://former.example/cluster";
const EVERY: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

#[test]
fn a_new_issuer_is_accepted_once_stable_and_the_previous_credential_deleted_a_token_lifetime_later() {
    let testbed = Testbed::acquire();
    let team = testbed.team("issuer");
    let before =
        testbed.start(&unique("before"), ReplicaOptions { issuer: Some(FORMER.into()), ..ReplicaOptions::default() });
    team.bind();
    team.wait_ready("app");
    before.stop().expect("the controller stops");
    let issuers = || team.credentials().into_iter().map(|(issuer, _)| issuer).collect::<Vec<_>>();
    assert_eq!(issuers(), [FORMER]);

    let clock = FakeClock::new();
    let watch = IssuerWatch { every: EVERY, allow_private: true };
    let name = unique("after");
    let after = testbed
        .start(&name, ReplicaOptions { issuer_watch: Some(watch), clock: clock.clone(), ..ReplicaOptions::default() });
    // Discovery at startup reads the issuer once; the checks follow.
    for look in 2..=3 {
        wait_for("a check of the issuer", || (testbed.issuer_reads(&name) == look).then_some(()));
        assert_eq!(team.arm_writes(&name).len(), 0, "nothing is written while the issuer is uncertain");
        assert_eq!(testbed.kubernetes_writes(&name), Vec::<String>::new());
        // The API server has answered; the controller has taken it in once it waits for the next check.
        wait_for("the next check to be scheduled", || (clock.next_wake() == Some(EVERY)).then_some(()));
        clock.advance(EVERY);
    }
    let present = testbed.control_plane.issuer.clone();
    wait_for("both issuers to be trusted", || {
        let found = issuers();
        (found.len() == 2 && found.contains(&present) && found.contains(&FORMER.to_owned())).then_some(())
    });
    wait_for("the binding to know the new one", || {
        (team.get("mib", "app")?["status"]["credential"]["issuer"] == present.as_str()).then_some(())
    });
    let identity = team.get("mi", &team.name).expect("the identity");
    let states: Vec<_> =
        identity["status"]["issuers"].as_array().expect("records").iter().map(|record| &record["state"]).collect();
    assert_eq!(states, ["Retiring", "Current"]);
    clock.advance(DAY);
    wait_for("the previous one to be deleted", || (issuers() == [present.as_str()]).then_some(()));
    drop(after);
}

#[test]
fn after_a_cluster_id_change_credentials_stay_until_their_bindings_are_deleted() {
    let testbed = Testbed::acquire();
    let team = testbed.team("moved");
    let before = testbed.start(&unique("before"), ReplicaOptions::default());
    team.bind();
    let name = team.wait_ready("app")["status"]["credential"]["name"].clone();
    before.stop().expect("the controller stops");
    let uid =
        kubectl(testbed.control_plane, &["get", "namespace", "kube-system", "--output", "jsonpath={.metadata.uid}"]);
    let replica = unique("moved");
    let moved = testbed.start(
        &replica,
        ReplicaOptions { cluster_id: Some("moved".into()), previous_id: Some(uid), ..ReplicaOptions::default() },
    );
    team.bind_account("worker");
    team.wait_ready("worker");
    assert_eq!(team.wait_ready("app")["status"]["credential"]["name"], name);
    assert_eq!(team.arm_writes(&replica).len(), 1, "only that of the new binding");
    team.unbind("app");
    let left = team.credentials();
    let subject = Subject::new(&team.name, "worker");
    assert_eq!(left, [(testbed.control_plane.issuer.clone(), credential_name("moved", &left[0].0, &subject))]);
    drop(moved);
}

#[test]
fn a_clone_with_a_copied_cluster_id_is_reported_and_its_credentials_are_unchanged() {
    let team = Team::new("clone");
    let control_plane = team.ensign.control_plane;
    let uid = kubectl(control_plane, &["get", "namespace", "kube-system", "--output", "jsonpath={.metadata.uid}"]);
    let subject = Subject::new(&team.name, "app");
    let of_the_clone = Credential {
        name: credential_name(&uid, "https://clone.example", &subject),
        issuer: "https://clone.example".to_owned(),
        subject: subject.to_string(),
        audiences: vec!["api://AzureADTokenExchange".to_owned()],
        written_at: Timestamp::UNIX_EPOCH,
    };
    let name = of_the_clone.name.clone();
    team.ensign.azure_identity(&team.name, None, &[of_the_clone]);
    team.apply(&team.identity());
    team.apply(&team.binding("app", "app"));
    team.wait_ready("app");
    let identity = team.wait_condition("mi", &team.name, "ClusterIDUnique", "False", "ClusterIDShared");
    assert_eq!(condition_of(&identity, "Ready").expect("a condition")["status"], "True");
    let message = condition_of(&identity, "ClusterIDUnique").expect("a condition")["message"].to_string();
    assert!(message.contains(&name) && message.contains("--cluster-id"), "{message}");
    team.delete("mib", "app");
    team.wait_deleted("mib", "app");
    assert_eq!(team.credentials(), [(name, subject.to_string())]);
}
