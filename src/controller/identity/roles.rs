//! Roles: what Azure is asked about them, and their assignments.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;

use super::preconditions;
use super::reconcile::Reconciler;
use crate::cache::snapshot::CacheView;
use crate::writers::azure::{self, WriteError};
use crate::writers::kubernetes::KubeError;
use ensign_api::conditions::Reason;
use ensign_api::{ArmId, CredentialOrigin, ManagedIdentity};
use ensign_core::assess::{Assessment, Observed, Settings, assess, role_inputs};
use ensign_core::failure::Failure;
use ensign_core::mutants::{self, Mutant};
use ensign_core::roles::{self, Assignment, Inputs, Lookup, RoleDefinition, RoleStep};
use ensign_core::scheduling::rate_limiter::{Deferral, RequestKind};

/// How long a definition is believed that nothing is written on the word of.
const BELIEVED: Duration = Duration::from_secs(3600);

/// Role definitions that were looked up, so that a steady identity costs no look-up. Many identities share them.
#[derive(Default)]
pub(crate) struct RoleBook(Mutex<BTreeMap<Lookup, (Instant, RoleDefinition)>>);

impl RoleBook {
    fn known(&self, lookup: &Lookup, now: Instant) -> Option<RoleDefinition> {
        let book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, role) = book.get(lookup)?;
        (now.saturating_duration_since(*since) < BELIEVED).then(|| role.clone())
    }

    fn learn(&self, lookup: Lookup, role: RoleDefinition, now: Instant) {
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        book.retain(|_, (since, _)| now.saturating_duration_since(*since) < BELIEVED);
        book.insert(lookup, (now, role));
    }
}

impl Reconciler {
    /// Asks Azure about the identity's roles: definitions that are not known, one LIST for each resource group that a role
    /// is asked for in, and assignments that are on their way out.
    pub(crate) async fn observe_roles(
        &self,
        id: &ArmId,
        owner: &ManagedIdentity,
        settings: &Settings,
        observed: &mut Observed,
    ) {
        let before = observed.clone();
        let Some(inputs) = role_inputs(owner, &before, settings) else { return };
        let made = inputs.records.iter().any(|record| record.origin == CredentialOrigin::Created);
        if inputs.policy.is_none() {
            // Nothing is asked of Azure; what keeps a deletion waiting is said.
            if inputs.leaving && made {
                observed.roles.existing = Some(Err(switched_off()));
            }
            return;
        }
        // Without an answer about the identity there is nothing to ask about its roles; they outlive it, though.
        let answered = observed.identity.is_some() || observed.credentials.is_some();
        if observed.postponed.is_some() || !answered || !(inputs.principal.is_some() || made) {
            return;
        }
        // Those before them use up what comes in one by one, so that who waits for one at a time never has them all.
        let (wanted, now) = (roles::lookups(&inputs), self.clock.monotonic());
        let unknown = wanted.iter().filter(|lookup| self.roles.known(lookup, now).is_none()).count();
        // What is written is looked up once more.
        let again = wanted.len().min(1);
        let reads = unknown + roles::roots(&inputs).len() + roles::unlisted(&inputs, &[]).len() + again;
        if let Err(refusal) = self.pace.all(id, RequestKind::Get, reads) {
            observed.postponed = Some(refusal);
            return;
        }
        for lookup in wanted {
            if let Some(role) = self.roles.known(&lookup, self.clock.monotonic()) {
                observed.roles.definitions.insert(lookup, Ok(role));
            } else if !self.look_up(id, lookup, observed).await {
                return;
            }
        }
        observed.roles.existing = self.list_roles(id, &inputs, observed).await;
    }

    /// Looks a definition up; whether Azure was asked at all.
    async fn look_up(&self, id: &ArmId, lookup: Lookup, observed: &mut Observed) -> bool {
        let answer = self.arm.role_definition(id, &lookup).await;
        let Some(answer) = self.answer(answer, observed) else { return false };
        if let Ok(role) = &answer {
            self.roles.learn(lookup.clone(), role.clone(), self.clock.monotonic());
        }
        observed.roles.definitions.insert(lookup, answer);
        true
    }

