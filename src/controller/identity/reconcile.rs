//! One reconcile of one key.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use k8s_openapi::jiff::{Timestamp, TimestampRound, Unit};
use kube::ResourceExt;
use tokio::sync::watch;

use super::outcome::{ReconcileOutcome, ended, outcome, subject};
use super::preconditions;
use super::provisioning::Provisioned;
use super::roles::RoleBook;
use super::service_accounts;
use crate::cache::Cache;
use crate::cache::gated_pods::GatedPods;
use crate::cache::snapshot::CacheView;
use crate::cache::status_expectations::Fingerprint;
use crate::engine::failpoints::Failpoints;
use crate::engine::key::{Key, Source};
use crate::engine::requeue::Requeues;
use crate::engine::work_queue::WorkQueue;
use crate::engine::write_gate::WriteGate;
use crate::injection::Injection;
use crate::injection::policies::PolicyWriter;
use crate::injection::upstream_webhook::UpstreamWebhook;
use crate::injection::webhook_configuration::{Registered, Registrar};
use crate::metrics::ControllerMetrics;
use crate::pods::ungate::PodSettings;
use crate::pods::uninjected::UninjectedPodScanner;
use crate::writers::azure::{self, WriteError, Writing};
use crate::writers::kubernetes::{KubeError, KubeWriter, Writable};
use ensign_api::conditions::Reason;
use ensign_api::{ArmId, ManagedIdentity, ManagedIdentityBinding};
use ensign_azure::{ArmClient, ArmError, RateLimiter};
use ensign_core::assess::{Assessment, Finalizer, Observed, PlannedStep, Settings, assess};
use ensign_core::credentials::plan::CredentialWrite;
use ensign_core::credentials::propagation;
use ensign_core::failure::Failure;
use ensign_core::mutants::{self, Mutant};
use ensign_core::scheduling::rate_limiter::{Deferral, RequestKind};
use ensign_core::scheduling::resync::Sharers;
use ensign_runtime::clock::SharedClock;

/// Everything that reconciles need.
pub(crate) struct Reconciler {
    pub(crate) cache: Arc<Cache>,
    pub(crate) arm: ArmClient,
    pub(crate) pace: RateLimiter,
    pub(crate) writer: KubeWriter,
    pub(crate) gate: WriteGate,
    pub(crate) effects: Failpoints,
    pub(crate) settings: Arc<ArcSwap<Settings>>,
    pub(crate) waits: Requeues,
    pub(crate) clock: SharedClock,
    pub(crate) webhook: Option<Registrar>,
    pub(crate) policies: Option<PolicyWriter>,
    pub(crate) upstream: watch::Receiver<UpstreamWebhook>,
    pub(crate) queue: Arc<WorkQueue<Key, Source>>,
    pub(crate) pods: Option<PodSettings>,
    pub(crate) held: Arc<GatedPods>,
    pub(crate) missed: UninjectedPodScanner,
    pub(crate) roles: RoleBook,
    pub(crate) metrics: ControllerMetrics,
}

