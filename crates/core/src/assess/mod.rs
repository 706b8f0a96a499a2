//! All decisions for one identity: from the state of the cluster and of Azure to writes and status.
//!
//! ```text
//! Snapshot (Kubernetes) ─┐
//! Observed (Azure)       ├─► assess ─► writes to Azure, status and finalizer of each object
//! Settings, now ─────────┘
//! ```
//!
//! A reconcile calls [`assess`] before its writes to plan them, and again afterwards to report the result in status.

mod binding_status;
pub mod conditions;
mod identity_status;
mod provisioning;
mod roles;
mod service_account;
mod trust;
mod upstream;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

pub use roles::role_inputs;
pub use service_account::{Annotated, Annotations, CLIENT_ID_ANNOTATION, TENANT_ID_ANNOTATION};
pub use upstream::UPSTREAM_WEBHOOK;

use crate::acceptance::claims::Classes;
use crate::acceptance::identities;
use crate::acceptance::scopes::AllowedScopes;
use crate::acceptance::{self, Acceptance, IdentityFacts, NamespaceFacts};
use crate::credentials::ownership::{Cluster, Credential};
use crate::credentials::plan::CredentialWrite;
use crate::events::Event;
use crate::failure::Failure;
use crate::pods::uninjected::UninjectedPods;
use crate::provisioning::IdentityWrite as IdentityStep;
use crate::roles::{ObservedRoles, Permissions, RolePolicy, RoleStep};
use crate::scheduling::rate_limiter::Deferral;
use ensign_api::conditions::Reason;
use ensign_api::keys::ABANDON_ANNOTATION;
use ensign_api::{ManagedIdentity, ManagedIdentityBinding, ManagedIdentityBindingStatus, ManagedIdentityStatus};

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
    pub settle: Duration,
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

/// The identity as Azure describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AzureIdentity {
    /// ARM resource ID as Azure returned it.
    pub arm_id: String,
    /// Client ID.
    pub client_id: String,
    /// Object ID of the service principal.
    pub principal_id: String,
    /// Entra tenant.
    pub tenant_id: String,
    /// Azure region.
    pub location: String,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// Where tokens for the identity can be requested; `None` if Azure did not return it.
    pub isolation_scope: Option<String>,
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
    /// The failure of the write of the identity itself.
    pub identity_write: Option<Failure>,
    /// Failures of credential writes, by the credential's name.
    pub write_failures: BTreeMap<String, Failure>,
    /// The identity's role assignments as Azure returned them.
    pub roles: ObservedRoles,
    /// Why a request that this reconcile needed was deferred.
    pub postponed: Option<Deferral>,
    /// Results of annotating service accounts, by namespace and name of the binding; from Kubernetes.
    pub annotated: BTreeMap<(String, String), Annotated>,
    /// Why the API server rejects the objects for bindings that reference a class; from Kubernetes.
    pub not_made: Option<String>,
    /// Whether the webhook of azure-workload-identity is registered too and injects the same pods; `None` if unknown. From
    /// Kubernetes.
    pub upstream_webhook: Option<bool>,
    /// Pods that were not injected, by namespace and name of the binding, once they were checked; from Kubernetes.
    pub missed: BTreeMap<(String, String), UninjectedPods>,
}

impl Observed {
    /// The failure that keeps the identity out of sync and that someone has to fix.
    pub fn failure(&self) -> Option<&Failure> {
        let listed = self.credentials.as_ref().and_then(|answer| answer.as_ref().err());
        let failures = self.identity_write.iter().chain(listed).chain(self.write_failures.values());
        failures.into_iter().find(|failure| !failure.is_transient())
    }

    /// The failure that blocks a deletion, including one that is retried automatically.
    pub fn any_failure(&self) -> Option<&Failure> {
        let asked = self.identity.as_ref().and_then(|answer| answer.as_ref().err());
        let listed = self.credentials.as_ref().and_then(|answer| answer.as_ref().err());
        asked
            .into_iter()
            .chain(&self.identity_write)
            .chain(listed)
            .chain(self.write_failures.values())
            .chain(self.roles.failures())
            .next()
    }

