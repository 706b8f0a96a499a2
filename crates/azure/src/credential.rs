//! Ensign's own credential: a workload identity in a cluster, developer tools on a laptop, never a client secret.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use azure_core::cloud::{CloudConfiguration, CustomConfiguration};
use azure_core::credentials::TokenCredential;
use azure_core::http::ClientOptions;
use azure_identity::{
    ClientAssertionCredentialOptions, DeveloperToolsCredential, WorkloadIdentityCredential,
    WorkloadIdentityCredentialOptions,
};

use super::Cloud;
use super::http::{Connection, ConnectionError};
use super::token_refresh::RenewableCredential;
use ensign_api::arm_id::is_guid;

const CLIENT_ID: &str = "AZURE_CLIENT_ID";
const TENANT_ID: &str = "AZURE_TENANT_ID";
const TOKEN_FILE: &str = "AZURE_FEDERATED_TOKEN_FILE";
const AUTHORITY_HOST: &str = "AZURE_AUTHORITY_HOST";
/// Long-lived secrets, which Ensign exists to make unnecessary.
const SECRETS: [&str; 2] = ["AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PATH"];
/// Set in every pod.
const IN_CLUSTER: &str = "KUBERNETES_SERVICE_HOST";

/// The credential can't be created.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The HTTP client can't be created.
    #[error("cannot reach Entra")]
    Connection(#[from] ConnectionError),
    /// The controller's workload identity can't be used.
    #[error("cannot use the controller's own workload identity")]
    WorkloadIdentity(#[source] azure_core::Error),
    /// No developer tool can be used.
    #[error(
        "cannot use the sign-in of a developer tool: run `az login`, or in a cluster set AZURE_FEDERATED_TOKEN_FILE"
    )]
    DeveloperTools(#[source] azure_core::Error),
}

/// The controller's own identity in Azure, from its environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnIdentity {
    /// A workload identity of a Kubernetes pod.
    Workload {
        /// The identity's client ID.
        client_id: String,
        /// Its tenant.
        tenant_id: String,
        /// The file in which the kubelet keeps a fresh token.
        token_file: PathBuf,
    },
    /// The user who is signed in with a developer tool on this machine.
    DeveloperTools {
        /// The tenant, if it is set.
        tenant_id: Option<String>,
    },
}

/// Ensign's own credential for ARM.
#[derive(Clone, Debug)]
pub struct OwnCredential {
    /// The credential.
    pub credential: Arc<dyn TokenCredential>,
    /// The client ID, if it is known.
    pub client_id: Option<String>,
}

impl OwnIdentity {
    /// Reads the environment through `variable`. An error lists everything that is missing or malformed.
    pub fn read(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, Vec<String>> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let mut problems = Vec::new();
        let mut guid = |name: &str, required: bool| match set(name).map(OsString::into_string) {
            Some(Ok(text)) if is_guid(&text) => Some(text),
            Some(text) => {
                let text = text.unwrap_or_else(|text| text.to_string_lossy().into_owned());
                problems.push(format!("{name} {text:?} is not a GUID"));
                None
            }
            None if required => {
                problems.push(missing(name));
                None
            }
            None => None,
        };
        // Any one of them means that a workload identity is intended.
        let is_workload = [CLIENT_ID, TOKEN_FILE, IN_CLUSTER].iter().any(|name| set(name).is_some());
        let (client_id, tenant_id) = (guid(CLIENT_ID, is_workload), guid(TENANT_ID, is_workload));
        let token_file = set(TOKEN_FILE).map(PathBuf::from);
        match &token_file {
            None if is_workload => problems.push(missing(TOKEN_FILE)),
            None => {}
            Some(path) => match std::fs::read_to_string(path) {
                Ok(text) if text.trim().is_empty() => {
                    problems.push(format!("{TOKEN_FILE}: {} is empty", path.display()));
                }
                Ok(_) => {}
                Err(error) => problems.push(format!("{TOKEN_FILE}: cannot read {}: {error}", path.display())),
            },
        }
        if !problems.is_empty() {
            let secrets = SECRETS.iter().filter(|name| set(name).is_some());
            problems.extend(secrets.map(|name| {
                format!("{name} is set, but Ensign does not use secrets: unset it and set up a workload identity")
            }));
            return Err(problems);
        }
        Ok(match (client_id, tenant_id, token_file) {
            (Some(client_id), Some(tenant_id), Some(token_file)) => Self::Workload { client_id, tenant_id, token_file },
            (_, tenant_id, _) => Self::DeveloperTools { tenant_id },
        })
    }

    /// The tenant, if it is known.
    pub fn tenant_id(&self) -> Option<&str> {
        match self {
            Self::Workload { tenant_id, .. } => Some(tenant_id),
            Self::DeveloperTools { tenant_id } => tenant_id.as_deref(),
        }
    }

