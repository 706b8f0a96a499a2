//! The only place that writes to Kubernetes.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use json_patch::Patch as JsonPatch;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhook, MutatingWebhookConfiguration};
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::effects::{Effect, Effects};
use crate::api::keys::CREDENTIALS_FINALIZER;
use crate::decide::notes::Note;
use crate::mutants::{self, Mutant};

/// Deadline of one request to the API server.
pub(super) const DEADLINE: Duration = Duration::from_secs(15);
/// Longest text of an event, in bytes; the API server refuses more.
const MAX_NOTE: usize = 1_000;
const REPORTER: &str = "ensign-controller";

/// A request to the API server failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum KubeError {
    /// It was refused, or could not be sent.
    #[error("{act} failed")]
    Request {
        act: String,
        #[source]
        source: Box<kube::Error>,
    },
    /// There was no answer in time.
    #[error("{act}: no answer within {} s", DEADLINE.as_secs())]
    Deadline { act: String },
}

impl KubeError {
    /// Whether the object changed or went since it was read, so that a fresh look helps.
    pub(super) fn is_stale(&self) -> bool {
        let Self::Request { source, .. } = self else { return false };
        matches!(source.as_ref(), kube::Error::Api(status) if matches!(status.code, 404 | 409 | 422))
    }
}

