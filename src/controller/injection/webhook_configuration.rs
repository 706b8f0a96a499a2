//! Fills the webhook's registration in, and keeps it so.
//!
//! What would send more pods to the webhook is written only after the webhook has answered where the API server will
//! look for it, with the certificates that the API server will trust. Once registered it stays registered, also while no
//! replica is there: where an identity was promised, no pod may come up without.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use k8s_openapi::api::admissionregistration::v1::{MutatingWebhook, MutatingWebhookConfiguration};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::Api;
use parking_lot::{Mutex, MutexGuard};

use super::webhook_probe::{self, WebhookProbe};
use crate::error::ReconcileError;
use crate::kube_request::{KubeError, within_deadline};
use crate::writers::kubernetes::{FIELD_MANAGER, KubeWriter};
use ensign_core::webhook_configuration::drift::{self, Repairs};
use ensign_core::webhook_configuration::{ENTRIES, Endpoint, GRANTED_ENTRY, Input, desired};
use ensign_runtime::clock::SharedClock;
use ensign_runtime::error_chain;

/// Key of the CA certificate in the webhook's Secret.
const CA_KEY: &str = "ca.crt";
/// How soon to look again when something is missing that makes no event when it comes.
pub(crate) const WAIT: Duration = Duration::from_secs(2);

/// Where the webhook is and what has to be filled in.
#[derive(Clone, Debug)]
pub struct WebhookTarget {
    /// Name of the `MutatingWebhookConfiguration` that the chart made.
    pub configuration: String,
    /// Namespace of the Secret.
    pub namespace: String,
    /// Secret with the webhook's certificates.
    pub secret: String,
    /// Who puts the CA that signs them into the registration.
    pub ca: CaInjection,
    /// How the API server reaches the webhook.
    pub endpoint: Endpoint,
    /// How to see that the webhook answers before the API server is sent there; `None` if that is not to be looked at.
    pub probe: Option<WebhookProbe>,
    /// Namespaces whose pods are never sent to the webhook.
    pub excluded: BTreeSet<String>,
    /// Whether the webhook runs in compatibility mode: pods with the label of the upstream webhook are sent there too.
    pub compatibility: bool,
}

/// Who puts the CA bundle into the registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaInjection {
    /// The controller, out of the webhook's Secret.
    Secret,
    /// Another program, for example cert-manager's CA injector.
    External,
}

/// What became of a look at the registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Registered {
    /// It is as it should be.
    Current,
    /// It has to be looked at again after this time.
    Waiting(Duration),
}

/// Keeps one registration.
pub(crate) struct Registrar {
    target: WebhookTarget,
    clock: SharedClock,
    start: Instant,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    contest: Repairs,
    /// What was logged last, so that it is not said every two seconds.
    said: String,
}

impl Registrar {
    pub(crate) fn new(target: WebhookTarget, clock: SharedClock) -> Self {
        let start = clock.monotonic();
        Self { target, clock, start, memory: Mutex::default() }
    }

    /// Ensign's own namespace, in which the webhook is.
    pub(crate) fn namespace(&self) -> &str {
        &self.target.namespace
    }

    /// The registration, if there is one.
    pub(crate) async fn read(&self, writer: &KubeWriter) -> Result<Option<MutatingWebhookConfiguration>, KubeError> {
        let configurations: Api<MutatingWebhookConfiguration> = Api::all(writer.client().clone());
        let act = || format!("reading MutatingWebhookConfiguration {}", self.target.configuration);
        within_deadline(act, configurations.get_opt(&self.target.configuration)).await
    }

