//! From a review to its answer: the cache first, the API server before a pod is refused for want of a binding.

use std::sync::Arc;

use axum::http::StatusCode;

use super::binding_store::Index;
use super::live_lookup::Lookup;
use super::metrics::{Mode, WebhookMetrics};
use super::review::{self, Creation, Question, Rejection};
use super::service_account_store::Accounts;
use ensign_core::admission::{self, Binding, Config, Decision, azure_workload_identity};

/// Answers reviews.
pub struct Admission {
    config: Config,
    index: Arc<Index>,
    lookup: Arc<dyn Lookup>,
    accounts: Option<Accounts>,
    metrics: WebhookMetrics,
}

impl Admission {
    /// Answers from this index, and from this lookup where the index is not enough; in compatibility mode from service
    /// accounts too.
    pub fn new(
        config: Config,
        index: Arc<Index>,
        lookup: Arc<dyn Lookup>,
        accounts: Option<Accounts>,
        metrics: WebhookMetrics,
    ) -> Self {
        Self { config, index, lookup, accounts, metrics }
    }

    /// Answers one review.
    pub async fn review(&self, body: &[u8]) -> Result<Vec<u8>, Rejection> {
        let (uid, decision) = match review::read(body)? {
            Question::Other { uid } => (uid, Decision::Allow { warnings: Vec::new() }),
            Question::Create(creation) => {
                let decision = self.decide(&creation).await?;
                report(&creation, &decision);
                if !creation.dry_run {
                    self.metrics.admitted(&decision, self.mode(&creation));
                }
                (creation.uid, decision)
            }
        };
        review::answer(&uid, &decision).map_err(|error| {
            Rejection::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the answer can't be written as JSON: {error}"))
        })
    }

    fn mode(&self, Creation { pod, namespace, .. }: &Creation<'_>) -> Mode {
        let is_compatible = self.accounts.is_some() && azure_workload_identity::asks(pod, namespace, &self.config);
        if is_compatible { Mode::Compatible } else { Mode::Native }
    }

    async fn decide(&self, creation: &Creation<'_>) -> Result<Decision, Rejection> {
        let Creation { pod, namespace, .. } = creation;
        if admission::is_exempt(pod, namespace, &self.config) {
            return Ok(Decision::Allow { warnings: Vec::new() });
        }
        let account = match &self.accounts {
            Some(accounts) if self.mode(creation) == Mode::Compatible => {
                Some(accounts.find(namespace, pod.service_account()).await.map_err(|error| unknown(&error))?)
            }
            _ => None,
        };
        let admit = |bindings: &[Arc<Binding>]| match &account {
            Some(account) => azure_workload_identity::admit(pod, namespace, bindings, account, &self.config),
            None => admission::admit(pod, namespace, bindings, &self.config),
        };
        let complete = self.index.is_initialised();
        let cached = self.index.find(namespace, pod.service_account());
        let decision = admit(cached.as_deref().unwrap_or_default());
        let settled = match &decision {
            Decision::Deny(refusal) => !refusal.code.depends_on_bindings(),
            _ => true,
        };
        if complete && settled {
            return Ok(decision);
        }
        match self.lookup.bindings(namespace).await {
            Ok(live) => Ok(admit(&live)),
            Err(error) if complete => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, namespace = &**namespace, "the cached bindings decide about a refusal");
                Ok(decision)
            }
            Err(error) => Err(unknown(&error)),
        }
    }
}

/// What a pod depends on is not known yet.
fn unknown(error: &dyn std::error::Error) -> Rejection {
    let message = format!("not everything that the pod depends on is known yet, retry in a moment: {error}");
    Rejection::new(StatusCode::SERVICE_UNAVAILABLE, message)
}

fn report(creation: &Creation<'_>, decision: &Decision) {
    let (namespace, dry_run, request_id) = (&*creation.namespace, creation.dry_run, &*creation.uid);
    let (pod, service_account) = (creation.pod.name(), creation.pod.service_account());
    match decision {
        Decision::Allow { .. } => {
            tracing::debug!(namespace, pod, service_account, dry_run, request_id, "pod left as it is");
        }
        Decision::Patch { gated, .. } => {
            tracing::debug!(namespace, pod, service_account, dry_run, gated, request_id, "pod injected");
        }
        Decision::Deny(refusal) => tracing::info!(
            namespace,
            pod,
            service_account,
            dry_run,
            request_id,
            reason = refusal.code.as_str(),
            message = refusal.message,
            "pod denied"
        ),
    }
}
