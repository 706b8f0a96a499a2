//! The only place that writes to Azure.

use super::effects::{Effect, Effects};
use super::write_gate::{Refused, WriteGate};
use crate::api::{ArmId, ManagedIdentity};
use crate::azure::{ArmClient, ArmError};
use crate::decide::assess::{AzureIdentity, PlannedStep};
use crate::decide::credentials::Step;
use crate::decide::ownership::Credential;
use crate::decide::provision;

/// A write did not succeed.
#[derive(Debug)]
pub(super) enum WriteError {
    /// The controller may not write any more.
    Refused(Refused),
    /// Azure did not confirm it.
    Azure(ArmError),
}

/// Carries one step of a plan out and brings the list of what stands up to date. Repeating it changes nothing.
///
/// Each write leaves an audit record in the log: who caused it, what was written, and how it ended.
pub(super) async fn apply(
    effects: &Effects,
    gate: &WriteGate,
    arm: &ArmClient,
    id: &ArmId,
    planned: &PlannedStep,
    standing: &mut Vec<Credential>,
) -> Result<(), WriteError> {
    let write = async {
        match &planned.step {
            Step::Put { credential, .. } => arm.put_credential(id, credential).await.map(Some),
            Step::Delete { credential, .. } => arm.delete_credential(id, &credential.name).await.map(|()| None),
        }
    };
    let take_in = |written: Result<Result<Option<Credential>, ArmError>, Refused>| {
        let result = match written {
            Ok(result) => result.map_err(WriteError::Azure),
            Err(refused) => Err(WriteError::Refused(refused)),
        };
        audit(id, planned, result.as_ref().err());
        let stored = result?;
        let name = planned.step.name();
        standing.retain(|credential| credential.name != name);
        standing.extend(stored);
        Ok(())
    };
    effects.carry_out(|| effect(id, planned), gate.write(write), take_in).await
}

/// Writes the identity itself; answers with what Azure stored, if it was not a deletion. Repeating it changes nothing.
pub(super) async fn apply_to_identity(
    effects: &Effects,
    gate: &WriteGate,
    arm: &ArmClient,
    (id, owner): (&ArmId, &ManagedIdentity),
    step: &provision::Step,
) -> Result<Option<AzureIdentity>, WriteError> {
    let act = match step {
        provision::Step::Create(_) | provision::Step::Update(_) => "put-identity",
        provision::Step::Delete => "delete-identity",
    };
    let write = async {
        match step {
            provision::Step::Create(desired) | provision::Step::Update(desired) => {
                arm.put_identity(id, desired).await.map(Some)
            }
            provision::Step::Delete => arm.delete_identity(id).await.map(|()| None),
        }
    };
    let take_in = |written: Result<Result<Option<AzureIdentity>, ArmError>, Refused>| {
        let result = match written {
            Ok(result) => result.map_err(WriteError::Azure),
            Err(refused) => Err(WriteError::Refused(refused)),
        };
        audit_identity(act, id, owner, result.as_ref().err());
        result
    };
    effects.carry_out(|| Effect { act, object: owner.known_as() }, gate.write(write), take_in).await
}

fn effect(id: &ArmId, planned: &PlannedStep) -> Effect {
    let (act, credential) = act(planned);
    Effect { act, object: format!("{} under {}", credential.subject, id.name()) }
}

fn act(planned: &PlannedStep) -> (&'static str, &Credential) {
    match &planned.step {
        Step::Put { credential, .. } => ("put", credential),
        Step::Delete { credential, .. } => ("delete", credential),
    }
}

/// How a write ended, for an audit record; none where nothing was sent.
fn ended(error: Option<&WriteError>) -> Option<(&'static str, Option<String>)> {
    match error {
        None => Some(("confirmed", None)),
        Some(WriteError::Azure(error)) if error.not_sent().is_some() => None,
        Some(WriteError::Azure(error)) => Some(("failed", Some(error.cause.to_string()))),
        Some(WriteError::Refused(Refused::Abandoned)) => Some(("unknown", Some(Refused::Abandoned.to_string()))),
        Some(WriteError::Refused(Refused::Stopping | Refused::NotLeading)) => None,
    }
}

fn audit_identity(act: &str, id: &ArmId, owner: &ManagedIdentity, error: Option<&WriteError>) {
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
        outcome,
        error,
        "azure write"
    );
}

fn audit(id: &ArmId, planned: &PlannedStep, error: Option<&WriteError>) {
    let Some((outcome, error)) = ended(error) else { return };
    let (act, credential) = act(planned);
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
        outcome,
        error,
        "azure write"
    );
}
