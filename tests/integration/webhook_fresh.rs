//! Bindings that are made a moment before their pods.

use std::thread;

use ensign::api::keys::INJECT_LABEL;
use serde_json::{Value, json};

use crate::support::objects::{Team, apply, kubectl, unique, wait_for};

fn client_ids(team: &Team, pod: &str) -> Vec<String> {
    let pod = team.get("pod", pod).expect("the pod");
    let env = pod["spec"]["containers"][0]["env"].as_array().cloned().unwrap_or_default();
    let named = env.iter().filter(|variable| variable["name"] == "AZURE_CLIENT_ID");
    named.filter_map(|variable| variable["value"].as_str()).map(str::to_owned).collect()
}

fn labelled(team: &Team, account: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": unique("pod"), "namespace": team.name, "labels": {INJECT_LABEL: "true"}},
        "spec": {"serviceAccountName": account, "containers": [{"name": "app", "image": "app:1"}]},
    })
}

fn team(prefix: &str) -> Team {
    let team = Team::new(prefix);
    team.apply(&team.identity());
    // Labelled pods are asked about everywhere, and refused as long as there is no binding.
    kubectl(team.ensign.control_plane, &["create", "serviceaccount", "nobody", "--namespace", &team.name]);
    wait_for("the API server to ask the webhook", || {
        apply(team.ensign.control_plane, &labelled(&team, "nobody")).err()
    });
    team
}

#[test]
fn a_binding_that_is_accepted_is_never_missed_however_fresh() {
    let team = team("fresh");
    for number in 0..10 {
        let account = format!("app-{number}");
        kubectl(team.ensign.control_plane, &["create", "serviceaccount", &account, "--namespace", &team.name]);
        team.apply(&team.binding(&account, &account));
        let binding = wait_for("the binding to be judged", || {
            let binding = team.get("mib", &account)?;
            binding["status"]["clientID"].is_string().then_some(binding)
        });
        // What the API server shows to anybody, the webhook has to know, whether its watch has brought it or not.
        let pod = labelled(&team, &account);
        apply(team.ensign.control_plane, &pod).expect("admitted at the first try");
        let name = pod["metadata"]["name"].as_str().expect("a name");
        assert_eq!(client_ids(&team, name), [binding["status"]["clientID"].as_str().expect("a client ID")]);
    }
}

#[test]
fn a_pod_right_behind_its_binding_is_injected_right_or_refused_with_the_reason() {
    let team = team("behind");
    for number in 0..10 {
        let account = format!("app-{number}");
        kubectl(team.ensign.control_plane, &["create", "serviceaccount", &account, "--namespace", &team.name]);
        let (binding, pod) = (team.binding(&account, &account), labelled(&team, &account));
        let outcome = thread::scope(|scope| {
            let bound = scope.spawn(|| apply(team.ensign.control_plane, &binding));
            let outcome = apply(team.ensign.control_plane, &pod);
            bound.join().expect("no panic").expect("bound");
            outcome
        });
        match outcome {
            Ok(()) => {
                let known = team.wait_ready(&account);
                let name = pod["metadata"]["name"].as_str().expect("a name");
                assert_eq!(client_ids(&team, name), [known["status"]["clientID"].as_str().expect("a client ID")]);
            }
            Err(refusal) => {
                assert!(refusal.contains("denied the request"), "{refusal}");
                assert!(refusal.contains(&account), "it says what it is about: {refusal}");
            }
        }
    }
}