/// Puts a deadline on a request and names it in its error.
pub(super) async fn within_deadline<T>(
    act: impl FnOnce() -> String,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, KubeError> {
    match tokio::time::timeout(DEADLINE, request).await {
        Err(_) => Err(KubeError::Deadline { act: act() }),
        Ok(Err(source)) => Err(KubeError::Request { act: act(), source: Box::new(source) }),
        Ok(Ok(value)) => Ok(value),
    }
}

/// Writes finalizers, status, events and the webhook's registration. Every write is idempotent.
pub(super) struct KubeWriter {
    client: Client,
    recorder: Recorder,
    effects: Effects,
}

impl KubeWriter {
    pub(super) fn new(client: Client, instance: Option<String>, effects: Effects) -> Self {
        let reporter = Reporter { controller: REPORTER.to_owned(), instance };
        Self { recorder: Recorder::new(client.clone(), reporter), client, effects }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Adds Ensign's finalizer, unless it is there.
    pub(super) async fn require_finalizer<K: Writable>(&self, object: &K) -> Result<(), KubeError> {
        let mut finalizers = object.finalizers().to_vec();
        if finalizers.iter().any(|name| name == CREDENTIALS_FINALIZER) {
            return Ok(());
        }
        finalizers.push(CREDENTIALS_FINALIZER.to_owned());
        self.set_finalizers(object, &finalizers, "add-finalizer", "adding the finalizer to").await
    }

    /// Removes Ensign's finalizer, unless it is gone.
    pub(super) async fn release_finalizer<K: Writable>(&self, object: &K) -> Result<(), KubeError> {
        let before = object.finalizers();
        let after: Vec<_> = before.iter().filter(|name| *name != CREDENTIALS_FINALIZER).cloned().collect();
        if after.len() == before.len() {
            return Ok(());
        }
        match self.set_finalizers(object, &after, "release", "releasing").await {
            // It was the last finalizer of an object that went meanwhile.
            Err(KubeError::Request { source, .. }) if matches!(source.as_ref(), kube::Error::Api(status) if status.code == 404) => {
                Ok(())
            }
            result => result,
        }
    }

    async fn set_finalizers<K: Writable>(
        &self,
        object: &K,
        to: &[String],
        effect: &'static str,
        act: &str,
    ) -> Result<(), KubeError> {
        let tests = match object.finalizers() {
            [] => json!([test_uid(object), {"op": "add", "path": "/metadata/finalizers", "value": to}]),
            before => json!([
                test_uid(object),
                {"op": "test", "path": "/metadata/finalizers", "value": before},
                {"op": "replace", "path": "/metadata/finalizers", "value": to},
            ]),
        };
        let api = K::api(&self.client, object);
        let name = object.name_any();
        let patch = json_patch(tests);
        let (params, patch) = (PatchParams::default(), Patch::<()>::Json(patch));
        self.write(effect, object, act, api.patch(&name, &params, &patch)).await
    }

    /// Writes the status of the object. The caller has made sure that it differs.
    pub(super) async fn write_status<K: Writable>(&self, object: &K, status: Value) -> Result<(), KubeError> {
        let patch = json_patch(json!([test_uid(object), {"op": "add", "path": "/status", "value": status}]));
        let api = K::api(&self.client, object);
        let name = object.name_any();
        let (params, patch) = (PatchParams::default(), Patch::<()>::Json(patch));
        self.write("status", object, "writing the status of", api.patch_status(&name, &params, &patch)).await
    }

    async fn write<K: Writable>(
        &self,
        effect: &'static str,
        object: &K,
        act: &str,
        request: impl Future<Output = kube::Result<K>>,
    ) -> Result<(), KubeError> {
        let request = within_deadline(|| describe(act, object), request);
        self.effects.carry_out(|| effect_on(effect, object), request, |answer| answer.map(|_| ())).await
    }

    /// Publishes a Warning event. An event that gets lost is only logged: status says the same.
    pub(super) async fn warn<K: Writable>(&self, object: &K, note: &Note, action: &str) {
        let text = shorten(&note.message);
        let event = Event {
            type_: EventType::Warning,
            reason: note.reason.as_str().to_owned(),
            note: Some(text),
            action: action.to_owned(),
            secondary: None,
        };
        let reference = object.object_ref(&());
        let publishing =
            within_deadline(|| describe("publishing an event on", object), self.recorder.publish(&event, &reference));
        let told = |published: Result<(), KubeError>| {
            if let Err(error) = published {
                tracing::warn!(error = &error as &dyn std::error::Error, reason = %note.reason, "event lost");
            }
        };
        self.effects.carry_out(|| effect_on("event", object), publishing, told).await;
    }

    /// Writes the webhooks into the registration that the chart made.
    pub(super) async fn register_webhooks(
        &self,
        current: &MutatingWebhookConfiguration,
        webhooks: Vec<MutatingWebhook>,
    ) -> Result<(), KubeError> {
        let name = current.name_any();
        let updated = MutatingWebhookConfiguration { webhooks: Some(webhooks), ..current.clone() };
        let api: Api<MutatingWebhookConfiguration> = Api::all(self.client.clone());
        let params = kube::api::PostParams::default();
        let request = within_deadline(
            || format!("writing the webhooks of MutatingWebhookConfiguration {name}"),
            api.replace(&name, &params, &updated),
        );
        let effect = || Effect { act: "register", object: format!("MutatingWebhookConfiguration {name}") };
        self.effects.carry_out(effect, request, |answer| answer.map(|_| ())).await
    }
}

/// An object that the controller may write to.
pub(super) trait Writable:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
    /// The API that has the object.
    fn api(client: &Client, object: &Self) -> Api<Self>;
}

impl Writable for crate::api::ManagedIdentity {
    fn api(client: &Client, _: &Self) -> Api<Self> {
        Api::all(client.clone())
    }
}

impl Writable for crate::api::ManagedIdentityBinding {
    fn api(client: &Client, object: &Self) -> Api<Self> {
        Api::namespaced(client.clone(), &object.namespace().unwrap_or_default())
    }
}

fn shorten(text: &str) -> String {
    if text.len() <= MAX_NOTE {
        return text.to_owned();
    }
    let fits = |(at, c): &(usize, char)| at + c.len_utf8() + '…'.len_utf8() <= MAX_NOTE;
    text.char_indices().take_while(fits).map(|(_, c)| c).chain(['…']).collect()
}

fn describe<K: Writable>(act: &str, object: &K) -> String {
    format!("{act} {}", name_of(object))
}

fn effect_on<K: Writable>(act: &'static str, object: &K) -> Effect {
    Effect { act, object: name_of(object) }
}

fn name_of<K: Writable>(object: &K) -> String {
    match object.namespace() {
        Some(namespace) => format!("{} {namespace}/{}", K::kind(&()), object.name_any()),
        None => format!("{} {}", K::kind(&()), object.name_any()),
    }
}

/// An object of the same name with another UID is another object.
fn test_uid<K: Writable>(object: &K) -> Value {
    if mutants::active(Mutant::UidIgnored) {
        return json!({"op": "test", "path": "/kind", "value": K::kind(&())});
    }
    json!({"op": "test", "path": "/metadata/uid", "value": object.uid()})
}

fn json_patch(operations: Value) -> JsonPatch {
    // The operations are literals of this file; were one malformed, nothing would be patched.
    serde_json::from_value(operations).unwrap_or_default()
}
