//! Teardown of one identity: deletes or abandons its credentials, reports that in status, and releases its objects.

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::{Progress, Teardown};
use crate::cache::snapshot::CacheView;
use crate::engine::key::Key;
use crate::error::ReconcileError;
use crate::identity::service_accounts;
use crate::kube_request;
use crate::writers::azure_plan::carry_out;
use crate::writers::kubernetes::Writable;
use ensign_api::{ArmId, ManagedIdentityBinding, ManagedIdentityBindingStatus};
use ensign_azure::ArmError;
use ensign_core::assess::{Annotations, Assessment, Finalizer, Observed, assess};
use ensign_core::commands::teardown::{
    self, Disposal, IdentityReport, Next, binding_status, identity_status, recorded, remaining,
};
use ensign_core::credentials::ownership::Credential;
use ensign_core::failure::Failure;
use ensign_core::scheduling::backoff;
use ensign_runtime::error_chain;

/// If credentials remain after this many attempts without a failure, something else writes them.
const MAX_ATTEMPTS: u32 = 20;

/// What happened to the credentials under an identity.
struct Revoked {
    deleted: Vec<String>,
    /// Those that exist, if Azure could be read.
    existing: Option<Vec<Credential>>,
    failure: Option<Failure>,
    assessment: Assessment,
}

