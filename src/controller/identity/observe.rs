//! What Azure is asked before anything is decided.

use super::pass::Pass;

impl Pass<'_> {
    /// Asks Azure what exists, and decides: one LIST of the credentials, one GET while the identity is not known or Ensign
    /// creates it, and what the roles take.
    pub(super) async fn observe(&mut self) {
        self.observed.upstream_webhook = self.context.upstream.borrow().present();
        self.observe_azure().await;
        if let Some(scanner) = &self.context.uninjected {
            self.observed.missed = scanner.observed(&self.view.snapshot());
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
        // What Ensign creates, it keeps in sync: its tags, and that it exists at all.
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
