//! The only place that writes to Azure.

use uuid::Uuid;

use super::effects::{Effect, Effects};
use super::metrics::{ControllerMetrics, Written};
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

/// The way of a write to Azure.
#[derive(Clone, Copy)]
pub(super) struct Writing<'a> {
    pub(super) effects: &'a Effects,
    pub(super) gate: &'a WriteGate,
    pub(super) arm: &'a ArmClient,
    pub(super) metrics: &'a ControllerMetrics,
}

/// Carries one step of a plan out and brings the list of what stands up to date. Repeating it changes nothing.
///
/// Each write leaves an audit record in the log: who caused it, what was written, how it ended, and the ID under which
/// Azure knows it.
pub(super) async fn apply(
    writing: Writing<'_>,
    id: &ArmId,
    planned: &PlannedStep,
    standing: &mut Vec<Credential>,
) -> Result<(), WriteError> {
    let Writing { effects, gate, arm, metrics } = writing;
    let request_id = Uuid::new_v4();
    let arm = arm.identified(request_id);
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
        if let Some(outcome) = outcome(result.as_ref().err()) {
            metrics.written(&planned.step, outcome);
            audit(id, planned, request_id, outcome, result.as_ref().err());
        }
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

/// How the write ended; `None` if nothing was sent.
fn outcome(error: Option<&WriteError>) -> Option<Written> {
    match error {
        None => Some(Written::Confirmed),
        Some(WriteError::Azure(error)) => error.not_sent().is_none().then_some(Written::Failed),
        Some(WriteError::Refused(Refused::Abandoned)) => Some(Written::Unknown),
        Some(WriteError::Refused(Refused::Stopping | Refused::NotLeading)) => None,
    }
}

fn audit(id: &ArmId, planned: &PlannedStep, request_id: Uuid, outcome: Written, error: Option<&WriteError>) {
    let outcome = match outcome {
        Written::Confirmed => "confirmed",
        Written::Failed => "failed",
        Written::Unknown => "unknown",
    };
    let error = error.map(|error| match error {
        WriteError::Azure(error) => error.cause.to_string(),
        WriteError::Refused(refused) => refused.to_string(),
    });
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
        %request_id,
        outcome,
        error,
        "azure write"
    );
}
