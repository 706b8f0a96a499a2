//! The only place that writes to Azure.

use super::effects::{Effect, Effects};
use super::write_gate::{Refused, WriteGate};
use crate::api::ArmId;
use crate::azure::{ArmClient, ArmError};
use crate::decide::assess::PlannedStep;
use crate::decide::credentials::Step;
use crate::decide::ownership::Credential;

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

fn audit(id: &ArmId, planned: &PlannedStep, error: Option<&WriteError>) {
    let (outcome, error) = match error {
        None => ("confirmed", None),
        // Nothing was sent.
        Some(WriteError::Azure(error)) if error.not_sent().is_some() => return,
        Some(WriteError::Azure(error)) => ("failed", Some(error.cause.to_string())),
        Some(WriteError::Refused(Refused::Abandoned)) => ("unknown", Some(Refused::Abandoned.to_string())),
        // Nothing was sent.
        Some(WriteError::Refused(Refused::Stopping | Refused::NotLeading)) => return,
    };
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
