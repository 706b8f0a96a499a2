//! Bindings that are created a moment before their pods.

use std::thread;

use ensign_core::cel::Mode;
use serde_json::Value;

use super::{granted_team, is_denied_with};
use crate::INJECTION;
use ensign_testkit::objects::{Team, apply, wait_for};
use ensign_testkit::pods::{env, labelled, pod};

/// A labelled pod of this service account.
fn labelled_pod(team: &Team, account: &str) -> Value {
    let mut pod = pod(&team.name, &labelled());
    pod["spec"]["serviceAccountName"] = account.into();
    pod
}

fn client_id(object: &Value) -> &str {
    object["status"]["clientID"].as_str().expect("a client ID")
}

#[test]
fn pods_of_an_accepted_binding_are_always_injected_however_new_it_is() {
    let team = granted_team("fresh");
    for number in 0..10 {
        let account = format!("app-{number}");
        team.account(&account);
        team.apply(&team.binding(&account, &account));
        let binding = wait_for("the binding to be assessed", || {
            team.get("mib", &account).filter(|binding| binding["status"]["clientID"].is_string())
        });
        let asks = labelled_pod(&team, &account);
        let stored = match INJECTION {
            // The webhook has to know every binding that the API server has, also before its watch delivers it.
            Mode::Webhook => team.create(&asks).expect("admitted at the first attempt"),
            // Policies know only what their watch has delivered, and deny until then: docs/injection-policy.md.
            Mode::Policy => wait_for("the pod to be admitted", || match team.create(&asks) {
                Ok(stored) => Some(stored),
                Err(refusal) => {
                    assert!(is_denied_with(&asks, &refusal, &account), "{refusal}");
                    None
                }
            }),
        };
        assert_eq!(env(&stored["spec"]["containers"][0])[0], ("AZURE_CLIENT_ID", client_id(&binding)));
    }
}

#[test]
fn a_pod_right_after_its_binding_is_injected_correctly_or_denied_with_the_reason() {
    let team = granted_team("behind");
    for number in 0..10 {
        let account = format!("app-{number}");
        team.account(&account);
        let (binding, asks) = (team.binding(&account, &account), labelled_pod(&team, &account));
        let outcome = thread::scope(|scope| {
            let bound = scope.spawn(|| apply(team.ensign.control_plane, &binding));
            let outcome = team.create(&asks);
            bound.join().expect("no panic").expect("bound");
            outcome
        });
        match outcome {
            Ok(stored) => {
                let known = team.wait_ready(&account);
                assert_eq!(env(&stored["spec"]["containers"][0])[0], ("AZURE_CLIENT_ID", client_id(&known)));
            }
            Err(refusal) => {
                assert!(is_denied_with(&asks, &refusal, &account), "the denial names the cause: {refusal}");
                assert!(refusal.contains(&account), "{refusal}");
            }
        }
    }
}
