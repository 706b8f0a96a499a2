//! No write to Azure relies on the cache alone: its preconditions are read from the API server first.
//!
//! A watch may be behind, or may have restarted from an old list. So right before the writes of a reconcile, the cached
//! objects behind each one are compared with the live ones; if they differ, the cache has to catch up first.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ListParams, PartialObjectMeta};
use kube::{Client, Resource, ResourceExt};

use crate::cache::snapshot::CacheView;
use crate::kube_request::{KubeError, within_deadline};
use ensign_api::{ClaimRef, ManagedIdentity, ManagedIdentityBinding, ManagedIdentityClass};
use ensign_core::acceptance::claims;
use ensign_core::assess::PlannedCredentialWrite;
use ensign_core::credentials::names::Subject;
use ensign_core::credentials::plan::CredentialWrite;
use ensign_core::provisioning::IdentityWrite;

/// Whether the cache agrees with the API server on everything that the writes depend on.
pub(crate) async fn is_fresh(
    client: &Client,
    view: &CacheView,
    writes: &[PlannedCredentialWrite],
) -> Result<bool, KubeError> {
    let Some(owner) = view.owner() else { return Ok(false) };
    if !same_identity(client, owner).await? {
        return Ok(false);
    }
    for namespace in writes
        .iter()
        .filter_map(|planned| planned.cause.as_ref())
        .map(|cause| &cause.namespace)
        .collect::<BTreeSet<_>>()
    {
        if !same_namespace(client, view, namespace).await? {
            return Ok(false);
        }
    }
    for planned in writes {
        let fresh = match (&planned.write, &planned.cause) {
            (CredentialWrite::Put { .. }, Some(cause)) => {
                same_binding(client, view, &cause.namespace, &cause.binding).await?
                    && same_class_of(client, view, &cause.namespace, &cause.binding).await?
            }
            (CredentialWrite::Put { .. }, None) => false,
            (CredentialWrite::Delete { credential, .. }, _) => match Subject::parse(&credential.subject) {
                Some(subject) => all_claims_are_known(client, view, &subject).await?,
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
pub(crate) async fn is_missing(client: &Client, name: &str) -> Result<bool, KubeError> {
    let api: Api<ManagedIdentity> = Api::all(client.clone());
    let found = within_deadline(|| format!("reading ManagedIdentity {name}"), api.get_opt(name)).await?;
    Ok(found.is_none())
}

/// Whether the identity itself may be written: its owner is as the cache has it, and the binding that it is for exists.
pub(crate) async fn may_write_identity(
    client: &Client,
    owner: &ManagedIdentity,
    write: &IdentityWrite,
) -> Result<bool, KubeError> {
    if !same_identity(client, owner).await? {
        return Ok(false);
    }
    match (&owner.spec.claim_ref, write) {
        // A deletion does not depend on the binding.
        (None, _) | (_, IdentityWrite::Delete) => Ok(true),
        (Some(claim), _) => Ok(claimant(client, claim).await?.is_some()),
    }
}

/// Whether the binding that the object is for was deleted.
pub(crate) async fn is_unclaimed(client: &Client, object: &ManagedIdentity) -> Result<bool, KubeError> {
    match &object.spec.claim_ref {
        Some(claim) => Ok(same_identity(client, object).await? && claimant(client, claim).await?.is_none()),
        None => Ok(false),
    }
}

/// The binding that a claim names.
async fn claimant(client: &Client, claim: &ClaimRef) -> Result<Option<ManagedIdentityBinding>, KubeError> {
    let ClaimRef { namespace, name, .. } = claim;
    let api: Api<ManagedIdentityBinding> = Api::namespaced(client.clone(), namespace);
    let act = || format!("reading ManagedIdentityBinding {namespace}/{name}");
    let found = within_deadline(act, api.get_opt(name)).await?;
    Ok(found.filter(|binding| claims::is_claimant(claim, namespace, binding)))
}

/// Whether an object may be created for a binding on a class: the binding, the class and the namespace are as the cache has
/// them, and the namespace has no more identities than the cache knows of.
pub(crate) async fn may_create(
    client: &Client,
    view: &CacheView,
    desired: &ManagedIdentity,
) -> Result<bool, KubeError> {
    let (Some(claim), Some(class)) = (&desired.spec.claim_ref, &desired.spec.class_name) else { return Ok(false) };
    let fresh = same_binding(client, view, &claim.namespace, &claim.name).await?
        && same_class(client, view, class).await?
        && same_namespace(client, view, &claim.namespace).await?;
    if !fresh {
        return Ok(false);
    }
    let api: Api<ManagedIdentity> = Api::all(client.clone());
    let selection = ListParams::default().fields(&format!("spec.claimRef.namespace={}", claim.namespace));
    let act = || format!("listing the ManagedIdentities for namespace {}", claim.namespace);
    let live = within_deadline(act, api.list(&selection)).await?;
    let existing = live.items.iter().filter(|found| found.spec.class_name.as_ref() == Some(class)).count();
    Ok(existing <= view.identity_count(&claim.namespace, class))
}

async fn same_class(client: &Client, view: &CacheView, name: &str) -> Result<bool, KubeError> {
    let Some(cached) = view.class(name) else { return Ok(false) };
    let api: Api<ManagedIdentityClass> = Api::all(client.clone());
    let live = within_deadline(|| format!("reading ManagedIdentityClass {name}"), api.get_opt(name)).await?;
    Ok(live.is_some_and(|live| same(&live, cached.as_ref())))
}

/// Grants of a binding on a class are those of the class. If the cache has no such class, it must not exist.
async fn same_class_of(client: &Client, view: &CacheView, namespace: &str, name: &str) -> Result<bool, KubeError> {
    let Some(class) = view.binding(namespace, name).and_then(|binding| binding.class_name().map(str::to_owned)) else {
        return Ok(true);
    };
    if view.class(&class).is_some() {
        return same_class(client, view, &class).await;
    }
    let api: Api<ManagedIdentityClass> = Api::all(client.clone());
    let live = within_deadline(|| format!("reading ManagedIdentityClass {class}"), api.get_opt(&class)).await?;
    Ok(live.is_none())
}

async fn same_identity(client: &Client, cached: &ManagedIdentity) -> Result<bool, KubeError> {
    let api: Api<ManagedIdentity> = Api::all(client.clone());
    let name = cached.name_any();
    let live = within_deadline(|| format!("reading ManagedIdentity {name}"), api.get_opt(&name)).await?;
    Ok(live.is_some_and(|live| same(&live, cached)))
}

async fn same_binding(client: &Client, view: &CacheView, namespace: &str, name: &str) -> Result<bool, KubeError> {
    let Some(cached) = view.binding(namespace, name) else { return Ok(false) };
    let api: Api<ManagedIdentityBinding> = Api::namespaced(client.clone(), namespace);
    let act = || format!("reading ManagedIdentityBinding {namespace}/{name}");
    let live = within_deadline(act, api.get_opt(name)).await?;
    Ok(live.is_some_and(|live| same(&live, cached.as_ref())))
}

/// Grants select namespaces by label.
async fn same_namespace(client: &Client, view: &CacheView, name: &str) -> Result<bool, KubeError> {
    let api: Api<PartialObjectMeta<Namespace>> = Api::all(client.clone());
    let live = within_deadline(|| format!("reading Namespace {name}"), api.get_opt(name)).await?;
    Ok(live
        .zip(view.namespace(name))
        .is_some_and(|(live, cached)| live.metadata.uid == cached.uid && *live.labels() == cached.labels))
}

/// Whether every binding that could need the subject's credential, and is not being deleted, was part of the decision.
async fn all_claims_are_known(client: &Client, view: &CacheView, subject: &Subject) -> Result<bool, KubeError> {
    let namespace = subject.namespace.as_str();
    let api: Api<ManagedIdentityBinding> = Api::namespaced(client.clone(), namespace);
    let account = &subject.service_account;
    let selection = ListParams::default().fields(&format!("spec.serviceAccountName={account}"));
    let act = || format!("listing the ManagedIdentityBindings of service account {namespace}/{account}");
    let live = within_deadline(act, api.list(&selection)).await?;
    Ok(live.items.iter().filter(|live| live.metadata.deletion_timestamp.is_none()).all(|live| {
        let known = view.binding(namespace, &live.name_any()).is_some_and(|cached| same(live, cached.as_ref()));
        // A binding to an identity of another key can't need this credential.
        known || view.identity(&live.identity_name()).is_none()
    }))
}

fn same<K: Resource>(live: &K, cached: &K) -> bool {
    let (live, cached) = (live.meta(), cached.meta());
    live.uid == cached.uid
        && live.generation == cached.generation
        && live.deletion_timestamp.is_some() == cached.deletion_timestamp.is_some()
}
