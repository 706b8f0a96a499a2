//! Fills in the webhook configuration, and keeps it in sync.
//!
//! A change that sends more pods to the webhook is written only after the webhook has responded at the API server's
//! endpoint, with certificates that the API server will trust. Once registered, the webhook stays registered, also while no
//! replica is running: no pod may start without the identity that it was promised.

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
/// Delay before the next check for something that causes no event when it appears.
pub(crate) const WAIT: Duration = Duration::from_secs(2);

/// Where the webhook is and what has to be filled in.
#[derive(Clone, Debug)]
pub struct WebhookTarget {
    /// Name of the `MutatingWebhookConfiguration` that the chart created.
    pub configuration: String,
    /// Namespace of the Secret.
    pub namespace: String,
    /// Secret with the webhook's certificates.
    pub secret: String,
    /// Who writes the CA that signs them into the webhook configuration.
    pub ca: CaInjection,
    /// How the API server reaches the webhook.
    pub endpoint: Endpoint,
    /// How to check that the webhook responds before the API server uses it; `None` to skip the check.
    pub probe: Option<WebhookProbe>,
    /// Namespaces whose pods are never sent to the webhook.
    pub excluded: BTreeSet<String>,
    /// Whether the webhook runs in compatibility mode: pods with the label of the upstream webhook are sent there too.
    pub compatibility: bool,
}

/// Who writes the CA bundle into the webhook configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaInjection {
    /// The controller, from the webhook's Secret.
    Secret,
    /// Another program, for example cert-manager's CA injector.
    External,
}

/// The state of the webhook configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Registered {
    /// It is in sync.
    Current,
    /// It has to be checked again after this time.
    Waiting(Duration),
}

/// Keeps one webhook configuration in sync.
pub(crate) struct Registrar {
    target: WebhookTarget,
    clock: SharedClock,
    start: Instant,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    repairs: Repairs,
    /// The last problem that was logged, so that it is logged once.
    logged: String,
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

    /// The webhook configuration, if it exists.
    pub(crate) async fn read(&self, writer: &KubeWriter) -> Result<Option<MutatingWebhookConfiguration>, KubeError> {
        let configurations: Api<MutatingWebhookConfiguration> = Api::all(writer.client().clone());
        let act = || format!("reading MutatingWebhookConfiguration {}", self.target.configuration);
        within_deadline(act, configurations.get_opt(&self.target.configuration)).await
    }

    /// Brings the webhook configuration in sync with the grants and the webhook's CA.
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
            self.log_once("the MutatingWebhookConfiguration does not exist: apply the chart again, which creates it");
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
        let desired = desired_for(granted);
        let Some(webhooks) = drift::differs(&current, &desired) else {
            self.log_once("");
            return Ok(Registered::Current);
        };
        if let Some(wait) = self.memory().repairs.wait(&desired, self.now()) {
            return Ok(Registered::Waiting(wait));
        }
        // Until another program has injected the CA, the entries match nothing, and there is nothing to check.
        let trusted = ca.as_deref().or_else(|| drift::injected_ca(&current));
        if let Some(trusted) = trusted
            && !drift::asks_no_more(&current, &webhooks)
            && !self.responds(trusted).await
        {
            // Removals do not wait for the webhook.
            let limited = drift::limited_to(&current, GRANTED_ENTRY);
            let fewer = desired_for(&granted.intersection(&limited).cloned().collect());
            match drift::differs(&current, &fewer) {
                Some(webhooks) if drift::asks_no_more(&current, &webhooks) => {
                    self.register(writer, &current, webhooks, &fewer).await?;
                }
                _ => {}
            }
            return Ok(Registered::Waiting(WAIT));
        }
        self.register(writer, &current, webhooks, &desired).await?;
        Ok(Registered::Current)
    }

    async fn register(
        &self,
        writer: &KubeWriter,
        current: &MutatingWebhookConfiguration,
        webhooks: Vec<MutatingWebhook>,
        desired: &[MutatingWebhook],
    ) -> Result<(), ReconcileError> {
        writer.register_webhooks(current, webhooks).await?;
        tracing::info!(name = self.target.configuration, "webhook registered");
        self.note_repair(current, desired);
        Ok(())
    }

    async fn read_ca(&self, writer: &KubeWriter) -> Result<Option<Vec<u8>>, KubeError> {
        let WebhookTarget { namespace, secret: name, .. } = &self.target;
        let secrets: Api<Secret> = Api::namespaced(writer.client().clone(), namespace);
        let act = || format!("reading Secret {namespace}/{name}");
        let secret = within_deadline(act, secrets.get_opt(name)).await?;
        let ca = secret.and_then(|secret| secret.data?.remove(CA_KEY)).map(|ca| ca.0).filter(|ca| !ca.is_empty());
        if ca.is_none() {
            self.log_once(&format!("the webhook is not registered yet: Secret {namespace}/{name} has no {CA_KEY}"));
        }
        Ok(ca)
    }

    /// Whether the webhook responds to a client that trusts this CA; logs it if not.
    async fn responds(&self, trusted: &[u8]) -> bool {
        let Some(probe) = &self.target.probe else { return true };
        match webhook_probe::check(&self.target.endpoint, probe, trusted).await {
            Ok(()) => true,
            Err(error) => {
                self.log_once(&format!(
                    "the webhook does not respond; not sending more pods to it: {}",
                    error_chain::line(&error)
                ));
                false
            }
        }
    }

    /// Warns when another program keeps reverting what was written.
    fn note_repair(&self, before: &MutatingWebhookConfiguration, desired: &[MutatingWebhook]) {
        let repairs = self.memory().repairs.written(desired, self.now());
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
            "another program keeps changing the webhook configuration, so it is repaired less and less often. Configure that program \
             to leave the entries {:?} alone, or to only add to their selectors",
            ENTRIES
        );
    }

    /// Logs what keeps the webhook configuration from being filled in, once.
    fn log_once(&self, problem: &str) {
        let mut memory = self.memory();
        if memory.logged != problem {
            problem.clone_into(&mut memory.logged);
            if !problem.is_empty() {
                tracing::warn!(name = self.target.configuration, "{problem}");
            }
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock()
    }

    fn now(&self) -> Duration {
        self.clock.monotonic().duration_since(self.start)
    }
}
