//! The only place that writes to Kubernetes.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use json_patch::Patch as JsonPatch;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhook, MutatingWebhookConfiguration};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ObjectReference, Pod, ServiceAccount};
use k8s_openapi::api::events::v1::Event as ProbeEvent;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use k8s_openapi::jiff::Timestamp;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, PartialObjectMeta, Patch, PatchParams, PostParams, Preconditions,
};
use kube::runtime::events::{self, EventType, Recorder, Reporter};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::engine::failpoints::{Failpoints, SideEffect};
use crate::engine::write_gate::{Refused, WriteGate};
use ensign_api::ManagedIdentity;
use ensign_api::conditions::Severity;
use ensign_api::keys::{CREDENTIALS_FINALIZER, GATED_LABEL, IDENTITY_GATE};
use ensign_core::cel::{PROBE_LABEL, PROBE_QUESTION};
use ensign_core::events::Event;
use ensign_core::mutants::{self, Mutant};

/// Deadline of one request to the API server.
pub(crate) const DEADLINE: Duration = Duration::from_secs(15);
/// Longest text of an event, in bytes; the API server refuses more.
const MAX_NOTE: usize = 1_000;
const REPORTER: &str = "ensign-controller";
/// Owner of the fields that are written by server-side apply, and of the webhook's registration.
pub(crate) const FIELD_MANAGER: &str = "ensign";

/// A request to the API server failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KubeError {
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
    /// Nothing was sent: what the write depends on is not as the cache has it.
    #[error("{act} waits for the cache")]
    Behind { act: String },
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
    pub(crate) fn field_conflict(&self) -> Option<String> {
        let Self::Request { source, .. } = self else { return None };
        match source.as_ref() {
            kube::Error::Api(status) if status.code == 409 && status.message.contains("conflict") => {
                Some(status.message.clone())
            }
            _ => None,
        }
    }

    /// Whether the API server knows no such object, or no such kind.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Request { source, .. } if has_code(source, 404))
    }

    /// What the API server said when it refused an object for what the object is, or for who sent it.
    pub(crate) fn refusal(&self) -> Option<&str> {
        let Self::Request { source, .. } = self else { return None };
        match source.as_ref() {
            kube::Error::Api(status) if matches!(status.code, 403 | 422) => Some(&status.message),
            _ => None,
        }
    }

    /// Whether the object changed or went since it was read, so that a fresh look helps.
    pub(crate) fn is_stale(&self) -> bool {
        if matches!(self, Self::Behind { .. }) {
            return true;
        }
        let Self::Request { source, .. } = self else { return false };
        matches!(source.as_ref(), kube::Error::Api(status) if matches!(status.code, 404 | 409 | 422))
    }
}

