//! Finds, and on request deletes, the credentials that a deleted cluster has left in Azure.

use std::future::Future;

use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};

use crate::cluster::discovery::discover;
use crate::engine::failpoints::Failpoints;
use crate::engine::write_gate::WriteGate;
use crate::kube_request::within_deadline;
use crate::metrics::ControllerMetrics;
use crate::writers::azure::{AzureWriter, WriteError};
use crate::writers::own_writes::OwnWritesByIdentity;
use ensign_api::{ArmId, ManagedIdentityBinding};
use ensign_azure::{ArmClient, ArmError, RateLimiter};
use ensign_core::acceptance::scopes::AzureScope;
use ensign_core::assess::PlannedCredentialWrite;
use ensign_core::commands::orphans::{Orphan, Present, of_cluster};
use ensign_core::credentials::plan::CredentialWrite;
use ensign_core::own_writes::READ_LAG;
use ensign_core::scheduling::rate_limiter::RateLimits;
use ensign_runtime::clock::SharedClock;
use ensign_runtime::error_chain;

/// A search in Azure.
pub struct OrphanSearch {
    arm: ArmClient,
    cluster_id: String,
    issuers: Vec<String>,
    gate: WriteGate,
    clock: SharedClock,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// How many identities were checked.
    pub identities: usize,
    /// The credentials of the cluster.
    pub orphans: Vec<Orphan>,
    /// Identities that could not be checked, with who has to do what.
    pub problems: Vec<String>,
}

impl OrphanSearch {
    /// A search for credentials with this cluster ID, of these issuers or of any.
    pub fn new(arm: ArmClient, cluster_id: String, issuers: Vec<String>, clock: SharedClock) -> Self {
        let arm = arm.paced(RateLimiter::new(RateLimits::PUBLISHED, clock.clone()));
        Self { arm, cluster_id, issuers, gate: WriteGate::unlimited(clock.clone()), clock }
    }

    /// Checks every identity in the scopes.
    pub async fn find(&self, scopes: &[AzureScope]) -> Found {
        let mut found = Found::default();
        let mut identities: Vec<ArmId> = Vec::new();
        for scope in scopes {
            match self.arm.list_identities(scope).await {
                Ok(listed) => identities.extend(listed),
                Err(error) => found.problems.push(error_chain::line(&error)),
            }
        }
        identities.sort_by(|one, other| one.key().cmp(other.key()));
        identities.dedup_by(|one, other| one.key() == other.key());
        found.identities = identities.len();
        for id in &identities {
            match self.with_budget(|| self.arm.list_credentials(id)).await {
                Ok(existing) => {
                    let ours = of_cluster(&self.cluster_id, &self.issuers, &existing);
                    found.orphans.extend(ours.into_iter().map(|credential| Orphan::new(id, credential)));
                }
                Err(error) => found.problems.push(error.failure(None).message),
            }
        }
        found
    }

    /// Deletes one, if it still exists unchanged; the error is why it can't be deleted.
    pub async fn delete(&self, orphan: &Orphan) -> Result<(), String> {
        let id: ArmId = orphan.identity.parse().map_err(|_| format!("{} is not an ARM ID", orphan.identity))?;
        let message = |error: &ArmError| error.failure(None).message;
        let mut existing =
            self.with_budget(|| self.arm.list_credentials(&id)).await.map_err(|error| message(&error))?;
        let ours = of_cluster(&self.cluster_id, &self.issuers, &existing);
        let Some(credential) = ours.into_iter().find(|credential| credential.name == orphan.name).cloned() else {
            return Ok(());
        };
        let planned =
            PlannedCredentialWrite { write: CredentialWrite::Delete { credential, after: None }, cause: None };
        let writer = AzureWriter {
            arm: self.arm.clone(),
            gate: self.gate.clone(),
            failpoints: Failpoints::default(),
            metrics: ControllerMetrics::default(),
            own_writes: OwnWritesByIdentity::new(READ_LAG, self.clock.clone()),
        };
        loop {
            match writer.write_credential((&id, None), &planned, &mut existing).await {
                Ok(()) => return Ok(()),
                Err(WriteError::Azure(error)) => match error.not_sent() {
                    Some(refusal) => self.clock.sleep_until(self.clock.monotonic() + refusal.wait()).await,
                    None => return Err(message(&error)),
                },
                Err(WriteError::Refused(refused)) => return Err(refused.to_string()),
            }
        }
    }

    /// Sends a request, and waits for rate-limit budget if it has to.
    async fn with_budget<T, F: Future<Output = Result<T, ArmError>>>(
        &self,
        request: impl Fn() -> F,
    ) -> Result<T, ArmError> {
        loop {
            match request().await {
                Err(error) if error.not_sent().is_some() => {
                    let wait =
                        error.not_sent().map(ensign_core::scheduling::rate_limiter::Deferral::wait).unwrap_or_default();
                    self.clock.sleep_until(self.clock.monotonic() + wait).await;
                }
                result => return result,
            }
        }
    }
}

/// What is known of the cluster that the client is connected to.
pub async fn current_cluster(client: &Client) -> Result<Present, Box<dyn std::error::Error + Send + Sync>> {
    let (uid, _) = discover(client, None, Some(String::new())).await?;
    let api: Api<ManagedIdentityBinding> = Api::all(client.clone());
    let listed =
        within_deadline(|| "listing ManagedIdentityBindings".to_owned(), api.list(&ListParams::default())).await;
    let bindings = match listed {
        Ok(list) => list.items,
        // Ensign is not installed there.
        Err(error) if error.is_not_found() => Vec::new(),
        Err(error) => return Err(Box::new(error)),
    };
    let names = bindings.iter().filter(|binding| !binding.name_any().is_empty());
    let in_use = names.filter_map(|binding| Some(binding.status.as_ref()?.credential.as_ref()?.name.clone()));
    Ok(Present { uid, in_use: in_use.collect() })
}
