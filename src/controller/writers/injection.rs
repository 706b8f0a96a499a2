//! Writes for injection: the webhook configuration and the admission policies.

use k8s_openapi::api::admissionregistration::v1::{MutatingWebhook, MutatingWebhookConfiguration};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event as ProbeEvent;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ApiResource, DynamicObject, PostParams};
use kube::{Client, ResourceExt};
use serde_json::Value;

use super::kubernetes::{FIELD_MANAGER, KubeWriter, REPORTER};
use crate::error::ReconcileError;
use crate::kube_request::{KubeError, within_deadline};
use ensign_core::cel::{PROBE_LABEL, PROBE_QUESTION};

impl KubeWriter {
    /// Writes the webhooks into the configuration that the chart created.
    pub(crate) async fn register_webhooks(
        &self,
        current: &MutatingWebhookConfiguration,
        webhooks: Vec<MutatingWebhook>,
    ) -> Result<(), ReconcileError> {
        let name = current.name_any();
        let updated = MutatingWebhookConfiguration { webhooks: Some(webhooks), ..current.clone() };
        let api: Api<MutatingWebhookConfiguration> = Api::all(self.client.clone());
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let object = || format!("MutatingWebhookConfiguration {name}");
        self.write("register", "writing the webhooks of", object, api.replace(&name, &params, &updated)).await
    }

    /// Creates an admission policy that is owned by its binding: it is deleted with it.
    pub(crate) async fn create_policy(
        &self,
        resource: &ApiResource,
        policy: &DynamicObject,
        binding: &DynamicObject,
    ) -> Result<(), ReconcileError> {
        let mut owned = policy.clone();
        owned.metadata.owner_references = binding_reference(binding).map(|reference| vec![reference]);
        let name = policy.name_any();
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), resource);
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let object = || format!("{} {name}", resource.kind);
        self.write("create-policy", "creating", object, api.create(&params, &owned)).await
    }

    /// Writes the spec of an admission policy.
    pub(crate) async fn fill_policy(
        &self,
        resource: &ApiResource,
        current: &DynamicObject,
        spec: &Value,
    ) -> Result<(), ReconcileError> {
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
        let act = || format!("probing in namespace {namespace} which admission policies are evaluated");
        let answer = within_deadline(act, api.create(&params, &probing_event(namespace))).await?;
        Ok(answer.metadata.labels.unwrap_or_default().remove(PROBE_LABEL).filter(|mark| mark != PROBE_QUESTION))
    }
}

/// Whether a missing admission policy may be created, by a dry run.
pub(crate) async fn may_create_policy(
    client: &Client,
    resource: &ApiResource,
    policy: &DynamicObject,
) -> Result<bool, KubeError> {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), resource);
    let params = PostParams { dry_run: true, ..PostParams::default() };
    let act = || format!("checking whether {} {} may be created", resource.kind, policy.name_any());
    match within_deadline(act, api.create(&params, policy)).await {
        Ok(_) => Ok(true),
        // Another controller has just created it.
        Err(error) if error.has_code(409) => Ok(true),
        Err(error) if error.has_code(403) => Ok(false),
        Err(error) => Err(error),
    }
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
        // It is never stored, so its time does not matter; the API server requires one.
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
