//! Responses to reviews.

use super::*;

#[tokio::test]
async fn a_matched_pod_is_allowed_with_a_patch_that_injects_it() {
    let review = review(&json!({}));
    let response = ask(resolved_app(), &review).await;
    assert_eq!(response["uid"], "0b7b2e5c");
    assert_eq!(response["allowed"], true);
    let mut pod = review["request"]["object"].clone();
    json_patch::patch(&mut pod, &patch_of(&response)).unwrap();
    assert_eq!(pod["spec"]["containers"][0]["env"][0], json!({"name": "AZURE_CLIENT_ID", "value": "client"}));
}

#[tokio::test]
async fn an_unmatched_pod_is_allowed_without_a_patch() {
    let other = review(&json!({"request": {"object": {"spec": {"serviceAccountName": "other"}}}}));
    assert_eq!(ask(resolved_app(), &other).await, json!({"uid": "0b7b2e5c", "allowed": true}));
}

#[tokio::test]
async fn a_dry_run_gets_the_same_response() {
    let dry = ask(resolved_app(), &review(&json!({"request": {"dryRun": true}}))).await;
    assert_eq!(dry, ask(resolved_app(), &review(&json!({}))).await);
}

#[tokio::test]
async fn a_denial_has_a_code_a_reason_and_a_message() {
    let response = ask(app(filled([]), &Arc::default()), &labelled(&json!({}))).await;
    assert_eq!(response["allowed"], false);
    assert_eq!(response["status"]["code"], 403);
    assert_eq!(response["status"]["reason"], "Forbidden");
    assert!(response["status"]["message"].as_str().unwrap().contains("Create a ManagedIdentityBinding"));
}

#[tokio::test]
async fn warnings_are_passed_on() {
    let env = json!([{"name": "AZURE_CLIENT_ID", "value": "mine"}]);
    let containers = json!([{"name": "app", "env": env}]);
    let response =
        ask(resolved_app(), &review(&json!({"request": {"object": {"spec": {"containers": containers}}}}))).await;
    let warnings = response["warnings"].as_array().unwrap();
    assert!(warnings.len() == 1 && warnings[0].as_str().unwrap().contains("AZURE_CLIENT_ID"), "{warnings:?}");
}

#[tokio::test]
async fn the_namespace_of_the_request_takes_precedence_over_that_of_the_pod() {
    let elsewhere = json!({"request": {"object": {"metadata": {"namespace": "elsewhere"}}}});
    assert!(ask(resolved_app(), &review(&elsewhere)).await["patch"].is_string());
    let fallback = json!({"request": {"namespace": null, "object": {"metadata": {"namespace": "shop"}}}});
    assert!(ask(resolved_app(), &review(&fallback)).await["patch"].is_string());
}

#[tokio::test]
async fn other_operations_and_resources_are_allowed_unchanged() {
    let others = [
        json!({"operation": "UPDATE"}),
        json!({"operation": "DELETE", "object": null}),
        json!({"subResource": "ephemeralcontainers"}),
        json!({"resource": {"group": "apps", "resource": "deployments"}, "object": {"spec": {"containers": 7}}}),
        json!({"resource": {"resource": "pods", "group": "metrics.k8s.io"}}),
    ];
    for change in others {
        let response = ask(resolved_app(), &review(&json!({"request": change}))).await;
        assert_eq!(response, json!({"uid": "0b7b2e5c", "allowed": true}), "{change}");
    }
}
