//! One reconcile of injection: by the webhook or by the API server, and the switch-over between the two.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;

use super::policies::{Filled, PolicyWriter};
use super::webhook_configuration::{Registered, Registrar, WAIT};
use crate::cache::Cache;
use crate::engine::outcome::ReconcileOutcome;
use crate::error::ReconcileError;
use crate::writers::kubernetes::KubeWriter;
use ensign_core::cel::Mode;
use ensign_core::webhook_configuration::drift::differs;

/// Keeps the webhook configuration or the admission policies in sync with the grants.
pub(crate) struct InjectionReconciler {
    pub(crate) cache: Arc<Cache>,
    pub(crate) writer: Arc<KubeWriter>,
    pub(crate) webhook: Option<Registrar>,
    pub(crate) policies: Option<PolicyWriter>,
}

impl InjectionReconciler {
    /// Writes the webhook configuration or the admission policies, and switches over between the two.
    pub(crate) async fn reconcile(&self) -> Result<ReconcileOutcome, ReconcileError> {
        if self.webhook.is_none() && self.policies.is_none() {
            return Ok(ReconcileOutcome::Nothing);
        }
        let namespace = self.webhook.as_ref().map(Registrar::namespace);
        if namespace.is_some_and(|name| self.cache.read().namespace(name).terminating) {
            self.end_webhook().await?;
            return Ok(ReconcileOutcome::Nothing);
        }
        let granted = self.cache.read().granted_namespaces();
        let registered = match self.policies.as_ref() {
            Some(policies) if policies.mode() == Mode::Policy => self.by_policies(policies, &granted).await?,
            policies => self.by_webhook(policies, &granted).await?,
        };
        Ok(match registered {
            Registered::Current => ReconcileOutcome::InSync,
            Registered::Waiting(delay) => ReconcileOutcome::InjectionWaits(delay),
        })
    }

    async fn by_policies(
        &self,
        policies: &PolicyWriter,
        granted: &BTreeSet<String>,
    ) -> Result<Registered, ReconcileError> {
        if policies.fill(&self.writer, granted).await? == Filled::Unbound {
            tracing::warn!(
                "the binding of an admission policy does not exist: apply the chart again, which creates it"
            );
            return Ok(Registered::Waiting(WAIT));
        }
        let Some(configuration) = self.registered_webhook().await? else { return Ok(Registered::Current) };
        if !policies.is_live(&self.writer, granted).await? {
            return Ok(Registered::Waiting(WAIT));
        }
        let Some(others) = differs(&configuration, &[]) else { return Ok(Registered::Current) };
        self.writer.register_webhooks(&configuration, others).await?;
        tracing::info!("removed the webhook from its configuration: the API server injects pods itself");
        Ok(Registered::Current)
    }

    /// Removes the webhook from its configuration: its pods are deleted with their namespace, and it fails closed.
    async fn end_webhook(&self) -> Result<(), ReconcileError> {
        let Some(configuration) = self.registered_webhook().await? else { return Ok(()) };
        let Some(others) = differs(&configuration, &[]) else { return Ok(()) };
        self.writer.register_webhooks(&configuration, others).await?;
        tracing::warn!("removed the webhook from its configuration: its namespace is being deleted");
        Ok(())
    }

    /// The webhook configuration, if pods are sent to the webhook.
    async fn registered_webhook(&self) -> Result<Option<MutatingWebhookConfiguration>, ReconcileError> {
        let Some(registrar) = &self.webhook else { return Ok(None) };
        let found = registrar.read(&self.writer).await?;
        Ok(found.filter(|configuration| differs(configuration, &[]).is_some()))
    }

    async fn by_webhook(
        &self,
        policies: Option<&PolicyWriter>,
        granted: &BTreeSet<String>,
    ) -> Result<Registered, ReconcileError> {
        let Some(registrar) = &self.webhook else { return Ok(Registered::Current) };
        let registered = registrar.reconcile(&self.writer, granted).await?;
        let Some(policies) = policies else { return Ok(registered) };
        if registered != Registered::Current {
            policies.observed(false);
            return Ok(registered);
        }
        if !policies.is_filled(self.writer.client()).await? {
            return Ok(Registered::Current);
        }
        if !policies.observed(true) {
            return Ok(Registered::Waiting(WAIT));
        }
        policies.empty(&self.writer).await?;
        Ok(Registered::Current)
    }
}
