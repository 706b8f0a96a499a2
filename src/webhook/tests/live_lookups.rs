//! When the API server is asked.

use super::*;

fn finds(change: &Value) -> Arc<FakeLookup> {
    let bindings = [("shop".to_owned(), vec![binding(change)])].into();
    Arc::new(FakeLookup { bindings, ..FakeLookup::default() })
}

fn asked(lookup: &FakeLookup) -> usize {
    *lookup.asked.lock()
}

#[tokio::test]
async fn a_labelled_pod_without_a_cached_binding_is_looked_up_before_it_is_refused() {
    let lookup = finds(&json!({}));
    let response = ask(app(filled([]), &lookup), &labelled(&json!({}))).await;
    assert_eq!(response["allowed"], true);
    assert!(response["patch"].is_string());
    assert_eq!(asked(&lookup), 1);
}

#[tokio::test]
async fn a_cached_binding_that_was_not_judged_yet_is_looked_up_too() {
    let lookup = finds(&json!({}));
    let index = filled([object("orders", &json!({"status": null}))]);
    assert_eq!(ask(app(index, &lookup), &labelled(&json!({}))).await["allowed"], true);
}

#[tokio::test]
async fn what_is_decided_from_the_cache_asks_nobody() {
    let lookup = finds(&json!({}));
    let index = filled([object("orders", &json!({}))]);
    ask(app(Arc::clone(&index), &lookup), &labelled(&json!({}))).await;
    ask(app(Arc::clone(&index), &lookup), &review(&json!({}))).await;
    let unmatched = json!({"request": {"object": {"spec": {"serviceAccountName": "other"}}}});
    ask(app(index, &lookup), &review(&unmatched)).await;
    assert_eq!(asked(&lookup), 0);
}

#[tokio::test]
async fn a_clash_in_the_pod_itself_asks_nobody() {
    let lookup = finds(&json!({}));
    let volumes = json!([{"name": "azure-identity-token", "emptyDir": {}}]);
    let clash = review(&json!({"request": {"object": {"spec": {"volumes": volumes}}}}));
    let response = ask(app(filled([object("orders", &json!({}))]), &lookup), &clash).await;
    assert_eq!(response["allowed"], false);
    assert_eq!(asked(&lookup), 0);
}

#[tokio::test]
async fn a_lookup_that_fails_leaves_the_cached_refusal() {
    let lookup = Arc::new(FakeLookup { fails: true, ..FakeLookup::default() });
    assert_eq!(ask(app(filled([]), &lookup), &labelled(&json!({}))).await["allowed"], false);
}

#[tokio::test]
async fn before_the_cache_is_complete_every_pod_is_looked_up() {
    let lookup = finds(&json!({}));
    let response = ask(app(Arc::default(), &lookup), &review(&json!({}))).await;
    assert!(response["patch"].is_string());
    assert_eq!(asked(&lookup), 1);
}

#[tokio::test]
async fn before_the_cache_is_complete_a_failed_lookup_is_no_answer() {
    let lookup = Arc::new(FakeLookup { fails: true, ..FakeLookup::default() });
    let body = review(&json!({})).to_string();
    let (status, text) = post(app(Arc::default(), &lookup), "application/json", body).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(text.contains("retry"), "{text}");
}

#[tokio::test]
async fn pods_that_bindings_have_no_say_in_never_wait_for_the_cache() {
    let lookup = Arc::new(FakeLookup { fails: true, ..FakeLookup::default() });
    let excluded = review(&json!({"request": {"namespace": "kube-system"}}));
    assert_eq!(ask(app(Arc::default(), &lookup), &excluded).await["allowed"], true);
}
