//! The only place that writes to Azure.

use super::effects::{Effect, Effects};
use crate::api::ArmId;
use crate::azure::{ArmClient, ArmError};
use crate::decide::assess::PlannedStep;
use crate::decide::credentials::Step;
use crate::decide::ownership::Credential;

/// Carries one step of a plan out and brings the list of what stands up to date. Repeating it changes nothing.
///
/// Each write leaves an audit record in the log: who caused it, what was written, and how it ended.
pub(super) async fn apply(
    effects: &Effects,
    arm: &ArmClient,
    id: &ArmId,
    planned: &PlannedStep,
    standing: &mut Vec<Credential>,
) -> Result<(), ArmError> {
    let request = async {
        match &planned.step {
            Step::Put { credential, .. } => arm.put_credential(id, credential).await.map(Some),
            Step::Delete { credential } => arm.delete_credential(id, &credential.name).await.map(|()| None),
        }
    };
    let take_in = |result: Result<Option<Credential>, ArmError>| {
        audit(id, planned, result.as_ref().err());
        let stored = result?;
        let name = planned.step.name();
        standing.retain(|credential| credential.name != name);
        standing.extend(stored);
        Ok(())
    };
    effects.carry_out(|| effect(id, planned), request, take_in).await
}

fn effect(id: &ArmId, planned: &PlannedStep) -> Effect {
    let (act, credential) = act(planned);
    Effect { act, object: format!("{} under {}", credential.subject, id.name()) }
}

fn act(planned: &PlannedStep) -> (&'static str, &Credential) {
    match &planned.step {
        Step::Put { credential, .. } => ("put", credential),
        Step::Delete { credential } => ("delete", credential),
    }
}

fn audit(id: &ArmId, planned: &PlannedStep, error: Option<&ArmError>) {
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
        outcome = if error.is_none() { "confirmed" } else { "failed" },
        error = error.map(|error| error.cause.to_string()),
        "azure write"
    );
}
