//! Pods that were admitted before their binding, and so are not injected, are reported.

use ensign_api::keys::INJECT_LABEL;
use serde_json::{Value, json};

use super::team;
use ensign_testkit::objects::{condition_of, wait_for};

#[test]
fn pods_older_than_their_binding_are_reported_with_the_remedy_until_recreated() {
    let team = team("missed");
    team.deployment("api", &json!({}));
    team.deployment("out", &json!({INJECT_LABEL: "false"}));
    team.deployment("done", &json!({}));
    for pod in team.pods("done") {
        let name = pod["metadata"]["name"].as_str().expect("a name");
        let patch = json!({"status": {"phase": "Succeeded"}}).to_string();
        team.kubectl(&["patch", "pod", name, "--subresource", "status", "--type", "merge", "--patch", &patch]);
    }
    // A ReplicaSet replaces pods that have ended, and the replacements would count as uninjected as well.
    team.kubectl(&["scale", "deployment", "done", "--replicas=0"]);
    wait_for("only completed pods to be left", || {
        team.pods("done").iter().all(|pod| pod["status"]["phase"] == "Succeeded").then_some(())
    });
    team.apply(&team.identity());
    team.apply(&team.binding("app", "app"));
    let binding = team.wait_condition("mib", "app", "PodsInjected", "False", "PodsNotInjected");
    let message = condition_of(&binding, "PodsInjected").expect("a condition")["message"].clone();
    let message = message.as_str().expect("a message");
    let restart = format!("`kubectl rollout restart deployment/api -n {}`", team.name);
    assert!(message.starts_with("2 pods were") && message.contains("deployment/api (2 pods)"), "{message}");
    assert!(message.contains(&restart), "{message}");
    assert_eq!(condition_of(&binding, "Ready").expect("a condition")["status"], "True", "the identity works");
    assert_eq!(condition_of(&binding, "Stalled"), None);
    let told = wait_for("a Warning event", || team.warnings("app").first().cloned());
    assert!(told.0 == "PodsNotInjected" && told.1.contains(&restart), "{told:?}");

    // Once: kubectl rejects a second restart within a second.
    team.kubectl(&["rollout", "restart", "deployment/api"]);
    wait_for("the restarted pods to be injected", || {
        // There is no kubelet that would terminate pods.
        team.kubectl(&["delete", "pods", "--selector", "app=api", "--force", "--grace-period=0"]);
        let injected = |pod: &Value| pod["spec"]["containers"][0]["env"].is_array();
        wait_for("new pods", || (!team.pods("api").is_empty()).then_some(()));
        team.pods("api").iter().all(injected).then_some(())
    });
    // A change of the spec triggers a check immediately.
    let patch = json!({"spec": {"injection": {"tokenExpirationSeconds": 7200}}}).to_string();
    team.kubectl(&["patch", "mib", "app", "--type", "merge", "--patch", &patch]);
    wait_for("the condition to be removed", || {
        let binding = team.get("mib", "app")?;
        condition_of(&binding, "PodsInjected").is_none().then_some(())
    });
    assert_eq!(team.warnings("app").iter().filter(|(reason, _)| reason == "PodsNotInjected").count(), 1);
}

#[test]
fn pods_without_a_chosen_container_do_not_count_as_uninjected() {
    let team = team("unchosen");
    team.deployment("api", &json!({}));
    team.apply(&team.identity());
    let mut elsewhere = team.binding("elsewhere", "app");
    elsewhere["spec"]["injection"] = json!({"containers": {"include": ["sidecar"]}, "clientIDEnv": "OTHER_CLIENT_ID"});
    team.apply(&elsewhere);
    team.wait_ready("elsewhere");
    // This binding is checked after that one.
    let mut here = team.binding("here", "app");
    here["spec"]["injection"] = json!({"containers": {"include": ["app"]}});
    team.apply(&here);
    team.wait_condition("mib", "here", "PodsInjected", "False", "PodsNotInjected");
    let binding = team.get("mib", "elsewhere").expect("the binding");
    assert_eq!(condition_of(&binding, "PodsInjected"), None);
}
