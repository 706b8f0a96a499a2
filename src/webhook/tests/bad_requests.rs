//! Invalid requests are rejected and never cause a panic.

use super::*;

async fn rejected(body: impl Into<Body>) -> (StatusCode, String) {
    post(resolved_app(), "application/json", body).await
}

#[tokio::test]
async fn an_empty_body_is_rejected() {
    let (status, text) = rejected("").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(text.contains("empty"), "{text}");
}

#[tokio::test]
async fn a_body_that_is_not_json_is_rejected_with_the_position() {
    for body in ["garbage", "{\"apiVersion\":", "\u{0}", "{} {}"] {
        let (status, text) = rejected(body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
        assert!(text.contains("not JSON (line 1"), "{text}");
    }
}

#[tokio::test]
async fn json_that_is_not_a_review_is_rejected() {
    for body in ["{}", "[]", "null", "7", "\"x\"", "{\"apiVersion\": 7}"] {
        let (status, text) = rejected(body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}: {text}");
    }
}

#[tokio::test]
async fn another_version_or_kind_is_rejected_by_name() {
    for (change, named) in [
        (json!({"apiVersion": "admission.k8s.io/v1beta1"}), "admission.k8s.io/v1beta1"),
        (json!({"kind": "Pod"}), "\"Pod\""),
    ] {
        let (status, text) = rejected(review(&change).to_string()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(text.contains(named), "{text}");
    }
}

#[tokio::test]
async fn a_review_without_a_required_field_is_rejected_with_its_name() {
    for part in ["uid", "object", "namespace"] {
        let (status, text) = rejected(review(&json!({"request": {part: null}})).to_string()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(text.contains(&format!("no request.{part}")), "{text}");
    }
    let (_, text) = rejected(review(&json!({"request": null})).to_string()).await;
    assert!(text.contains("no request"), "{text}");
}

#[tokio::test]
async fn an_invalid_pod_is_rejected_without_repeating_its_content() {
    let spec = json!({"containers": [{"name": "app", "env": "c4nary-v4lue"}]});
    let (status, text) = rejected(review(&json!({"request": {"object": {"spec": spec}}})).to_string()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(text.contains("not an AdmissionReview of a pod"), "{text}");
    assert!(!text.contains("c4nary"), "{text}");
}

#[tokio::test]
async fn deep_nesting_is_rejected_in_fields_that_are_read() {
    let deep = "[".repeat(200_000);
    assert_eq!(rejected(deep.clone()).await.0, StatusCode::BAD_REQUEST);
    let review = review(&json!({"request": {"object": {"metadata": {"labels": "DEEP"}}}})).to_string();
    assert_eq!(rejected(review.replace("\"DEEP\"", &deep)).await.0, StatusCode::BAD_REQUEST);
    let unread = super::review(&json!({"request": {"userInfo": "DEEP"}})).to_string();
    assert_eq!(rejected(unread.replace("\"DEEP\"", &deep)).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn deep_nesting_is_harmless_in_fields_that_are_not_read() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let review = review(&json!({"request": {"userInfo": "DEEP"}})).to_string();
    assert_eq!(rejected(review.replace("\"DEEP\"", &deep)).await.0, StatusCode::OK);
}

#[tokio::test]
async fn another_content_type_is_rejected() {
    let body = review(&json!({})).to_string();
    for content_type in ["text/plain", "application/yaml", "application/jsonx", ""] {
        let (status, text) = post(resolved_app(), content_type, body.clone()).await;
        assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
        assert!(text.contains("application/json"), "{text}");
    }
    let (status, _) = post(resolved_app(), "Application/JSON; charset=utf-8", body).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn a_body_over_the_limit_is_rejected_and_one_of_three_mebibytes_is_read() {
    let padded = |bytes| review(&json!({"request": {"userInfo": "x".repeat(bytes)}})).to_string();
    assert_eq!(rejected(padded(3 * 1024 * 1024)).await.0, StatusCode::OK);
    assert_eq!(rejected(padded(4 * 1024 * 1024)).await.0, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn a_body_of_unknown_length_over_the_limit_is_rejected() {
    let chunks = (0..8).map(|_| Ok::<_, std::convert::Infallible>(bytes::Bytes::from(vec![b' '; 1024 * 1024])));
    let body = Body::from_stream(futures::stream::iter(chunks));
    assert_eq!(rejected(body).await.0, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn a_body_that_never_ends_times_out() {
    let limits = RequestLimits { deadline: Duration::ZERO, ..RequestLimits::default() };
    let app = app_within(filled([]), &Arc::default(), limits);
    let body = Body::from_stream(futures::stream::pending::<Result<bytes::Bytes, std::convert::Infallible>>());
    let (status, text) = post(app, "application/json", body).await;
    assert_eq!(status, StatusCode::REQUEST_TIMEOUT, "{text}");
}

#[tokio::test]
async fn a_request_without_capacity_is_rejected_with_retry_after() {
    let limits = RequestLimits { requests: 0, ..RequestLimits::default() };
    let request = Request::post("/mutate-pods").header(header::CONTENT_TYPE, "application/json");
    let request = request.body(Body::from(review(&json!({})).to_string())).unwrap();
    let response = app_within(filled([]), &Arc::default(), limits).oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()[header::RETRY_AFTER], "1");
}

#[tokio::test]
async fn other_paths_and_methods_are_rejected() {
    let get = Request::get("/mutate-pods").body(Body::empty()).unwrap();
    assert_eq!(resolved_app().oneshot(get).await.unwrap().status(), StatusCode::METHOD_NOT_ALLOWED);
    let post = Request::post("/").body(Body::empty()).unwrap();
    assert_eq!(resolved_app().oneshot(post).await.unwrap().status(), StatusCode::NOT_FOUND);
}

/// Collects log lines.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn every_rejection_logs_one_line_that_repeats_nothing_of_the_body() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let bodies = ["", "c4nary", "{\"c4nary\": ", "[7, \"c4nary\"]", "{\"kind\": [\"c4nary\"]}"];
    for body in bodies {
        assert!(rejected(body).await.0.is_client_error());
    }
    let text = String::from_utf8(log.0.lock().clone()).unwrap();
    assert_eq!(text.lines().filter(|line| line.contains("WARN")).count(), bodies.len(), "{text}");
    assert_eq!(text.lines().count(), bodies.len(), "{text}");
    assert!(!text.contains("c4nary"), "{text}");
}
