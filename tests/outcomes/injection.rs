//! Pods that are injected, and what is injected.

use ensign_api::keys::{INJECT_LABEL, INJECTED_BY_ANNOTATION, TOKEN_FILE, TOKEN_MOUNT_PATH, TOKEN_PATH, TOKEN_VOLUME};
use ensign_core::cel::Mode;
use serde_json::{Value, json};

use super::{bound_team, granted_team, team};
use crate::INJECTION;
use ensign_testkit::azure::AUDIENCE;
use ensign_testkit::objects::{Team, condition_of, kubectl, wait_for};
use ensign_testkit::pods::{create, env, env_names, labelled, pod};

#[test]
fn a_pod_that_a_ready_binding_matches_is_injected() {
    let (team, binding) = bound_team("inject");
    let admitted = team.injected(&pod(&team.name, &json!({})));
    let info = team.ensign.azure.info();
    assert_eq!(
        env(&admitted["spec"]["containers"][0]),
        [
            ("AZURE_CLIENT_ID", binding["status"]["clientID"].as_str().expect("a client ID")),
            ("AZURE_TENANT_ID", info.tenant_id.as_str()),
            ("AZURE_FEDERATED_TOKEN_FILE", TOKEN_FILE),
            ("AZURE_AUTHORITY_HOST", info.authority_host.as_str()),
        ]
    );
    let mount = json!({"name": TOKEN_VOLUME, "mountPath": TOKEN_MOUNT_PATH, "readOnly": true});
    assert_eq!(admitted["spec"]["containers"][0]["volumeMounts"], json!([mount]));
    let token = json!({"path": TOKEN_PATH, "audience": AUDIENCE, "expirationSeconds": 3600});
    let projected = json!({"defaultMode": 420, "sources": [{"serviceAccountToken": token}]});
    assert_eq!(admitted["spec"]["volumes"], json!([{"name": TOKEN_VOLUME, "projected": projected}]));
    let by = format!("app=ManagedIdentity/{}", team.name);
    assert_eq!(admitted["metadata"]["annotations"][INJECTED_BY_ANNOTATION], by);
}

#[test]
fn an_unmatched_pod_of_a_granted_namespace_is_as_it_would_be_without_ensign() {
    let (granted, plain) = (granted_team("unmatched"), team("without-grant"));
    let stored = |team: &Team| {
        let pod = pod(&team.name, &json!({"metadata": {"name": "same", "annotations": {"a": "b"}}}));
        let mut stored = team.create(&pod).expect("admitted");
        let metadata = stored["metadata"].as_object_mut().expect("metadata");
        metadata.retain(|key, _| ["name", "labels", "annotations"].contains(&key.as_str()));
        stored
    };
    assert_eq!(stored(&granted), stored(&plain));
}

#[test]
fn a_pod_that_opts_out_is_unchanged() {
    let (team, _) = bound_team("out");
    team.injected(&pod(&team.name, &json!({})));
    let admitted = team.dry_run(&pod(&team.name, &json!({"metadata": {"labels": {INJECT_LABEL: "false"}}})));
    let admitted = admitted.expect("admitted");
    assert_eq!(env(&admitted["spec"]["containers"][0]), []);
    assert!(admitted["spec"]["volumes"].is_null() && admitted["metadata"]["annotations"].is_null(), "{admitted:#}");
}