    /// Ensign's own credential.
    pub fn credential(&self, cloud: &Cloud, connection: &Connection) -> Result<OwnCredential, CredentialError> {
        let Self::Workload { client_id, tenant_id, token_file } = self else {
            let credential = DeveloperToolsCredential::new(None).map_err(CredentialError::DeveloperTools)?;
            return Ok(OwnCredential { credential, client_id: None });
        };
        let mut client_options = connection.client_options()?;
        let mut configuration = CustomConfiguration::default();
        configuration.authority_host = cloud.authority_host.to_string();
        client_options.cloud = Some(Arc::new(CloudConfiguration::Custom(configuration)));
        let (client, tenant_id, token_file) = (client_id.clone(), tenant_id.clone(), token_file.clone());
        let credential = RenewableCredential::new(move || {
            workload_identity(client_options.clone(), client.clone(), tenant_id.clone(), token_file.clone())
        });
        let credential = Arc::new(credential.map_err(CredentialError::WorkloadIdentity)?);
        Ok(OwnCredential { credential, client_id: Some(client_id.clone()) })
    }
}

/// The Entra authority in the environment, if it differs from the cloud's.
pub fn other_authority(cloud: &Cloud, variable: impl Fn(&str) -> Option<OsString>) -> Option<String> {
    let text = variable(AUTHORITY_HOST)?.into_string().ok().filter(|text| !text.is_empty())?;
    let same = url::Url::parse(&text).is_ok_and(|url| url.origin() == cloud.authority_host.origin());
    (!same).then_some(text)
}

fn workload_identity(
    client_options: ClientOptions,
    client_id: String,
    tenant_id: String,
    token_file: PathBuf,
) -> azure_core::Result<Arc<dyn TokenCredential>> {
    let credential = WorkloadIdentityCredential::new(Some(WorkloadIdentityCredentialOptions {
        credential_options: ClientAssertionCredentialOptions { client_options },
        client_id: Some(client_id),
        tenant_id: Some(tenant_id),
        token_file_path: Some(token_file),
    }))?;
    Ok(credential)
}

fn missing(name: &str) -> String {
    format!(
        "{name} is not set: the controller's pod needs a workload identity of its own (on a laptop, leave {CLIENT_ID} and {TOKEN_FILE} unset and run `az login`)"
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Write;

    use super::*;
    use crate::cloud::CloudArgs;

    const GUID: &str = "7e000000-0000-4000-8000-00000000007e";

    fn read(variables: &[(&str, &str)]) -> Result<OwnIdentity, Vec<String>> {
        let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
        OwnIdentity::read(|name| variables.get(name).map(OsString::from))
    }

    fn token_file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    #[test]
    fn a_laptop_needs_no_variables_and_may_set_its_tenant() {
        assert_eq!(read(&[]), Ok(OwnIdentity::DeveloperTools { tenant_id: None }));
        let named = read(&[(TENANT_ID, GUID), (CLIENT_ID, "")]).unwrap();
        assert_eq!(named.tenant_id(), Some(GUID));
    }

    #[test]
    fn a_pod_with_all_three_variables_has_a_workload_identity() {
        let file = token_file("header.claims.signature");
        let path = file.path().to_str().unwrap();
        let identity = read(&[(CLIENT_ID, GUID), (TENANT_ID, GUID), (TOKEN_FILE, path)]).unwrap();
        let (client_id, tenant_id, token_file) = (GUID.to_owned(), GUID.to_owned(), path.into());
        assert_eq!(identity, OwnIdentity::Workload { client_id, tenant_id, token_file });
    }

    #[test]
    fn all_missing_variables_of_a_pod_are_reported_at_once() {
        for begun in [(IN_CLUSTER, "10.0.0.1"), (CLIENT_ID, "not-a-guid"), (TOKEN_FILE, "/nowhere/token")] {
            let problems = read(&[begun]).unwrap_err();
            assert_eq!(problems.len(), 3, "{problems:?}");
            for name in [CLIENT_ID, TENANT_ID, TOKEN_FILE] {
                assert!(problems.iter().any(|problem| problem.starts_with(name)), "{name}: {problems:?}");
            }
        }
    }

    #[test]
    fn an_empty_token_file_is_reported() {
        let file = token_file("\n");
        let path = file.path().to_str().unwrap();
        let problems = read(&[(CLIENT_ID, GUID), (TENANT_ID, GUID), (TOKEN_FILE, path)]).unwrap_err();
        assert_eq!(problems, [format!("{TOKEN_FILE}: {path} is empty")]);
    }

    #[test]
    fn a_client_secret_is_rejected_and_not_shown() {
        let problems = read(&[(CLIENT_ID, GUID), (TENANT_ID, GUID), ("AZURE_CLIENT_SECRET", "hunter2")]).unwrap_err();
        let text = problems.join("\n");
        assert!(text.contains("AZURE_CLIENT_SECRET is set, but Ensign does not use secrets"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[test]
    fn an_authority_of_another_cloud_is_detected() {
        let cloud = CloudArgs::default().resolve().unwrap();
        let other = |text: &'static str| other_authority(&cloud, |_| Some(text.into()));
        assert_eq!(other("https://login.microsoftonline.com"), None);
        assert_eq!(other(""), None);
        assert_eq!(other("https://login.microsoftonline.us/").as_deref(), Some("https://login.microsoftonline.us/"));
    }
}
