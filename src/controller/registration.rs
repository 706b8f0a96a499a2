//! Fills the webhook's registration in, and keeps it so.

use std::collections::BTreeSet;

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;

use super::kube_writes::{KubeError, KubeWriter, within_deadline};
use crate::decide::registration::{Endpoint, desired, differs};

/// Key of the CA certificate in the webhook's Secret.
const CA_KEY: &str = "ca.crt";

/// Where the webhook is and what has to be filled in.
#[derive(Clone, Debug)]
pub struct WebhookTarget {
    /// Name of the `MutatingWebhookConfiguration` that the chart made.
    pub configuration: String,
    /// Namespace of the Secret.
    pub namespace: String,
    /// Secret with the webhook's certificates.
    pub secret: String,
    /// How the API server reaches the webhook.
    pub endpoint: Endpoint,
    /// Namespaces whose pods are never sent to the webhook.
    pub excluded: BTreeSet<String>,
    /// Whether the webhook runs in compatibility mode.
    pub compatibility: bool,
}

/// What became of a look at the registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Registered {
    /// It is as it should be.
    Current,
    /// The webhook has not made its certificates yet, or the chart's objects are missing.
    Waiting,
}

/// Brings the registration in step with the grants and the webhook's CA.
pub(super) async fn reconcile(
    writer: &KubeWriter,
    target: &WebhookTarget,
    granted: &BTreeSet<String>,
) -> Result<Registered, KubeError> {
    let secrets: Api<Secret> = Api::namespaced(writer.client().clone(), &target.namespace);
    let act = || format!("reading Secret {}/{}", target.namespace, target.secret);
    let secret = within_deadline(act, secrets.get_opt(&target.secret)).await?;
    let ca = secret.and_then(|secret| secret.data?.remove(CA_KEY)).filter(|ca| !ca.0.is_empty());
    let Some(ca) = ca else {
        tracing::info!(
            secret = format!("{}/{}", target.namespace, target.secret),
            "the webhook is not registered yet: its Secret has no {CA_KEY}"
        );
        return Ok(Registered::Waiting);
    };
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(writer.client().clone());
    let act = || format!("reading MutatingWebhookConfiguration {}", target.configuration);
    let Some(current) = within_deadline(act, configurations.get_opt(&target.configuration)).await? else {
        tracing::warn!(
            name = target.configuration,
            "MutatingWebhookConfiguration is missing: apply the chart again, which makes it"
        );
        return Ok(Registered::Waiting);
    };
    let wanted = desired(granted, &target.excluded, &target.endpoint, &ca.0);
    if let Some(webhooks) = differs(&current, &wanted) {
        writer.register_webhooks(&current, webhooks).await?;
        tracing::info!(name = target.configuration, namespaces = granted.len(), "webhook registered");
    }
    Ok(Registered::Current)
}
