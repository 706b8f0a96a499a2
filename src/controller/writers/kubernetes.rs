//! The only place that writes to Kubernetes, together with the writes for injection in `injection`.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::{Api, DeleteParams, PartialObjectMeta, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::events::{self, EventType, Recorder, Reporter};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::json_patch::ObjectPatch;
use crate::engine::failpoints::{Failpoints, SideEffect};
use crate::engine::write_gate::{Refused, WriteGate};
use crate::error::ReconcileError;
use crate::kube_request::{KubeError, within_deadline};
use crate::status_fingerprint::StatusFingerprint;
use ensign_api::ManagedIdentity;
use ensign_api::conditions::Severity;
use ensign_api::keys::{CREDENTIALS_FINALIZER, GATED_LABEL, IDENTITY_GATE};
use ensign_core::events::Event;

/// Longest text of an event, in bytes; the API server rejects longer ones.
const MAX_NOTE: usize = 1_000;
pub(super) const REPORTER: &str = "ensign-controller";
/// Owner of the fields that are written by server-side apply, and of the webhook configuration.
pub(crate) const FIELD_MANAGER: &str = "ensign";

/// Writes finalizers, status and events, and removes gates of pods. Every write is idempotent.
pub(crate) struct KubeWriter {
    pub(super) client: Client,
    recorder: Recorder,
    gate: WriteGate,
    failpoints: Failpoints,
}

impl KubeWriter {
    pub(crate) fn new(client: Client, instance: Option<String>, gate: WriteGate, failpoints: Failpoints) -> Self {
        let reporter = Reporter { controller: REPORTER.to_owned(), instance };
        Self { recorder: Recorder::new(client.clone(), reporter), client, gate, failpoints }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Sends a write; `act` and `object` name it.
    pub(super) fn write<T>(
        &self,
        effect: &'static str,
        act: &'static str,
        object: impl FnOnce() -> String + Clone,
        request: impl Future<Output = kube::Result<T>>,
    ) -> impl Future<Output = Result<(), ReconcileError>> {
        let (named, describe) = (object.clone(), move || format!("{act} {}", object()));
        let written = self.gate.write(within_deadline(describe.clone(), request));
        let take_in = |written: Result<Result<T, KubeError>, Refused>| match written {
            Ok(result) => result.map(drop).map_err(ReconcileError::from),
            Err(source) => Err(ReconcileError::NotLeading { act: describe(), source }),
        };
        self.failpoints.carry_out(move || SideEffect { act: effect, object: named() }, written, take_in)
    }

    /// Adds Ensign's finalizer, if it is missing.
    pub(crate) async fn require_finalizer<K: Writable>(&self, object: &K) -> Result<(), ReconcileError> {
        let mut finalizers = object.finalizers().to_vec();
        if finalizers.iter().any(|name| name == CREDENTIALS_FINALIZER) {
            return Ok(());
        }
        finalizers.push(CREDENTIALS_FINALIZER.to_owned());
        self.set_finalizers(object, &finalizers, "add-finalizer", "adding the finalizer to").await
    }

    /// Removes Ensign's finalizer, if it is set.
    pub(crate) async fn release_finalizer<K: Writable>(&self, object: &K) -> Result<(), ReconcileError> {
        let before = object.finalizers();
        let after: Vec<_> = before.iter().filter(|name| *name != CREDENTIALS_FINALIZER).cloned().collect();
        if after.len() == before.len() {
            return Ok(());
        }
        match self.set_finalizers(object, &after, "release", "releasing").await {
            // It was the last finalizer of an object that was deleted meanwhile.
            Err(error) if error.is_not_found() => Ok(()),
            result => result,
        }
    }

    async fn set_finalizers<K: Writable>(
        &self,
        object: &K,
        to: &[String],
        effect: &'static str,
        act: &'static str,
    ) -> Result<(), ReconcileError> {
        const FINALIZERS: &[&str] = &["metadata", "finalizers"];
        let patch = ObjectPatch::of(object);
        let patch = match object.finalizers() {
            // `add` alone would replace finalizers that others have added meanwhile.
            [] => patch.test(FINALIZERS, Value::Null).add(FINALIZERS, to.into()),
            before => patch.test(FINALIZERS, before.into()).replace(FINALIZERS, to.into()),
        };
        let api = K::api(&self.client, object);
        let name = object.name_any();
        let (params, patch) = (PatchParams::default(), patch.into_patch());
        self.write(effect, act, || name_of(object), api.patch(&name, &params, &patch)).await
    }

    /// Creates the object of a binding on a class. One that exists already is not modified.
    pub(crate) async fn create_identity(&self, object: &ManagedIdentity) -> Result<(), ReconcileError> {
        let api: Api<ManagedIdentity> = Api::all(self.client.clone());
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        self.write("create", "creating", || name_of(object), api.create(&params, object)).await
    }

    /// Deletes this object, but not a later one of the same name.
    pub(crate) async fn delete_identity(&self, object: &ManagedIdentity) -> Result<(), ReconcileError> {
        let preconditions = Preconditions { uid: object.uid(), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        let api = ManagedIdentity::api(&self.client, object);
        let name = object.name_any();
        self.write("reclaim", "deleting", || name_of(object), api.delete(&name, &params)).await
    }

    /// Writes the status of the object. The caller has checked that it differs.
    pub(crate) async fn write_status<K: Writable>(
        &self,
        object: &K,
        status: &impl serde::Serialize,
    ) -> Result<(), ReconcileError> {
        self.patch_status(object, status_value(object, status)?).await
    }

    /// Writes the status of the object, unless it is the expected one; returns the fingerprint of what was written.
    pub(crate) async fn write_changed_status<K: Writable>(
        &self,
        object: &K,
        status: &impl serde::Serialize,
        expected: Option<StatusFingerprint>,
    ) -> Result<Option<StatusFingerprint>, ReconcileError> {
        let status = status_value(object, status)?;
        let fingerprint = StatusFingerprint::of(&status);
        if expected == Some(fingerprint) {
            return Ok(None);
        }
        self.patch_status(object, status).await?;
        Ok(Some(fingerprint))
    }

    async fn patch_status<K: Writable>(&self, object: &K, status: Value) -> Result<(), ReconcileError> {
        let patch = ObjectPatch::of(object).add(&["status"], status).into_patch();
        let api = K::api(&self.client, object);
        let (name, params) = (object.name_any(), PatchParams::default());
        let request = api.patch_status(&name, &params, &patch);
        self.write("status", "writing the status of", || name_of(object), request).await
    }

    /// Publishes a Warning event. If that fails, it is only logged: status reports the same.
    pub(crate) async fn warn<K: Writable>(&self, object: &K, event: &Event, action: &str) {
        self.publish_event_as(object, event, action, EventType::Warning).await;
    }

    /// Publishes an event, as a Warning only if it reports a problem.
    pub(crate) async fn publish_event<K: Writable>(&self, object: &K, event: &Event, action: &str) {
        let kind = match event.reason.severity() {
            Severity::Good | Severity::Progressing => EventType::Normal,
            Severity::Retrying | Severity::Terminal => EventType::Warning,
        };
        self.publish_event_as(object, event, action, kind).await;
    }

    async fn publish_event_as<K: Writable>(&self, object: &K, event: &Event, action: &str, kind: EventType) {
        let reason = event.reason;
        let event = events::Event {
            type_: kind,
            reason: reason.as_str().to_owned(),
            note: Some(shorten(&event.message)),
            action: action.to_owned(),
            secondary: None,
        };
        let reference = object.object_ref(&());
        let published = self.write(
            "event",
            "publishing an event on",
            || name_of(object),
            self.recorder.publish(&event, &reference),
        );
        if let Err(error) = published.await {
            tracing::warn!(error = &error as &dyn std::error::Error, %reason, "cannot publish an event");
        }
    }

    /// Removes Ensign's gate, which is at this index, and the label. It does not apply if the gates have changed meanwhile, so
    /// that no other gate is removed.
    pub(crate) async fn remove_gate(&self, pod: &Pod, gate: usize) -> Result<(), ReconcileError> {
        let index = gate.to_string();
        let mut patch = ObjectPatch::of(pod)
            .test(&["spec", "schedulingGates", &index, "name"], IDENTITY_GATE.into())
            .remove(&["spec", "schedulingGates", &index]);
        if pod.labels().contains_key(GATED_LABEL) {
            patch = patch.remove(&["metadata", "labels", GATED_LABEL]);
        }
        let api = Pod::api(&self.client, pod);
        let (name, params, patch) = (pod.name_any(), PatchParams::default(), patch.into_patch());
        self.write("remove-gate", "removing the gate of", || name_of(pod), api.patch(&name, &params, &patch)).await
    }

    /// Makes these the annotations that Ensign owns on the service account. It forces no conflicts, and does not recreate a
    /// service account that was deleted meanwhile.
    pub(crate) async fn annotate_service_account(
        &self,
        account: &PartialObjectMeta<ServiceAccount>,
        annotations: &BTreeMap<String, String>,
    ) -> Result<(), ReconcileError> {
        let (namespace, name) = (account.namespace().unwrap_or_default(), account.name_any());
        let applied = json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": name, "namespace": namespace, "uid": account.uid(), "annotations": annotations},
        });
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &namespace);
        let (params, patch) = (PatchParams::apply(FIELD_MANAGER), Patch::Apply(applied));
        let request = api.patch_metadata(&name, &params, &patch);
        self.write("annotate", "annotating", || format!("ServiceAccount {namespace}/{name}"), request).await
    }
}

