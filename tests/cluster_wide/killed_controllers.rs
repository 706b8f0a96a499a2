//! All controllers killed while admission policies inject.

use ensign_azure_emulator::LogFilter;
use serde_json::{Value, json};

use crate::load::Load;
use ensign_testkit::controller_process::{ControllerProcess, Environment, USER, install};
use ensign_testkit::objects::{kubectl, wait_for};
use ensign_testkit::paths::empty_scratch;
use ensign_testkit::pods::{create, is_injected, pod};
use ensign_testkit::policies::Policies;
use ensign_testkit::testbed::{Testbed, TestbedTeam};

const SIGKILL: i32 = 9;
/// Replicas of the controller: a leader and a standby. In policy mode there is no other process.
const REPLICAS: usize = 2;
/// The least number of pods that are created without any process.
const PODS: usize = 50;

/// Writes of controllers other than those of their lease, in the order of arrival.
fn writes(testbed: &Testbed) -> Vec<String> {
    let events = testbed.control_plane.audit_events_with(USER);
    let is_write = |event: &&Value| {
        event["user"]["username"] == USER
            && !["get", "list", "watch"].iter().any(|verb| event["verb"] == *verb)
            && event["objectRef"]["resource"] != "leases"
    };
    events.iter().filter(is_write).map(|event| format!("{} {}", event["verb"], event["requestURI"])).collect()
}

/// How many requests about the credentials of a team's identity ARM received, from any process.
fn arm_requests(testbed: &Testbed, team: &TestbedTeam<'_>, kind: &str) -> usize {
    let path = Some(format!("/{}/federatedIdentityCredentials", team.name));
    testbed.azure.log(&LogFilter { kind: Some(kind.to_owned()), path, ..LogFilter::default() }).len()
}

fn start(environment: &Environment<'_>) -> ControllerProcess {
    // Short, because it has to expire before the next one leads; not so short that a busy machine loses it.
    ControllerProcess::start(environment, &["--injection=policy", "--propagation-delay=0s", "--lease-duration=5s"])
}

#[test]
fn pods_are_injected_with_every_process_killed_and_a_new_one_finds_nothing_to_write() {
    let testbed = Testbed::acquire();
    let control_plane = testbed.control_plane;
    let _policies = Policies::install(control_plane);
    let environment = Environment { control_plane, azure: testbed.azure, folder: empty_scratch("killed-controllers") };
    let info = testbed.azure.info();
    install(control_plane, testbed.azure, &info.subscription_id, &info.resource_group);
    let [team, late] = ["killed", "killed-late"].map(|prefix| testbed.team(prefix));
    for team in [&team, &late] {
        kubectl(control_plane, &["create", "serviceaccount", "app", "--namespace", &team.name]);
        team.grant_namespace();
    }
    team.bind_account("app");
    let running: Vec<ControllerProcess> = (0..REPLICAS).map(|_| start(&environment)).collect();
    team.wait_ready("app");
    let plain = pod(&team.name, &json!({}));
    wait_for("a pod to be injected", || create(control_plane, &plain, &["--dry-run=server"]).ok().filter(is_injected));

    let load = Load::start(control_plane, &team.name);
    load.wait_for_more(1);
    let signals: Vec<_> = running.into_iter().map(ControllerProcess::kill).collect();
    assert_eq!(signals, [Some(SIGKILL); REPLICAS], "they ran until they were killed");
    load.wait_for_more(PODS);
    let other: Vec<String> = load.end().into_iter().filter(|what| what != "injected").collect();
    assert!(other.is_empty(), "{other:#?}");
    team.apply(&json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "app", "namespace": team.name},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": "app"}},
            "template": {"metadata": {"labels": {"app": "app"}}, "spec": {
                "serviceAccountName": "app", "containers": [{"name": "app", "image": "app:1"}],
            }},
        },
    }));
    let pods = wait_for("the pods of a Deployment", || {
        let arguments = ["get", "pods", "--namespace", &team.name, "--selector", "app=app", "--output", "json"];
        let list: Value = serde_json::from_str(&kubectl(control_plane, &arguments)).expect("a list");
        list["items"].as_array().filter(|pods| pods.len() == 2).cloned()
    });
    assert!(pods.iter().all(is_injected), "{pods:#?}");

    let (written, looks) = (writes(&testbed).len(), arm_requests(&testbed, &team, "arm-read"));
    let put = arm_requests(&testbed, &team, "arm-write");
    let again = start(&environment);
    wait_for("the new controller to check the identity", || {
        (arm_requests(&testbed, &team, "arm-read") > looks).then_some(())
    });
    // Once the next change is handled, the new controller has handled everything before it.
    late.bind_account("app");
    late.wait_ready("app");
    let new = writes(&testbed).split_off(written);
    let elsewhere: Vec<_> = new.iter().filter(|write| !write.contains(&late.name)).collect();
    assert!(elsewhere.is_empty(), "{elsewhere:#?}");
    assert!(!new.is_empty());
    assert_eq!(arm_requests(&testbed, &team, "arm-write"), put, "no write to Azure");

    for team in [&team, &late] {
        team.unbind("app");
    }
    again.stop();
}
