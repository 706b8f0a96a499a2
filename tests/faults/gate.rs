//! The gate between the controller under test and the API server.
//!
//! It limits the controller to the objects of its plan, can hold and cut watches, respond with an old list or an
//! error, and lose responses. Everything else comes from the real API server.

mod layer;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response};
use kube::client::Body as KubeBody;
use serde_json::{Value, json};
use tokio::sync::watch;
use tower::{BoxError, Service};

use layer::AnyResponse;
pub use layer::GateLayer;

use super::history::History;
use super::lock::lock;

pub const LABEL: &str = "faults.ensign.test/plan";
const COLLECTIONS: [&str; 4] = [
    "/apis/ensign.dev/v1alpha1/managedidentities",
    "/apis/ensign.dev/v1alpha1/managedidentitybindings",
    "/apis/ensign.dev/v1alpha1/managedidentityclasses",
    NAMESPACES,
];
const NAMESPACES: &str = "/api/v1/namespaces";
/// Their kinds.
const KINDS: [&str; 4] = ["ManagedIdentity", "ManagedIdentityBinding", "ManagedIdentityClass", "Namespace"];
const REVISION: &str = r#""resourceVersion":""#;
const DISCOVERY: &str = "/.well-known/openid-configuration";
const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// What to do with a request.
#[derive(Clone)]
pub enum GateAction {
    /// Not sent; the connection breaks.
    DropBefore,
    /// Applied, but the response is lost.
    ApplyThenDrop,
    /// Answered by the gate with a status.
    Answer { status: u16, retry_after: Option<u64> },
    /// Answered by the gate with this body.
    Replay(Bytes),
    /// Sent after this time.
    Delay(Duration),
}

/// Which requests, and what to do with them.
pub struct GateRule {
    pub method: &'static str,
    /// Texts that path and query have to contain.
    pub contains: Vec<String>,
    /// How many pass first.
    pub skip: u32,
    pub times: u32,
    pub action: GateAction,
    /// How often the rule was applied.
    pub fired: Arc<AtomicU64>,
}

#[derive(Clone, Default)]
struct Watches {
    held: BTreeSet<&'static str>,
    /// How many watches of the collection, from the first on, deliver nothing any more.
    stalled: BTreeMap<&'static str, usize>,
    cuts: u64,
    /// Replacements in what the controller reads.
    replace: Vec<(String, String)>,
}

/// The watches of a collection.
#[derive(Clone, Copy, Default)]
struct Followed {
    open: usize,
    ever_opened: usize,
    /// The last revision that was delivered.
    seen: u64,
}

/// The gate of one plan.
pub struct Gate {
    label: String,
    history: Arc<History>,
    watches: watch::Sender<Watches>,
    rules: Mutex<Vec<GateRule>>,
    writes: Mutex<Vec<String>>,
    lists: Mutex<BTreeMap<&'static str, Bytes>>,
    /// The issuer that the API server reports.
    issuer: Mutex<Option<String>>,
    last: Mutex<String>,
    /// Watches that expired.
    expired: AtomicU64,
    under_way: AtomicUsize,
    followed: Mutex<BTreeMap<&'static str, Followed>>,
    seen: AtomicU64,
}

impl Gate {
    pub fn new(label: String, history: Arc<History>) -> Self {
        Self {
            label,
            history,
            watches: watch::channel(Watches::default()).0,
            rules: Mutex::default(),
            writes: Mutex::default(),
            lists: Mutex::default(),
            issuer: Mutex::default(),
            last: Mutex::default(),
            expired: AtomicU64::new(0),
            under_way: AtomicUsize::new(0),
            followed: Mutex::default(),
            seen: AtomicU64::new(0),
        }
    }

