//! When bindings are read from the API server.

use super::*;

fn finding(change: &Value) -> Arc<FakeLookup> {
    let bindings = [("shop".to_owned(), vec![binding(change)])].into();
    Arc::new(FakeLookup { bindings, ..FakeLookup::default() })
}

fn calls(lookup: &FakeLookup) -> usize {
    *lookup.calls.lock()
}

#[tokio::test]
async fn bindings_are_looked_up_before_a_labelled_pod_without_a_cached_binding_is_denied() {
    let lookup = finding(&json!({}));
    let response = ask(app(filled([]), &lookup), &labelled(&json!({}))).await;
    assert_eq!(response["allowed"], true);
    assert!(response["patch"].is_string());
    assert_eq!(calls(&lookup), 1);
}

#[tokio::test]
async fn bindings_are_looked_up_when_the_cached_one_has_no_status_yet() {
    let lookup = finding(&json!({}));
    let index = filled([object("orders", &json!({"status": null}))]);
    assert_eq!(ask(app(index, &lookup), &labelled(&json!({}))).await["allowed"], true);
}

#[tokio::test]
async fn decisions_from_the_cache_need_no_lookup() {
    let lookup = finding(&json!({}));
    let index = filled([object("orders", &json!({}))]);
    ask(app(Arc::clone(&index), &lookup), &labelled(&json!({}))).await;
    ask(app(Arc::clone(&index), &lookup), &review(&json!({}))).await;
    let unmatched = json!({"request": {"object": {"spec": {"serviceAccountName": "other"}}}});
    ask(app(index, &lookup), &review(&unmatched)).await;
    assert_eq!(calls(&lookup), 0);
}

#[tokio::test]
async fn a_clash_within_the_pod_needs_no_lookup() {
    let lookup = finding(&json!({}));
    let volumes = json!([{"name": "azure-identity-token", "emptyDir": {}}]);
    let clash = review(&json!({"request": {"object": {"spec": {"volumes": volumes}}}}));
    let response = ask(app(filled([object("orders", &json!({}))]), &lookup), &clash).await;
    assert_eq!(response["allowed"], false);
    assert_eq!(calls(&lookup), 0);
}

#[tokio::test]
async fn a_failed_lookup_leaves_the_denial_from_the_cache() {
    let lookup = Arc::new(FakeLookup { fails: true, ..FakeLookup::default() });
    assert_eq!(ask(app(filled([]), &lookup), &labelled(&json!({}))).await["allowed"], false);
}

#[tokio::test]
async fn until_the_cache_is_complete_bindings_are_looked_up_for_every_pod() {
    let lookup = finding(&json!({}));
    let response = ask(app(Arc::default(), &lookup), &review(&json!({}))).await;
    assert!(response["patch"].is_string());
    assert_eq!(calls(&lookup), 1);
}

#[tokio::test]
async fn until_the_cache_is_complete_a_failed_lookup_fails_the_request() {
    let lookup = Arc::new(FakeLookup { fails: true, ..FakeLookup::default() });
    let body = review(&json!({})).to_string();
    let (status, text) = post(app(Arc::default(), &lookup), "application/json", body).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(text.contains("retry"), "{text}");
}

#[tokio::test]
async fn pods_that_bindings_cannot_affect_never_wait_for_the_cache() {
    let lookup = Arc::new(FakeLookup { fails: true, ..FakeLookup::default() });
    let excluded = review(&json!({"request": {"namespace": "kube-system"}}));
    assert_eq!(ask(app(Arc::default(), &lookup), &excluded).await["allowed"], true);
}