    /// The failure that determines when to retry: one that is retried automatically before one that someone has to fix.
    pub fn decisive_failure(&self) -> Option<&Failure> {
        let asked = self.identity_failure();
        let listed = self.credentials.as_ref().and_then(|answer| answer.as_ref().err());
        let failures = || {
            asked
                .into_iter()
                .chain(&self.identity_write)
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

    fn identity_failure(&self) -> Option<&Failure> {
        self.identity.as_ref().and_then(|answer| answer.as_ref().err())
    }

    /// The message for what is unknown because no request to Azure was made.
    fn pending_message(&self) -> &'static str {
        match self.postponed {
            Some(_) => "waiting for Azure rate-limit budget",
            None => "not read from Azure yet",
        }
    }

    /// Whether Azure reported that the identity does not exist.
    pub fn gone(&self) -> bool {
        self.identity.as_ref().and_then(|answer| answer.as_ref().err()).is_some_and(Failure::is_gone)
            || self.credentials.as_ref().and_then(|answer| answer.as_ref().err()).is_some_and(Failure::is_gone)
    }
}

/// A write to Azure and its cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedStep {
    /// The write.
    pub step: CredentialWrite,
    /// The binding that requires it; `None` for deletions.
    pub cause: Option<Cause>,
}

/// The binding and the grant behind a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Namespace of the binding.
    pub namespace: String,
    /// Name of the binding.
    pub binding: String,
    /// UID of the binding.
    pub uid: String,
    /// Name of the grant.
    pub grant: String,
}

/// What to do with Ensign's finalizer on an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finalizer {
    /// Leave it as it is.
    Keep,
    /// It has to be set before the next write to Azure.
    Require,
    /// Remove it: nothing in Azure depends on the object any more.
    Release,
}

/// The decisions about a `ManagedIdentity`.
#[derive(Clone, Debug)]
pub struct IdentityOutcome {
    /// Its name.
    pub name: String,
    /// Its new status.
    pub status: ManagedIdentityStatus,
    /// What to do with its finalizer.
    pub finalizer: Finalizer,
    /// Events to publish, one for each new problem.
    pub events: Vec<Event>,
    /// Whether to delete the object, because the binding that it was created for no longer exists.
    pub should_delete: bool,
}

/// The decisions about a `ManagedIdentityBinding`.
#[derive(Clone, Debug)]
pub struct BindingOutcome {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its new status.
    pub status: ManagedIdentityBindingStatus,
    /// What to do with its finalizer.
    pub finalizer: Finalizer,
    /// Events to publish, one for each new problem.
    pub events: Vec<Event>,
    /// The annotations of the service account; `None` if the binding never requested them.
    pub annotations: Option<Annotations>,
}

/// All decisions about one identity.
#[derive(Clone, Debug, Default)]
pub struct Assessment {
    /// The write of the identity itself; precedes all others.
    pub identity_step: Option<IdentityStep>,
    /// Writes of credentials, to be sent in order, one at a time.
    pub steps: Vec<PlannedStep>,
    /// Writes of role assignments, to be sent in order, one at a time.
    pub role_steps: Vec<RoleStep>,
    /// `ManagedIdentity` objects to create for bindings that reference a class.
    pub wanted: Vec<ManagedIdentity>,
    /// Per `ManagedIdentity`.
    pub identities: Vec<IdentityOutcome>,
    /// Per `ManagedIdentityBinding`.
    pub bindings: Vec<BindingOutcome>,
    /// When the next credential counts as propagated; `None` if none is propagating.
    pub propagates_at: Option<Timestamp>,
}

/// Decides everything about one identity.
pub fn assess(snapshot: &Snapshot<'_>, observed: &Observed, settings: &Settings, now: Timestamp) -> Assessment {
    let owner = identities::owner(&snapshot.identities);
    let plan = provisioning::plan(snapshot, owner, observed, settings);
    let resolution = identity_status::resolve(owner, observed, settings, plan.blocker);
    let accepted = accept_identities(snapshot, &resolution, settings);
    let acceptances = accept_bindings(snapshot, &accepted);
    let trust = trust::decide(snapshot, owner, &resolution, &accepted, &acceptances, observed, settings, now);
    let keeps_identity = plan.step.is_some() || provisioning::is_provisioned(owner, &resolution);
    let is_accepted =
        |owner: &ManagedIdentity| accepted.get(owner.name_any().as_str()).is_some_and(|facts| facts.accepted.holds());
    let permissions = roles::decide(owner, owner.is_some_and(is_accepted), &resolution, observed, settings);
    let context = Context {
        snapshot,
        observed,
        settings,
        now,
        owner,
        resolution,
        accepted,
        acceptances,
        trust,
        keeps_identity,
        permissions,
    };
    let bindings = binding_status::outcomes(&context);
    // Nothing in another tenant is written.
    let foreign = context.resolution.verdict.reason == Reason::TenantMismatch;
    Assessment {
        identity_step: plan.step.or_else(|| provisioning::reclaim(&context)).filter(|_| !foreign),
        wanted: provisioning::desired_objects(&context),
        steps: context.trust.steps.clone(),
        role_steps: context.permissions.steps.clone(),
        identities: snapshot.identities.iter().map(|object| identity_status::outcome(&context, object)).collect(),
        propagates_at: bindings.iter().filter_map(|one| binding_status::propagates_at(&context, &one.status)).min(),
        bindings,
    }
}

