//! Identities that Ensign makes: the write of the identity itself, the objects that bindings on classes get, and those
//! that go with their bindings.

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::outcome::{self, ReconcileOutcome};
use super::preconditions;
use super::reconcile::Reconciler;
use crate::cache::snapshot::CacheView;
use crate::writers::azure::{self, WriteError};
use crate::writers::kubernetes::KubeError;
use ensign_api::ArmId;
use ensign_api::conditions::Reason;
use ensign_core::assess::{Assessment, Observed, Settings, assess};
use ensign_core::failure::Failure;
use ensign_core::provisioning::IdentityWrite;
use ensign_core::scheduling::rate_limiter::RequestKind;

/// How a reconcile goes on once the identity itself was looked after.
pub(crate) enum Provisioned {
    /// There is nothing to be done about it.
    Stands(Assessment),
    /// It was written, or could not be: what is under it comes next time.
    Tried(Assessment, ReconcileOutcome),
    /// The cache was behind.
    Behind,
}

impl Reconciler {
    /// Writes the identity itself where the plan says so, after everything that has to come first.
    pub(crate) async fn provision(
        &self,
        id: &ArmId,
        gathered: &CacheView,
        planned: Assessment,
        observed: &mut Observed,
        (settings, now): (&Settings, Timestamp),
    ) -> Result<Provisioned, KubeError> {
        let (Some(step), Some(owner)) = (planned.identity_step.clone(), gathered.owner()) else {
            return Ok(Provisioned::Stands(planned));
        };
        if let Err(refusal) = self.pace.room(id, RequestKind::Write, 1) {
            observed.identity_write = refusal.failure();
            observed.postponed = Some(refusal);
            let assessment = assess(&gathered.snapshot(), observed, settings, now);
            let outcome = outcome::of_identity_write(&assessment, observed);
            return Ok(Provisioned::Tried(assessment, outcome));
        }
        if !preconditions::may_write_identity(self.writer.client(), owner, &step).await? {
            return Ok(Provisioned::Behind);
        }
        self.prepare(gathered, &planned).await?;
        match azure::apply_to_identity(self.writing(), (id, owner), &step).await {
            Ok(Some(stored)) => {
                if matches!(step, IdentityWrite::Create(_)) {
                    // It is new, so that there is nothing under it, whatever was under one that had its name.
                    observed.credentials = Some(Ok(Vec::new()));
                }
                observed.identity = Some(Ok(stored));
            }
            Ok(None) => observed.identity = Some(Err(deleted(id))),
            Err(WriteError::Azure(error)) => observed.identity_write = self.failure(&error, observed),
            Err(WriteError::Refused(source)) => {
                return Err(KubeError::Refused { act: format!("writing {id}"), source });
            }
        }
        let assessment = assess(&gathered.snapshot(), observed, settings, now);
        let outcome = outcome::of_identity_write(&assessment, observed);
        Ok(Provisioned::Tried(assessment, outcome))
    }

    /// Makes the objects that bindings on classes get; the refusal, where the API server refuses them.
    pub(crate) async fn make(
        &self,
        gathered: &CacheView,
        assessment: &Assessment,
    ) -> Result<Option<KubeError>, KubeError> {
        for wanted in &assessment.wanted {
            let may = preconditions::may_make(self.writer.client(), gathered, wanted).await?;
            if !may {
                return Err(KubeError::Behind { act: format!("making ManagedIdentity {}", wanted.name_any()) });
            }
            match self.writer.make_identity(wanted).await {
                Err(error) if error.refusal().is_some() => return Ok(Some(error)),
                result => result?,
            }
        }
        Ok(None)
    }

    /// Deletes the objects whose bindings are gone. Their finalizer has Azure cleaned up first.
    pub(crate) async fn reclaim(&self, gathered: &CacheView, assessment: &Assessment) -> Result<(), KubeError> {
        for outcome in assessment.identities.iter().filter(|outcome| outcome.should_delete) {
            let Some(object) = gathered.identity(&outcome.name) else { continue };
            if !preconditions::is_unclaimed(self.writer.client(), object).await? {
                return Err(KubeError::Behind { act: format!("deleting ManagedIdentity {}", outcome.name) });
            }
            self.writer.delete_identity(object).await?;
        }
        Ok(())
    }
}

/// What a GET would say now.
fn deleted(id: &ArmId) -> Failure {
    Failure { reason: Reason::IdentityNotFound, message: format!("{id} is deleted"), retry_after: None }
}
