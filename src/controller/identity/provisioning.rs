//! Identities that Ensign creates: the write of the identity itself, the objects that are created for bindings on classes, and
//! their deletion with these bindings.

use kube::ResourceExt;

use super::outcome;
use super::pass::Pass;
use super::preconditions;
use crate::error::ReconcileError;
use crate::writers::azure::WriteError;
use ensign_api::ArmId;
use ensign_api::conditions::Reason;
use ensign_azure::WrittenIdentity;
use ensign_core::failure::Failure;
use ensign_core::scheduling::rate_limiter::RequestKind;

impl Pass<'_> {
    /// Writes the identity itself if the plan says so. What is under it is left to the next reconcile.
    pub(super) async fn write_identity(&mut self) -> Result<(), ReconcileError> {
        let (Some(write), Some((id, owner))) = (self.plan.identity_write.clone(), self.owned()) else { return Ok(()) };
        if let Err(deferral) = self.context.rate_limiter.room(&id, RequestKind::Write, 1) {
            self.observed.identity_write_failure = deferral.failure();
            self.observed.postponed = Some(deferral);
        } else {
            if !preconditions::may_write_identity(self.context.writer.client(), &owner, &write).await? {
                return Err(ReconcileError::behind(format!("writing {id}")));
            }
            self.record_issuers().await?;
            self.require_finalizers().await?;
            match self.context.azure.write_identity(&id, &owner, &write).await {
                Ok(Some(WrittenIdentity { identity, created })) => {
                    if created {
                        // A new identity has no credentials, whatever an earlier one of its name had.
                        self.observed.credentials = Some(Ok(Vec::new()));
                    }
                    self.observed.identity = Some(Ok(identity));
                }
                Ok(None) => self.observed.identity = Some(Err(deleted(&id))),
                Err(WriteError::Azure(error)) => {
                    self.observed.identity_write_failure = self.context.failure(&error, &mut self.observed);
                }
                Err(WriteError::Refused(source)) => {
                    return Err(ReconcileError::NotLeading { act: format!("writing {id}"), source });
                }
            }
        }
        self.settle(&id);
        self.reassess();
        self.identity_outcome = Some(outcome::of_identity_write(&self.plan, &self.observed));
        Ok(())
    }

    /// Creates the objects of bindings on classes. If the API server rejects one, a condition reports it.
    pub(super) async fn create_dedicated_identities(&mut self) -> Result<(), ReconcileError> {
        let writer = &self.context.writer;
        for desired in &self.plan.identities_to_create {
            if !preconditions::may_create(writer.client(), &self.view, desired).await? {
                return Err(ReconcileError::behind(format!("creating ManagedIdentity {}", desired.name_any())));
            }
            match writer.create_identity(desired).await {
                Err(error) if error.rejection().is_some() => {
                    self.observed.creation_rejection = error.rejection().map(str::to_owned);
                    break;
                }
                result => result?,
            }
        }
        if self.observed.creation_rejection.is_some() {
            self.reassess();
        }
        Ok(())
    }

    /// Deletes the objects whose bindings were deleted. Their finalizers keep them until Azure is cleaned up.
    pub(super) async fn delete_unclaimed_identities(&self) -> Result<(), ReconcileError> {
        let writer = &self.context.writer;
        for outcome in self.plan.identities.iter().filter(|outcome| outcome.should_delete) {
            let Some(object) = self.view.identity(&outcome.name) else { continue };
            if !preconditions::is_unclaimed(writer.client(), object).await? {
                return Err(ReconcileError::behind(format!("deleting ManagedIdentity {}", outcome.name)));
            }
            writer.delete_identity(object).await?;
        }
        Ok(())
    }
}

/// What a GET would return now.
fn deleted(id: &ArmId) -> Failure {
    Failure { reason: Reason::IdentityNotFound, message: format!("{id} was deleted"), retry_after: None }
}
