//! The part of teardown that is about one identity: revoke or abandon what Ensign gave under it, say so, release its objects.

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

/// An identity that is not clean after so many looks without a failure has somebody else who writes.
const LOOKS: u32 = 20;

/// What became of the credentials under an identity.
struct Revoked {
    deleted: Vec<String>,
    /// What stands, if Azure said so.
    standing: Option<Vec<Credential>>,
    failure: Option<Failure>,
    assessment: Assessment,
}

impl<T: Fn(Progress) + Send + Sync> Teardown<'_, T> {
    pub(crate) async fn identity(&self, key: &Key, living: CacheView) -> IdentityReport {
        let id = living.id.clone();
        let wrote =
            living.owner().and_then(|owner| owner.status.as_ref()).is_some_and(|status| !status.issuers.is_empty());
        let issuers: Vec<String> = living
            .owner()
            .and_then(|owner| owner.status.as_ref())
            .into_iter()
            .flat_map(|status| status.issuers.iter().map(|record| record.url.clone()))
            .collect();
        let known: Vec<&str> = issuers.iter().map(String::as_str).collect();
        let gathered = living.marked_for_deletion(self.now());
        let revoked = self.revoke(id.as_ref(), &gathered).await;
        let Revoked { deleted, standing, failure, assessment } = revoked;
        let mut report = IdentityReport {
            arm_id: id.as_ref().map(ToString::to_string).unwrap_or_default(),
            deleted,
            asked_azure: standing.is_some(),
            ..IdentityReport::default()
        };
        if let Some(id) = &id {
            report.remaining = match &standing {
                Some(standing) => remaining(&self.config.settings.cluster, &known, id, standing),
                None if failure.as_ref().is_some_and(Failure::is_gone) => Vec::new(),
                None => recorded(
                    id,
                    gathered
                        .snapshot()
                        .namespaces
                        .values()
                        .flat_map(|facts| facts.bindings.iter().copied())
                        .filter(|binding| gathered.identity(&binding.spec.identity_ref.name).is_some()),
                ),
            };
        }
        let abandons = self.config.disposal == Disposal::Abandon;
        let ours_left = report.remaining.iter().any(|left| left.ours);
        if let Some(failure) = failure.filter(|failure| !abandons && !failure.is_gone() && (wrote || ours_left)) {
            report.problem = Some(failure.message);
        } else if ours_left && !abandons {
            report.problem = Some("credentials of this cluster are left, because credentialPolicy is Observe or somebody writes them again: delete them with the commands".to_owned());
        }
        if let Err(error) = self.release(&gathered, &assessment, &mut report).await {
            report.problem.get_or_insert(format!("{key}: {}; run teardown again", error_chain::line(&error)));
        }
        report
    }

    /// Deletes what this cluster wrote under the identity, if that is wanted; and says what stands.
    async fn revoke(&self, id: Option<&ArmId>, gathered: &CacheView) -> Revoked {
        let settings = &self.config.settings;
        let mut deleted = Vec::new();
        let mut attempt = 0;
        loop {
            let mut observed = Observed::default();
            let mut failure = None;
            if let Some(id) = id {
                match self.azure.arm.list_credentials(id).await {
                    Ok(standing) => observed.credentials = Some(Ok(standing)),
                    Err(error) => failure = Some(self.failure(id, &error)),
                }
            }
            if let Some(failed) = &failure {
                observed.credentials = Some(Err(failed.clone()));
            }
            let planned = assess(&gathered.snapshot(), &observed, settings, self.now());
            if let (Some(id), Some(Ok(existing))) = (id, &mut observed.credentials)
                && self.config.disposal == Disposal::Delete
            {
                let judge = |error: &_| Some(self.failure(id, error));
                let progress = carry_out(&self.azure, &planned.steps, id, existing, judge).await;
                deleted.extend(progress.written);
                failure = progress.failures.into_iter().next_back().map(|(_, failure)| failure);
            }
            let assessment = assess(&gathered.snapshot(), &observed, settings, self.now());
            let unfinished = self.config.disposal == Disposal::Delete && !assessment.steps.is_empty();
            let standing = observed.credentials.and_then(Result::ok);
            let wait = failure.as_ref().map(|failed| {
                let share = self.spread.share(id.map_or("", |id| id.key()), attempt.into());
                backoff::delay(failed.reason, attempt, failed.retry_after, share)
            });
            let left = self.deadline.saturating_duration_since(self.config.clock.monotonic());
            attempt += 1;
            match (&failure, wait) {
                (Some(failed), Some(wait)) => {
                    if let Next::Again(wait) = teardown::after(failed, wait, left) {
                        (self.told)(Progress::Waiting(wait, failed.message.clone()));
                        self.config.clock.sleep_until(self.config.clock.monotonic() + wait).await;
                        continue;
                    }
                }
                _ if unfinished && attempt < LOOKS => continue,
                _ => {}
            }
            return Revoked { deleted, standing, failure, assessment };
        }
    }

    fn failure(&self, id: &ArmId, error: &ArmError) -> Failure {
        let failure = error.failure(self.config.settings.own_client_id.as_deref());
        if let Some(pause) = failure.retry_after.filter(|_| error.not_sent().is_none()) {
            self.rate_limiter.hold(id, pause, &failure);
        }
        failure
    }

    /// Says in status what became of the credentials, and releases what nothing holds any more. What can't be released
    /// keeps no other binding from it; identities are released once all bindings are.
    async fn release(
        &self,
        gathered: &CacheView,
        assessment: &Assessment,
        report: &mut IdentityReport,
    ) -> Result<(), ReconcileError> {
        let (abandons, now) = (self.config.disposal == Disposal::Abandon, self.now());
        let left = |name: &str| report.remaining.iter().any(|left| left.name == name);
        let (mut released, mut failed) = (Vec::new(), None);
        for outcome in &assessment.bindings {
            let Some(binding) = gathered.binding(&outcome.namespace, &outcome.name) else { continue };
            if !abandons && outcome.finalizer != Finalizer::Release {
                continue;
            }
            let recorded = binding.status.as_ref().and_then(|status| status.credential.as_ref());
            let stands = abandons || recorded.is_some_and(|credential| left(&credential.name));
            let annotations = outcome.annotations.as_ref().filter(|_| !abandons);
            let status = binding_status(binding, now).filter(|_| !stands);
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
            let Some(identity) = gathered.identity(&outcome.name) else { continue };
            if !abandons && outcome.finalizer != Finalizer::Release {
                if !ours_left {
                    report.problem.get_or_insert_with(|| teardown::still_made(&outcome.name));
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
        if let Some(wanted) = annotations {
            let (namespace, account) = (binding.namespace().unwrap_or_default(), &binding.spec.service_account_name);
            service_accounts::annotate(&self.writer, &namespace, account, wanted).await?;
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
