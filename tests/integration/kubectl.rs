//! What users and scripts see with kubectl at each stage of a binding's life.

use serde_json::json;

use ensign_testkit::objects::{Team, kubectl, wait_for};

/// Runs `kubectl wait`; returns whether the condition was reached.
fn wait_until_ready(team: &Team, what: &str, timeout: &str) -> bool {
    let arguments = ["wait", "--for=condition=Ready", what, "--namespace", &team.name, "--timeout", timeout];
    let done = team.ensign.control_plane.kubectl().args(arguments).output().expect("run kubectl");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success() || said.contains("timed out waiting for the condition"), "{said}");
    done.status.success()
}

fn describe(team: &Team, kind: &str, name: &str) -> String {
    kubectl(team.ensign.control_plane, &["describe", kind, name, "--namespace", &team.name])
}

/// The rows of the events of `kubectl describe`, each as reason and message.
fn told(team: &Team, kind: &str, name: &str) -> Vec<(String, String)> {
    let text = describe(team, kind, name);
    let events = text.split_once("\nEvents:").map(|(_, events)| events).unwrap_or_default();
    let rows = events.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    // Type, reason, age, from, message. The age of a repeated event has several words.
    rows.filter(|row| row.first() == Some(&"Warning")).map(|row| (row[1].to_owned(), row[2..].join(" "))).collect()
}

/// The row of `kubectl get`.
fn row(team: &Team, kind: &str, name: &str) -> String {
    kubectl(team.ensign.control_plane, &["get", kind, name, "--namespace", &team.name, "--no-headers"])
}

/// Waits until an event names the remedy.
fn wait_told(team: &Team, kind: &str, name: &str, reason: &str, cure: &str) {
    wait_for(&format!("{kind} {name} to be described with {reason} and {cure:?}"), || {
        told(team, kind, name).into_iter().find(|(found, message)| found == reason && message.contains(cure))
    });
}

#[test]
fn kubectl_wait_works_on_both_kinds_and_returns_once_the_credential_exists() {
    let team = Team::new("kubectl-wait");
    team.apply(&team.binding("app", "app"));
    assert!(!wait_until_ready(&team, "mib/app", "1s"), "there is no identity yet");
    team.apply(&team.identity());
    assert!(wait_until_ready(&team, "mib/app", "60s"));
    assert_eq!(team.credentials().len(), 1, "ready means that Azure confirmed it");
    assert!(wait_until_ready(&team, &format!("mi/{}", team.name), "60s"));
    let mut without = team.identity();
    without["spec"]["allowedSubjects"] = json!([]);
    team.apply(&without);
    team.wait_condition("mib", "app", "Ready", "False", "NotAllowed");
    assert!(!wait_until_ready(&team, "mib/app", "1s"), "a revoked binding is not ready");
}

#[test]
fn kubectl_describe_and_get_report_at_each_stage_what_is_missing_and_who_has_to_act() {
    let team = Team::new("kubectl-stages");
    let name = team.name.clone();

    // The app team creates its binding first.
    team.apply(&team.binding("app", "app"));
    team.wait_condition("mib", "app", "Ready", "False", "ManagedIdentityNotFound");
    wait_told(&team, "mib", "app", "ManagedIdentityNotFound", &name);
    assert!(row(&team, "mib", "app").contains("ManagedIdentityNotFound"), "{}", row(&team, "mib", "app"));

    // The operator has created the object, but granted nothing.
    let mut identity = team.identity();
    identity["spec"]["allowedSubjects"] = json!([]);
    team.apply(&identity);
    team.wait_condition("mib", "app", "Ready", "False", "NotAllowed");
    wait_told(&team, "mib", "app", "NotAllowed", "a cluster operator has to add an entry to its spec.allowedSubjects");

    // Everything works.
    team.apply(&team.identity());
    let binding = team.wait_ready("app");
    let client_id = binding["status"]["clientID"].as_str().expect("a client ID").to_owned();
    for (kind, object) in [("mib", "app"), ("mi", name.as_str())] {
        let row = row(&team, kind, object);
        assert!(row.contains(&client_id) && row.contains("True"), "{row}");
    }
    let described = describe(&team, "mib", "app");
    let credential = binding["status"]["credential"]["name"].as_str().expect("a name");
    for shown in [credential, &client_id, &format!("system:serviceaccount:{name}:app")] {
        assert!(described.contains(shown), "{shown} in {described}");
    }

    // The identity is deleted in Azure.
    team.ensign.change_azure(|state| state.identities.retain(|_, found| found.id.name != name));
    // A change triggers a check immediately.
    team.apply(&team.binding("other", "other"));
    team.wait_condition("mib", "other", "Ready", "False", "IdentityNotFound");
    team.wait_condition("mib", "app", "Ready", "False", "IdentityNotFound");
    wait_told(&team, "mi", &name, "IdentityNotFound", "create it, or correct spec.existing.resourceID");
    assert!(!row(&team, "mib", "app").contains("True"), "{}", row(&team, "mib", "app"));
}
