//! The only place that writes to Azure.

use uuid::Uuid;

use crate::engine::failpoints::{Failpoints, SideEffect};
use crate::engine::write_gate::{Refused, WriteGate};
use crate::metrics::{ControllerMetrics, Written};
use ensign_api::{ArmId, ManagedIdentity};
use ensign_azure::{ArmClient, ArmError};
use ensign_core::assess::{AzureIdentity, PlannedStep};
use ensign_core::credentials::ownership::Credential;
use ensign_core::credentials::plan::CredentialWrite;
use ensign_core::provisioning;
use ensign_core::roles::{ObservedRoles, RoleStep};

/// A write did not succeed.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// The controller may not write any more.
    Refused(Refused),
    /// Azure did not confirm it.
    Azure(ArmError),
}

/// The way of a write to Azure.
#[derive(Clone, Copy)]
pub(crate) struct Writing<'a> {
    pub(crate) effects: &'a Failpoints,
    pub(crate) gate: &'a WriteGate,
    pub(crate) arm: &'a ArmClient,
    pub(crate) metrics: &'a ControllerMetrics,
}

/// Carries one step of a plan out and brings the list of what stands up to date. Repeating it changes nothing.
///
/// Each write leaves an audit record in the log: who caused it, what was written, how it ended, and the ID under which
/// Azure knows it.
pub(crate) async fn apply(
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
            CredentialWrite::Put { credential, .. } => arm.put_credential(id, credential).await.map(Some),
            CredentialWrite::Delete { credential, .. } => {
                arm.delete_credential(id, &credential.name).await.map(|()| None)
            }
        }
    };
    let take_in = |written: Result<Result<Option<Credential>, ArmError>, Refused>| {
        let result = match written {
            Ok(result) => result.map_err(WriteError::Azure),
            Err(refused) => Err(WriteError::Refused(refused)),
        };
        if let Some(ended) = ended(result.as_ref().err()) {
            metrics.written(&planned.step, ended.0);
            audit(id, planned, request_id, ended);
        }
        let stored = result?;
        let name = planned.step.name();
        standing.retain(|credential| credential.name != name);
        standing.extend(stored);
        Ok(())
    };
    effects.carry_out(|| effect(id, planned), gate.write(write), take_in).await
}

/// Writes the identity itself; answers with what Azure stored, if it was not a deletion. Repeating it changes nothing.
pub(crate) async fn apply_to_identity(
    writing: Writing<'_>,
    (id, owner): (&ArmId, &ManagedIdentity),
    step: &provisioning::IdentityWrite,
) -> Result<Option<AzureIdentity>, WriteError> {
    let Writing { effects, gate, arm, .. } = writing;
    let request_id = Uuid::new_v4();
    let arm = arm.identified(request_id);
    let act = match step {
        provisioning::IdentityWrite::Create(_) | provisioning::IdentityWrite::Update(_) => "put-identity",
        provisioning::IdentityWrite::Delete => "delete-identity",
    };
    let write = async {
        match step {
            provisioning::IdentityWrite::Create(desired) | provisioning::IdentityWrite::Update(desired) => {
                arm.put_identity(id, desired).await.map(Some)
            }
            provisioning::IdentityWrite::Delete => arm.delete_identity(id).await.map(|()| None),
        }
    };
    let take_in = |written: Result<Result<Option<AzureIdentity>, ArmError>, Refused>| {
        let result = match written {
            Ok(result) => result.map_err(WriteError::Azure),
            Err(refused) => Err(WriteError::Refused(refused)),
        };
        audit_identity(act, request_id, (id, owner), result.as_ref().err());
        result
    };
    effects.carry_out(|| SideEffect { act, object: owner.known_as() }, gate.write(write), take_in).await
}

fn effect(id: &ArmId, planned: &PlannedStep) -> SideEffect {
    let (act, credential) = act(planned);
    SideEffect { act, object: format!("{} under {}", credential.subject, id.name()) }
}

fn act(planned: &PlannedStep) -> (&'static str, &Credential) {
    match &planned.step {
        CredentialWrite::Put { credential, .. } => ("put", credential),
        CredentialWrite::Delete { credential, .. } => ("delete", credential),
    }
}

/// Writes one role assignment and brings what is known of them up to date. Repeating it changes nothing.
pub(crate) async fn apply_role(
    writing: Writing<'_>,
    (id, owner): (&ArmId, &ManagedIdentity),
    step: &RoleStep,
    observed: &mut ObservedRoles,
) -> Result<(), WriteError> {
    let Writing { effects, gate, arm, .. } = writing;
    let request_id = Uuid::new_v4();
    let arm = arm.identified(request_id);
    let act = match step {
        RoleStep::Put { .. } => "assign-role",
        RoleStep::Delete(_) => "unassign-role",
    };
    let write = async {
        match step {
            RoleStep::Put { assignment, description, .. } => {
                arm.put_role_assignment(id, assignment, description).await.map(Some)
            }
            RoleStep::Delete(assignment) => arm.delete_role_assignment(id, assignment).await.map(|()| None),
        }
    };
    let written = step.assignment();
    let take_in = |answer: Result<Result<_, ArmError>, Refused>| {
        let result = match answer {
            Ok(result) => result.map_err(WriteError::Azure),
            Err(refused) => Err(WriteError::Refused(refused)),
        };
        if let Some((outcome, error)) = ended(result.as_ref().err()) {
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
        let stored = result?;
        if let Some(Ok(existing)) = &mut observed.existing {
            existing.retain(|one| !one.name.eq_ignore_ascii_case(&written.name));
            existing.extend(stored);
        }
        Ok(())
    };
    let effect =
        || SideEffect { act, object: format!("{} in {} for {}", written.role, written.scope, owner.known_as()) };
    effects.carry_out(effect, gate.write(write), take_in).await
}

/// How a write ended, and in which words it failed; `None` where nothing was sent.
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

fn audit(id: &ArmId, planned: &PlannedStep, request_id: Uuid, (outcome, error): (Written, Option<String>)) {
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
        outcome = outcome.as_str(),
        error,
        "azure write"
    );
}
