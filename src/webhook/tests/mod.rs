//! The webhook without Kubernetes: its router, its cache, and its TLS with a real client.

mod answers;
mod bad_requests;
mod cached;
mod compatible;
mod corpus;
mod live_lookups;
mod over_tls;

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use k8s_openapi::ByteString;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::binding_store::{Follower, Guarded};
use super::certificates::{Bundle, Usable};
use super::live_lookup::{Lookup, LookupError};
use super::*;
use ensign_core::admission::Binding;

/// Answers as told, and counts the questions.
#[derive(Default)]
struct FakeLookup {
    bindings: HashMap<String, Vec<Arc<Binding>>>,
    fails: bool,
    asked: Mutex<usize>,
}

#[async_trait]
impl Lookup for FakeLookup {
    async fn bindings(&self, namespace: &str) -> Result<Vec<Arc<Binding>>, LookupError> {
        *self.asked.lock().unwrap() += 1;
        if self.fails {
            return Err(LookupError::TimedOut { namespace: namespace.to_owned() });
        }
        Ok(self.bindings.get(namespace).cloned().unwrap_or_default())
    }
}

fn object(name: &str, change: &Value) -> Guarded {
    let mut object = json!({
        "apiVersion": "ensign.dev/v1alpha1",
        "kind": "ManagedIdentityBinding",
        "metadata": {"name": name, "namespace": "shop", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"identityRef": {"name": "orders"}, "serviceAccountName": "orders"},
        "status": {"clientID": "client", "tenantID": "tenant", "conditions": [{
            "type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]},
    });
    json_patch::merge(&mut object, change);
    serde_json::from_value(object).unwrap()
}

fn binding(change: &Value) -> Arc<Binding> {
    Arc::new(Binding::from(object("orders", change).0.as_ref().unwrap()))
}

fn filled(objects: impl IntoIterator<Item = Guarded>) -> Arc<Index> {
    let index = Arc::new(Index::default());
    let mut follower = Follower::new(Arc::clone(&index));
    follower.follow(&Event::Init);
    for object in objects {
        follower.follow(&Event::InitApply(object));
    }
    follower.follow(&Event::InitDone);
    index
}

fn app(index: Arc<Index>, lookup: &Arc<FakeLookup>) -> Router {
    app_within(index, lookup, RequestLimits::default())
}

fn app_within(index: Arc<Index>, lookup: &Arc<FakeLookup>, limits: RequestLimits) -> Router {
    let config = Config {
        authority_host: "https://login.example/".to_owned(),
        audience: "api://AzureADTokenExchange".to_owned(),
        excluded: BTreeSet::from(["kube-system".to_owned()]),
        compatibility: None,
        gate_pods: false,
    };
    let lookup: Arc<dyn Lookup> = lookup.clone();
    let admission = Admission::new(config, index, lookup, None, WebhookMetrics::default());
    server::router(Arc::new(admission), limits)
}

fn resolved_app() -> Router {
    app(filled([object("orders", &json!({}))]), &Arc::default())
}

fn review(change: &Value) -> Value {
    let mut review = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "0b7b2e5c",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": "shop",
            "operation": "CREATE",
            "object": {
                "metadata": {"generateName": "orders-"},
                "spec": {"serviceAccountName": "orders", "containers": [{"name": "app"}]},
            },
            "oldObject": null,
            "dryRun": false,
        },
    });
    json_patch::merge(&mut review, change);
    review
}

fn labelled(change: &Value) -> Value {
    let mut review = review(&json!({"request": {"object": {"metadata": {"labels": {"ensign.dev/inject": "true"}}}}}));
    json_patch::merge(&mut review, change);
    review
}

async fn post(app: Router, content_type: &str, body: impl Into<Body>) -> (StatusCode, String) {
    let request = Request::post("/mutate-pods").header(header::CONTENT_TYPE, content_type).body(body.into()).unwrap();
    let response = app.oneshot(request).await.unwrap();
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, String::from_utf8(body.into()).unwrap())
}

async fn ask(app: Router, review: &Value) -> Value {
    let (status, body) = post(app, "application/json", review.to_string()).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(answer["kind"], "AdmissionReview");
    answer["response"].clone()
}

fn patch_of(response: &Value) -> json_patch::Patch {
    assert_eq!(response["patchType"], "JSONPatch");
    let bytes: ByteString = serde_json::from_value(response["patch"].clone()).unwrap();
    serde_json::from_slice(&bytes.0).unwrap()
}
