//! One reconcile of one key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use k8s_openapi::jiff::{Timestamp, TimestampRound, Unit};
use kube::ResourceExt;

use super::azure_writes::{self, WriteError};
use super::cache::Cache;
use super::effects::Effects;
use super::freshness;
use super::gather::Gathered;
use super::injection::{self, Injection};
use super::key::Key;
use super::kube_writes::{KubeError, KubeWriter, Writable};
use super::policies::PolicyKeeper;
use super::registration::{Registered, WebhookTarget};
use super::service_accounts;
use super::write_gate::WriteGate;
use crate::api::conditions::Reason;
use crate::api::{ArmId, ManagedIdentity, ManagedIdentityBinding};
use crate::azure::ArmClient;
use crate::decide::assess::{Assessment, Finalizer, Observed, Settings, assess};
use crate::decide::backoff;
use crate::mutants::{self, Mutant};
use crate::runtime::clock::SharedClock;

/// Everything that reconciles need.
pub(super) struct Reconciler {
    pub(super) cache: Arc<Cache>,
    pub(super) arm: ArmClient,
    pub(super) writer: KubeWriter,
    pub(super) gate: WriteGate,
    pub(super) effects: Effects,
    pub(super) settings: Arc<ArcSwap<Settings>>,
    pub(super) resync: Duration,
    pub(super) clock: SharedClock,
    pub(super) webhook: Option<WebhookTarget>,
    pub(super) policies: Option<PolicyKeeper>,
    pub(super) attempts: Attempts,
}

/// Failures in a row, by key.
#[derive(Default)]
pub(super) struct Attempts(Mutex<HashMap<Key, u32>>);

impl Attempts {
    fn failed(&self, key: &Key) -> u32 {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(key.clone()).or_default();
        let before = *count;
        *count = count.saturating_add(1);
        before
    }

