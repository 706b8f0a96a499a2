//! What is read from Azure before anything is decided.

use super::pass::Pass;
use ensign_api::{ArmId, ManagedIdentity};
use ensign_core::credentials::ownership::Credential;
use ensign_core::failure::Failure;
use ensign_core::scheduling::monotonic::Moment;

impl Pass<'_> {
    /// Reads what exists in Azure, and decides: one LIST of the credentials, one GET of an identity that is not known yet or that
    /// Ensign manages, and the requests about roles.
    pub(super) async fn observe(&mut self) {
        self.observed.upstream_webhook = self.context.upstream.borrow().present();
        self.observe_azure().await;
        if let Some(scanner) = &self.context.uninjected {
            self.observed.uninjected_pods = scanner.observed(&self.view.snapshot());
        }
        self.reassess();
    }

    async fn observe_azure(&mut self) {
        let Some((id, owner)) = self.owned() else { return };
        if let Some(outside) = self.settings.allowed_scopes.unasked(&id) {
            self.observed.identity = Some(Err(outside));
            return;
        }
        let known = owner.status.as_ref().is_some_and(|status| status.client_id.is_some());
        // An identity that Ensign created is kept in sync: its existence and its tags.
        if !known || owner.spec.provision.is_some() {
            self.observe_identity().await;
        }
        if self.observed.postponed.is_none() && matches!(self.observed.identity, None | Some(Ok(_))) {
            let sent = self.context.azure.own_writes.now();
            let listed = self.context.arm.list_credentials(&id).await;
            let listed = self.answer(listed);
            self.observed.credentials = listed.map(|listed| self.listed(&id, &owner, listed, sent));
        }
        self.observe_roles(&id, &owner).await;
        self.settle(&id);
    }

    /// What a LIST means, given this process's own writes.
    fn listed(
        &self,
        id: &ArmId,
        owner: &ManagedIdentity,
        read: Result<Vec<Credential>, Failure>,
        sent: Moment,
    ) -> Result<Vec<Credential>, Failure> {
        let records = owner.status.iter().flat_map(|status| &status.issuers);
        let issuers = records.map(|record| record.url.as_str());
        let former: Vec<&str> = issuers.filter(|issuer| *issuer != self.settings.cluster.issuer).collect();
        self.context.azure.own_writes.of(id, |own, _| own.credentials(id, read, &former, sent))
    }

    /// Takes note of what is certain by now, although reads may lag.
    pub(super) fn settle(&mut self, id: &ArmId) {
        let confirmed = self.context.azure.own_writes.of(id, |own, now| own.confirmed(now));
        self.observed.roles.deleted.clone_from(&confirmed.deleted_assignments);
        self.observed.confirmed = confirmed;
    }

    /// One GET of the identity.
    pub(super) async fn observe_identity(&mut self) {
        let Some(id) = self.view.id.clone() else { return };
        let sent = self.context.azure.own_writes.now();
        let answer = self.context.arm.get_identity(&id).await;
        let answer = self.answer(answer);
        let own_writes = &self.context.azure.own_writes;
        self.observed.identity = answer.map(|read| own_writes.of(&id, |own, _| own.identity(&id, read, sent)));
        self.settle(&id);
    }
}
