//! Role assignments: what is read about them from Azure, and their writes.

use std::time::Duration;

use super::pass::Pass;
use crate::error::ReconcileError;
use crate::writers::azure_plan::carry_out;
use ensign_api::conditions::Reason;
use ensign_api::{ArmId, CredentialOrigin, ManagedIdentity};
use ensign_core::assess::role_inputs;
use ensign_core::failure::Failure;
use ensign_core::roles::{self, Assignment, Inputs, Lookup, RoleWrite};
use ensign_core::scheduling::rate_limiter::{Deferral, RequestKind};

/// When a definition that Azure found before and does not find now is looked up again.
const ROLE_MISSED: Duration = Duration::from_secs(15);

impl Pass<'_> {
    /// Reads the identity's roles from Azure: definitions that are not cached, one LIST for each resource group with a desired
    /// role, and assignments that are about to be deleted.
    pub(super) async fn observe_roles(&mut self, id: &ArmId, owner: &ManagedIdentity) {
        let (before, settings) = (self.observed.clone(), self.settings.clone());
        let Some(inputs) = role_inputs(owner, &before, &settings) else { return };
        let created = inputs.records.iter().any(|record| record.origin == CredentialOrigin::Created);
        if inputs.policy.is_none() {
            // Nothing is read from Azure; what blocks a deletion is reported.
            if inputs.deleting && created {
                self.observed.roles.existing = Some(Err(disabled()));
            }
            return;
        }
        // Without a response about the identity there is nothing to read about its roles; they outlive it, though.
        let answered = self.observed.identity.is_some() || self.observed.credentials.is_some();
        if self.observed.postponed.is_some() || !answered || !(inputs.principal.is_some() || created) {
            return;
        }
        if let Err(deferral) = self.room_for_role_reads(id, &inputs) {
            self.observed.postponed = Some(deferral);
            return;
        }
        for lookup in roles::lookups(&inputs) {
            let now = self.context.clock.monotonic();
            if let Some(role) = self.context.role_definitions.get(&lookup, now) {
                self.observed.roles.definitions.insert(lookup, Ok(role));
            } else if !self.look_up(id, lookup).await {
                return;
            }
        }
        self.observed.roles.existing = self.list_roles(id, &inputs).await;
    }

    /// Whether there is budget for all reads together: one by one they would use up the budget, and an identity that needs
    /// several would never get them all.
    fn room_for_role_reads(&self, id: &ArmId, inputs: &Inputs<'_>) -> Result<(), Deferral> {
        let (lookups, now) = (roles::lookups(inputs), self.context.clock.monotonic());
        let is_unknown = |lookup: &&Lookup| self.context.role_definitions.get(lookup, now).is_none();
        let unknown = lookups.iter().filter(is_unknown).count();
        // The definition of the first write is looked up again.
        let again = lookups.len().min(1);
        let reads = unknown + roles::roots(inputs).len() + roles::unlisted(inputs, &[]).len() + again;
        self.context.rate_limiter.all(id, RequestKind::RoleRead, reads)
    }

    /// Looks a definition up; whether the request was sent.
    async fn look_up(&mut self, id: &ArmId, lookup: Lookup) -> bool {
        let answer = self.context.arm.role_definition(id, &lookup).await;
        let Some(answer) = self.answer(answer) else { return false };
        let (known, now) = (&self.context.role_definitions, self.context.clock.monotonic());
        let answer = match answer {
            Ok(role) => {
                known.insert(lookup.clone(), role.clone(), now);
                Ok(role)
            }
            Err(failure) if failure.reason == Reason::RoleNotFound => known.recently_found(&lookup, now).ok_or(failure),
            failure => failure,
        };
        self.observed.roles.definitions.insert(lookup, answer);
        true
    }

    async fn list_roles(&mut self, id: &ArmId, inputs: &Inputs<'_>) -> Option<Result<Vec<Assignment>, Failure>> {
        let sent = self.context.azure.own_writes.now();
        let mut all: Vec<Assignment> = Vec::new();
        for root in roles::roots(inputs) {
            let Some(principal) = inputs.principal else { break };
            let answer = self.context.arm.role_assignments(id, &root, principal).await;
            match self.answer(answer)? {
                Ok(found) => all.extend(found),
                failure => return Some(failure),
            }
        }
        // An assignment that is inherited from above is in several lists.
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all.dedup_by(|one, other| one.name == other.name);
        for (record, scope) in roles::unlisted(inputs, &all) {
            let answer = self.context.arm.role_assignment(id, &scope, &record.name).await;
            match self.answer(answer)? {
                Ok(found) => all.extend(found),
                Err(failure) => return Some(Err(failure)),
            }
        }
        Some(Ok(self.context.azure.own_writes.of(id, |own, _| own.assignments(&all, sent))))
    }

    /// Writes role assignments if the plan says so, as far as Azure's rate limits allow now.
    pub(super) async fn write_roles(&mut self) -> Result<(), ReconcileError> {
        let Some(owned) = self.owned() else { return Ok(()) };
        let id = owned.0.clone();
        if self.plan.role_writes.is_empty() || self.plan.identity_write.is_some() {
            return Ok(());
        }
        let confirmed = self.confirm_definitions(&id).await;
        if confirmed == 0 || matches!(self.observed.postponed, Some(Deferral::Paused { .. })) {
            return Ok(());
        }
        if !self.confirms(|plan| &plan.role_writes).await {
            return Ok(());
        }
        let planned = self.plan.role_writes.clone();
        let due = match self.context.rate_limiter.room(&id, RequestKind::RoleWrite, planned.len()) {
            Ok(room) => &planned[..room.min(confirmed)],
            Err(deferral) => {
                self.observed.postponed = Some(deferral);
                return Ok(());
            }
        };
        self.require_fresh_cache(&[]).await?;
        self.require_finalizers().await?;
        self.record_role_assignments().await?;
        self.carry_out_role_writes(&owned, due).await?;
        let deferred = self.observed.postponed.is_some() || !self.observed.roles.write_failures.is_empty();
        if due.len() < planned.len() && !deferred {
            self.observed.postponed = Some(Deferral::RateLimited { wait: Duration::ZERO });
        }
        self.reassess();
        Ok(())
    }

    /// Looks the definitions of the first writes up again: no write relies on a cached definition. Returns how many writes
    /// that covers.
    async fn confirm_definitions(&mut self, id: &ArmId) -> usize {
        let mut confirmed = 0;
        for write in self.plan.role_writes.clone() {
            if let RoleWrite::Put { lookup, .. } = write
                && !self.confirm_definition(id, lookup).await
            {
                break;
            }
            confirmed += 1;
        }
        confirmed
    }

    /// Looks a definition up again; whether Azure found it, or said why not. One that it found before and does not find now is
    /// looked up later once more.
    async fn confirm_definition(&mut self, id: &ArmId, lookup: Lookup) -> bool {
        let answer = self.context.arm.role_definition(id, &lookup).await;
        let Some(answer) = self.answer(answer) else { return false };
        let (known, now) = (&self.context.role_definitions, self.context.clock.monotonic());
        match &answer {
            Ok(role) => known.insert(lookup.clone(), role.clone(), now),
            Err(failure) => {
                let is_missed = failure.reason == Reason::RoleNotFound && known.recently_found(&lookup, now).is_some();
                if is_missed {
                    self.observed.postponed = Some(Deferral::RateLimited { wait: ROLE_MISSED });
                    return false;
                }
            }
        }
        self.observed.roles.definitions.insert(lookup, answer);
        true
    }

    async fn carry_out_role_writes(
        &mut self,
        owned: &(ArmId, ManagedIdentity),
        due: &[RoleWrite],
    ) -> Result<(), ReconcileError> {
        let mut observed = self.observed.roles.clone();
        let context = self.context;
        let judge = |error: &_| context.failure(error, &mut self.observed);
        let progress = carry_out(&context.azure, due, owned, &mut observed, judge).await;
        if let Some(source) = progress.refused {
            return Err(ReconcileError::NotLeading { act: format!("assigning roles to {}", owned.0), source });
        }
        observed.write_failures.extend(progress.failures);
        self.observed.roles = observed;
        Ok(())
    }
}

fn disabled() -> Failure {
    Failure {
        reason: Reason::RoleAssignmentsDisabled,
        message: "role assignments that Ensign created remain, and this controller neither creates nor deletes any: an administrator of Ensign has to set --role-assignments, or an Azure administrator has to delete the assignments that status.roleAssignments names".to_owned(),
        retry_after: None,
    }
}
