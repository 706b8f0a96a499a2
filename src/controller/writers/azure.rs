//! The only place that writes to Azure.

use std::future::Future;

use uuid::Uuid;

use super::own_writes::OwnWritesByIdentity;
use crate::engine::failpoints::{Failpoints, SideEffect};
use crate::engine::write_gate::{Refused, WriteGate};
use crate::metrics::{ControllerMetrics, Written};
use ensign_api::{ArmId, ManagedIdentity};
use ensign_azure::{ArmClient, ArmError, WrittenIdentity};
use ensign_core::assess::{AzureIdentity, PlannedCredentialWrite};
use ensign_core::credentials::ownership::Credential;
use ensign_core::credentials::plan::CredentialWrite;
use ensign_core::provisioning::IdentityWrite;
use ensign_core::roles::{ObservedRoles, RoleWrite};

/// A write did not succeed.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// This process may not write.
    Refused(Refused),
    /// Azure did not confirm it.
    Azure(ArmError),
}

/// Sends writes to Azure, one at a time. Repeating one changes nothing.
///
/// Each write that was sent leaves an audit record in the log: what caused it, what was written, how it ended, and the ID of the
/// request in Azure.
#[derive(Clone)]
pub(crate) struct AzureWriter {
    pub(crate) arm: ArmClient,
    pub(crate) gate: WriteGate,
    pub(crate) failpoints: Failpoints,
    pub(crate) metrics: ControllerMetrics,
    pub(crate) own_writes: OwnWritesByIdentity,
}

impl AzureWriter {
    /// Creates, repairs or deletes a federated identity credential, and brings `existing` up to date. `parent` is the identity as
    /// it was last read.
    pub(crate) async fn write_credential(
        &self,
        (id, parent): (&ArmId, Option<&AzureIdentity>),
        planned: &PlannedCredentialWrite,
        existing: &mut Vec<Credential>,
    ) -> Result<(), WriteError> {
        let request_id = Uuid::new_v4();
        let arm = self.arm.identified(request_id);
        let request = async {
            match &planned.write {
                CredentialWrite::Put { credential, .. } => arm.put_credential(id, credential).await.map(Some),
                CredentialWrite::Delete { credential, .. } => {
                    let deleted = arm.delete_credential(id, &credential.name).await;
                    self.unless_gone(id, deleted).map(|()| None)
                }
            }
        };
        let (act, credential) = describe(planned);
        let effect = || SideEffect { act, object: format!("{} under {}", credential.subject, id.name()) };
        self.send(effect, request, |result| {
            if let Some(ended) = ended(result.as_ref().err()) {
                self.metrics.written(&planned.write, ended.0);
                audit_credential(id, planned, request_id, ended);
            }
            let name = planned.write.name();
            if result.is_err() {
                self.own_writes.of(id, |own, _| own.credential_unknown(name));
            }
            let stored = result?;
            existing.retain(|credential| credential.name != name);
            self.own_writes.of(id, |own, now| match &stored {
                Some(stored) => own.credential_put(stored, parent, now),
                None => own.credential_deleted(name, now),
            });
            existing.extend(stored);
            Ok(())
        })
        .await
    }

    /// A deletion that fails because what contains the credential does not exist has succeeded, unless this process has just
    /// written there.
    fn unless_gone(&self, id: &ArmId, deleted: Result<(), ArmError>) -> Result<(), ArmError> {
        let contradicted = || self.own_writes.of(id, |own, now| own.contradicts_absence(now));
        match deleted {
            Err(error) if error.failure(None).is_gone() && !contradicted() => Ok(()),
            result => result,
        }
    }

    /// Creates, updates or deletes the identity itself; returns what Azure stored, unless it was deleted.
    pub(crate) async fn write_identity(
        &self,
        id: &ArmId,
        owner: &ManagedIdentity,
        write: &IdentityWrite,
    ) -> Result<Option<WrittenIdentity>, WriteError> {
        let request_id = Uuid::new_v4();
        let arm = self.arm.identified(request_id);
        let act = match write {
            IdentityWrite::Create(_) | IdentityWrite::Update(_) => "put-identity",
            IdentityWrite::Delete => "delete-identity",
        };
        let request = async {
            match write {
                IdentityWrite::Create(desired) | IdentityWrite::Update(desired) => {
                    arm.put_identity(id, desired).await.map(Some)
                }
                IdentityWrite::Delete => {
                    let deleted = arm.delete_identity(id).await;
                    self.unless_gone(id, deleted).map(|()| None)
                }
            }
        };
        self.send(
            || SideEffect { act, object: owner.known_as() },
            request,
            |result| {
                audit_identity(act, request_id, (id, owner), result.as_ref().err());
                if result.is_err() {
                    self.own_writes.of(id, |own, _| own.identity_unknown());
                }
                let stored = result?;
                self.own_writes.of(id, |own, now| match &stored {
                    Some(WrittenIdentity { identity, created }) => own.identity_put(identity, *created, now),
                    None => own.identity_deleted(now),
                });
                Ok(stored)
            },
        )
        .await
    }