/// Puts a deadline on a request and names it in its error.
pub(crate) async fn within_deadline<T>(
    act: impl FnOnce() -> String,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, KubeError> {
    match tokio::time::timeout(DEADLINE, request).await {
        Err(_) => Err(KubeError::Deadline { act: act() }),
        Ok(Err(source)) => Err(KubeError::Request { act: act(), source: Box::new(source) }),
        Ok(Ok(value)) => Ok(value),
    }
}

/// Writes finalizers, status, events, the webhook's registration, and lifts the gates of held pods. Every write is idempotent.
pub(crate) struct KubeWriter {
    client: Client,
    recorder: Recorder,
    gate: WriteGate,
    effects: Failpoints,
}

impl KubeWriter {
    pub(crate) fn new(client: Client, instance: Option<String>, gate: WriteGate, effects: Failpoints) -> Self {
        let reporter = Reporter { controller: REPORTER.to_owned(), instance };
        Self { recorder: Recorder::new(client.clone(), reporter), client, gate, effects }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Sends a write; `act` and `object` name it.
    fn write<T>(
        &self,
        effect: &'static str,
        act: &'static str,
        object: impl FnOnce() -> String + Clone,
        request: impl Future<Output = kube::Result<T>>,
    ) -> impl Future<Output = Result<(), KubeError>> {
        let (named, describe) = (object.clone(), move || format!("{act} {}", object()));
        let written = self.gate.write(within_deadline(describe.clone(), request));
        let take_in = |written: Result<Result<T, KubeError>, Refused>| match written {
            Ok(result) => result.map(|_| ()),
            Err(source) => Err(KubeError::Refused { act: describe(), source }),
        };
        self.effects.carry_out(move || SideEffect { act: effect, object: named() }, written, take_in)
    }

    /// Adds Ensign's finalizer, unless it is there.
    pub(crate) async fn require_finalizer<K: Writable>(&self, object: &K) -> Result<(), KubeError> {
        let mut finalizers = object.finalizers().to_vec();
        if finalizers.iter().any(|name| name == CREDENTIALS_FINALIZER) {
            return Ok(());
        }
        finalizers.push(CREDENTIALS_FINALIZER.to_owned());
        self.set_finalizers(object, &finalizers, "add-finalizer", "adding the finalizer to").await
    }

    /// Removes Ensign's finalizer, unless it is gone.
    pub(crate) async fn release_finalizer<K: Writable>(&self, object: &K) -> Result<(), KubeError> {
        let before = object.finalizers();
        let after: Vec<_> = before.iter().filter(|name| *name != CREDENTIALS_FINALIZER).cloned().collect();
        if after.len() == before.len() {
            return Ok(());
        }
        match self.set_finalizers(object, &after, "release", "releasing").await {
            // It was the last finalizer of an object that went meanwhile.
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
    ) -> Result<(), KubeError> {
        let tests = match object.finalizers() {
            // `add` would replace the finalizers that others have set meanwhile.
            [] => json!([
                test_uid(object),
                {"op": "test", "path": "/metadata/finalizers", "value": null},
                {"op": "add", "path": "/metadata/finalizers", "value": to}]),
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
        self.write(effect, act, || name_of(object), api.patch(&name, &params, &patch)).await
    }

    /// Makes the object that a binding on a class gets. One that is there already is not touched.
    pub(crate) async fn make_identity(&self, object: &ManagedIdentity) -> Result<(), KubeError> {
        let api: Api<ManagedIdentity> = Api::all(self.client.clone());
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        self.write("make", "making", || name_of(object), api.create(&params, object)).await
    }

    /// Deletes this very object, unless it changed meanwhile.
    pub(crate) async fn delete_identity(&self, object: &ManagedIdentity) -> Result<(), KubeError> {
        let preconditions = Preconditions { uid: object.uid(), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        let api = ManagedIdentity::api(&self.client, object);
        let name = object.name_any();
        self.write("reclaim", "deleting", || name_of(object), api.delete(&name, &params)).await
    }

    /// Writes the status of the object. The caller has made sure that it differs.
    pub(crate) async fn write_status<K: Writable>(&self, object: &K, status: Value) -> Result<(), KubeError> {
        let patch = json_patch(json!([test_uid(object), {"op": "add", "path": "/status", "value": status}]));
        let api = K::api(&self.client, object);
        let name = object.name_any();
        let (params, patch) = (PatchParams::default(), Patch::<()>::Json(patch));
        let request = api.patch_status(&name, &params, &patch);
        self.write("status", "writing the status of", || name_of(object), request).await
    }

    /// Publishes a Warning event. An event that gets lost is only logged: status says the same.
    pub(crate) async fn warn<K: Writable>(&self, object: &K, note: &Event, action: &str) {
        self.publish(object, note, action, EventType::Warning).await;
    }

    /// Publishes an event, which is a Warning only where the note tells of a problem.
    pub(crate) async fn note<K: Writable>(&self, object: &K, note: &Event, action: &str) {
        let kind = match note.reason.severity() {
            Severity::Good | Severity::Progressing => EventType::Normal,
            Severity::Retrying | Severity::Terminal => EventType::Warning,
        };
        self.publish(object, note, action, kind).await;
    }

    async fn publish<K: Writable>(&self, object: &K, note: &Event, action: &str, kind: EventType) {
        let text = shorten(&note.message);
        let event = events::Event {
            type_: kind,
            reason: note.reason.as_str().to_owned(),
            note: Some(text),
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
            tracing::warn!(error = &error as &dyn std::error::Error, reason = %note.reason, "event lost");
        }
    }

    /// Lifts Ensign's gate, which is at this place in the list, and takes the label away, of this very pod. The gates of
    /// others stay, whatever they do meanwhile.
    pub(crate) async fn lift(&self, pod: &Pod, gate: usize) -> Result<(), KubeError> {
        let place = format!("/spec/schedulingGates/{gate}");
        let mut operations = vec![
            test_uid(pod),
            json!({"op": "test", "path": format!("{place}/name"), "value": IDENTITY_GATE}),
            json!({"op": "remove", "path": place}),
        ];
        if pod.labels().contains_key(GATED_LABEL) {
            let label = GATED_LABEL.replace('/', "~1");
            operations.push(json!({"op": "remove", "path": format!("/metadata/labels/{label}")}));
        }
        let api = Pod::api(&self.client, pod);
        let (name, params) = (pod.name_any(), PatchParams::default());
        let patch = Patch::<()>::Json(json_patch(Value::Array(operations)));
        self.write("lift", "lifting the gate of", || name_of(pod), api.patch(&name, &params, &patch)).await
    }

    /// Makes the annotations those that Ensign owns on the service account; never forced, and never on another object of
    /// the name: a service account that went meanwhile is not made again.
    pub(crate) async fn annotate_service_account(
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
        let (params, patch) = (PatchParams::apply(FIELD_MANAGER), Patch::Apply(applied));
        let request = api.patch_metadata(&name, &params, &patch);
        self.write("annotate", "annotating", || format!("ServiceAccount {namespace}/{name}"), request).await
    }

    /// Writes the webhooks into the registration that the chart made.
    pub(crate) async fn register_webhooks(
        &self,
        current: &MutatingWebhookConfiguration,
        webhooks: Vec<MutatingWebhook>,
    ) -> Result<(), KubeError> {
        let name = current.name_any();
        let updated = MutatingWebhookConfiguration { webhooks: Some(webhooks), ..current.clone() };
        let api: Api<MutatingWebhookConfiguration> = Api::all(self.client.clone());
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let object = || format!("MutatingWebhookConfiguration {name}");
        self.write("register", "writing the webhooks of", object, api.replace(&name, &params, &updated)).await
    }

    /// Makes an admission policy that belongs to its binding: it goes when whoever installs removes that.
    pub(crate) async fn make_policy(
        &self,
        resource: &ApiResource,
        policy: &DynamicObject,
        binding: &DynamicObject,
    ) -> Result<(), KubeError> {
        let mut owned = policy.clone();
        owned.metadata.owner_references = binding_reference(binding).map(|reference| vec![reference]);
        let name = policy.name_any();
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), resource);
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let object = || format!("{} {name}", resource.kind);
        self.write("make-policy", "making", object, api.create(&params, &owned)).await
    }

    /// Writes the spec of an admission policy.
    pub(crate) async fn fill_policy(
        &self,
        resource: &ApiResource,
        current: &DynamicObject,
        spec: &Value,
    ) -> Result<(), KubeError> {
        let mut updated = current.clone();
        updated.data["spec"] = spec.clone();
        let name = current.name_any();
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), resource);
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let object = || format!("{} {name}", resource.kind);
        self.write("fill-policy", "filling in", object, api.replace(&name, &params, &updated)).await
    }

    /// Asks the API server which admission policies it evaluates: an event that is not stored comes back with their mark.
    pub(crate) async fn ask_probe(&self, namespace: &str) -> Result<Option<String>, KubeError> {
        let api: Api<ProbeEvent> = Api::namespaced(self.client.clone(), namespace);
        let params = PostParams { dry_run: true, ..PostParams::default() };
        let act = || format!("asking in namespace {namespace} which admission policies are evaluated");
        let answer = within_deadline(act, api.create(&params, &probing_event(namespace))).await?;
        Ok(answer.metadata.labels.unwrap_or_default().remove(PROBE_LABEL).filter(|mark| mark != PROBE_QUESTION))
    }
}

/// Whether an admission policy that is missing may be made, by a dry run.
pub(crate) async fn may_make_policy(
    client: &Client,
    resource: &ApiResource,
    policy: &DynamicObject,
) -> Result<bool, KubeError> {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), resource);
    let params = PostParams { dry_run: true, ..PostParams::default() };
    let act = || format!("asking whether {} {} may be made", resource.kind, policy.name_any());
    match within_deadline(act, api.create(&params, policy)).await {
        Ok(_) => Ok(true),
        // Another replica was faster.
        Err(KubeError::Request { source, .. }) if has_code(&source, 409) => Ok(true),
        Err(KubeError::Request { source, .. }) if has_code(&source, 403) => Ok(false),
        Err(error) => Err(error),
    }
}

