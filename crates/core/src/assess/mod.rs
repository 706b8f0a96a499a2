//! The whole decision for one identity: from what the cluster and Azure say, to writes and status.
//!
//! ```text
//! Snapshot (Kubernetes) ─┐
//! Observed (Azure)       ├─► assess ─► steps for Azure, status and finalizer of each object
//! Settings, now ─────────┘
//! ```
//!
//! A reconcile calls [`assess`] before its writes to plan them, and again after them to tell the truth in status.

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
    /// Why Entra can't reach the issuer, if it can't.
    pub issuer_refusal: Option<String>,
    /// The Entra tenant of this install.
    pub tenant_id: Option<String>,
    /// The client ID of the controller's own identity.
    pub own_client_id: Option<String>,
    /// How long a credential settles after Azure confirmed it, before pods are told that it works.
    pub settle: Duration,
    /// Where in Azure the controller may act.
    pub allowed_scopes: AllowedScopes,
    /// Which roles the controller may assign; none at all where it is off.
    pub roles: Option<RolePolicy>,
}

/// What Kubernetes says of everything that concerns one identity in Azure.
#[derive(Clone, Debug, Default)]
pub struct Snapshot<'a> {
    /// Every `ManagedIdentity` that names the identity.
    pub identities: Vec<&'a ManagedIdentity>,
    /// Every namespace with a binding to one of them, by name.
    pub namespaces: BTreeMap<&'a str, NamespaceSnapshot<'a>>,
    /// The other identities that bindings of those namespaces reference, by name.
    pub others: BTreeMap<&'a str, IdentityFacts<'a>>,
    /// The name under which bindings ask for an identity that no object has; then `identities` is empty.
    pub missing: Option<&'a str>,
}

/// A namespace and everything in it that decisions need.
#[derive(Clone, Debug)]
pub struct NamespaceSnapshot<'a> {
    /// The namespace's labels.
    pub labels: &'a BTreeMap<String, String>,
    /// Whether the namespace is going away.
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
    /// Where tokens of the identity can be asked for, where Azure says it.
    pub isolation_scope: Option<String>,
}

/// What Azure said in this reconcile.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The answer to GET of the identity; `None` when it was not asked.
    pub identity: Option<Result<AzureIdentity, Failure>>,
    /// The answer to LIST of the credentials, brought up to date with every write since; `None` when not asked.
    pub credentials: Option<Result<Vec<Credential>, Failure>>,
    /// Names of credentials that Azure confirmed to have written, in this reconcile.
    pub written: BTreeSet<String>,
    /// The write of the identity itself, if it failed.
    pub identity_write: Option<Failure>,
    /// Writes that failed, by the name of the credential.
    pub write_failures: BTreeMap<String, Failure>,
    /// What Azure said of the identity's roles.
    pub roles: ObservedRoles,
    /// What keeps a request from being sent that this reconcile would have needed.
    pub postponed: Option<Deferral>,
    /// How the annotation of service accounts went, by namespace and name of the binding; not asked of Azure.
    pub annotated: BTreeMap<(String, String), Annotated>,
    /// Why the API server refuses the objects that bindings on classes would get; not asked of Azure.
    pub not_made: Option<String>,
    /// Whether the upstream's webhook is registered beside one of Ensign's that injects the same pods; `None` when that is
    /// not known. Not asked of Azure.
    pub upstream_webhook: Option<bool>,
    /// Pods that were missed, by namespace and name of the binding, where somebody has looked; not asked of Azure.
    pub missed: BTreeMap<(String, String), UninjectedPods>,
}

impl Observed {
    /// The failure that keeps the identity from being in step, unless it passes by itself.
    pub fn failure(&self) -> Option<&Failure> {
        let listed = self.credentials.as_ref().and_then(|answer| answer.as_ref().err());
        let failures = self.identity_write.iter().chain(listed).chain(self.write_failures.values());
        failures.into_iter().find(|failure| !failure.is_transient())
    }

    /// The failure that keeps a deletion waiting, also one that passes by itself.
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

    /// The failure that says when to try again: one that passes by itself, rather than one that somebody has to cure.
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

    /// Whether the identity was found to be the one that is known, as far as Azure says anything: it may have been made
    /// anew since.
    pub fn may_write(&self) -> bool {
        self.identity.is_some() && self.identity_failure().is_none_or(|failure| !failure.is_transient())
    }

    fn identity_failure(&self) -> Option<&Failure> {
        self.identity.as_ref().and_then(|answer| answer.as_ref().err())
    }

    /// Why something is not known that Azure was not asked for.
    fn not_asked(&self) -> &'static str {
        match self.postponed {
            Some(_) => "Azure is asked as soon as the limits on requests to it allow",
            None => "Azure has not been asked yet",
        }
    }

    /// Whether Azure said that the identity does not exist.
    pub fn gone(&self) -> bool {
        self.identity.as_ref().and_then(|answer| answer.as_ref().err()).is_some_and(Failure::is_gone)
            || self.credentials.as_ref().and_then(|answer| answer.as_ref().err()).is_some_and(Failure::is_gone)
    }
}