    /// Creates or deletes a role assignment, and brings `observed` up to date.
    pub(crate) async fn write_role(
        &self,
        id: &ArmId,
        owner: &ManagedIdentity,
        write: &RoleWrite,
        observed: &mut ObservedRoles,
    ) -> Result<(), WriteError> {
        let request_id = Uuid::new_v4();
        let arm = self.arm.identified(request_id);
        let act = match write {
            RoleWrite::Put { .. } => "assign-role",
            RoleWrite::Delete(_) => "unassign-role",
        };
        let request = async {
            match write {
                RoleWrite::Put { assignment, description, .. } => {
                    arm.put_role_assignment(id, assignment, description).await.map(Some)
                }
                RoleWrite::Delete(assignment) => arm.delete_role_assignment(id, assignment).await.map(|()| None),
            }
        };
        let written = write.assignment();
        let object = || format!("{} in {} for {}", written.role, written.scope, owner.known_as());
        self.send(
            || SideEffect { act, object: object() },
            request,
            |result| {
                audit_role(act, request_id, (id, owner), write, result.as_ref().err());
                if result.is_err() {
                    self.own_writes.of(id, |own, _| own.assignment_unknown(&written.name));
                }
                let stored = result?;
                self.own_writes.of(id, |own, now| match &stored {
                    Some(stored) => own.assignment_put(stored, now),
                    None => own.assignment_deleted(&written.name, now),
                });
                if stored.is_none() {
                    observed.deleted.insert(written.name.to_lowercase());
                }
                if let Some(Ok(existing)) = &mut observed.existing {
                    existing.retain(|one| !one.name.eq_ignore_ascii_case(&written.name));
                    existing.extend(stored);
                }
                Ok(())
            },
        )
        .await
    }

    /// Sends a write through the gate, with a failpoint at each of its phases.
    async fn send<T, U>(
        &self,
        effect: impl FnOnce() -> SideEffect,
        request: impl Future<Output = Result<T, ArmError>>,
        take_in: impl FnOnce(Result<T, WriteError>) -> Result<U, WriteError>,
    ) -> Result<U, WriteError> {
        let take_in = |response: Result<Result<T, ArmError>, Refused>| match response {
            Ok(result) => take_in(result.map_err(WriteError::Azure)),
            Err(refused) => take_in(Err(WriteError::Refused(refused))),
        };
        self.failpoints.carry_out(effect, self.gate.write(request), take_in).await
    }
}

fn describe(planned: &PlannedCredentialWrite) -> (&'static str, &Credential) {
    match &planned.write {
        CredentialWrite::Put { credential, .. } => ("put", credential),
        CredentialWrite::Delete { credential, .. } => ("delete", credential),
    }
}

/// How a write ended, with Azure's message if it failed; `None` if nothing was sent.
fn ended(error: Option<&WriteError>) -> Option<(Written, Option<String>)> {
    match error {
        None => Some((Written::Confirmed, None)),
        Some(WriteError::Azure(error)) if error.not_sent().is_some() => None,
        Some(WriteError::Azure(error)) => Some((Written::Failed, Some(error.cause.to_string()))),
        Some(WriteError::Refused(Refused::Abandoned)) => Some((Written::Unknown, Some(Refused::Abandoned.to_string()))),
        Some(WriteError::Refused(Refused::Stopping | Refused::NotLeading)) => None,
    }
}

impl Written {
    /// Its name in audit records.
    fn as_str(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }
}

fn audit_credential(
    id: &ArmId,
    planned: &PlannedCredentialWrite,
    request_id: Uuid,
    (outcome, error): (Written, Option<String>),
) {
    let (act, credential) = describe(planned);
    let cause = planned.cause.as_ref();
    tracing::info!(
        target: "ensign::audit",
        act,
        identity = %id,
        credential = credential.name,
        issuer = credential.issuer,
        subject = credential.subject,
        binding_namespace = cause.map(|cause| cause.namespace.as_str()),
        binding = cause.map(|cause| cause.binding.as_str()),
        binding_uid = cause.map(|cause| cause.uid.as_str()),
        grant = cause.map(|cause| cause.grant.as_str()),
        %request_id,
        outcome = outcome.as_str(),
        error,
        "azure write"
    );
}

fn audit_identity(act: &str, request_id: Uuid, (id, owner): (&ArmId, &ManagedIdentity), error: Option<&WriteError>) {
    let Some((outcome, error)) = ended(error) else { return };
    let claim = owner.spec.claim_ref.as_ref();
    tracing::info!(
        target: "ensign::audit",
        act,
        identity = %id,
        managed_identity = owner.metadata.name,
        managed_identity_uid = owner.metadata.uid,
        class = owner.spec.class_name,
        binding_namespace = claim.map(|claim| claim.namespace.as_str()),
        binding = claim.map(|claim| claim.name.as_str()),
        binding_uid = claim.map(|claim| claim.uid.as_str()),
        outcome = outcome.as_str(),
        error,
        %request_id,
        "azure write"
    );
}

fn audit_role(
    act: &str,
    request_id: Uuid,
    (id, owner): (&ArmId, &ManagedIdentity),
    write: &RoleWrite,
    error: Option<&WriteError>,
) {
    let Some((outcome, error)) = ended(error) else { return };
    let written = write.assignment();
    tracing::info!(
        target: "ensign::audit",
        act,
        identity = %id,
        managed_identity = owner.metadata.name,
        managed_identity_uid = owner.metadata.uid,
        role = written.role,
        scope = written.scope,
        principal = written.principal,
        assignment = written.name,
        outcome = outcome.as_str(),
        error,
        %request_id,
        "azure write"
    );
}