impl<T: Fn(Progress) + Send + Sync> Teardown<'_, T> {
    pub(crate) async fn identity(&self, key: &Key, view: CacheView) -> IdentityReport {
        let id = view.id.clone();
        let wrote =
            view.owner().and_then(|owner| owner.status.as_ref()).is_some_and(|status| !status.issuers.is_empty());
        let issuers: Vec<String> = view
            .owner()
            .and_then(|owner| owner.status.as_ref())
            .into_iter()
            .flat_map(|status| status.issuers.iter().map(|record| record.url.clone()))
            .collect();
        let known: Vec<&str> = issuers.iter().map(String::as_str).collect();
        let view = view.marked_for_deletion(self.now());
        let revoked = self.revoke(id.as_ref(), &view, &known).await;
        let Revoked { deleted, existing, failure, assessment } = revoked;
        let mut report = IdentityReport {
            arm_id: id.as_ref().map(ToString::to_string).unwrap_or_default(),
            deleted,
            asked_azure: existing.is_some(),
            ..IdentityReport::default()
        };
        if let Some(id) = &id {
            report.remaining = match &existing {
                Some(existing) => remaining(&self.config.settings.cluster, &known, id, existing),
                None if failure.as_ref().is_some_and(Failure::is_gone) => Vec::new(),
                None => recorded(
                    id,
                    view.snapshot()
                        .namespaces
                        .values()
                        .flat_map(|facts| facts.bindings.iter().copied())
                        .filter(|binding| view.identity(&binding.spec.identity_ref.name).is_some()),
                ),
            };
        }
        let abandons = self.config.disposal == Disposal::Abandon;
        let ours_left = report.remaining.iter().any(|left| left.ours);
        if let Some(failure) = failure.filter(|failure| !abandons && !failure.is_gone() && (wrote || ours_left)) {
            report.problem = Some(failure.message);
        } else if ours_left && !abandons {
            report.problem = Some("credentials of this cluster remain, because credentialPolicy is Observe or something recreates them: delete them with the commands above".to_owned());
        }
        if let Err(error) = self.release(&view, &assessment, &mut report).await {
            report.problem.get_or_insert(format!("{key}: {}; run teardown again", error_chain::line(&error)));
        }
        report
    }

    /// Deletes what this cluster wrote under the identity, unless it is abandoned; returns what exists afterwards. `issuers` are
    /// those that are recorded.
    async fn revoke(&self, id: Option<&ArmId>, view: &CacheView, issuers: &[&str]) -> Revoked {
        let settings = &self.config.settings;
        let mut deleted = Vec::new();
        let mut attempt = 0;
        loop {
            let mut observed = self.observe(id, issuers).await;
            let mut failure = observed.credentials.as_ref().and_then(|listed| listed.as_ref().err().cloned());
            let planned = assess(&view.snapshot(), &observed, settings, self.now());
            if let Some(id) = id
                && failure.as_ref().is_none_or(Failure::is_gone)
                && self.config.disposal == Disposal::Delete
            {
                // Without the identity there is no list, and what may be under it is deleted all the same.
                let listed = observed.credentials.clone().and_then(Result::ok);
                let mut existing = listed.clone().unwrap_or_default();
                let (target, judge) = ((id.clone(), None), |error: &_| Some(self.failure(id, error)));
                let progress = carry_out(&self.azure, &planned.credential_writes, &target, &mut existing, judge).await;
                deleted.extend(progress.written);
                failure = progress.failures.into_iter().next_back().map(|(_, failure)| failure).or(failure);
                observed.credentials = observed.credentials.map(|listed| listed.map(|_| existing));
                let deleted = self.azure.own_writes.of(id, |own, now| own.confirmed(now)).deleted_credentials;
                observed.confirmed.deleted_credentials = deleted;
            }
            let assessment = assess(&view.snapshot(), &observed, settings, self.now());
            let unfinished = self.config.disposal == Disposal::Delete && !assessment.credential_writes.is_empty();
            let existing = observed.credentials.and_then(Result::ok);
            let wait = failure.as_ref().map(|failed| {
                let share = self.spread.share(id.map_or("", |id| id.key()), attempt.into());
                backoff::delay(failed.reason, attempt, failed.retry_after, share)
            });
            let left = self.deadline.saturating_duration_since(self.config.clock.monotonic());
            attempt += 1;
            match (&failure, wait) {
                (Some(failed), Some(wait)) => {
                    if let Next::Again(wait) = teardown::after(failed, wait, left) {
                        (self.progress)(Progress::Waiting(wait, failed.message.clone()));
                        self.config.clock.sleep_until(self.config.clock.monotonic() + wait).await;
                        continue;
                    }
                }
                _ if unfinished && attempt < MAX_ATTEMPTS => continue,
                _ => {}
            }
            return Revoked { deleted, existing, failure, assessment };
        }
    }

    /// Lists the credentials.
    async fn observe(&self, id: Option<&ArmId>, issuers: &[&str]) -> Observed {
        let mut observed = Observed::default();
        let Some(id) = id else { return observed };
        let listed = self.azure.arm.list_credentials(id).await.map_err(|error| self.failure(id, &error));
        let current = &self.config.settings.cluster.issuer;
        let former: Vec<&str> = issuers.iter().copied().filter(|issuer| issuer != current).collect();
        self.azure.own_writes.of(id, |own, now| {
            observed.credentials = Some(own.credentials(id, listed, &former, now));
            observed.confirmed = own.confirmed(now);
        });
        // Teardown deletes no identity, so it does not wait until one is certainly gone.
        observed.confirmed.identity_gone |= observed.identity_missing();
        observed
    }

    fn failure(&self, id: &ArmId, error: &ArmError) -> Failure {
        let failure = error.failure(self.config.settings.own_client_id.as_deref());
        if let Some(pause) = failure.retry_after.filter(|_| error.not_sent().is_none()) {
            self.rate_limiter.hold(id, pause, &failure);
        }
        failure
    }

    /// Reports in status what happened to the credentials, and removes finalizers that are no longer required. A binding that
    /// can't be released does not block the others; identities are released once all bindings are.
    async fn release(
        &self,
        view: &CacheView,
        assessment: &Assessment,
        report: &mut IdentityReport,
    ) -> Result<(), ReconcileError> {
        let (abandons, now) = (self.config.disposal == Disposal::Abandon, self.now());
        let left = |name: &str| report.remaining.iter().any(|left| left.name == name);
        let (mut released, mut failed) = (Vec::new(), None);
        for outcome in &assessment.bindings {
            let Some(binding) = view.binding(&outcome.namespace, &outcome.name) else { continue };
            if !abandons && outcome.finalizer != Finalizer::Release {
                continue;
            }
            let recorded = binding.status.as_ref().and_then(|status| status.credential.as_ref());
            let in_place = abandons || recorded.is_some_and(|credential| left(&credential.name));
            let annotations = outcome.annotations.as_ref().filter(|_| !abandons);
            let status = binding_status(binding, now).filter(|_| !in_place);
            match self.release_binding(binding, annotations, status).await {
                Ok(()) => released.push(format!("ManagedIdentityBinding {}/{}", outcome.namespace, outcome.name)),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        report.released = released;
        if let Some(error) = failed {
            return Err(error);
        }
        let ours_left = report.remaining.iter().any(|left| left.ours);
        for outcome in &assessment.identities {
            let Some(identity) = view.identity(&outcome.name) else { continue };
            if !abandons && outcome.finalizer != Finalizer::Release {
                if !ours_left {
                    report.problem.get_or_insert_with(|| teardown::not_released(&outcome.name));
                }
                continue;
            }
            if let Some(status) = identity_status(identity, now).filter(|_| !abandons && !ours_left) {
                self.write_status(identity.as_ref(), &status).await?;
            }
            self.writer.release_finalizer(identity.as_ref()).await?;
            report.released.push(format!("ManagedIdentity {}", outcome.name));
        }
        Ok(())
    }

    async fn release_binding(
        &self,
        binding: &ManagedIdentityBinding,
        annotations: Option<&Annotations>,
        status: Option<ManagedIdentityBindingStatus>,
    ) -> Result<(), ReconcileError> {
        if let Some(desired) = annotations {
            let (namespace, account) = (binding.namespace().unwrap_or_default(), &binding.spec.service_account_name);
            service_accounts::annotate(&self.writer, &namespace, account, desired).await?;
        }
        if let Some(status) = status {
            self.write_status(binding, &status).await?;
        }
        self.writer.release_finalizer(binding).await
    }

    /// Writes the status of an object that may have been deleted meanwhile.
    async fn write_status<K: Writable>(
        &self,
        object: &K,
        status: &impl serde::Serialize,
    ) -> Result<(), ReconcileError> {
        match self.writer.write_status(object, status).await {
            Err(error) if error.is_not_found() => Ok(()),
            result => result,
        }
    }

    fn now(&self) -> Timestamp {
        kube_request::now(&self.config.clock)
    }
}
