//! Brings about that pods are injected, by the webhook or by the API server itself, and changes over between the two.
//!
//! Both ways inject the same, and nothing where the other has been, so that they may overlap. The new one comes first; the
//! former one goes when the new one has been seen to work, several times in a row.

pub(crate) mod policies;
pub(crate) mod upstream_webhook;
pub(crate) mod webhook_configuration;
pub(crate) mod webhook_probe;

use std::collections::BTreeSet;

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResourceList;
use kube::Client;

use self::policies::{Filled, PolicyWriter, obstacle};
use self::webhook_configuration::{Registered, Registrar, WAIT};
use crate::writers::kubernetes::{KubeError, KubeWriter, within_deadline};
use ensign_core::cel::{Choice, Mode, PolicyKind, Served, mode, shortfall};
use ensign_core::webhook_configuration::drift::differs;

/// Injection can't be chosen.
#[derive(Debug, thiserror::Error)]
pub enum InjectionError {
    /// The API server can't be asked what it serves.
    #[error("cannot learn whether the API server can inject by itself")]
    Unknown(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What was asked for can't be.
    #[error("{0}")]
    Refused(String),
}

/// Who injects in this cluster. `otherwise` says why policies are out of the question whatever the cluster, if so.
pub async fn choose_injection(
    client: &Client,
    choice: Choice,
    otherwise: Option<&str>,
) -> Result<Mode, InjectionError> {
    let why_not = match (choice, otherwise) {
        (Choice::Webhook, _) => None,
        (_, Some(why)) => Some(why.to_owned()),
        (_, None) => look(client).await.map_err(|error| InjectionError::Unknown(Box::new(error)))?,
    };
    let (mode, why) = mode(choice, why_not.as_deref()).map_err(InjectionError::Refused)?;
    tracing::info!(mode = mode.as_str(), why, "injection");
    Ok(mode)
}

/// Why policies can't inject in this cluster, if so.
async fn look(client: &Client) -> Result<Option<String>, KubeError> {
    let version = within_deadline(|| "reading /version".to_owned(), client.apiserver_version()).await?;
    let group = "/apis/admissionregistration.k8s.io/v1";
    let act = || format!("reading {group}");
    let request = http::Request::get(group).body(Vec::new());
    let request =
        request.map_err(|error| KubeError::Request { act: act(), source: Box::new(kube::Error::HttpError(error)) })?;
    let list: APIResourceList = within_deadline(act, client.request(request)).await?;
    let mutating_policies = list.resources.iter().any(|resource| resource.name == PolicyKind::Mutating.plural());
    if let Some(why) = shortfall(&Served { git_version: version.git_version, mutating_policies }) {
        return Ok(Some(why));
    }
    obstacle(client).await
}

/// What injection takes.
pub(crate) struct Injection<'a> {
    pub(crate) writer: &'a KubeWriter,
    pub(crate) webhook: Option<&'a Registrar>,
    pub(crate) policies: Option<&'a PolicyWriter>,
}

impl Injection<'_> {
    /// Brings injection in step with the grants.
    pub(crate) async fn reconcile(&self, granted: &BTreeSet<String>) -> Result<Registered, KubeError> {
        match self.policies {
            Some(keeper) if keeper.mode() == Mode::Policy => self.by_policies(keeper, granted).await,
            keeper => self.by_webhook(keeper, granted).await,
        }
    }

    async fn by_policies(&self, keeper: &PolicyWriter, granted: &BTreeSet<String>) -> Result<Registered, KubeError> {
        if keeper.fill(self.writer, granted).await? == Filled::Unbound {
            tracing::warn!("the binding of an admission policy is missing: apply the chart again, which makes it");
            return Ok(Registered::Waiting(WAIT));
        }
        let Some(configuration) = self.registered_webhook().await? else { return Ok(Registered::Current) };
        if !keeper.is_live(self.writer, granted).await? {
            return Ok(Registered::Waiting(WAIT));
        }
        let Some(others) = differs(&configuration, &[]) else { return Ok(Registered::Current) };
        self.writer.register_webhooks(&configuration, others).await?;
        tracing::info!("the webhook is no longer registered: the API server has been seen to inject");
        Ok(Registered::Current)
    }

    /// Has no pod sent to the webhook any more: it goes with its namespace, and nobody would answer for it.
    pub(crate) async fn end_webhook(&self) -> Result<(), KubeError> {
        let Some(configuration) = self.registered_webhook().await? else { return Ok(()) };
        let Some(others) = differs(&configuration, &[]) else { return Ok(()) };
        self.writer.register_webhooks(&configuration, others).await?;
        tracing::warn!("the webhook is no longer registered: its namespace is being deleted");
        Ok(())
    }

    /// The registration, if pods are sent to the webhook.
    async fn registered_webhook(&self) -> Result<Option<MutatingWebhookConfiguration>, KubeError> {
        let Some(registrar) = self.webhook else { return Ok(None) };
        let found = registrar.read(self.writer).await?;
        Ok(found.filter(|configuration| differs(configuration, &[]).is_some()))
    }

    async fn by_webhook(
        &self,
        keeper: Option<&PolicyWriter>,
        granted: &BTreeSet<String>,
    ) -> Result<Registered, KubeError> {
        let Some(registrar) = self.webhook else { return Ok(Registered::Current) };
        let registered = registrar.reconcile(self.writer, granted).await?;
        let Some(keeper) = keeper else { return Ok(registered) };
        if registered != Registered::Current {
            keeper.seen(false);
            return Ok(registered);
        }
        if !keeper.is_filled(self.writer.client()).await? {
            return Ok(Registered::Current);
        }
        if !keeper.seen(true) {
            return Ok(Registered::Waiting(WAIT));
        }
        keeper.empty(self.writer).await?;
        Ok(Registered::Current)
    }
}