    async fn list_roles(
        &self,
        id: &ArmId,
        inputs: &Inputs<'_>,
        observed: &mut Observed,
    ) -> Option<Result<Vec<Assignment>, Failure>> {
        let mut all: Vec<Assignment> = Vec::new();
        for root in roles::roots(inputs) {
            let Some(principal) = inputs.principal else { break };
            match self.answer(self.arm.role_assignments(id, &root, principal).await, observed)? {
                Ok(found) => all.extend(found),
                failure => return Some(failure),
            }
        }
        // What counts here because it was assigned above comes with several lists.
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all.dedup_by(|one, other| one.name == other.name);
        for (record, scope) in roles::unlisted(inputs, &all) {
            match self.answer(self.arm.role_assignment(id, &scope, &record.name).await, observed)? {
                Ok(found) => all.extend(found),
                Err(failure) => return Some(Err(failure)),
            }
        }
        Some(Ok(all))
    }

    /// Writes role assignments where the plan says so, after everything that has to come first; `None` when the cache was
    /// behind.
    pub(crate) async fn assign(
        &self,
        gathered: &CacheView,
        planned: Assessment,
        observed: &mut Observed,
        (settings, now): (&Settings, Timestamp),
    ) -> Result<Option<Assessment>, KubeError> {
        let Some((id, owner)) = gathered.id.as_ref().zip(gathered.owner()) else { return Ok(Some(planned)) };
        if planned.role_steps.is_empty() || planned.identity_step.is_some() {
            return Ok(Some(planned));
        }
        // Nothing is written on the word of a definition that was looked up a while ago, or for an identity that may have
        // been made anew since.
        let mut looked_at = 0;
        for step in &planned.role_steps {
            if let RoleStep::Put { lookup, .. } = step
                && !self.look_up(id, lookup.clone(), observed).await
            {
                break;
            }
            looked_at += 1;
        }
        if looked_at == 0 || matches!(observed.postponed, Some(Deferral::Held { .. })) {
            return Ok(Some(planned));
        }
        if observed.identity.is_none() {
            self.observe_identity(id, observed).await;
        }
        let again = assess(&gathered.snapshot(), observed, settings, now);
        if again.role_steps != planned.role_steps || !observed.may_write() {
            return Ok(Some(again));
        }
        let due = match self.pace.room(id, RequestKind::Write, again.role_steps.len()) {
            Ok(room) => &again.role_steps[..room.min(looked_at)],
            Err(refusal) => {
                observed.postponed = Some(refusal);
                return Ok(Some(again));
            }
        };
        if !mutants::active(Mutant::RoleFreshnessSkipped)
            && !preconditions::is_fresh(self.writer.client(), gathered, &[]).await?
        {
            return Ok(None);
        }
        if !mutants::active(Mutant::RoleBeforeRecord) {
            self.hold(gathered, &again).await?;
            self.record(gathered, &again).await?;
        }
        for step in due {
            let written = azure::apply_role(self.writing(), (id, owner), step, &mut observed.roles);
            let error = match written.await {
                Ok(()) => continue,
                Err(WriteError::Azure(error)) => error,
                Err(WriteError::Refused(source)) => {
                    return Err(KubeError::Refused { act: format!("assigning roles to {id}"), source });
                }
            };
            let Some(failure) = self.failure(&error, observed) else { break };
            let stop = failure.is_transient() || failure.reason == Reason::PermissionsPending;
            observed.roles.write_failures.insert(step.assignment().name.clone(), failure);
            if stop {
                break;
            }
        }
        let refused = observed.postponed.is_some();
        if due.len() < again.role_steps.len() && observed.roles.write_failures.is_empty() && !refused {
            observed.postponed = Some(Deferral::Paced { wait: Duration::ZERO });
        }
        Ok(Some(assess(&gathered.snapshot(), observed, settings, now)))
    }

    /// Status names an assignment before it is made, so that it is found again whatever becomes of this process.
    async fn record(&self, gathered: &CacheView, assessment: &Assessment) -> Result<(), KubeError> {
        for outcome in &assessment.identities {
            let Some(object) = gathered.identity(&outcome.name) else { continue };
            let recorded = object.status.as_ref().map(|status| &status.role_assignments[..]).unwrap_or_default();
            if recorded != outcome.status.role_assignments {
                self.write_status(object.as_ref(), object.status.as_ref(), &outcome.status).await?;
            }
        }
        Ok(())
    }
}

fn switched_off() -> Failure {
    Failure {
        reason: Reason::RoleAssignmentsDisabled,
        message: "roles that Ensign assigned are left, and this controller assigns and deletes none: whoever runs Ensign has to set --role-assignments, or an Azure administrator has to delete the assignments that status.roleAssignments names".to_owned(),
        retry_after: None,
    }
}