impl Reconciler {
    /// Reconciles the key; answers how long to wait before the next look.
    pub(crate) async fn reconcile(&self, key: &Key) -> Option<Duration> {
        let mut settles = None;
        let outcome = match key {
            Key::Webhook => self.reconcile_registration().await,
            Key::Pod(name) => self.reconcile_pod(name).await,
            Key::Unlabelled => self.reconcile_unlabelled().await,
            Key::Missed(binding) => self.reconcile_missed(binding).await,
            Key::Identity(_) | Key::Name(_) => self.reconcile_identity(key, &mut settles).await,
        };
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) if error.is_stale() => {
                tracing::debug!(%key, error = &error as &dyn std::error::Error, "changed meanwhile; looking again");
                ReconcileOutcome::Behind
            }
            Err(error @ KubeError::Refused { .. }) => {
                tracing::debug!(%key, error = &error as &dyn std::error::Error, "left to whoever leads next");
                ReconcileOutcome::Behind
            }
            Err(error) => {
                tracing::warn!(%key, error = &error as &dyn std::error::Error, "Kubernetes request failed; retrying");
                ReconcileOutcome::Retry
            }
        };
        self.metrics.reconciled(subject(key), ended(&outcome));
        let wait = self.wait_after(key, outcome)?;
        Some(settles.map_or(wait, |until| wait.min(propagation::remaining(until, self.clock.now()))))
    }

    fn wait_after(&self, key: &Key, outcome: ReconcileOutcome) -> Option<Duration> {
        match outcome {
            ReconcileOutcome::Retry | ReconcileOutcome::AzureFailed(_)
                if mutants::active(Mutant::FailureNotRequeued) =>
            {
                None
            }
            ReconcileOutcome::Nothing => {
                self.waits.succeeded(key);
                None
            }
            ReconcileOutcome::Again(wait) | ReconcileOutcome::Paced(wait) => {
                self.waits.succeeded(key);
                Some(wait)
            }
            ReconcileOutcome::InStep => {
                self.waits.succeeded(key);
                Some(self.waits.steady(key, self.sharers(key), self.clock.monotonic()))
            }
            ReconcileOutcome::RegistrationWaits(wait) | ReconcileOutcome::Held(wait) => Some(wait),
            // What the cache lacks queues the key when it comes; the wait is for a watch that is slow.
            ReconcileOutcome::Behind | ReconcileOutcome::Retry => Some(self.waits.failed(key, Reason::Pending, None)),
            ReconcileOutcome::AzureFailed(failure) => Some(self.hold_off(key, &failure)),
        }
    }

    fn sharers(&self, key: &Key) -> Sharers {
        match key {
            Key::Identity(id) => self.cache.read().sharers(id),
            _ => Sharers::default(),
        }
    }

    /// The wait after a failure of Azure. If it passes by itself, an event before brings the key, but no request.
    fn hold_off(&self, key: &Key, failure: &Failure) -> Duration {
        let wait = self.waits.failed(key, failure.reason, failure.retry_after);
        if let Key::Identity(id) = key
            && failure.is_transient()
        {
            self.pace.hold(id, wait, failure);
        }
        wait
    }

    async fn reconcile_registration(&self) -> Result<ReconcileOutcome, KubeError> {
        let (webhook, policies) = (self.webhook.as_ref(), self.policies.as_ref());
        if webhook.is_none() && policies.is_none() {
            return Ok(ReconcileOutcome::Nothing);
        }
        let injection = Injection { writer: &self.writer, webhook, policies };
        if webhook.is_some_and(|registrar| self.cache.read().namespace(registrar.namespace()).terminating) {
            injection.end_webhook().await?;
            return Ok(ReconcileOutcome::Nothing);
        }
        let granted = self.cache.read().granted_namespaces();
        Ok(match injection.reconcile(&granted).await? {
            Registered::Current => ReconcileOutcome::InStep,
            Registered::Waiting(wait) => ReconcileOutcome::RegistrationWaits(wait),
        })
    }

    /// `settles` is told when the next credential has settled, if one has yet to.
    async fn reconcile_identity(
        &self,
        key: &Key,
        settles: &mut Option<Timestamp>,
    ) -> Result<ReconcileOutcome, KubeError> {
        // They can change meanwhile, and then the key comes again.
        let settings = self.settings.load_full();
        let gathered = CacheView::new(&self.cache.read(), key, &settings);
        if gathered.is_empty() {
            return Ok(ReconcileOutcome::Nothing);
        }
        if let Some(name) = gathered.missing()
            && !preconditions::is_missing(self.writer.client(), name).await?
        {
            return Ok(ReconcileOutcome::Behind);
        }
        let mut observed = self.observe(&gathered, &settings).await;
        observed.missed = self.missed.observed(&gathered.snapshot());
        let now = self.now();
        let mut planned = assess(&gathered.snapshot(), &observed, &settings, now);
        let mut tried = None;
        if let Some(id) = &gathered.id {
            planned = match self.provision(id, &gathered, planned, &mut observed, (&settings, now)).await? {
                Provisioned::Stands(planned) => planned,
                Provisioned::Tried(assessment, outcome) => {
                    tried = Some(outcome);
                    assessment
                }
                Provisioned::Behind => return Ok(ReconcileOutcome::Behind),
            };
        }
        let assessment = match &gathered.id {
            _ if tried.is_some() => planned,
            Some(id) if !planned.steps.is_empty() => {
                match self.write(id, &gathered, planned, &mut observed, &settings, now).await? {
                    Some(assessment) => assessment,
                    None => return Ok(ReconcileOutcome::Behind),
                }
            }
            _ => {
                self.hold(&gathered, &planned).await?;
                planned
            }
        };
        let Some(assessment) = self.assign(&gathered, assessment, &mut observed, (&settings, now)).await? else {
            return Ok(ReconcileOutcome::Behind);
        };
        let assessment = if self.annotate(&gathered, &assessment, &mut observed).await? {
            assess(&gathered.snapshot(), &observed, &settings, now)
        } else {
            assessment
        };
        *settles = assessment.propagates_at;
        let refused = self.make(&gathered, &assessment).await?;
        observed.not_made = refused.as_ref().and_then(KubeError::refusal).map(str::to_owned);
        let assessment = match &observed.not_made {
            Some(_) => assess(&gathered.snapshot(), &observed, &settings, now),
            None => assessment,
        };
        self.tell(&gathered, &assessment).await?;
        self.release(&gathered, &assessment).await?;
        self.reclaim(&gathered, &assessment).await?;
        match refused {
            Some(error) => {
                tracing::warn!(%key, error = &error as &dyn std::error::Error, "an identity can't be made; retrying");
                Ok(ReconcileOutcome::Retry)
            }
            None => Ok(tried.unwrap_or_else(|| outcome(&gathered, &assessment, &observed))),
        }
    }

    /// Asks Azure what there is: one LIST, and one GET while the identity is not known.
    async fn observe(&self, gathered: &CacheView, settings: &Settings) -> Observed {
        let mut observed = Observed { upstream_webhook: self.upstream.borrow().present(), ..Observed::default() };
        let Some((id, owner)) = gathered.id.as_ref().zip(gathered.owner()) else { return observed };
        if let Some(unasked) = settings.allowed_scopes.unasked(id) {
            observed.identity = Some(Err(unasked));
            return observed;
        }
        let known = owner.status.as_ref().is_some_and(|status| status.client_id.is_some());
        // What Ensign makes, it keeps: tags, and that it is there at all.
        if !known || owner.spec.provision.is_some() {
            self.observe_identity(id, &mut observed).await;
        }
        if observed.postponed.is_none() && matches!(observed.identity, None | Some(Ok(_))) {
            let listed = self.arm.list_credentials(id).await;
            observed.credentials = self.answer(listed, &mut observed);
        }
        self.observe_roles(id, owner, settings, &mut observed).await;
        observed
    }

    pub(crate) async fn observe_identity(&self, id: &ArmId, observed: &mut Observed) {
        let answer = self.arm.get_identity(id).await;
        observed.identity = self.answer(answer, observed);
    }

    /// Azure's answer as decisions take it; none to a request that waits for its turn.
    pub(crate) fn answer<T>(&self, answer: Result<T, ArmError>, observed: &mut Observed) -> Option<Result<T, Failure>> {
        answer.map_or_else(|error| self.failure(&error, observed).map(Err), |answer| Some(Ok(answer)))
    }

    pub(crate) fn failure(&self, error: &ArmError, observed: &mut Observed) -> Option<Failure> {
        if let Some(refusal) = error.not_sent() {
            tracing::debug!(error = error as &dyn std::error::Error, "Azure request postponed");
            observed.postponed = Some(refusal.clone());
            return refusal.failure();
        }
        tracing::warn!(
            error = error as &dyn std::error::Error,
            request_id = %error.request_id,
            "Azure request failed"
        );
        let failure = error.failure(self.settings.load().own_client_id.as_deref());
        if let Some(pause) = failure.retry_after {
            self.pace.hold(&error.identity, pause, &failure);
        }
        Some(failure)
    }

    /// Writes to Azure, after everything that has to come first; `None` when the cache was behind.
    async fn write(
        &self,
        id: &ArmId,
        gathered: &CacheView,
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
        if planned_again.steps != planned.steps || !observed.may_write() {
            return Ok(Some(planned_again));
        }
        let due = self.due(id, &planned_again.steps, observed);
        if due.is_empty() {
            return Ok(Some(assess(&gathered.snapshot(), observed, settings, now)));
        }
        if !mutants::active(Mutant::FreshnessSkipped)
            && !preconditions::is_fresh(self.writer.client(), gathered, due).await?
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
        let mut written = 0;
        for planned in due {
            if !planned.step.may_go(&standing) {
                break;
            }
            if let Err(error) = azure::apply(self.writing(), id, planned, &mut standing).await {
                let error = match error {
                    WriteError::Azure(error) => error,
                    WriteError::Refused(source) => {
                        return Err(KubeError::Refused { act: format!("writing under {id}"), source });
                    }
                };
                let Some(failure) = self.failure(&error, observed) else { break };
                let stop = failure.is_transient() || failure.is_gone();
                observed.write_failures.insert(planned.step.name().to_owned(), failure);
                if stop {
                    break;
                }
            } else if matches!(planned.step, CredentialWrite::Put { .. }) {
                observed.written.insert(planned.step.name().to_owned());
            }
            written += 1;
        }
        if mutants::active(Mutant::FinalizerAfterPut) {
            self.prepare(gathered, &planned_again).await?;
        }
        observed.credentials = Some(Ok(standing));
        let others = &planned_again.steps[due.len()..];
        if written == due.len() && !others.is_empty() && !self.due(id, others, observed).is_empty() {
            // New tokens have come meanwhile, but what the others depend on has to be looked at first.
            observed.postponed = Some(Deferral::Paced { wait: Duration::ZERO });
        }
        Ok(Some(assess(&gathered.snapshot(), observed, settings, now)))
    }

    pub(crate) fn writing(&self) -> Writing<'_> {
        Writing { effects: &self.effects, gate: &self.gate, arm: &self.arm, metrics: &self.metrics }
    }

    /// The steps that may go out now; what keeps the others is noted.
    fn due<'a>(&self, id: &ArmId, steps: &'a [PlannedStep], observed: &mut Observed) -> &'a [PlannedStep] {
        match self.pace.room(id, RequestKind::Write, steps.len()) {
            Ok(room) => &steps[..room],
            Err(refusal) => {
                self.metrics.azure.postponed(&refusal);
                if let Some(failure) = refusal.failure() {
                    let names = steps.iter().map(|planned| planned.step.name().to_owned());
                    observed.write_failures.extend(names.map(|name| (name, failure.clone())));
                }
                observed.postponed = Some(refusal);
                &[]
            }
        }
    }

    /// What has to stand before the first write: the record of the issuer, then the finalizers.
    pub(crate) async fn prepare(&self, gathered: &CacheView, assessment: &Assessment) -> Result<(), KubeError> {
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
    pub(crate) async fn hold(&self, gathered: &CacheView, assessment: &Assessment) -> Result<(), KubeError> {
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
        gathered: &CacheView,
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

    /// Status and events, where facts changed. Events of one reason and one action are counted as one, with the words of the
    /// first, so that a deletion is an action of its own.
    async fn tell(&self, gathered: &CacheView, assessment: &Assessment) -> Result<(), KubeError> {
        for outcome in &assessment.bindings {
            let Some(object) = gathered.binding(&outcome.namespace, &outcome.name) else { continue };
            self.write_status(object.as_ref(), object.status.as_ref(), &outcome.status).await?;
            let action = if object.metadata.deletion_timestamp.is_some() { "Unbind" } else { "Bind" };
            for note in &outcome.events {
                self.writer.warn(object.as_ref(), note, action).await;
            }
            self.expect_looks(object, outcome);
        }
        for outcome in &assessment.identities {
            let Some(object) = gathered.identity(&outcome.name) else { continue };
            self.write_status(object.as_ref(), object.status.as_ref(), &outcome.status).await?;
            let action = if object.metadata.deletion_timestamp.is_some() { "Delete" } else { "Reconcile" };
            for note in &outcome.events {
                self.writer.warn(object.as_ref(), note, action).await;
            }
        }
        Ok(())
    }

    /// Releases objects on which nothing in Azure depends any more: bindings first, then identities.
    async fn release(&self, gathered: &CacheView, assessment: &Assessment) -> Result<(), KubeError> {
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

    pub(crate) async fn write_status<K: Writable, S: PartialEq + serde::Serialize>(
        &self,
        object: &K,
        before: Option<&S>,
        after: &S,
    ) -> Result<(), KubeError> {
        let unseen = self.cache.read().unseen_status(object.meta());
        if unseen.is_none() && before == Some(after) && !mutants::active(Mutant::StatusAlwaysWritten) {
            return Ok(());
        }
        let status = match serde_json::to_value(after) {
            Ok(status) => status,
            Err(error) => {
                tracing::error!(%error, object = object.name_any(), "status can't be serialised");
                return Ok(());
            }
        };
        let fingerprint = Fingerprint::of(&status);
        if unseen == Some(fingerprint) && !mutants::active(Mutant::StatusAlwaysWritten) {
            return Ok(());
        }
        self.writer.write_status::<K>(object, status).await?;
        self.cache.status_written(object.meta(), fingerprint);
        Ok(())
    }

    /// Now, in whole seconds: what Kubernetes stores and gives back.
    fn now(&self) -> Timestamp {
        let now = self.clock.now();
        let whole = TimestampRound::new().smallest(Unit::Second).mode(k8s_openapi::jiff::RoundMode::Trunc);
        now.round(whole).unwrap_or(now)
    }
}