    fn succeeded(&self, key: &Key) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

/// How a reconcile ended.
enum Outcome {
    /// Nothing is left that concerns the key.
    Nothing,
    /// In step with Azure; look again at the next resync.
    InStep,
    /// The cache was behind.
    Behind,
    /// Azure or somebody else has to come round first.
    Retry { reason: Reason, retry_after: Option<Duration> },
    /// The webhook can't be registered yet.
    RegistrationWaits,
}

impl Reconciler {
    /// Reconciles the key; answers how long to wait before the next look.
    pub(super) async fn reconcile(&self, key: &Key) -> Option<Duration> {
        let outcome = match key {
            Key::Webhook => self.reconcile_registration().await,
            _ => self.reconcile_identity(key).await,
        };
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) if error.is_stale() => {
                tracing::debug!(%key, error = &error as &dyn std::error::Error, "changed meanwhile; looking again");
                Outcome::Behind
            }
            Err(error @ KubeError::Refused { .. }) => {
                tracing::debug!(%key, error = &error as &dyn std::error::Error, "left to whoever leads next");
                Outcome::Behind
            }
            Err(error) => {
                tracing::warn!(%key, error = &error as &dyn std::error::Error, "Kubernetes request failed; retrying");
                Outcome::Retry { reason: Reason::Pending, retry_after: None }
            }
        };
        match outcome {
            Outcome::Retry { .. } if mutants::active(Mutant::FailureNotRequeued) => None,
            Outcome::Nothing => {
                self.attempts.succeeded(key);
                None
            }
            Outcome::InStep => {
                self.attempts.succeeded(key);
                Some(backoff::jitter(self.resync, backoff::share(&key.to_string(), 0)))
            }
            Outcome::RegistrationWaits => Some(injection::WAIT),
            // What the cache lacks queues the key when it comes; the wait is for a watch that is slow.
            Outcome::Behind => Some(self.wait(key, Reason::Pending, None)),
            Outcome::Retry { reason, retry_after } => Some(self.wait(key, reason, retry_after)),
        }
    }

    fn wait(&self, key: &Key, reason: Reason, retry_after: Option<Duration>) -> Duration {
        let attempt = self.attempts.failed(key);
        let share = backoff::share(&key.to_string(), attempt.into());
        backoff::delay(reason, attempt, retry_after, share)
    }

    async fn reconcile_registration(&self) -> Result<Outcome, KubeError> {
        let (webhook, policies) = (self.webhook.as_ref(), self.policies.as_ref());
        if webhook.is_none() && policies.is_none() {
            return Ok(Outcome::Nothing);
        }
        let granted = self.cache.read().granted_namespaces();
        Ok(match (Injection { writer: &self.writer, webhook, policies }).reconcile(&granted).await? {
            Registered::Current => Outcome::InStep,
            Registered::Waiting => Outcome::RegistrationWaits,
        })
    }

    async fn reconcile_identity(&self, key: &Key) -> Result<Outcome, KubeError> {
        // They can change meanwhile, and then the key comes again.
        let settings = self.settings.load_full();
        let gathered = Gathered::new(&self.cache.read(), key, settings.own_client_id.as_deref());
        if gathered.is_empty() {
            return Ok(Outcome::Nothing);
        }
        if let Some(name) = gathered.missing()
            && !freshness::is_missing(self.writer.client(), name).await?
        {
            return Ok(Outcome::Behind);
        }
        let mut observed = self.observe(&gathered).await;
        let now = self.now();
        let planned = assess(&gathered.snapshot(), &observed, &settings, now);
        let assessment = match &gathered.id {
            Some(id) if !planned.steps.is_empty() => {
                match self.write(id, &gathered, planned, &mut observed, &settings, now).await? {
                    Some(assessment) => assessment,
                    None => return Ok(Outcome::Behind),
                }
            }
            _ => {
                self.hold(&gathered, &planned).await?;
                planned
            }
        };
        let assessment = if self.annotate(&gathered, &assessment, &mut observed).await? {
            assess(&gathered.snapshot(), &observed, &settings, now)
        } else {
            assessment
        };
        self.tell(&gathered, &assessment).await?;
        self.release(&gathered, &assessment).await?;
        Ok(outcome(&gathered, &assessment, &observed))
    }

    /// Asks Azure what there is: one LIST, and one GET while the identity is not known.
    async fn observe(&self, gathered: &Gathered) -> Observed {
        let mut observed = Observed::default();
        let Some((id, owner)) = gathered.id.as_ref().zip(gathered.owner()) else { return observed };
        let known = owner.status.as_ref().is_some_and(|status| status.client_id.is_some());
        if !known {
            self.observe_identity(id, &mut observed).await;
        }
        if matches!(observed.identity, None | Some(Ok(_))) {
            let listed = self.arm.list_credentials(id).await;
            observed.credentials = Some(listed.map_err(|error| self.failure(&error)));
        }
        observed
    }

    async fn observe_identity(&self, id: &ArmId, observed: &mut Observed) {
        observed.identity = Some(self.arm.get_identity(id).await.map_err(|error| self.failure(&error)));
    }

    fn failure(&self, error: &crate::azure::ArmError) -> crate::decide::failure::Failure {
        tracing::warn!(error = error as &dyn std::error::Error, "Azure request failed");
        error.failure(self.settings.load().own_client_id.as_deref())
    }

    /// Writes to Azure, after everything that has to come first; `None` when the cache was behind.
    async fn write(
        &self,
        id: &ArmId,
        gathered: &Gathered,
        planned: Assessment,
        observed: &mut Observed,
        settings: &Settings,
        now: Timestamp,
    ) -> Result<Option<Assessment>, KubeError> {
        if observed.identity.is_none() {
            // The identity may have been made anew under its old name, with another client ID.
            self.observe_identity(id, observed).await;
        }
        let planned_again = assess(&gathered.snapshot(), observed, settings, now);
        if planned_again.steps != planned.steps {
            return Ok(Some(planned_again));
        }
        if !mutants::active(Mutant::FreshnessSkipped)
            && !freshness::is_fresh(self.writer.client(), gathered, &planned.steps).await?
        {
            return Ok(None);
        }
        if mutants::active(Mutant::ReleasedBeforeDelete) {
            self.release(gathered, &planned_again).await?;
        }
        if !mutants::active(Mutant::FinalizerAfterPut) {
            self.prepare(gathered, &planned_again).await?;
        }
        let mut standing = match &observed.credentials {
            Some(Ok(credentials)) => credentials.clone(),
            _ => return Ok(Some(planned_again)),
        };
        for planned in &planned_again.steps {
            if !planned.step.may_go(&standing) {
                break;
            }
            if let Err(error) =
                azure_writes::apply(&self.effects, &self.gate, &self.arm, id, planned, &mut standing).await
            {
                let error = match error {
                    WriteError::Azure(error) => error,
                    WriteError::Refused(source) => {
                        return Err(KubeError::Refused { act: format!("writing under {id}"), source });
                    }
                };
                let failure = self.failure(&error);
                let stop = failure.is_transient() || failure.is_gone();
                observed.write_failures.insert(planned.step.name().to_owned(), failure);
                if stop {
                    break;
                }
            }
        }
        if mutants::active(Mutant::FinalizerAfterPut) {
            self.prepare(gathered, &planned_again).await?;
        }
        observed.credentials = Some(Ok(standing));
        Ok(Some(assess(&gathered.snapshot(), observed, settings, now)))
    }

    /// What has to stand before the first write: the record of the issuer, then the finalizers.
    async fn prepare(&self, gathered: &Gathered, assessment: &Assessment) -> Result<(), KubeError> {
        for outcome in &assessment.identities {
            let Some(object) = gathered.identity(&outcome.name) else { continue };
            let recorded = object.status.as_ref().map(|status| &status.issuers);
            if recorded != Some(&outcome.status.issuers) && !outcome.status.issuers.is_empty() {
                self.write_status(object.as_ref(), object.status.as_ref(), &outcome.status).await?;
            }
        }
        self.hold(gathered, assessment).await
    }

    /// Finalizers that have to be there, also those that somebody stripped.
    async fn hold(&self, gathered: &Gathered, assessment: &Assessment) -> Result<(), KubeError> {
        for outcome in assessment.identities.iter().filter(|outcome| outcome.finalizer == Finalizer::Require) {
            if let Some(object) = gathered.identity(&outcome.name) {
                self.writer.require_finalizer(object.as_ref()).await?;
            }
        }
        for outcome in assessment.bindings.iter().filter(|outcome| outcome.finalizer == Finalizer::Require) {
            if let Some(object) = gathered.binding(&outcome.namespace, &outcome.name) {
                self.writer.require_finalizer(object.as_ref()).await?;
            }
        }
        Ok(())
    }

    /// Annotates service accounts for the bindings that ask for it; whether any did.
    async fn annotate(
        &self,
        gathered: &Gathered,
        assessment: &Assessment,
        observed: &mut Observed,
    ) -> Result<bool, KubeError> {
        for outcome in &assessment.bindings {
            let binding = gathered.binding(&outcome.namespace, &outcome.name);
            let Some((wanted, binding)) = outcome.annotations.as_ref().zip(binding) else { continue };
            let account = &binding.spec.service_account_name;
            let done = service_accounts::annotate(&self.writer, &outcome.namespace, account, wanted).await?;
            observed.annotated.insert((outcome.namespace.clone(), outcome.name.clone()), done);
        }
        Ok(!observed.annotated.is_empty())
    }

    /// Status and events, where facts changed.
    async fn tell(&self, gathered: &Gathered, assessment: &Assessment) -> Result<(), KubeError> {
        for outcome in &assessment.bindings {
            let Some(object) = gathered.binding(&outcome.namespace, &outcome.name) else { continue };
            self.write_status(object.as_ref(), object.status.as_ref(), &outcome.status).await?;
            for note in &outcome.notes {
                self.writer.warn(object.as_ref(), note, "Bind").await;
            }
        }
        for outcome in &assessment.identities {
            let Some(object) = gathered.identity(&outcome.name) else { continue };
            self.write_status(object.as_ref(), object.status.as_ref(), &outcome.status).await?;
            for note in &outcome.notes {
                self.writer.warn(object.as_ref(), note, "Reconcile").await;
            }
        }
        Ok(())
    }

    /// Releases objects on which nothing in Azure depends any more: bindings first, then identities.
    async fn release(&self, gathered: &Gathered, assessment: &Assessment) -> Result<(), KubeError> {
        for outcome in assessment.bindings.iter().filter(|outcome| outcome.finalizer == Finalizer::Release) {
            if let Some(object) = gathered.binding(&outcome.namespace, &outcome.name) {
                self.writer.release_finalizer::<ManagedIdentityBinding>(object).await?;
            }
        }
        for outcome in assessment.identities.iter().filter(|outcome| outcome.finalizer == Finalizer::Release) {
            if let Some(object) = gathered.identity(&outcome.name) {
                self.writer.release_finalizer::<ManagedIdentity>(object).await?;
            }
        }
        Ok(())
    }

    async fn write_status<K: Writable, S: PartialEq + serde::Serialize>(
        &self,
        object: &K,
        before: Option<&S>,
        after: &S,
    ) -> Result<(), KubeError> {
        if before == Some(after) && !mutants::active(Mutant::StatusAlwaysWritten) {
            return Ok(());
        }
        match serde_json::to_value(after) {
            Ok(status) => self.writer.write_status::<K>(object, status).await,
            Err(error) => {
                tracing::error!(%error, object = object.name_any(), "status can't be serialised");
                Ok(())
            }
        }
    }

    /// Now, in whole seconds: what Kubernetes stores and gives back.
    fn now(&self) -> Timestamp {
        let now = self.clock.now();
        let whole = TimestampRound::new().smallest(Unit::Second).mode(k8s_openapi::jiff::RoundMode::Trunc);
        now.round(whole).unwrap_or(now)
    }
}

fn outcome(gathered: &Gathered, assessment: &Assessment, observed: &Observed) -> Outcome {
    let answers = [
        observed.identity.as_ref().and_then(|answer| answer.as_ref().err()),
        observed.credentials.as_ref().and_then(|answer| answer.as_ref().err()),
    ];
    let failure = answers.into_iter().flatten().chain(observed.write_failures.values()).next();
    if let Some(failure) = failure {
        return Outcome::Retry { reason: failure.reason, retry_after: failure.retry_after };
    }
    if !assessment.steps.is_empty() {
        // Something changed while it was looked at, or Azure stored something else than it was given.
        return Outcome::Behind;
    }
    match gathered.id {
        Some(_) => Outcome::InStep,
        None => Outcome::Nothing,
    }
}
