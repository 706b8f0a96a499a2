//! Has pods injected, by the webhook or by the API server itself, and switches over between the two.
//!
//! Both modes inject the same, and nothing into pods that the other one has injected, so that they may overlap. The new mode
//! is enabled first; the former one is disabled once the new one has been observed to work, several times in a row.

pub(crate) mod policies;
pub(crate) mod reconcile;
pub(crate) mod upstream_webhook;
pub(crate) mod webhook_configuration;
pub(crate) mod webhook_probe;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResourceList;
use kube::Client;

use self::policies::obstacle;
use crate::kube_request::{KubeError, within_deadline};
use ensign_core::cel::{Choice, Mode, PolicyKind, Served, mode, shortfall};

/// The injection mode can't be chosen.
#[derive(Debug, thiserror::Error)]
pub enum InjectionError {
    /// It is unknown what the API server serves.
    #[error("cannot determine whether the API server can inject pods itself")]
    Unknown(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The requested mode is not available.
    #[error("{0}")]
    Refused(String),
}

/// Chooses the injection mode. `otherwise` is why policies can't be used whatever the cluster, if so.
pub async fn choose_injection(
    client: &Client,
    choice: Choice,
    otherwise: Option<&str>,
) -> Result<Mode, InjectionError> {
    let why_not = match (choice, otherwise) {
        (Choice::Webhook, _) => None,
        (_, Some(why)) => Some(why.to_owned()),
        (_, None) => obstacle_to_policies(client).await.map_err(|error| InjectionError::Unknown(Box::new(error)))?,
    };
    let (mode, why) = mode(choice, why_not.as_deref()).map_err(InjectionError::Refused)?;
    tracing::info!(mode = mode.as_str(), why, "injection mode");
    Ok(mode)
}

/// Why policies can't inject in this cluster, if so.
async fn obstacle_to_policies(client: &Client) -> Result<Option<String>, KubeError> {
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
