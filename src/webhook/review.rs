//! AdmissionReview v1 in and out.

use std::borrow::Cow;
use std::fmt;

use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::error::Category;

use ensign_core::admission::{Decision, Pod, Text};

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";

/// A request that is not answered with a review, because it is none or can't be judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Status of the HTTP response.
    pub status: StatusCode,
    /// Why, for whoever sent it.
    pub message: Cow<'static, str>,
}

impl Rejection {
    /// A rejection with this status and message.
    pub fn new(status: StatusCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, message: message.into() }
    }

    /// Sends away for the moment.
    pub(super) fn busy(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }

    fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// What a review asks.
#[derive(Debug)]
pub enum Question<'a> {
    /// May this pod be created as it is?
    Create(Box<Creation<'a>>),
    /// Something that this webhook has nothing to say about.
    Other {
        /// To be given back.
        uid: Text<'a>,
    },
}

/// A pod that is about to be created.
#[derive(Debug)]
pub struct Creation<'a> {
    /// To be given back.
    pub uid: Text<'a>,
    /// The namespace that it is created in.
    pub namespace: Text<'a>,
    /// The pod.
    pub pod: Pod<'a>,
    /// Whether nothing will be stored.
    pub dry_run: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review<'a, O> {
    #[serde(borrow, default)]
    api_version: Option<Text<'a>>,
    #[serde(borrow, default)]
    kind: Option<Text<'a>>,
    #[serde(borrow, default = "none")]
    request: Option<Request<'a, O>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a, O> {
    #[serde(borrow, default)]
    uid: Option<Text<'a>>,
    #[serde(borrow, default)]
    resource: Option<Resource<'a>>,
    #[serde(borrow, default)]
    sub_resource: Option<Text<'a>>,
    #[serde(borrow, default)]
    operation: Option<Text<'a>>,
    #[serde(borrow, default)]
    namespace: Option<Text<'a>>,
    #[serde(default)]
    dry_run: Option<bool>,
    #[serde(default = "none")]
    object: Option<O>,
}

#[derive(Deserialize)]
struct Resource<'a> {
    #[serde(borrow, default)]
    group: Option<Text<'a>>,
    #[serde(borrow, default)]
    version: Option<Text<'a>>,
    #[serde(borrow, default, rename = "resource")]
    plural: Option<Text<'a>>,
}

fn none<T>() -> Option<T> {
    None
}

impl<O> Request<'_, O> {
    fn is_pod_creation(&self) -> bool {
        let is_pod = self.resource.as_ref().is_some_and(|resource| {
            resource.group.as_deref().unwrap_or_default().is_empty()
                && resource.version.as_deref() == Some("v1")
                && resource.plural.as_deref() == Some("pods")
        });
        is_pod
            && self.sub_resource.as_deref().unwrap_or_default().is_empty()
            && self.operation.as_deref() == Some("CREATE")
    }
}

/// Reads a review.
pub fn read(body: &[u8]) -> Result<Question<'_>, Rejection> {
    if body.is_empty() {
        return Err(Rejection::bad_request("the body is empty; send an AdmissionReview (admission.k8s.io/v1) as JSON"));
    }
    // Nearly every review is about a pod, so it is read as one in one go. Only when that fails is it worth asking whether
    // it was about something else.
    match serde_json::from_slice::<Review<'_, Pod<'_>>>(body) {
        Ok(review) => question(review),
        Err(error) => match decode::<IgnoredAny>(body).map(request) {
            Ok(Ok(request)) if !request.is_pod_creation() => other(request),
            Ok(Err(rejection)) => Err(rejection),
            _ => Err(unreadable(&error)),
        },
    }
}

/// Says where, never what: the body may hold values that are nobody's business.
fn unreadable(error: &serde_json::Error) -> Rejection {
    let what = match error.classify() {
        Category::Data => "the body is JSON, but not an AdmissionReview of a pod",
        Category::Syntax | Category::Eof | Category::Io => "the body is not JSON",
    };
    Rejection::bad_request(format!("{what} (line {}, column {})", error.line(), error.column()))
}

