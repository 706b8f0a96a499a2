//! Pods that were admitted before their binding could inject them are found, on the real API server.

use ensign_api::keys::INJECT_LABEL;
use serde_json::{Value, json};

use super::team;
use ensign_testkit::objects::{condition_of, wait_for};

#[test]
fn pods_that_came_before_their_binding_are_named_with_their_cure_until_they_are_made_anew() {
    let team = team("missed");
    team.deployment("api", &json!({}));
    team.deployment("out", &json!({INJECT_LABEL: "false"}));
    team.deployment("done", &json!({}));
    for pod in team.pods("done") {
        let name = pod["metadata"]["name"].as_str().expect("a name");
        let patch = json!({"status": {"phase": "Succeeded"}}).to_string();
        team.kubectl(&["patch", "pod", name, "--subresource", "status", "--type", "merge", "--patch", &patch]);
    }
    // A ReplicaSet replaces pods that have ended, and these replacements would be missed as well.
    team.kubectl(&["scale", "deployment", "done", "--replicas=0"]);
    wait_for("only ended pods to be left", || {
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

    wait_for("the restarted pods to be injected", || {
        team.kubectl(&["rollout", "restart", "deployment/api"]);
        // Nobody ends pods here: there is no kubelet.
        team.kubectl(&["delete", "pods", "--selector", "app=api", "--force", "--grace-period=0"]);
        let injected = |pod: &Value| pod["spec"]["containers"][0]["env"].is_array();
        wait_for("new pods", || (!team.pods("api").is_empty()).then_some(()));
        team.pods("api").iter().all(injected).then_some(())
    });
    // A change of the spec asks for a look right away.
    let patch = json!({"spec": {"injection": {"tokenExpirationSeconds": 7200}}}).to_string();
    team.kubectl(&["patch", "mib", "app", "--type", "merge", "--patch", &patch]);
    wait_for("the condition to go", || {
        let binding = team.get("mib", "app")?;
        condition_of(&binding, "PodsInjected").is_none().then_some(())
    });
    assert_eq!(team.warnings("app").iter().filter(|(reason, _)| reason == "PodsNotInjected").count(), 1);
}

#[test]
fn pods_whose_containers_the_binding_does_not_choose_were_not_missed() {
    let team = team("unchosen");
    team.deployment("api", &json!({}));
    team.apply(&team.identity());
    let mut elsewhere = team.binding("elsewhere", "app");
    elsewhere["spec"]["injection"] = json!({"containers": {"include": ["sidecar"]}, "clientIDEnv": "OTHER_CLIENT_ID"});
    team.apply(&elsewhere);
    team.wait_ready("elsewhere");
    // The look at this one comes after the look at that one.
    let mut here = team.binding("here", "app");
    here["spec"]["injection"] = json!({"containers": {"include": ["app"]}});
    team.apply(&here);
    team.wait_condition("mib", "here", "PodsInjected", "False", "PodsNotInjected");
    let binding = team.get("mib", "elsewhere").expect("the binding");
    assert_eq!(condition_of(&binding, "PodsInjected"), None);
}
