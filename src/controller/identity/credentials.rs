//! The federated identity credentials of an identity: the writes of the plan, and what they require.

use std::time::Duration;

use super::pass::Pass;
use super::preconditions;
use crate::error::ReconcileError;
use crate::writers::azure_plan::carry_out;
use ensign_api::ArmId;
use ensign_core::assess::{Assessment, PlannedCredentialWrite};
use ensign_core::credentials::plan::CredentialWrite;
use ensign_core::scheduling::rate_limiter::{Deferral, RequestKind};

impl Pass<'_> {
    /// Writes credentials where the plan says so, as far as Azure's rate limits allow now.
    pub(super) async fn write_credentials(&mut self) -> Result<(), ReconcileError> {
        if self.identity_outcome.is_some() {
            return Ok(());
        }
        let Some(id) = self.view.id.clone().filter(|_| !self.plan.credential_writes.is_empty()) else {
            return self.require_finalizers().await;
        };
        if !self.confirms(|plan| &plan.credential_writes).await {
            return Ok(());
        }
        let planned = self.plan.credential_writes.clone();
        let due = self.due(&id, &planned);
        if due.is_empty() {
            self.reassess();
            return Ok(());
        }
        self.require_fresh_cache(due).await?;
        self.record_issuers().await?;
        self.require_finalizers().await?;
        let waiting = self.carry_out_credential_writes(&id, due, &planned[due.len()..]).await?;
        if waiting {
            // There is rate-limit budget again, but the preconditions of the other writes have to be read first.
            self.observed.postponed = Some(Deferral::RateLimited { wait: Duration::ZERO });
        }
        self.reassess();
        Ok(())
    }

    /// Sends the writes that are due; whether there is budget for others right away.
    async fn carry_out_credential_writes(
        &mut self,
        id: &ArmId,
        due: &[PlannedCredentialWrite],
        others: &[PlannedCredentialWrite],
    ) -> Result<bool, ReconcileError> {
        // Without the identity there is no list, and what may be under it is deleted all the same.
        let listed = self.observed.credentials.clone().and_then(Result::ok);
        let mut existing = listed.clone().unwrap_or_default();
        let target = (id.clone(), self.observed.identity.clone().and_then(Result::ok));
        let context = self.context;
        let judge = |error: &_| context.failure(error, &mut self.observed);
        let progress = carry_out(&context.azure, due, &target, &mut existing, judge).await;
        self.settle(id);
        if let Some(source) = progress.refused {
            return Err(ReconcileError::NotLeading { act: format!("writing under {id}"), source });
        }
        if listed.is_some() {
            self.observed.credentials = Some(Ok(existing));
        }
        let is_put = |name: &&String| {
            let mut puts = due.iter().filter(|planned| matches!(planned.write, CredentialWrite::Put { .. }));
            puts.any(|planned| planned.write.name() == **name)
        };
        self.observed.written.extend(progress.written.iter().filter(is_put).cloned());
        self.observed.write_failures.extend(progress.failures);
        Ok(progress.tried == due.len() && !others.is_empty() && !self.due(id, others).is_empty())
    }

    /// Whether the plan is still the same once the identity has been read: it may have been recreated under its name, with
    /// another client ID. If it is not, the new plan replaces it, and is carried out by the next reconcile.
    pub(super) async fn confirms<T: Clone + PartialEq>(&mut self, writes: fn(&Assessment) -> &Vec<T>) -> bool {
        let planned = writes(&self.plan).clone();
        if self.observed.identity.is_none() {
            self.observe_identity().await;
        }
        self.reassess();
        *writes(&self.plan) == planned && self.observed.may_write()
    }

    /// The writes that may be sent now; why the others are deferred is recorded.
    fn due<'a>(&mut self, id: &ArmId, writes: &'a [PlannedCredentialWrite]) -> &'a [PlannedCredentialWrite] {
        match self.context.rate_limiter.room(id, RequestKind::Write, writes.len()) {
            Ok(room) => &writes[..room],
            Err(deferral) => {
                self.context.metrics.azure.postponed(&deferral);
                if let Some(failure) = deferral.failure() {
                    let names = writes.iter().map(|planned| planned.write.name().to_owned());
                    self.observed.write_failures.extend(names.map(|name| (name, failure.clone())));
                }
                self.observed.postponed = Some(deferral);
                &[]
            }
        }
    }

    /// Reads the preconditions of the writes from the API server: no write to Azure relies on the cache alone.
    pub(super) async fn require_fresh_cache(&self, writes: &[PlannedCredentialWrite]) -> Result<(), ReconcileError> {
        if preconditions::is_fresh(self.context.writer.client(), &self.view, writes).await? {
            return Ok(());
        }
        Err(ReconcileError::behind("writing to Azure"))
    }
}
