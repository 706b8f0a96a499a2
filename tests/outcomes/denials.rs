//! Pods that are denied with the remedy.

use ensign_api::keys::{TOKEN_MOUNT_PATH, TOKEN_VOLUME};
use serde_json::json;

use super::{bound_team, granted_team, is_denied_with, team, wait_denied};
use ensign_testkit::objects::wait_for;
use ensign_testkit::pods::{env, labelled, pod};

#[test]
fn a_labelled_pod_without_a_binding_is_denied_in_any_namespace() {
    // A granted namespace shows that labelled pods are validated.
    let (_, elsewhere) = (granted_team("anywhere"), team("labelled-elsewhere"));
    let asks = pod(&elsewhere.name, &labelled());
    let refusal = elsewhere.create(&asks).expect_err("denied");
    for part in ["Create a ManagedIdentityBinding", "spec.serviceAccountName: app"] {
        assert!(is_denied_with(&asks, &refusal, part) && refusal.contains(part), "{part} is missing: {refusal}");
    }
}

#[test]
fn labelled_pods_of_a_rejected_binding_are_denied_with_its_reason_and_others_admitted_unchanged() {
    let team = granted_team("refused");
    let mut identity = team.identity();
    identity["spec"]["allowedSubjects"][0]["serviceAccounts"] = json!(["probe"]);
    team.apply(&identity);
    team.apply(&team.binding("app", "app"));
    team.wait_condition("mib", "app", "Accepted", "False", "NotAllowed");
    let asks = pod(&team.name, &labelled());
    wait_denied(&team, &asks, "is not accepted (NotAllowed)");
    wait_denied(&team, &asks, "spec.allowedSubjects");
    let admitted = team.create(&pod(&team.name, &json!({}))).expect("admitted");
    assert!(env(&admitted["spec"]["containers"][0]).is_empty());
}

#[test]
fn pods_of_an_unresolved_identity_are_denied_with_the_remedy() {
    let team = granted_team("unresolved");
    let (absent, other) = (format!("{}-absent", team.name), format!("{}-other", team.name));
    let mut identity = team.identity();
    identity["metadata"]["name"] = json!(other);
    identity["spec"]["existing"]["resourceID"] = json!(team.ensign.arm_id(&absent));
    team.apply(&identity);
    let mut binding = team.binding("app", "app");
    binding["spec"]["identityRef"]["name"] = json!(other);
    team.apply(&binding);
    team.wait_condition("mib", "app", "IdentityResolved", "False", "IdentityNotFound");
    let asks = pod(&team.name, &json!({}));
    let refusal = wait_denied(&team, &asks, "the client ID of ManagedIdentity/");
    assert!(is_denied_with(&asks, &refusal, &format!("kubectl describe mib app -n {}", team.name)), "{refusal}");
}

#[test]
fn a_conflicting_mount_denies_the_pod_and_is_named() {
    let (team, _) = bound_team("clash");
    team.injected(&pod(&team.name, &json!({})));
    let mounts = json!([{"name": "data", "mountPath": TOKEN_MOUNT_PATH}]);
    let mounting = json!({"spec": {
        "volumes": [{"name": "data", "emptyDir": {}}],
        "containers": [{"name": "app", "image": "x", "volumeMounts": mounts}],
    }});
    let wanted = format!("container \"app\" mounts volume \"data\" at \"{TOKEN_MOUNT_PATH}\", which conflicts with");
    wait_denied(&team, &pod(&team.name, &mounting), &wanted);
    let volume = json!({"spec": {"volumes": [{"name": TOKEN_VOLUME, "emptyDir": {}}]}});
    wait_denied(&team, &pod(&team.name, &volume), "rename or remove the volume");
}

#[test]
fn a_labelled_pod_right_after_its_binding_is_injected_once_the_binding_is_accepted() {
    let team = granted_team("helm");
    team.apply(&team.binding("app", "app"));
    // As for a Deployment: denied until the controller has accepted the binding, and then injected.
    let asks = pod(&team.name, &labelled());
    let admitted = wait_for("the pod to be admitted", || match team.create(&asks) {
        Ok(admitted) => Some(admitted),
        Err(refusal) => {
            assert!(is_denied_with(&asks, &refusal, "app"), "{refusal}");
            None
        }
    });
    assert_eq!(env(&admitted["spec"]["containers"][0]).len(), 4);
}
