//! What the controller learns about its cluster at start.

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, PartialObjectMeta};
use kube::{Client, ResourceExt};
use serde::Deserialize;

use crate::kube_request::{KubeError, within_deadline};

/// The cluster's ID or its issuer can't be read.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// The namespace `kube-system` can't be read.
    #[error("cannot read the cluster's ID from namespace kube-system; set --cluster-id")]
    ClusterId(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The issuer's discovery document can't be read.
    #[error(
        "cannot read the service account issuer from the API server's /.well-known/openid-configuration; set --service-account-issuer"
    )]
    Issuer(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The cluster's ID and its service account issuer: those given, otherwise what the API server reports.
pub async fn discover(
    client: &Client,
    cluster_id: Option<String>,
    issuer: Option<String>,
) -> Result<(String, String), DiscoveryError> {
    let id = match cluster_id {
        Some(id) => id,
        None => read_cluster_id(client).await?,
    };
    let issuer = match issuer {
        Some(issuer) => issuer,
        None => read_issuer(client).await.map_err(|error| DiscoveryError::Issuer(Box::new(error)))?,
    };
    Ok((id, issuer))
}

async fn read_cluster_id(client: &Client) -> Result<String, DiscoveryError> {
    let api: Api<PartialObjectMeta<Namespace>> = Api::all(client.clone());
    let namespace = within_deadline(|| "reading Namespace kube-system".to_owned(), api.get("kube-system"))
        .await
        .map_err(|error| DiscoveryError::ClusterId(Box::new(error)))?;
    namespace.uid().ok_or_else(|| DiscoveryError::ClusterId("it has no UID".into()))
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
}

/// The issuer that the API server names in its discovery document.
pub(crate) async fn read_issuer(client: &Client) -> Result<String, KubeError> {
    let act = || "reading /.well-known/openid-configuration".to_owned();
    let request = http::Request::get("/.well-known/openid-configuration").body(Vec::new());
    let request =
        request.map_err(|error| KubeError::Request { act: act(), source: Box::new(kube::Error::HttpError(error)) })?;
    let document: Discovery = within_deadline(act, client.request(request)).await?;
    Ok(document.issuer)
}
