//! Ensign's own credential: workload identity in a cluster, developer tools on a laptop. Never a client secret.

use std::sync::Arc;

use azure_core::cloud::{CloudConfiguration, CustomConfiguration};
use azure_core::credentials::TokenCredential;
use azure_identity::{
    ClientAssertionCredentialOptions, DeveloperToolsCredential, WorkloadIdentityCredential,
    WorkloadIdentityCredentialOptions,
};

use super::Cloud;
use super::transport::{Connection, ConnectionError};

const TOKEN_FILE_VARIABLE: &str = "AZURE_FEDERATED_TOKEN_FILE";
const CLIENT_ID_VARIABLE: &str = "AZURE_CLIENT_ID";

/// The credential can't be made.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The HTTP client can't be made.
    #[error("cannot reach Entra")]
    Connection(#[from] ConnectionError),
    /// The workload identity of the controller is not set up.
    #[error(
        "cannot use the controller's own workload identity: its pod needs AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_FEDERATED_TOKEN_FILE, and the file has to be readable"
    )]
    WorkloadIdentity(#[source] azure_core::Error),
    /// No developer tool can be used.
    #[error("cannot use a developer tool's sign-in; run `az login`, or set AZURE_FEDERATED_TOKEN_FILE in a cluster")]
    DeveloperTools(#[source] azure_core::Error),
}

/// Ensign's own credential for ARM.
#[derive(Clone, Debug)]
pub struct OwnCredential {
    /// The credential.
    pub credential: Arc<dyn TokenCredential>,
    /// The client ID, where it is known.
    pub client_id: Option<String>,
}

/// Makes Ensign's own credential from the environment.
pub fn from_environment(cloud: &Cloud, connection: &Connection) -> Result<OwnCredential, CredentialError> {
    if std::env::var_os(TOKEN_FILE_VARIABLE).is_none() {
        let credential = DeveloperToolsCredential::new(None).map_err(CredentialError::DeveloperTools)?;
        return Ok(OwnCredential { credential, client_id: None });
    }
    let mut client_options = connection.client_options()?;
    let mut configuration = CustomConfiguration::default();
    configuration.authority_host = cloud.authority_host.to_string();
    client_options.cloud = Some(Arc::new(CloudConfiguration::Custom(configuration)));
    let options = WorkloadIdentityCredentialOptions {
        credential_options: ClientAssertionCredentialOptions { client_options },
        ..WorkloadIdentityCredentialOptions::default()
    };
    let credential = WorkloadIdentityCredential::new(Some(options)).map_err(CredentialError::WorkloadIdentity)?;
    Ok(OwnCredential { credential, client_id: std::env::var(CLIENT_ID_VARIABLE).ok() })
}