    /// Holds the events of watches on these collections until [`Gate::release`].
    pub fn hold(&self, collections: &[&'static str]) {
        self.watches.send_modify(|watches| watches.held.extend(collections));
    }

    pub fn release(&self) {
        self.watches.send_modify(|watches| watches.held.clear());
    }

    /// The watch on this collection stays open and delivers nothing more; one that is opened later does.
    pub fn stall(&self, collection: &'static str) {
        let opened = lock(&self.followed).entry(collection).or_default().ever_opened;
        self.watches.send_modify(|watches| {
            watches.stalled.insert(collection, opened);
        });
    }

    /// Breaks every watch.
    pub fn cut(&self) {
        self.watches.send_modify(|watches| watches.cuts += 1);
    }

    /// The controller reads `to` where a list or a watch contains `from`.
    pub fn replace(&self, from: &str, to: &str) {
        self.watches.send_modify(|watches| watches.replace.push((from.to_owned(), to.to_owned())));
    }

    pub fn rule(&self, rule: GateRule) {
        lock(&self.rules).push(rule);
    }

    /// The API server reports this issuer from now on.
    pub fn set_issuer(&self, issuer: &str) {
        *lock(&self.issuer) = Some(issuer.to_owned());
    }

    /// How often the API server itself expired a watch.
    pub fn expired(&self) -> u64 {
        self.expired.load(Ordering::SeqCst)
    }

    /// The last list of this collection that the controller read.
    pub fn last_list(&self, collection: &str) -> Bytes {
        lock(&self.lists).get(collection).cloned().expect("a list was seen")
    }

    /// Write requests, including failed ones, without those of the lease.
    pub fn writes(&self) -> Vec<String> {
        lock(&self.writes).clone()
    }

    /// The last request, for messages.
    pub fn last_request(&self) -> String {
        lock(&self.last).clone()
    }

    /// How many requests are in flight, and how many have finished: unchanged while nothing happens.
    pub fn activity(&self) -> (usize, u64) {
        (self.under_way.load(Ordering::SeqCst), self.seen.load(Ordering::SeqCst))
    }

    /// Whether the controller watches every collection.
    pub fn is_watched(&self) -> bool {
        lock(&self.followed).values().map(|followed| followed.open).sum::<usize>() >= COLLECTIONS.len()
    }

    /// Whether an open watch that is not held has yet to deliver a known change.
    pub fn is_behind(&self) -> bool {
        let followed = lock(&self.followed).clone();
        let Watches { held, stalled, .. } = self.watches.borrow().clone();
        COLLECTIONS.into_iter().zip(KINDS).any(|(collection, kind)| {
            let Followed { open, ever_opened, seen } = followed.get(collection).copied().unwrap_or_default();
            let brings = !held.contains(collection) && stalled.get(collection).is_none_or(|last| ever_opened > *last);
            open > 0 && brings && seen < self.history.latest(kind)
        })
    }

    /// Records that something of a collection was delivered.
    fn came(&self, collection: &'static str, text: &str) {
        let revisions = text.split(REVISION).skip(1).filter_map(|rest| rest.split('"').next()?.parse::<u64>().ok());
        if let Some(latest) = revisions.max() {
            let mut followed = lock(&self.followed);
            let followed = followed.entry(collection).or_default();
            followed.seen = latest.max(followed.seen);
        }
    }

    fn due(&self, method: &str, target: &str) -> Option<GateAction> {
        let mut rules = lock(&self.rules);
        let rule = rules.iter_mut().find(|rule| {
            rule.times > 0 && rule.method == method && rule.contains.iter().all(|part| target.contains(part.as_str()))
        })?;
        if rule.skip > 0 {
            rule.skip -= 1;
            return None;
        }
        rule.times -= 1;
        rule.fired.fetch_add(1, Ordering::SeqCst);
        Some(rule.action.clone())
    }

    async fn pass<S>(
        self: Arc<Self>,
        mut inner: S,
        mut request: Request<KubeBody>,
        action: Option<GateAction>,
    ) -> Result<Response<Body>, BoxError>
    where
        S: Service<Request<KubeBody>, Error = BoxError> + Send,
        S::Response: Into<AnyResponse>,
        S::Future: Send,
    {
        let method = request.method().as_str().to_owned();
        let path = request.uri().path().to_owned();
        let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        let collection = COLLECTIONS.into_iter().find(|collection| *collection == path).filter(|_| method == "GET");
        match action {
            Some(GateAction::DropBefore) => return Err("the connection broke before the request".into()),
            Some(GateAction::Answer { status, retry_after }) => return Ok(refusal(status, retry_after)),
            Some(GateAction::Replay(body)) => return Ok(Response::new(Body::from(body))),
            Some(GateAction::Delay(time)) => tokio::time::sleep(time).await,
            Some(GateAction::ApplyThenDrop) | None => {}
        }
        if path == DISCOVERY
            && let Some(issuer) = lock(&self.issuer).clone()
        {
            return Ok(Response::new(Body::from(json!({"issuer": issuer}).to_string())));
        }
        if method == "POST" && path == COLLECTIONS[0] {
            request = labelled(request, &self.label).await?;
        }
        if collection.is_some() {
            *request.uri_mut() = with_selector(request.uri(), &self.label)?;
        }
        // The list that a new leader compares its cache with does not fill the cache.
        let compares = collection != Some(NAMESPACES) && asks_for_metadata(&request);
        if let Some(collection) = collection.filter(|_| !compares) {
            self.released(collection).await;
        }
        let response: AnyResponse = inner.call(request).await?.into();
        let response = response.0;
        if matches!(action, Some(GateAction::ApplyThenDrop)) {
            let _ = self.read(&method, &path, response).await?;
            return Err("the connection broke before the response".into());
        }
        match collection {
            Some(collection) if is_watch => {
                if response.status() == http::StatusCode::GONE {
                    self.expired.fetch_add(1, Ordering::SeqCst);
                }
                Ok(self.watched(collection, response))
            }
            Some(collection) if !compares => {
                let (parts, body) = response.into_parts();
                let body = self.replaced(&to_bytes(body, MAX_ANSWER).await?);
                self.came(collection, &String::from_utf8_lossy(&body));
                lock(&self.lists).insert(collection, body.clone());
                Ok(Response::from_parts(parts, Body::from(body)))
            }
            // It does not end.
            None if is_watch => Ok(response),
            _ => self.read(&method, &path, response).await,
        }
    }

    /// Reads a response to its end and records its object.
    async fn read(&self, method: &str, path: &str, response: Response<Body>) -> Result<Response<Body>, BoxError> {
        let (mut parts, body) = response.into_parts();
        let body = to_bytes(body, MAX_ANSWER).await?;
        if method != "GET" && !path.contains("/leases") {
            lock(&self.writes).push(format!("{method} {path} answered {}", parts.status));
            if let Ok(object) = serde_json::from_slice::<Value>(&body) {
                self.history.record(&object, false);
            }
        }
        parts.headers.remove(http::header::CONTENT_LENGTH);
        Ok(Response::from_parts(parts, Body::from(body)))
    }

    /// Holds the events of a watch while its collection is held, and ends it when it is cut.
    fn watched(self: &Arc<Self>, collection: &'static str, response: Response<Body>) -> Response<Body> {
        let (parts, body) = response.into_parts();
        let watches = self.watches.subscribe();
        let cuts = watches.borrow().cuts;
        let gate = self.clone();
        let (open, number) = OpenWatch::new(self.clone(), collection);
        let frames = futures::stream::unfold((body.into_data_stream(), watches), move |(mut frames, mut watches)| {
            let gate = gate.clone();
            let _open = &open;
            async move {
                loop {
                    let (held, cut) = {
                        let now = watches.borrow_and_update();
                        let stalled = now.stalled.get(collection).is_some_and(|last| number <= *last);
                        (stalled || now.held.contains(collection), now.cuts > cuts)
                    };
                    if cut {
                        return Some((Err(std::io::Error::other("the watch was cut")), (frames, watches)));
                    }
                    tokio::select! {
                        biased;
                        changed = watches.changed() => changed.ok()?,
                        frame = frames.next(), if !held => {
                            gate.seen.fetch_add(1, Ordering::SeqCst);
                            if let Some(Ok(bytes)) = &frame {
                                let text = String::from_utf8_lossy(bytes);
                                gate.came(collection, &text);
                                gate.expired.fetch_add(u64::from(text.contains(r#""code":410"#)), Ordering::SeqCst);
                            }
                            let frame = frame?.map(|bytes| gate.replaced(&bytes)).map_err(std::io::Error::other);
                            return Some((frame, (frames, watches)));
                        }
                    }
                }
            }
        });
        Response::from_parts(parts, Body::from_stream(frames))
    }

    async fn released(&self, collection: &'static str) {
        // A request that waits here does not count as in flight.
        let _paused = Paused::new(self);
        let _ = self.watches.subscribe().wait_for(|watches| !watches.held.contains(collection)).await;
    }

    fn replaced(&self, bytes: &Bytes) -> Bytes {
        let watches = self.watches.borrow();
        if watches.replace.is_empty() {
            return bytes.clone();
        }
        let mut text = String::from_utf8_lossy(bytes).into_owned();
        for (from, to) in &watches.replace {
            text = text.replace(from, to);
        }
        Bytes::from(text)
    }
}

/// Labels what the controller creates as the plan's.
async fn labelled(request: Request<KubeBody>, label: &str) -> Result<Request<KubeBody>, BoxError> {
    let (mut parts, body) = request.into_parts();
    let mut object: Value = serde_json::from_slice(&body.collect_bytes().await?)?;
    object["metadata"]["labels"][LABEL] = json!(label);
    parts.headers.remove(http::header::CONTENT_LENGTH);
    Ok(Request::from_parts(parts, KubeBody::from(object.to_string().into_bytes())))
}

fn with_selector(uri: &http::Uri, label: &str) -> Result<http::Uri, BoxError> {
    let query = uri.query().unwrap_or_default();
    Ok(format!("{}?{query}&labelSelector={LABEL}%3D{label}", uri.path()).parse::<http::Uri>()?)
}

fn asks_for_metadata(request: &Request<KubeBody>) -> bool {
    let accepted = request.headers().get(http::header::ACCEPT).and_then(|value| value.to_str().ok());
    accepted.is_some_and(|value| value.contains("as=PartialObjectMetadataList"))
}

fn refusal(status: u16, retry_after: Option<u64>) -> Response<Body> {
    let reason = match status {
        410 => "Expired",
        409 => "Conflict",
        429 => "TooManyRequests",
        _ => "InternalError",
    };
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status, "reason": reason,
        "message": "scripted"});
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = http::StatusCode::from_u16(status).expect("a status");
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(http::header::RETRY_AFTER, seconds.into());
    }
    response
}

struct OpenWatch(Arc<Gate>, &'static str);

impl OpenWatch {
    /// Also returns its number, from one.
    fn new(gate: Arc<Gate>, collection: &'static str) -> (Self, usize) {
        let number = {
            let mut followed = lock(&gate.followed);
            let followed = followed.entry(collection).or_default();
            followed.open += 1;
            followed.ever_opened += 1;
            followed.ever_opened
        };
        (Self(gate, collection), number)
    }
}

impl Drop for OpenWatch {
    fn drop(&mut self) {
        lock(&self.0.followed).entry(self.1).or_default().open -= 1;
    }
}

struct Paused<'a>(&'a Gate);

impl<'a> Paused<'a> {
    fn new(gate: &'a Gate) -> Self {
        gate.under_way.fetch_sub(1, Ordering::SeqCst);
        Self(gate)
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_add(1, Ordering::SeqCst);
    }
}
