//! Checks Azure as the controller would see it, without writing anything.

use std::time::Duration;

use azure_core::credentials::TokenCredential;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::error::chain;
use super::{ArmClient, Cloud, Connection};
use ensign_api::ArmId;
use ensign_core::commands::check::{self, Bootstrap, Check, Document};
use ensign_runtime::error_chain;

const TOKEN_DEADLINE: Duration = Duration::from_secs(30);
const DISCOVERY: &str = ".well-known/openid-configuration";

#[derive(Deserialize)]
struct Keys {
    keys: Vec<IgnoredAny>,
}

/// Whether the issuer's keys can be read as Entra reads them: from outside the cluster and without credentials.
pub async fn issuer(connection: &Connection, issuer: &str, allow_private: bool) -> Vec<Check> {
    let public = check::issuer_is_public(issuer, allow_private);
    let document = document(connection, issuer).await;
    vec![public, check::discovery(issuer, &document)]
}

async fn document(connection: &Connection, issuer: &str) -> Result<(Document, usize), String> {
    let client = connection.http_client().map_err(|error| error_chain::line(&error))?;
    let document: Document = fetch(&client, &format!("{}/{DISCOVERY}", issuer.trim_end_matches('/'))).await?;
    let keys: Keys = fetch(&client, &document.jwks_uri).await?;
    Ok((document, keys.keys.len()))
}

/// The client has its own deadline.
async fn fetch<T: DeserializeOwned>(client: &reqwest::Client, url: &str) -> Result<T, String> {
    let line = |error: reqwest::Error| error_chain::line(&error);
    let response = client.get(url).send().await.map_err(line)?;
    response.error_for_status().map_err(line)?.json().await.map_err(line)
}

/// Whether Entra issues a token to the controller.
pub async fn credential(cloud: &Cloud, credential: &dyn TokenCredential, bootstrap: &Bootstrap<'_>) -> Check {
    let scope = format!("{}/.default", cloud.arm_audience);
    let token = match tokio::time::timeout(TOKEN_DEADLINE, credential.get_token(&[&scope], None)).await {
        Err(_) => Err(format!("no response within {} s", TOKEN_DEADLINE.as_secs())),
        Ok(Err(error)) => Err(chain(&error)),
        Ok(Ok(_)) => Ok(()),
    };
    check::credential(bootstrap, &token)
}

/// Whether the identity belongs to the expected tenant and the controller's role allows reading it.
pub async fn identity(arm: &ArmClient, id: &ArmId, bootstrap: &Bootstrap<'_>) -> Vec<Check> {
    let failed = |error: super::ArmError| vec![check::role(bootstrap, id, Err(&error.failure(bootstrap.client_id)))];
    let found = match arm.get_identity(id).await {
        Ok(found) => found,
        Err(error) => return failed(error),
    };
    match arm.list_credentials(id).await {
        Ok(_) => vec![check::tenant(bootstrap, id, &found.tenant_id), check::role(bootstrap, id, Ok(()))],
        Err(error) => failed(error),
    }
}