fn decode<O: DeserializeOwned>(body: &[u8]) -> Result<Review<'_, O>, serde_json::Error> {
    serde_json::from_slice(body)
}

fn question<'a>(review: Review<'a, Pod<'a>>) -> Result<Question<'a>, Rejection> {
    let request = request(review)?;
    if !request.is_pod_creation() {
        return other(request);
    }
    let missing = |what| Rejection::bad_request(format!("the AdmissionReview has no request.{what}"));
    let uid = present(request.uid).ok_or_else(|| missing("uid"))?;
    let pod = request.object.ok_or_else(|| missing("object"))?;
    let namespace = present(request.namespace)
        .or_else(|| pod.namespace().map(|namespace| Text(Cow::Owned(namespace.to_owned()))))
        .ok_or_else(|| missing("namespace"))?;
    let dry_run = request.dry_run.unwrap_or_default();
    Ok(Question::Create(Box::new(Creation { uid, namespace, pod, dry_run })))
}

fn other<O>(request: Request<'_, O>) -> Result<Question<'_>, Rejection> {
    let uid = present(request.uid).ok_or_else(|| Rejection::bad_request("the AdmissionReview has no request.uid"))?;
    Ok(Question::Other { uid })
}

fn request<O>(review: Review<'_, O>) -> Result<Request<'_, O>, Rejection> {
    let api_version = review.api_version.as_deref().unwrap_or_default();
    let kind = review.kind.as_deref().unwrap_or_default();
    if (api_version, kind) != (API_VERSION, KIND) {
        return Err(Rejection::bad_request(format!(
            "expected apiVersion {API_VERSION:?} and kind {KIND:?}, got {:?} and {:?}",
            shortened(api_version),
            shortened(kind)
        )));
    }
    review.request.ok_or_else(|| Rejection::bad_request("the AdmissionReview has no request"))
}

fn present(text: Option<Text<'_>>) -> Option<Text<'_>> {
    text.filter(|text| !text.is_empty())
}

fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    api_version: &'static str,
    kind: &'static str,
    response: Response<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status<'a>>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    warnings: &'a [String],
}

#[derive(Serialize)]
struct Status<'a> {
    #[serde(rename = "status")]
    outcome: &'static str,
    code: u16,
    reason: &'static str,
    message: &'a str,
}

/// What an operation of a patch takes at most, as a rule.
const OPERATION_BYTES: usize = 256;

/// Writes the answer to a review.
pub fn answer(uid: &str, decision: &Decision) -> Result<Vec<u8>, serde_json::Error> {
    let mut response = Response { uid, allowed: true, status: None, warnings: &[] };
    match decision {
        Decision::Allow { warnings } => response.warnings = warnings,
        Decision::Patch { operations, warnings, .. } => {
            response.warnings = warnings;
            let mut patch = Vec::with_capacity(operations.len() * OPERATION_BYTES);
            serde_json::to_writer(&mut patch, operations)?;
            return patched(response, &patch);
        }
        Decision::Deny(refusal) => {
            response.allowed = false;
            response.status = Some(Status {
                outcome: "Failure",
                code: StatusCode::FORBIDDEN.as_u16(),
                reason: "Forbidden",
                message: &refusal.message,
            });
        }
    }
    serde_json::to_vec(&Answer { api_version: API_VERSION, kind: KIND, response })
}

/// The answer with a patch. It is most of the answer, and nothing in its base64 needs an escape, so it is encoded into its
/// place instead of being looked through as a string.
fn patched(response: Response<'_>, patch: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
    const BEFORE: &str = r#","patchType":"JSONPatch","patch":""#;
    const AFTER: &str = "\"}}";
    let mut answer = serde_json::to_string(&Answer { api_version: API_VERSION, kind: KIND, response })?;
    // The ends of the response and of the answer: they come after the patch.
    answer.truncate(answer.len() - "}}".len());
    answer.reserve(BEFORE.len() + patch.len().div_ceil(3) * 4 + AFTER.len());
    answer.push_str(BEFORE);
    STANDARD.encode_string(patch, &mut answer);
    answer.push_str(AFTER);
    Ok(answer.into_bytes())
}
