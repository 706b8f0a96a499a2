//! The only place that writes to Kubernetes.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use json_patch::Patch as JsonPatch;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhook, MutatingWebhookConfiguration};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, PartialObjectMeta, Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::write_gate::{Refused, WriteGate};
use crate::api::keys::CREDENTIALS_FINALIZER;
use crate::decide::notes::Note;

/// Deadline of one request to the API server.
pub(super) const DEADLINE: Duration = Duration::from_secs(15);
/// Longest text of an event, in bytes; the API server refuses more.
const MAX_NOTE: usize = 1_000;
const REPORTER: &str = "ensign-controller";
/// Owner of the fields that are written by server-side apply.
pub(super) const FIELD_MANAGER: &str = "ensign";

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
    /// The controller may not write any more.
    #[error("{act} was given up")]
    Refused {
        act: String,
        #[source]
        source: Refused,
    },
}

impl KubeError {
    /// What the API server said about a field that another manager owns.
    pub(super) fn field_conflict(&self) -> Option<String> {
        let Self::Request { source, .. } = self else { return None };
        match source.as_ref() {
            kube::Error::Api(status) if status.code == 409 && status.message.contains("conflict") => {
                Some(status.message.clone())
            }
            _ => None,
        }
    }

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
    gate: WriteGate,
}

impl KubeWriter {
    pub(super) fn new(client: Client, instance: Option<String>, gate: WriteGate) -> Self {
        let reporter = Reporter { controller: REPORTER.to_owned(), instance };
        Self { recorder: Recorder::new(client.clone(), reporter), client, gate }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    fn write<T>(
        &self,
        act: impl FnOnce() -> String + Clone,
        request: impl Future<Output = kube::Result<T>>,
    ) -> impl Future<Output = Result<T, KubeError>> {
        let written = self.gate.write(within_deadline(act.clone(), request));
        async move {
            match written.await {
                Ok(result) => result,
                Err(source) => Err(KubeError::Refused { act: act(), source }),
            }
        }
    }

    /// Adds Ensign's finalizer, unless it is there.
    pub(super) async fn require_finalizer<K: Writable>(&self, object: &K) -> Result<(), KubeError> {
        let mut finalizers = object.finalizers().to_vec();
        if finalizers.iter().any(|name| name == CREDENTIALS_FINALIZER) {
            return Ok(());
        }
        finalizers.push(CREDENTIALS_FINALIZER.to_owned());
        self.set_finalizers(object, &finalizers, "adding the finalizer to").await
    }

    /// Removes Ensign's finalizer, unless it is gone.
    pub(super) async fn release_finalizer<K: Writable>(&self, object: &K) -> Result<(), KubeError> {
        let before = object.finalizers();
        let after: Vec<_> = before.iter().filter(|name| *name != CREDENTIALS_FINALIZER).cloned().collect();
        if after.len() == before.len() {
            return Ok(());
        }
        match self.set_finalizers(object, &after, "releasing").await {
            // It was the last finalizer of an object that went meanwhile.
            Err(KubeError::Request { source, .. }) if matches!(source.as_ref(), kube::Error::Api(status) if status.code == 404) => {
                Ok(())
            }
            result => result,
        }
    }

    async fn set_finalizers<K: Writable>(&self, object: &K, to: &[String], act: &str) -> Result<(), KubeError> {
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
        self.write(|| describe(act, object), api.patch(&name, &PatchParams::default(), &Patch::<()>::Json(patch)))
            .await
            .map(|_| ())
    }

    /// Writes the status of the object. The caller has made sure that it differs.
    pub(super) async fn write_status<K: Writable>(&self, object: &K, status: Value) -> Result<(), KubeError> {
        let patch = json_patch(json!([test_uid(object), {"op": "add", "path": "/status", "value": status}]));
        let api = K::api(&self.client, object);
        let name = object.name_any();
        self.write(
            || describe("writing the status of", object),
            api.patch_status(&name, &PatchParams::default(), &Patch::<()>::Json(patch)),
        )
        .await
        .map(|_| ())
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
        let published =
            self.write(|| describe("publishing an event on", object), self.recorder.publish(&event, &reference));
        if let Err(error) = published.await {
            tracing::warn!(error = &error as &dyn std::error::Error, reason = %note.reason, "event lost");
        }
    }

    /// Makes the annotations those that Ensign owns on the service account; never forced, and never on another object of
    /// the name: a service account that went meanwhile is not made again.
    pub(super) async fn annotate_service_account(
        &self,
        account: &PartialObjectMeta<ServiceAccount>,
        annotations: &BTreeMap<String, String>,
    ) -> Result<(), KubeError> {
        let (namespace, name) = (account.namespace().unwrap_or_default(), account.name_any());
        let applied = json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": name, "namespace": namespace, "uid": account.uid(), "annotations": annotations},
        });
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &namespace);
        self.write(
            || format!("annotating ServiceAccount {namespace}/{name}"),
            api.patch_metadata(&name, &PatchParams::apply(FIELD_MANAGER), &Patch::Apply(applied)),
        )
        .await
        .map(|_| ())
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
        self.write(
            || format!("writing the webhooks of MutatingWebhookConfiguration {name}"),
            api.replace(&name, &kube::api::PostParams::default(), &updated),
        )
        .await
        .map(|_| ())
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
    match object.namespace() {
        Some(namespace) => format!("{act} {} {namespace}/{}", K::kind(&()), object.name_any()),
        None => format!("{act} {} {}", K::kind(&()), object.name_any()),
    }
}

/// An object of the same name with another UID is another object.
fn test_uid<K: Writable>(object: &K) -> Value {
    json!({"op": "test", "path": "/metadata/uid", "value": object.uid()})
}

fn json_patch(operations: Value) -> JsonPatch {
    // The operations are literals of this file; were one malformed, nothing would be patched.
    serde_json::from_value(operations).unwrap_or_default()
}
