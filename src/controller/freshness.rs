//! Nothing is written to Azure on the word of a cache: what a write depends on is read from the API server first.
//!
//! A watch may be behind, or may have restarted from an old list. So right before the writes of a reconcile, the
//! objects behind each one are compared with the live ones; a difference means that the cache has to catch up first.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ListParams, PartialObjectMeta};
use kube::{Client, Resource, ResourceExt};

use super::gather::Gathered;
use super::kube_writes::{KubeError, within_deadline};
use crate::api::{ManagedIdentity, ManagedIdentityBinding};
use crate::decide::assess::PlannedStep;
use crate::decide::credentials::Step;
use crate::decide::names::Subject;
use crate::mutants::{self, Mutant};

/// Whether the cache agrees with the API server on everything that the steps depend on.
pub(super) async fn is_fresh(client: &Client, gathered: &Gathered, steps: &[PlannedStep]) -> Result<bool, KubeError> {
    let Some(owner) = gathered.owner() else { return Ok(false) };
    if !same_identity(client, owner).await? {
        return Ok(false);
    }
    for namespace in
        steps.iter().filter_map(|step| step.cause.as_ref()).map(|cause| &cause.namespace).collect::<BTreeSet<_>>()
    {
        if !same_namespace(client, gathered, namespace).await? {
            return Ok(false);
        }
    }
    for step in steps {
        let fresh = match (&step.step, &step.cause) {
            (Step::Put { .. }, Some(cause)) => same_binding(client, gathered, &cause.namespace, &cause.binding).await?,
            (Step::Put { .. }, None) => false,
            (Step::Delete { credential, .. }, _) => match Subject::parse(&credential.subject) {
                Some(subject) => no_unseen_claim(client, gathered, &subject).await?,
                None => false,
            },
        };
        if !fresh {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether no `ManagedIdentity` of this name exists.
pub(super) async fn is_missing(client: &Client, name: &str) -> Result<bool, KubeError> {
    let api: Api<ManagedIdentity> = Api::all(client.clone());
    let found = within_deadline(|| format!("reading ManagedIdentity {name}"), api.get_opt(name)).await?;
    Ok(found.is_none())
}

async fn same_identity(client: &Client, cached: &ManagedIdentity) -> Result<bool, KubeError> {
    let api: Api<ManagedIdentity> = Api::all(client.clone());
    let name = cached.name_any();
    let live = within_deadline(|| format!("reading ManagedIdentity {name}"), api.get_opt(&name)).await?;
    Ok(live.is_some_and(|live| same(&live, cached)))
}

async fn same_binding(client: &Client, gathered: &Gathered, namespace: &str, name: &str) -> Result<bool, KubeError> {
    let Some(cached) = gathered.binding(namespace, name) else { return Ok(false) };
    let api: Api<ManagedIdentityBinding> = Api::namespaced(client.clone(), namespace);
    let act = || format!("reading ManagedIdentityBinding {namespace}/{name}");
    let live = within_deadline(act, api.get_opt(name)).await?;
    Ok(live.is_some_and(|live| same(&live, cached.as_ref())))
}

/// Grants select namespaces by label.
async fn same_namespace(client: &Client, gathered: &Gathered, name: &str) -> Result<bool, KubeError> {
    let api: Api<PartialObjectMeta<Namespace>> = Api::all(client.clone());
    let live = within_deadline(|| format!("reading Namespace {name}"), api.get_opt(name)).await?;
    Ok(live
        .zip(gathered.namespace(name))
        .is_some_and(|(live, cached)| live.metadata.uid == cached.uid && *live.labels() == cached.labels))
}

/// Whether every living binding that could want the subject's credential is one that the decision has seen.
async fn no_unseen_claim(client: &Client, gathered: &Gathered, subject: &Subject) -> Result<bool, KubeError> {
    let namespace = subject.namespace.as_str();
    let api: Api<ManagedIdentityBinding> = Api::namespaced(client.clone(), namespace);
    let account = &subject.service_account;
    let selection = ListParams::default().fields(&format!("spec.serviceAccountName={account}"));
    let act = || format!("listing the ManagedIdentityBindings of service account {namespace}/{account}");
    let live = within_deadline(act, api.list(&selection)).await?;
    Ok(live.items.iter().filter(|live| live.metadata.deletion_timestamp.is_none()).all(|live| {
        let seen = gathered.binding(namespace, &live.name_any()).is_some_and(|cached| same(live, cached.as_ref()));
        // A binding to an identity of another key can't want this credential.
        seen || gathered.identity(&live.identity_name()).is_none()
    }))
}

fn same<K: Resource>(live: &K, cached: &K) -> bool {
    let (live, cached) = (live.meta(), cached.meta());
    (live.uid == cached.uid || mutants::active(Mutant::UidIgnored))
        && live.generation == cached.generation
        && live.deletion_timestamp.is_some() == cached.deletion_timestamp.is_some()
}