/// Intermediate results that the outcomes are built from.
struct Context<'a> {
    snapshot: &'a Snapshot<'a>,
    observed: &'a Observed,
    settings: &'a Settings,
    now: Timestamp,
    owner: Option<&'a ManagedIdentity>,
    resolution: identity_status::Resolution,
    accepted: BTreeMap<&'a str, IdentityFacts<'a>>,
    acceptances: BTreeMap<&'a str, BTreeMap<String, Acceptance>>,
    trust: trust::Trust,
    /// Whether the identity itself exists in Azure because of its owner, or is about to be created.
    keeps_identity: bool,
    permissions: Permissions,
}

impl<'a> Context<'a> {
    /// The bindings that reference one of the snapshot's identities, with their namespaces.
    fn bindings(&self) -> impl Iterator<Item = (&'a str, &'a NamespaceSnapshot<'a>, &'a ManagedIdentityBinding)> {
        bindings(self.snapshot)
    }

    fn acceptance(&self, namespace: &str, binding: &ManagedIdentityBinding) -> Option<&Acceptance> {
        self.acceptances.get(namespace)?.get(&binding.name_any())
    }

    /// Whether a cluster operator abandoned the credentials in Azure. The annotation counts on the `ManagedIdentity` only,
    /// which app teams can't write.
    fn is_abandoned(&self) -> bool {
        self.owner.is_some_and(|owner| owner.annotations().get(ABANDON_ANNOTATION).is_some_and(|value| value == "true"))
    }

    fn is_owner(&self, object: &ManagedIdentity) -> bool {
        self.owner.is_some_and(|owner| owner.name_any() == object.name_any())
    }
}

/// The bindings that reference one of the snapshot's identities, with their namespaces.
fn bindings<'a>(
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

fn accept_identities<'a>(
    snapshot: &Snapshot<'a>,
    resolution: &identity_status::Resolution,
    settings: &Settings,
) -> BTreeMap<&'a str, IdentityFacts<'a>> {
    let own = settings.own_client_id.as_deref();
    let siblings = snapshot.identities.iter().filter_map(|object| {
        let mut accepted = identities::accept(object, &snapshot.identities, own, &settings.allowed_scopes);
        let client_id = resolution.facts.as_ref().map(|facts| facts.client_id.as_str());
        if let (true, Ok(id)) = (accepted.holds() && identities::is_own(client_id, own), identities::arm_id(object)) {
            accepted = identities::own_identity(&id);
        }
        Some((object.metadata.name.as_deref()?, IdentityFacts { object, accepted }))
    });
    snapshot.others.iter().map(|(name, facts)| (*name, facts.clone())).chain(siblings).collect()
}

fn accept_bindings<'a>(
    snapshot: &Snapshot<'a>,
    identities: &BTreeMap<&str, IdentityFacts<'_>>,
) -> BTreeMap<&'a str, BTreeMap<String, Acceptance>> {
    let decide = |name: &'a str, namespace: &NamespaceSnapshot<'a>| {
        let bindings = namespace.bindings.clone();
        let facts = NamespaceFacts { name, labels: namespace.labels, bindings, classes: &namespace.classes };
        (name, acceptance::decide(&facts, identities))
    };
    snapshot.namespaces.iter().map(|(name, namespace)| decide(name, namespace)).collect()
}

#[cfg(test)]
mod propagation_tests;
#[cfg(test)]
mod provisioning_tests;
#[cfg(test)]
mod tests;