    /// Brings the registration in step with the grants and the webhook's CA.
    pub(crate) async fn reconcile(
        &self,
        writer: &KubeWriter,
        granted: &BTreeSet<String>,
    ) -> Result<Registered, ReconcileError> {
        let Self { target, .. } = self;
        let ca = match target.ca {
            CaInjection::External => None,
            CaInjection::Secret => match self.read_ca(writer).await? {
                Some(ca) => Some(ca),
                None => return Ok(Registered::Waiting(WAIT)),
            },
        };
        let Some(current) = self.read(writer).await? else {
            self.say("MutatingWebhookConfiguration is missing: apply the chart again, which makes it");
            return Ok(Registered::Waiting(WAIT));
        };
        let desired_for = |covered: &BTreeSet<String>| {
            desired(&Input {
                covered,
                excluded: &target.excluded,
                endpoint: &target.endpoint,
                ca_bundle: ca.as_deref(),
                compatibility: target.compatibility,
            })
        };
        let wanted = desired_for(granted);
        let Some(webhooks) = drift::differs(&current, &wanted) else {
            self.say("");
            return Ok(Registered::Current);
        };
        if let Some(wait) = self.memory().contest.wait(&wanted, self.now()) {
            return Ok(Registered::Waiting(wait));
        }
        // Where another program injects the CA and has not yet, the entries ask about nothing, and there is nothing to see.
        let trusted = ca.as_deref().or_else(|| drift::injected_ca(&current));
        if let Some(trusted) = trusted
            && !drift::asks_no_more(&current, &webhooks)
            && !self.answers(trusted).await
        {
            // What is taken away does not wait for the webhook.
            let asked = drift::limited_to(&current, GRANTED_ENTRY);
            let fewer = desired_for(&granted.intersection(&asked).cloned().collect());
            match drift::differs(&current, &fewer) {
                Some(webhooks) if drift::asks_no_more(&current, &webhooks) => {
                    self.register(writer, &current, webhooks, &fewer).await?;
                }
                _ => {}
            }
            return Ok(Registered::Waiting(WAIT));
        }
        self.register(writer, &current, webhooks, &wanted).await?;
        Ok(Registered::Current)
    }

    async fn register(
        &self,
        writer: &KubeWriter,
        current: &MutatingWebhookConfiguration,
        webhooks: Vec<MutatingWebhook>,
        wanted: &[MutatingWebhook],
    ) -> Result<(), ReconcileError> {
        writer.register_webhooks(current, webhooks).await?;
        tracing::info!(name = self.target.configuration, "webhook registered");
        self.note_repair(current, wanted);
        Ok(())
    }

    async fn read_ca(&self, writer: &KubeWriter) -> Result<Option<Vec<u8>>, KubeError> {
        let WebhookTarget { namespace, secret: name, .. } = &self.target;
        let secrets: Api<Secret> = Api::namespaced(writer.client().clone(), namespace);
        let act = || format!("reading Secret {namespace}/{name}");
        let secret = within_deadline(act, secrets.get_opt(name)).await?;
        let ca = secret.and_then(|secret| secret.data?.remove(CA_KEY)).map(|ca| ca.0).filter(|ca| !ca.is_empty());
        if ca.is_none() {
            self.say(&format!("the webhook is not registered yet: Secret {namespace}/{name} has no {CA_KEY}"));
        }
        Ok(ca)
    }

    /// Whether the webhook answers to those who trust this CA; said if not.
    async fn answers(&self, trusted: &[u8]) -> bool {
        let Some(probe) = &self.target.probe else { return true };
        match webhook_probe::answers(&self.target.endpoint, probe, trusted).await {
            Ok(()) => true,
            Err(error) => {
                self.say(&format!(
                    "the webhook does not answer, so no more pods are sent to it than now: {}",
                    error_chain::line(&error)
                ));
                false
            }
        }
    }

    /// Says when somebody takes away again and again what was just written.
    fn note_repair(&self, before: &MutatingWebhookConfiguration, wanted: &[MutatingWebhook]) {
        let repairs = self.memory().contest.written(wanted, self.now());
        if !drift::is_fight(repairs) {
            return;
        }
        let fields = before.metadata.managed_fields.iter().flatten();
        let others: BTreeSet<&str> =
            fields.filter_map(|entry| entry.manager.as_deref()).filter(|manager| *manager != FIELD_MANAGER).collect();
        tracing::warn!(
            name = before.name_any(),
            repairs,
            field_managers = ?others,
            "another program keeps changing what Ensign registered; it is repaired ever more seldom. Make that program \
             leave the entries {:?} alone, or let it only add to their selectors",
            ENTRIES
        );
    }

    /// Logs what keeps the registration from being filled in; once.
    fn say(&self, what: &str) {
        let mut memory = self.memory();
        if memory.said != what {
            what.clone_into(&mut memory.said);
            if !what.is_empty() {
                tracing::warn!(name = self.target.configuration, "{what}");
            }
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Whole after every statement, so a panic elsewhere does not spoil it.
        self.memory.lock()
    }

    fn now(&self) -> Duration {
        self.clock.monotonic().duration_since(self.start)
    }
}