/// Scales a Deployment to zero; whether it exists. Operators stop controllers in this way, so that it does not require
/// leadership.
pub(crate) async fn stop_deployment(client: &Client, namespace: &str, name: &str) -> Result<bool, KubeError> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let patch = Patch::Merge(json!({"spec": {"replicas": 0}}));
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let act = || format!("scaling Deployment {namespace}/{name} to 0");
    match within_deadline(act, api.patch_scale(name, &params, &patch)).await {
        Ok(_) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

/// An object that the controller may write to.
pub(crate) trait Writable:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
    /// The API that has the object.
    fn api(client: &Client, object: &Self) -> Api<Self>;

    /// The object's name in side effects and messages: the same in each run of a fault test.
    fn known_as(&self) -> String {
        match self.namespace() {
            Some(namespace) => format!("{namespace}/{}", self.name_any()),
            None => self.name_any(),
        }
    }
}

impl Writable for ManagedIdentity {
    fn api(client: &Client, _: &Self) -> Api<Self> {
        Api::all(client.clone())
    }

    fn known_as(&self) -> String {
        Self::known_as(self)
    }
}

impl Writable for ensign_api::ManagedIdentityBinding {
    fn api(client: &Client, object: &Self) -> Api<Self> {
        Api::namespaced(client.clone(), &object.namespace().unwrap_or_default())
    }
}

impl Writable for Pod {
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

fn name_of<K: Writable>(object: &K) -> String {
    format!("{} {}", K::kind(&()), object.known_as())
}

fn status_value<K: Writable>(object: &K, status: &impl serde::Serialize) -> Result<Value, ReconcileError> {
    let act = || format!("writing the status of {}", name_of(object));
    serde_json::to_value(status).map_err(|source| ReconcileError::Serialize { act: act(), source })
}
