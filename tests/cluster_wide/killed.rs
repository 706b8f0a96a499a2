//! Every process of Ensign killed while the API server injects by itself.

use std::path::Path;

use ensign_azure_emulator::LogFilter;
use serde_json::{Value, json};

use crate::load::Load;
use ensign_testkit::objects::{kubectl, wait_for};
use ensign_testkit::pods::{create, is_injected, pod};
use ensign_testkit::policies::Policies;
use ensign_testkit::process::{Controller, USER, World};
use ensign_testkit::replica::{Stage, StageTeam};

const SIGKILL: i32 = 9;
/// Replicas of the controller: one leads, one waits. There is no other process where policies inject.
const REPLICAS: usize = 2;
/// How many pods are created with nobody there, at the least.
const PODS: usize = 50;

/// Writes of controllers but those of their lease, in the order of arrival.
fn writes(stage: &Stage) -> Vec<String> {
    let events = stage.control_plane.audit_events_with(USER);
    let is_write = |event: &&Value| {
        event["user"]["username"] == USER
            && !["get", "list", "watch"].iter().any(|verb| event["verb"] == *verb)
            && event["objectRef"]["resource"] != "leases"
    };
    events.iter().filter(is_write).map(|event| format!("{} {}", event["verb"], event["requestURI"])).collect()
}

/// How often ARM was asked for the credentials of a team's identity, or to change one, by whatever process.
fn arm_requests(stage: &Stage, team: &StageTeam<'_>, kind: &str) -> usize {
    let path = Some(format!("/{}/federatedIdentityCredentials", team.name));
    stage.azure.log(&LogFilter { kind: Some(kind.to_owned()), path, ..LogFilter::default() }).len()
}

fn start(world: &World<'_>) -> Controller {
    // Short, because it has to end before the next one leads; not so short that a busy machine loses it.
    Controller::start(world, &["--injection=policy", "--propagation-delay=0s", "--lease-duration=5s"])
}

#[test]
fn pods_are_injected_with_every_process_killed_and_a_new_one_finds_nothing_to_write() {
    let stage = Stage::enter();
    let control_plane = stage.control_plane;
    let _policies = Policies::install(control_plane);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("killed");
    // What an earlier run left speaks of another cluster.
    let _ = std::fs::remove_dir_all(&folder);
    let world = World { control_plane, azure: stage.azure, folder };
    let info = stage.azure.info();
    world.install(&info.subscription_id, &info.resource_group);
    let [team, late] = ["killed", "killed-late"].map(|prefix| stage.team(prefix));
    for team in [&team, &late] {
        kubectl(control_plane, &["create", "serviceaccount", "app", "--namespace", &team.name]);
        team.grant_namespace();
    }
    team.bind_account("app");
    let running: Vec<Controller> = (0..REPLICAS).map(|_| start(&world)).collect();
    team.wait_ready("app");
    let plain = pod(&team.name, &json!({}));
    wait_for("a pod to be injected", || create(control_plane, &plain, &["--dry-run=server"]).ok().filter(is_injected));

    let load = Load::start(control_plane, &team.name);
    load.wait_for_more(1);
    let signals: Vec<_> = running.into_iter().map(Controller::kill).collect();
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

    let (written, looks) = (writes(&stage).len(), arm_requests(&stage, &team, "arm-read"));
    let put = arm_requests(&stage, &team, "arm-write");
    let again = start(&world);
    wait_for("the new controller to look at the identity", || {
        (arm_requests(&stage, &team, "arm-read") > looks).then_some(())
    });
    // What comes now is written; that it is shows that the new controller is past everything else.
    late.bind_account("app");
    late.wait_ready("app");
    let new = writes(&stage).split_off(written);
    let elsewhere: Vec<_> = new.iter().filter(|write| !write.contains(&late.name)).collect();
    assert!(elsewhere.is_empty(), "{elsewhere:#?}");
    assert!(!new.is_empty());
    assert_eq!(arm_requests(&stage, &team, "arm-write"), put, "no write to Azure");

    for team in [&team, &late] {
        team.unbind("app");
    }
    again.stop();
}
