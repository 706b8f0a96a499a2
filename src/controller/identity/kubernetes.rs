//! What a reconcile writes to Kubernetes: records and finalizers before it writes to Azure, status and events after it.

use super::pass::Pass;
use super::service_accounts;
use crate::error::ReconcileError;
use crate::writers::kubernetes::Writable;
use ensign_api::{ManagedIdentity, ManagedIdentityBinding, ManagedIdentityStatus, NamespacedName};
use ensign_core::assess::Finalizer;

impl Pass<'_> {
    /// Records the issuer in status, before the first credential with it is written.
    pub(super) async fn record_issuers(&self) -> Result<(), ReconcileError> {
        self.record(|recorded, planned| planned.issuers.is_empty() || recorded.issuers == planned.issuers).await
    }

    /// Records role assignments in status before they are created, so that they can be found after a crash.
    pub(super) async fn record_role_assignments(&self) -> Result<(), ReconcileError> {
        self.record(|recorded, planned| recorded.role_assignments == planned.role_assignments).await
    }

    async fn record(
        &self,
        is_recorded: impl Fn(&ManagedIdentityStatus, &ManagedIdentityStatus) -> bool,
    ) -> Result<(), ReconcileError> {
        let none = ManagedIdentityStatus::default();
        for outcome in &self.plan.identities {
            let Some(object) = self.view.identity(&outcome.name) else { continue };
            if !is_recorded(object.status.as_ref().unwrap_or(&none), &outcome.status) {
                self.write_status(object.as_ref(), object.status.as_ref(), &outcome.status).await?;
            }
        }
        Ok(())
    }

    /// Adds the finalizers that are required, also those that were removed.
    pub(super) async fn require_finalizers(&self) -> Result<(), ReconcileError> {
        let writer = &self.context.writer;
        for outcome in self.plan.identities.iter().filter(|outcome| outcome.finalizer == Finalizer::Require) {
            if let Some(object) = self.view.identity(&outcome.name) {
                writer.require_finalizer(object.as_ref()).await?;
            }
        }
        for outcome in self.plan.bindings.iter().filter(|outcome| outcome.finalizer == Finalizer::Require) {
            if let Some(object) = self.view.binding(&outcome.namespace, &outcome.name) {
                writer.require_finalizer(object.as_ref()).await?;
            }
        }
        Ok(())
    }

    /// Annotates the service accounts of bindings that request it.
    pub(super) async fn annotate_service_accounts(&mut self) -> Result<(), ReconcileError> {
        for outcome in &self.plan.bindings {
            let binding = self.view.binding(&outcome.namespace, &outcome.name);
            let Some((desired, binding)) = outcome.annotations.as_ref().zip(binding) else { continue };
            let account = &binding.spec.service_account_name;
            let done = service_accounts::annotate(&self.context.writer, &outcome.namespace, account, desired).await?;
            let name = NamespacedName::new(&outcome.namespace, &outcome.name);
            self.observed.annotated.insert(name, done);
        }
        if !self.observed.annotated.is_empty() {
            self.reassess();
        }
        Ok(())
    }

    /// Writes status and events that changed. Kubernetes aggregates events of the same reason and action under the text of the
    /// first, so that deletions use an action of their own.
    pub(super) async fn publish_status(&self) -> Result<(), ReconcileError> {
        let writer = &self.context.writer;
        for outcome in &self.plan.bindings {
            let Some(object) = self.view.binding(&outcome.namespace, &outcome.name) else { continue };
            self.write_status(object.as_ref(), object.status.as_ref(), &outcome.status).await?;
            let action = if object.metadata.deletion_timestamp.is_some() { "Unbind" } else { "Bind" };
            for event in &outcome.events {
                writer.warn(object.as_ref(), event, action).await;
            }
            if let Some(scanner) = &self.context.uninjected {
                scanner.expect_scan(object, outcome);
            }
        }
        for outcome in &self.plan.identities {
            let Some(object) = self.view.identity(&outcome.name) else { continue };
            self.write_status(object.as_ref(), object.status.as_ref(), &outcome.status).await?;
            let action = if object.metadata.deletion_timestamp.is_some() { "Delete" } else { "Reconcile" };
            for event in &outcome.events {
                writer.warn(object.as_ref(), event, action).await;
            }
        }
        Ok(())
    }

    /// Removes the finalizers of objects that nothing in Azure depends on any more: bindings first, then identities.
    pub(super) async fn release_finalizers(&self) -> Result<(), ReconcileError> {
        let writer = &self.context.writer;
        for outcome in self.plan.bindings.iter().filter(|outcome| outcome.finalizer == Finalizer::Release) {
            if let Some(object) = self.view.binding(&outcome.namespace, &outcome.name) {
                writer.release_finalizer::<ManagedIdentityBinding>(object).await?;
            }
        }
        for outcome in self.plan.identities.iter().filter(|outcome| outcome.finalizer == Finalizer::Release) {
            if let Some(object) = self.view.identity(&outcome.name) {
                writer.release_finalizer::<ManagedIdentity>(object).await?;
            }
        }
        Ok(())
    }

    /// Writes a status that differs from the one in the cache, or from the one that was written last if the watch has not
    /// delivered it yet.
    async fn write_status<K: Writable, S: PartialEq + serde::Serialize>(
        &self,
        object: &K,
        cached: Option<&S>,
        desired: &S,
    ) -> Result<(), ReconcileError> {
        let cache = &self.context.cache;
        let expected = cache.read().expected_status(object.meta());
        if expected.is_none() && cached == Some(desired) {
            return Ok(());
        }
        if let Some(written) = self.context.writer.write_changed_status(object, desired, expected).await? {
            cache.status_written(object.meta(), written);
        }
        Ok(())
    }
}
