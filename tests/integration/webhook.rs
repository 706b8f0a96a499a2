//! When the API server calls the webhook. What happens to pods is in `tests/outcomes`.

use serde_json::{Value, json};

use crate::outcomes::{granted_team, team};
use ensign_testkit::objects::{Team, kubectl, wait_for};
use ensign_testkit::pods::{create, pod};
use ensign_testkit::webhook::NAME;

#[test]
fn only_pods_of_granted_namespaces_are_sent_to_the_webhook() {
    let (granted, plain) = (granted_team("shown"), team("not-shown"));
    let is_called_for = |team: &Team| {
        let control_plane = team.ensign.control_plane;
        create(control_plane, &pod(&team.name, &json!({})), &[]).expect("admitted");
        wait_for("the audit record of the pod", || {
            let events = control_plane.audit_events_with(&format!("/namespaces/{}/pods", team.name));
            let creation = events.iter().find(|event| {
                event["verb"] == "create" && event["requestURI"].as_str().is_some_and(|uri| !uri.contains("dryRun"))
            })?;
            let annotations = creation["annotations"].as_object().cloned().unwrap_or_default();
            Some(annotations.values().any(|value| value.as_str().is_some_and(|text| text.contains(NAME))))
        })
    };
    assert!(is_called_for(&granted));
    assert!(!is_called_for(&plain));
}

#[test]
fn selector_expressions_of_other_programs_are_kept() {
    let team = granted_team("rival");
    let foreign = json!({"key": "rival.example/skip", "operator": "DoesNotExist"});
    let read = || -> Value {
        let arguments = ["get", "mutatingwebhookconfiguration", NAME, "--output", "json"];
        serde_json::from_str(&kubectl(team.ensign.control_plane, &arguments)).expect("a configuration")
    };
    let position =
        read()["webhooks"].as_array().expect("entries").iter().position(|entry| entry["name"] == "pods.ensign.dev");
    let list = format!("/webhooks/{}/namespaceSelector/matchExpressions/-", position.expect("the entry"));
    let patch = json!([{"op": "add", "path": list, "value": foreign}]).to_string();
    let arguments = ["patch", "mutatingwebhookconfiguration", NAME, "--type", "json", "--patch", &patch];
    kubectl(team.ensign.control_plane, &arguments);
    // A new grant makes the controller write; the change of the other program is kept.
    let late = granted_team("rival-late");
    let entries = read()["webhooks"].clone();
    let entry = entries.as_array().expect("entries").iter().find(|entry| entry["name"] == "pods.ensign.dev");
    let expressions = &entry.expect("the entry")["namespaceSelector"]["matchExpressions"];
    assert!(expressions.as_array().expect("a list").contains(&foreign), "{expressions:#}");
    assert!(expressions.to_string().contains(&late.name), "{expressions:#}");
}
