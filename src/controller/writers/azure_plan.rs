//! Carries a plan for Azure out: one write after another, until one fails in a way that stops those after it.
//!
//! Credentials, role assignments and teardown share this loop. What comes before it (is the plan still right, is the cache
//! fresh, are the finalizers set) is the caller's.

use super::azure::{AzureWriter, WriteError};
use crate::engine::write_gate::Refused;
use ensign_api::conditions::Reason;
use ensign_api::{ArmId, ManagedIdentity};
use ensign_azure::ArmError;
use ensign_core::assess::{AzureIdentity, PlannedCredentialWrite};
use ensign_core::credentials::ownership::Credential;
use ensign_core::failure::Failure;
use ensign_core::roles::{ObservedRoles, RoleWrite};

/// A write that is part of a plan.
pub(crate) trait AzureWrite {
    /// What exists in Azure beside it, which every write brings up to date.
    type Existing;
    /// The identity that it belongs to.
    type Target: ?Sized;

    /// The name of what is written.
    fn name(&self) -> &str;

    /// Whether what it depends on exists by now.
    fn may_go(&self, existing: &Self::Existing) -> bool;

    /// Whether those after it would fail in the same way.
    fn stops(failure: &Failure) -> bool;

    /// Sends it.
    async fn send(
        &self,
        writer: &AzureWriter,
        target: &Self::Target,
        existing: &mut Self::Existing,
    ) -> Result<(), WriteError>;
}

impl AzureWrite for PlannedCredentialWrite {
    type Existing = Vec<Credential>;
    type Target = (ArmId, Option<AzureIdentity>);

    fn name(&self) -> &str {
        self.write.name()
    }

    fn may_go(&self, existing: &Vec<Credential>) -> bool {
        self.write.may_go(existing)
    }

    fn stops(failure: &Failure) -> bool {
        failure.is_transient() || failure.is_gone()
    }

    async fn send(
        &self,
        writer: &AzureWriter,
        (id, parent): &(ArmId, Option<AzureIdentity>),
        existing: &mut Vec<Credential>,
    ) -> Result<(), WriteError> {
        writer.write_credential((id, parent.as_ref()), self, existing).await
    }
}

impl AzureWrite for RoleWrite {
    type Existing = ObservedRoles;
    type Target = (ArmId, ManagedIdentity);

    fn name(&self) -> &str {
        &self.assignment().name
    }

    fn may_go(&self, _: &ObservedRoles) -> bool {
        true
    }

    fn stops(failure: &Failure) -> bool {
        failure.is_transient() || failure.reason == Reason::PermissionsPending
    }

    async fn send(
        &self,
        writer: &AzureWriter,
        (id, owner): &(ArmId, ManagedIdentity),
        observed: &mut ObservedRoles,
    ) -> Result<(), WriteError> {
        writer.write_role(id, owner, self, observed).await
    }
}

/// How far a plan was carried out.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// How many writes were sent or failed; those after them wait.
    pub(crate) tried: usize,
    /// Names of what Azure confirmed.
    pub(crate) written: Vec<String>,
    /// Failures of the others, by name.
    pub(crate) failures: Vec<(String, Failure)>,
    /// Why this process may not write, if that ended it.
    pub(crate) refused: Option<Refused>,
}

/// Sends the writes in their order. `judge` returns what an error of Azure means, or `None` if the request waits for rate-limit
/// budget.
pub(crate) async fn carry_out<W: AzureWrite>(
    writer: &AzureWriter,
    plan: &[W],
    target: &W::Target,
    existing: &mut W::Existing,
    mut judge: impl FnMut(&ArmError) -> Option<Failure>,
) -> Progress {
    let mut progress = Progress::default();
    for write in plan {
        if !write.may_go(existing) {
            break;
        }
        match write.send(writer, target, existing).await {
            Ok(()) => progress.written.push(write.name().to_owned()),
            Err(WriteError::Refused(refused)) => {
                progress.refused = Some(refused);
                break;
            }
            Err(WriteError::Azure(error)) => {
                let Some(failure) = judge(&error) else { break };
                let stops = W::stops(&failure);
                progress.failures.push((write.name().to_owned(), failure));
                if stops {
                    break;
                }
            }
        }
        progress.tried += 1;
    }
    progress
}
