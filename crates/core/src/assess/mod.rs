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
mod context;
mod identity_status;
mod inputs;
mod outcome;
mod provisioning;
mod resolution;
mod roles;
mod service_account;
mod trust;
mod unlisted;
mod upstream;

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

pub use inputs::{Annotated, NamespaceSnapshot, Observed, Settings, Snapshot};
pub use outcome::{Annotations, Assessment, BindingOutcome, Cause, Finalizer, IdentityOutcome, PlannedCredentialWrite};
pub use roles::role_inputs;
pub use service_account::{CLIENT_ID_ANNOTATION, TENANT_ID_ANNOTATION};
pub use upstream::UPSTREAM_WEBHOOK;

use self::context::Context;
use self::resolution::{Resolution, resolve};
use crate::acceptance::{self, Acceptance, IdentityFacts, NamespaceFacts, identities};
pub use crate::provisioning::AzureIdentity;
use ensign_api::ManagedIdentity;
use ensign_api::conditions::Reason;

/// Decides everything about one identity.
pub fn assess(snapshot: &Snapshot<'_>, observed: &Observed, settings: &Settings, now: Timestamp) -> Assessment {
    let owner = identities::owner(&snapshot.identities);
    let plan = provisioning::plan(snapshot, owner, observed, settings);
    let resolution = resolve(owner, observed, settings, plan.blocker);
    let accepted = accept_identities(snapshot, &resolution, settings);
    let acceptances = accept_bindings(snapshot, &accepted);
    let trust = trust::decide(snapshot, owner, &resolution, &accepted, &acceptances, observed, settings, now);
    let keeps_identity = plan.write.is_some() || provisioning::is_provisioned(owner, &resolution);
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
        identity_write: plan.write.or_else(|| provisioning::reclaim(&context)).filter(|_| !foreign),
        identities_to_create: provisioning::desired_objects(&context),
        credential_writes: context.trust.writes.clone(),
        role_writes: context.permissions.writes.clone(),
        identities: snapshot.identities.iter().map(|object| identity_status::outcome(&context, object)).collect(),
        propagates_at: bindings.iter().filter_map(|one| binding_status::propagates_at(&context, &one.status)).min(),
        bindings,
    }
}

fn accept_identities<'a>(
    snapshot: &Snapshot<'a>,
    resolution: &Resolution,
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
