//! Pods that are refused, with who has to do what.

use ensign_api::keys::{TOKEN_MOUNT_PATH, TOKEN_VOLUME};
use serde_json::json;

use super::{bound_team, granted_team, refused, says, team};
use ensign_testkit::objects::wait_for;
use ensign_testkit::pods::{env, labelled, pod};

#[test]
fn a_labelled_pod_without_a_binding_is_refused_in_any_namespace() {
    // That labelled pods are judged at all is known of a granted namespace.
    let (_, elsewhere) = (granted_team("anywhere"), team("labelled-elsewhere"));
    let asks = pod(&elsewhere.name, &labelled());
    let refusal = elsewhere.create(&asks).expect_err("refused");
    for part in ["Create a ManagedIdentityBinding", "spec.serviceAccountName: app"] {
        assert!(says(&asks, &refusal, part) && refusal.contains(part), "{part} is missing: {refusal}");
    }
}

#[test]
fn a_binding_that_is_not_accepted_refuses_labelled_pods_with_its_reason_and_leaves_others_alone() {
    let team = granted_team("refused");
    let mut identity = team.identity();
    identity["spec"]["allowedSubjects"][0]["serviceAccounts"] = json!(["probe"]);
    team.apply(&identity);
    team.apply(&team.binding("app", "app"));
    team.wait_condition("mib", "app", "Accepted", "False", "NotAllowed");
    let asks = pod(&team.name, &labelled());
    refused(&team, &asks, "is not accepted (NotAllowed)");
    refused(&team, &asks, "spec.allowedSubjects");
    let admitted = team.create(&pod(&team.name, &json!({}))).expect("admitted");
    assert!(env(&admitted["spec"]["containers"][0]).is_empty());
}

#[test]
fn an_identity_that_is_not_resolved_refuses_pods_and_says_what_to_do() {
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
    let refusal = refused(&team, &asks, "the client ID of ManagedIdentity/");
    assert!(says(&asks, &refusal, &format!("kubectl describe mib app -n {}", team.name)), "{refusal}");
}

#[test]
fn what_is_in_the_way_of_the_token_refuses_the_pod_and_is_named() {
    let (team, _) = bound_team("clash");
    team.injected(&pod(&team.name, &json!({})));
    let mounts = json!([{"name": "data", "mountPath": TOKEN_MOUNT_PATH}]);
    let mounting = json!({"spec": {
        "volumes": [{"name": "data", "emptyDir": {}}],
        "containers": [{"name": "app", "image": "x", "volumeMounts": mounts}],
    }});
    let wanted = format!("container \"app\" mounts volume \"data\" at \"{TOKEN_MOUNT_PATH}\", which conflicts with");
    refused(&team, &pod(&team.name, &mounting), &wanted);
    let volume = json!({"spec": {"volumes": [{"name": TOKEN_VOLUME, "emptyDir": {}}]}});
    refused(&team, &pod(&team.name, &volume), "rename or remove the volume");
}

#[test]
fn a_labelled_pod_right_behind_its_binding_is_injected_as_soon_as_the_binding_is_accepted() {
    let team = granted_team("helm");
    team.apply(&team.binding("app", "app"));
    // As a Deployment does it: refused until the controller has judged the binding, and then injected.
    let asks = pod(&team.name, &labelled());
    let admitted = wait_for("the pod to be admitted", || match team.create(&asks) {
        Ok(admitted) => Some(admitted),
        Err(refusal) => {
            assert!(says(&asks, &refusal, "app"), "{refusal}");
            None
        }
    });
    assert_eq!(env(&admitted["spec"]["containers"][0]).len(), 4);
}
