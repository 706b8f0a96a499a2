//! What is read from Azure before anything is decided.

use super::pass::Pass;

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
            let listed = self.context.arm.list_credentials(&id).await;
            self.observed.credentials = self.answer(listed);
        }
        self.observe_roles(&id, &owner).await;
    }

    /// One GET of the identity.
    pub(super) async fn observe_identity(&mut self) {
        let Some(id) = self.view.id.clone() else { return };
        let answer = self.context.arm.get_identity(&id).await;
        self.observed.identity = self.answer(answer);
    }
}
