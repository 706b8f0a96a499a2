//! Checks an install from the outside, and writes nothing.

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, ListParams};

use crate::cluster::discovery::read_issuer;
use crate::injection::policies;
use crate::kube_request::{KubeError, within_deadline};
use ensign_api::{ArmId, ManagedIdentity, crds};
use ensign_core::acceptance::identities;
use ensign_core::commands::check::{self, Check};
use ensign_core::webhook_configuration::ENTRIES;
use ensign_runtime::error_chain;

/// The names of an install.
#[derive(Clone, Debug)]
pub struct Installed {
    /// Ensign's own namespace.
    pub namespace: String,
    /// Name of the controller's Lease.
    pub lease: String,
    /// Name of the `MutatingWebhookConfiguration`.
    pub webhook_configuration: String,
}

/// What was found in a cluster.
#[derive(Debug, Default)]
pub struct ClusterChecks {
    /// The results.
    pub checks: Vec<Check>,
    /// The service account issuer.
    pub issuer: Option<String>,
    /// The identities in Azure that objects reference.
    pub identities: Vec<ArmId>,
}

/// Checks the cluster.
pub async fn check_cluster(client: &Client, installed: &Installed, now: Timestamp) -> ClusterChecks {
    let mut found = ClusterChecks::default();
    match within_deadline(|| "reading /version".to_owned(), client.apiserver_version()).await {
        Ok(version) => found.checks.push(check::api_server(&version.git_version, &version.minor)),
        Err(error) => {
            found.checks.push(Check::fail(
                "api-server",
                error_chain::line(&error),
                "check the kubeconfig, or the pod's service account",
            ));
            return found;
        }
    }
    found.checks.push(crds(client).await.unwrap_or_else(|error| unreadable("crds", &error)));
    found.checks.push(lease(client, installed, now).await.unwrap_or_else(|error| unreadable("leader", &error)));
    found.checks.push(injection(client, installed).await.unwrap_or_else(|error| unreadable("injection", &error)));
    match read_issuer(client).await {
        Ok(issuer) => found.issuer = Some(issuer),
        Err(error) => found.checks.push(unreadable("issuer", &error)),
    }
    let api: Api<ManagedIdentity> = Api::all(client.clone());
    let listed = within_deadline(|| "listing ManagedIdentities".to_owned(), api.list(&ListParams::default())).await;
    match listed {
        Ok(list) => found.identities = list.items.iter().filter_map(|object| identities::arm_id(object).ok()).collect(),
        // Their CRD does not exist, which is reported above.
        Err(error) if error.is_not_found() => {}
        Err(error) => found.checks.push(unreadable("identities", &error)),
    }
    found
}

/// A missing permission does not mean that an install has a problem.
fn unreadable(check: &'static str, error: &KubeError) -> Check {
    let cure = "run this with permission to read it, for example as a cluster operator";
    Check::warn(check, format!("cannot be read from here: {}", error_chain::line(error)), cure)
}

async fn crds(client: &Client) -> Result<Check, KubeError> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let desired: Vec<CustomResourceDefinition> = crds::all().into_iter().map(|(_, crd)| crd).collect();
    let mut found = Vec::with_capacity(desired.len());
    for crd in &desired {
        let name = crd.metadata.name.as_deref().unwrap_or_default();
        found.push(within_deadline(|| format!("reading CustomResourceDefinition {name}"), api.get_opt(name)).await?);
    }
    Ok(check::definitions(&found, &desired))
}

async fn lease(client: &Client, installed: &Installed, now: Timestamp) -> Result<Check, KubeError> {
    let Installed { namespace, lease: name, .. } = installed;
    let api: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let found = within_deadline(|| format!("reading Lease {namespace}/{name}"), api.get_opt(name)).await?;
    let spec = found.and_then(|lease| lease.spec).unwrap_or_default();
    let ago = spec.renew_time.map(|renewed| now.as_second() - renewed.0.as_second());
    let duration = spec.lease_duration_seconds.unwrap_or_default();
    Ok(check::lease(spec.holder_identity.as_deref(), ago, duration.into()))
}

async fn injection(client: &Client, installed: &Installed) -> Result<Check, KubeError> {
    let name = &installed.webhook_configuration;
    let api: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let act = || format!("reading MutatingWebhookConfiguration {name}");
    let found = within_deadline(act, api.get_opt(name)).await?;
    let entries = found.map(|configuration| {
        let entries = configuration.webhooks.unwrap_or_default();
        entries.iter().filter(|entry| ENTRIES.contains(&entry.name.as_str())).count()
    });
    Ok(check::injection(entries, policies::any_filled(client).await?))
}