/// A write to Azure and on whose behalf it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedStep {
    /// The write.
    pub step: CredentialWrite,
    /// The binding that wants it; none for a deletion that nobody wants to prevent.
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
    /// It has to be there before the next write to Azure.
    Require,
    /// Nothing in Azure depends on the object any more.
    Release,
}

/// What was decided of a `ManagedIdentity`.
#[derive(Clone, Debug)]
pub struct IdentityOutcome {
    /// Its name.
    pub name: String,
    /// Its new status.
    pub status: ManagedIdentityStatus,
    /// Its finalizer.
    pub finalizer: Finalizer,
    /// An event for each new problem.
    pub notes: Vec<Event>,
    /// Whether the object is to be deleted, because the binding that it is for is gone.
    pub goes: bool,
}

/// What was decided of a `ManagedIdentityBinding`.
#[derive(Clone, Debug)]
pub struct BindingOutcome {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its new status.
    pub status: ManagedIdentityBindingStatus,
    /// Its finalizer.
    pub finalizer: Finalizer,
    /// An event for each new problem.
    pub notes: Vec<Event>,
    /// What the service account should carry, if the binding ever asked.
    pub annotations: Option<Annotations>,
}

/// Everything that was decided.
#[derive(Clone, Debug, Default)]
pub struct Assessment {
    /// The write of the identity itself, before any other.
    pub identity_step: Option<IdentityStep>,
    /// Writes to Azure, in order, one at a time.
    pub steps: Vec<PlannedStep>,
    /// Writes of role assignments, in order, one at a time.
    pub role_steps: Vec<RoleStep>,
    /// Objects that bindings on classes get.
    pub wanted: Vec<ManagedIdentity>,
    /// The identities' outcomes.
    pub identities: Vec<IdentityOutcome>,
    /// The bindings' outcomes.
    pub bindings: Vec<BindingOutcome>,
    /// When the next credential has settled, if one has yet to.
    pub settles: Option<Timestamp>,
}

/// Decides everything about one identity.
pub fn assess(snapshot: &Snapshot<'_>, observed: &Observed, settings: &Settings, now: Timestamp) -> Assessment {
    let owner = identities::owner(&snapshot.identities);
    let upkeep = provisioning::upkeep(snapshot, owner, observed, settings);
    let resolution = identity_status::resolve(owner, observed, settings, upkeep.refusal);
    let accepted = accept_identities(snapshot, &resolution, settings);
    let acceptances = accept_bindings(snapshot, &accepted);
    let trust = trust::decide(snapshot, owner, &resolution, &accepted, &acceptances, observed, settings, now);
    let keeps_identity = upkeep.step.is_some() || provisioning::is_provisioned(owner, &resolution);
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
    // What is in another tenant is nobody's to touch.
    let foreign = context.resolution.verdict.reason == Reason::TenantMismatch;
    Assessment {
        identity_step: upkeep.step.or_else(|| provisioning::reclaim(&context)).filter(|_| !foreign),
        wanted: provisioning::wanted(&context),
        steps: context.trust.steps.clone(),
        role_steps: context.permissions.steps.clone(),
        identities: snapshot.identities.iter().map(|object| identity_status::outcome(&context, object)).collect(),
        settles: bindings.iter().filter_map(|outcome| binding_status::settles(&context, &outcome.status)).min(),
        bindings,
    }
}

/// Intermediate results that the outcomes are made from.
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
    /// Whether the identity itself is, or is about to be, in Azure because of its owner.
    keeps_identity: bool,
    permissions: Permissions,
}

impl<'a> Context<'a> {
    /// Bindings to one of this snapshot's identities, with their namespaces.
    fn bindings(&self) -> impl Iterator<Item = (&'a str, &'a NamespaceSnapshot<'a>, &'a ManagedIdentityBinding)> {
        bindings(self.snapshot)
    }

    fn acceptance(&self, namespace: &str, binding: &ManagedIdentityBinding) -> Option<&Acceptance> {
        self.acceptances.get(namespace)?.get(&binding.name_any())
    }

    /// Whether a cluster operator gave the credentials in Azure up. Only `ManagedIdentity` is asked: app teams can't
    /// write it.
    fn is_abandoned(&self) -> bool {
        self.owner.is_some_and(|owner| owner.annotations().get(ABANDON_ANNOTATION).is_some_and(|value| value == "true"))
    }

    fn is_owner(&self, object: &ManagedIdentity) -> bool {
        self.owner.is_some_and(|owner| owner.name_any() == object.name_any())
    }
}

/// Bindings to one of the snapshot's identities, with their namespaces.
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
