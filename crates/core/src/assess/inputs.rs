//! What a decision depends on: the objects in Kubernetes, what was observed in Azure, and the settings.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kube::ResourceExt;

use crate::acceptance::IdentityFacts;
use crate::acceptance::claims::Classes;
use crate::acceptance::scopes::AllowedScopes;
use crate::credentials::ownership::{Cluster, Credential};
use crate::failure::Failure;
use crate::own_writes::Confirmed;
use crate::pods::uninjected::UninjectedPods;
use crate::provisioning::AzureIdentity;
use crate::roles::{ObservedRoles, RolePolicy};
use crate::scheduling::rate_limiter::Deferral;
use ensign_api::{ManagedIdentity, ManagedIdentityBinding, NamespacedName};

/// What does not change while the controller runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The cluster as Azure sees it.
    pub cluster: Cluster,
    /// Why Entra can't use the issuer; `None` if it can.
    pub issuer_refusal: Option<String>,
    /// The Entra tenant that this install serves.
    pub tenant_id: Option<String>,
    /// The client ID of the controller's own identity.
    pub own_client_id: Option<String>,
    /// How long to wait after Azure confirmed a credential before it is reported as ready (`--propagation-delay`).
    pub propagation_delay: Duration,
    /// Where in Azure the controller may act.
    pub allowed_scopes: AllowedScopes,
    /// Which roles the controller may assign; `None` while role assignments are disabled.
    pub roles: Option<RolePolicy>,
}

/// The objects in Kubernetes that concern one identity in Azure.
#[derive(Clone, Debug, Default)]
pub struct Snapshot<'a> {
    /// Every `ManagedIdentity` that names the identity.
    pub identities: Vec<&'a ManagedIdentity>,
    /// Every namespace with a binding to one of them, by name.
    pub namespaces: BTreeMap<&'a str, NamespaceSnapshot<'a>>,
    /// The other `ManagedIdentity` objects that bindings of those namespaces reference, by name.
    pub others: BTreeMap<&'a str, IdentityFacts<'a>>,
    /// The name of a `ManagedIdentity` that bindings reference and that does not exist; then `identities` is empty.
    pub missing: Option<&'a str>,
}

/// A namespace and the objects in it that decisions need.
#[derive(Clone, Debug)]
pub struct NamespaceSnapshot<'a> {
    /// The namespace's labels.
    pub labels: &'a BTreeMap<String, String>,
    /// Whether the namespace is being deleted.
    pub terminating: bool,
    /// Every binding in the namespace.
    pub bindings: Vec<&'a ManagedIdentityBinding>,
    /// The classes that they reference.
    pub classes: Classes<'a>,
}

/// The bindings that reference one of the snapshot's identities, with their namespaces.
pub(super) fn bindings<'a>(
    snapshot: &'a Snapshot<'a>,
) -> impl Iterator<Item = (&'a str, &'a NamespaceSnapshot<'a>, &'a ManagedIdentityBinding)> {
    let concerns = |binding: &ManagedIdentityBinding| {
        let name = binding.identity_name();
        snapshot.missing == Some(name.as_ref()) || snapshot.identities.iter().any(|object| object.name_any() == name)
    };
    snapshot.namespaces.iter().flat_map(move |(name, namespace)| {
        namespace
            .bindings
            .iter()
            .filter(move |binding| concerns(binding))
            .map(move |binding| (*name, namespace, *binding))
    })
}

/// The result of annotating a service account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Annotated {
    /// The annotations are as desired.
    Done,
    /// The service account does not exist.
    NoServiceAccount,
    /// Another field manager owns the annotations, with different values.
    Clash(String),
}

/// What this reconcile observed, mostly in Azure.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The response to GET of the identity; `None` if no request was made.
    pub identity: Option<Result<AzureIdentity, Failure>>,
    /// The response to LIST of the credentials, updated with every write since; `None` if no request was made.
    pub credentials: Option<Result<Vec<Credential>, Failure>>,
    /// Names of the credentials whose write Azure confirmed in this reconcile.
    pub written: BTreeSet<String>,
    /// What is certain although Azure's reads may lag behind its writes.
    pub confirmed: Confirmed,
    /// The failure of the write of the identity itself.
    pub identity_write_failure: Option<Failure>,
    /// Failures of credential writes, by the credential's name.
    pub write_failures: BTreeMap<String, Failure>,
    /// The identity's role assignments as Azure returned them.
    pub roles: ObservedRoles,
    /// Why a request that this reconcile needed was deferred.
    pub postponed: Option<Deferral>,
    /// Results of annotating service accounts, by namespace and name of the binding; from Kubernetes.
    pub annotated: BTreeMap<NamespacedName, Annotated>,
    /// Why the API server rejects the objects for bindings that reference a class; from Kubernetes.
    pub creation_rejection: Option<String>,
    /// Whether the webhook of azure-workload-identity is registered too and injects the same pods; `None` if unknown. From
    /// Kubernetes.
    pub upstream_webhook: Option<bool>,
    /// Pods that were not injected, by namespace and name of the binding, once they were checked; from Kubernetes.
    pub uninjected_pods: BTreeMap<NamespacedName, UninjectedPods>,
}

impl Observed {
    /// The failure that keeps the identity out of sync and that someone has to fix.
    pub fn failure(&self) -> Option<&Failure> {
        let listed = self.credentials.as_ref().and_then(|answer| answer.as_ref().err());
        let failures = self.identity_write_failure.iter().chain(listed).chain(self.write_failures.values());
        failures.into_iter().find(|failure| !failure.is_transient())
    }

    /// The failure that blocks a deletion, including one that is retried automatically.
    pub fn any_failure(&self) -> Option<&Failure> {
        let read = self.identity.as_ref().and_then(|answer| answer.as_ref().err());
        let listed = self.credentials.as_ref().and_then(|answer| answer.as_ref().err());
        read.into_iter()
            .chain(&self.identity_write_failure)
            .chain(listed)
            .chain(self.write_failures.values())
            .chain(self.roles.failures())
            .next()
    }

    /// The failure that determines when to retry: one that is retried automatically before one that someone has to fix.
    pub fn decisive_failure(&self) -> Option<&Failure> {
        let read = self.identity_failure();
        let listed = self.credentials.as_ref().and_then(|answer| answer.as_ref().err());
        let failures = || {
            read.into_iter()
                .chain(&self.identity_write_failure)
                .chain(listed)
                .chain(self.write_failures.values())
                .chain(self.roles.failures())
        };
        failures().find(|failure| failure.is_transient()).or_else(|| failures().next())
    }

    /// Whether credentials may be written: the identity was read in this reconcile, since it may have been recreated with
    /// another principal, and the read did not fail with an error that is retried automatically.
    pub fn may_write(&self) -> bool {
        self.identity.is_some() && self.identity_failure().is_none_or(|failure| !failure.is_transient())
    }

    pub(super) fn identity_failure(&self) -> Option<&Failure> {
        self.identity.as_ref().and_then(|answer| answer.as_ref().err())
    }

    /// The message for what is unknown because no request to Azure was made.
    pub(super) fn pending_message(&self) -> &'static str {
        match self.postponed {
            Some(_) => "waiting for Azure rate-limit budget",
            None => "not read from Azure yet",
        }
    }

    /// Whether Azure reported that the identity does not exist.
    pub fn identity_missing(&self) -> bool {
        self.identity.as_ref().and_then(|answer| answer.as_ref().err()).is_some_and(Failure::is_gone)
            || self.credentials.as_ref().and_then(|answer| answer.as_ref().err()).is_some_and(Failure::is_gone)
    }
}