fn has_code(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

fn binding_reference(binding: &DynamicObject) -> Option<OwnerReference> {
    let types = binding.types.as_ref()?;
    Some(OwnerReference {
        api_version: types.api_version.clone(),
        kind: types.kind.clone(),
        name: binding.name_any(),
        uid: binding.uid()?,
        ..OwnerReference::default()
    })
}

fn probing_event(namespace: &str) -> ProbeEvent {
    ProbeEvent {
        metadata: ObjectMeta {
            name: Some("ensign-probe".to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: Some([(PROBE_LABEL.to_owned(), PROBE_QUESTION.to_owned())].into()),
            ..ObjectMeta::default()
        },
        // It is never stored, so its time is of no interest; the API server wants one all the same.
        event_time: Some(MicroTime(Timestamp::UNIX_EPOCH)),
        type_: Some("Normal".to_owned()),
        reason: Some("Probe".to_owned()),
        action: Some("Probe".to_owned()),
        reporting_controller: Some(format!("ensign.dev/{REPORTER}")),
        reporting_instance: Some(REPORTER.to_owned()),
        regarding: Some(ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Namespace".to_owned()),
            name: Some(namespace.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ObjectReference::default()
        }),
        ..ProbeEvent::default()
    }
}

/// Scales a Deployment to nothing; whether there is one. It is how an operator stops a controller, so that no leadership is
/// asked for it.
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

    /// What effects and messages call the object: the same in each run of a scenario.
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