#[test]
fn each_container_gets_the_identities_that_choose_it_and_all_share_one_token() {
    let team = granted_team("several");
    for (name, env, containers) in [
        ("first", "AZURE_CLIENT_ID", json!({})),
        ("second", "SECOND", json!({"exclude": ["sidecar"]})),
        ("third", "THIRD", json!({"include": ["sidecar", "app"]})),
    ] {
        let mut binding = team.binding(name, "app");
        binding["spec"]["injection"] = json!({"clientIDEnv": env, "containers": containers});
        team.apply(&binding);
    }
    for name in ["first", "second", "third"] {
        team.wait_ready(name);
    }
    let pod = pod(
        &team.name,
        &json!({"spec": {
            "initContainers": [
                {"name": "setup", "image": "x"}, {"name": "sidecar", "image": "x", "restartPolicy": "Always"}],
            "volumes": [{"name": "data", "emptyDir": {}}],
            "containers": [{
                "name": "app", "image": "x", "env": [{"name": "MINE", "value": "1"}],
                "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
        }}),
    );
    let all = ["first", "second", "third"].map(|name| format!("{name}=ManagedIdentity/{}", team.name));
    let (admitted, by) = wait_for("every binding to inject", || {
        let admitted = team.dry_run(&pod).ok()?;
        let by = admitted["metadata"]["annotations"][INJECTED_BY_ANNOTATION].as_str()?.to_owned();
        (by.split(',').count() == all.len()).then_some((admitted, by))
    });
    // Policies know no order: docs/injection-policy.md.
    let in_order = |mut names: Vec<String>| {
        if INJECTION == Mode::Policy {
            names.sort_unstable();
        }
        names
    };
    assert_eq!(in_order(by.split(',').map(str::to_owned).collect()), all);
    let shared = ["AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_AUTHORITY_HOST"];
    let [init, app] = ["initContainers", "containers"].map(|list| &admitted["spec"][list]);
    for (container, own) in
        [(&init[0], &["SECOND"][..]), (&init[1], &["THIRD"]), (&app[0], &["MINE", "SECOND", "THIRD"])]
    {
        let mut names = env_names(container);
        let mut wanted = [&shared[..], own].concat();
        names.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(names, wanted, "{container:#}");
        assert_eq!(
            container["volumeMounts"].as_array().into_iter().flatten().last().expect("a mount")["name"],
            TOKEN_VOLUME
        );
    }
    assert_eq!(env(&app[0])[0], ("MINE", "1"), "existing variables stay first");
    assert_eq!(admitted["spec"]["volumes"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_dry_run_equals_a_creation_also_with_a_generated_name() {
    let (team, _) = bound_team("generated");
    let pod = pod(&team.name, &json!({"metadata": {"name": null, "generateName": "web-"}}));
    let tried = team.injected(&pod);
    let stored = team.create(&pod).expect("admitted");
    assert_eq!(stored["spec"], tried["spec"]);
    assert_eq!(stored["metadata"]["annotations"], tried["metadata"]["annotations"]);
    assert!(stored["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("web-")));
}

#[test]
fn a_copy_of_an_injected_pod_is_admitted_unchanged() {
    let (team, _) = bound_team("again");
    let first = team.created(&pod(&team.name, &labelled()));
    let mut copy = pod(&team.name, &labelled());
    copy["spec"] = first["spec"].clone();
    let second = team.create(&copy).expect("admitted");
    assert_eq!(second["spec"], first["spec"]);
    assert_eq!(second["metadata"]["annotations"], first["metadata"]["annotations"]);
}

#[test]
fn pods_of_a_deployment_are_injected() {
    let (team, _) = bound_team("deployment");
    let labels = json!({"app": "app", INJECT_LABEL: "true"});
    team.apply(&json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "app", "namespace": team.name},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": "app"}},
            "template": {"metadata": {"labels": labels}, "spec": {
                "serviceAccountName": "app",
                "initContainers": [{"name": "sidecar", "image": "sidecar:1", "restartPolicy": "Always"}],
                "containers": [{"name": "app", "image": "app:1"}],
            }},
        },
    }));
    let pods = wait_for("the pods of the Deployment", || {
        let arguments = ["get", "pods", "--namespace", &team.name, "--selector", "app=app", "--output", "json"];
        let list: Value = serde_json::from_str(&kubectl(team.ensign.control_plane, &arguments)).expect("a list");
        list["items"].as_array().filter(|pods| pods.len() == 2).cloned()
    });
    for pod in pods {
        assert_eq!(env(&pod["spec"]["initContainers"][0]).len(), 4, "{pod:#}");
        assert_eq!(env(&pod["spec"]["containers"][0]).len(), 4, "{pod:#}");
    }
}

#[test]
fn a_known_identity_is_injected_while_azure_is_unavailable() {
    let (team, binding) = bound_team("away");
    let rule = json!([{
        "match": {"pathContains": format!("/{}", team.name)}, "times": 1_000_000, "action": {"status": 503},
    }]);
    team.ensign.azure.set_faults(serde_json::from_value(rule).expect("a rule"));
    let before = team.ensign.arm_lists(&team.name);
    // An annotation triggers a check.
    kubectl(team.ensign.control_plane, &["annotate", "managedidentity", &team.name, "look=again"]);
    wait_for("the controller to find Azure unavailable", || {
        (team.ensign.arm_lists(&team.name) > before + 1).then_some(())
    });
    let admitted = team.created(&pod(&team.name, &labelled()));
    team.ensign.azure.set_faults(Vec::new());
    assert_eq!(env(&admitted["spec"]["containers"][0])[0].1, binding["status"]["clientID"]);
    let binding = team.get("mib", "app").expect("the binding");
    assert_eq!(condition_of(&binding, "Ready").map(|ready| &ready["status"]), Some(&json!("True")));
}

#[test]
fn a_deleted_binding_injects_no_more() {
    let (team, _) = bound_team("deleted");
    team.created(&pod(&team.name, &labelled()));
    team.delete("mib", "app");
    team.wait_deleted("mib", "app");
    wait_for("the deletion to take effect", || {
        let admitted = team.dry_run(&pod(&team.name, &json!({}))).expect("admitted");
        env(&admitted["spec"]["containers"][0]).is_empty().then_some(())
    });
    team.dry_run(&pod(&team.name, &labelled())).expect_err("a labelled pod is denied");
}

#[test]
fn an_existing_client_id_is_kept_and_the_webhook_warns_about_it() {
    let (team, _) = bound_team("kept");
    let change = json!({
        "metadata": {"labels": {INJECT_LABEL: "true"}},
        "spec": {"containers": [{"name": "app", "image": "x", "env": [{"name": "AZURE_CLIENT_ID", "value": "mine"}]}]},
    });
    let admitted = team.created(&pod(&team.name, &change));
    let variables = env(&admitted["spec"]["containers"][0]);
    assert_eq!((variables.len(), variables[0]), (4, ("AZURE_CLIENT_ID", "mine")));
    // As an error, kubectl prints the warning where this test reads it.
    let said = create(team.ensign.control_plane, &pod(&team.name, &change), &["--warnings-as-errors"]);
    match INJECTION {
        Mode::Webhook => {
            let said = said.expect_err("a warning");
            assert!(said.contains("AZURE_CLIENT_ID keeps its value \"mine\""), "{said}");
        }
        // A mutating policy can't warn: docs/injection-policy.md.
        Mode::Policy => drop(said.expect("admitted without a warning")),
    }
}
