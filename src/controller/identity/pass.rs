//! The state of one reconcile of one identity: what the cache has, what Azure reports, and the plan that follows.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::context::Context;
use super::outcome::{self, ReconcileOutcome};
use super::preconditions;
use crate::cache::snapshot::CacheView;
use crate::engine::key::Key;
use crate::error::ReconcileError;
use crate::kube_request;
use ensign_api::{ArmId, ManagedIdentity};
use ensign_azure::ArmError;
use ensign_core::assess::{Assessment, Observed, Settings, assess};
use ensign_core::credentials::propagation;
use ensign_core::failure::Failure;

/// What the steps of a reconcile share. Each step acts on the plan and brings it up to date.
pub(super) struct Pass<'a> {
    pub(super) context: &'a Context,
    pub(super) view: CacheView,
    pub(super) settings: Arc<Settings>,
    /// In whole seconds.
    pub(super) now: Timestamp,
    pub(super) observed: Observed,
    pub(super) plan: Assessment,
    /// How the write of the identity itself ended, if there was one: everything under it is left to the next reconcile.
    pub(super) identity_outcome: Option<ReconcileOutcome>,
}

impl<'a> Pass<'a> {
    /// Reads what concerns the key from the cache; `None` if nothing does any more.
    pub(super) async fn begin(context: &'a Context, key: &Key) -> Result<Option<Self>, ReconcileError> {
        // If the settings change meanwhile, the key is queued again.
        let settings = context.settings.load_full();
        let view = CacheView::new(&context.cache.read(), key, &settings);
        if view.is_empty() {
            return Ok(None);
        }
        if let Some(name) = view.missing()
            && !preconditions::is_missing(context.writer.client(), name).await?
        {
            return Err(ReconcileError::behind(format!("reading ManagedIdentity {name}")));
        }
        let now = kube_request::now(&context.clock);
        let (observed, plan) = (Observed::default(), Assessment::default());
        Ok(Some(Self { context, view, settings, now, observed, plan, identity_outcome: None }))
    }

    /// Decides again, with everything that is known by now.
    pub(super) fn reassess(&mut self) {
        self.plan = assess(&self.view.snapshot(), &self.observed, &self.settings, self.now);
    }

    /// The identity in Azure, and the object that owns it.
    pub(super) fn owned(&self) -> Option<(ArmId, ManagedIdentity)> {
        self.view.id.clone().zip(self.view.owner().cloned())
    }

    /// Azure's response as decisions take it; `None` if the request waits for rate-limit budget.
    pub(super) fn answer<T>(&mut self, answer: Result<T, ArmError>) -> Option<Result<T, Failure>> {
        match answer {
            Ok(answer) => Some(Ok(answer)),
            Err(error) => self.context.failure(&error, &mut self.observed).map(Err),
        }
    }

    /// How soon the key has to be reconciled again, whatever the outcome is.
    pub(super) fn again_in(&self) -> Option<Duration> {
        let now = self.context.clock.now();
        let propagated = self.plan.propagates_at.map(|until| propagation::remaining(until, now));
        propagated.into_iter().chain(self.observed.confirmed.look_again_in).min()
    }

    /// How the reconcile ended, for the work queue.
    pub(super) fn outcome(self, key: &Key) -> ReconcileOutcome {
        if let Some(rejection) = &self.observed.creation_rejection {
            tracing::warn!(%key, rejection, "cannot create a ManagedIdentity for a binding on a class; retrying");
            return ReconcileOutcome::Retry;
        }
        self.identity_outcome.unwrap_or_else(|| outcome::of_pass(self.view.id.as_ref(), &self.plan, &self.observed))
    }
}
