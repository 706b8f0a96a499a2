//! The identity itself, if Ensign provisions it: its plan, its deletion, and the objects that are created for bindings.

use kube::ResourceExt;

use super::context::Context;
use super::inputs::{Observed, Settings, Snapshot};
use super::resolution::{Resolution, usable_arm_id};
use crate::acceptance::claims::{self, ClaimState};
use crate::events::Event;
use crate::failure::Failure;
use crate::provisioning::{self, Holder, IdentityPlan, IdentityWrite, Object};
use ensign_api::conditions::{ConditionType, Reason, Verdict};
use ensign_api::{ArmId, ManagedIdentity, ManagedIdentityStatus};

/// The plan for the owner's identity; empty if Ensign does not provision it or the owner is being deleted.
pub(super) fn plan(
    snapshot: &Snapshot<'_>,
    owner: Option<&ManagedIdentity>,
    observed: &Observed,
    settings: &Settings,
) -> IdentityPlan {
    let Some((owner, id)) = owner.and_then(|owner| Some((owner, usable_arm_id(Some(owner))?))) else {
        return IdentityPlan::default();
    };
    let Some(object) = object(owner, &id, settings) else { return IdentityPlan::default() };
    if owner.metadata.deletion_timestamp.is_some() {
        return IdentityPlan::default();
    }
    let claim = claim(snapshot, owner);
    match &observed.identity {
        // Nothing is created or updated for a binding that no longer exists.
        Some(Ok(found)) if claim == ClaimState::Deleted => IdentityPlan { write: None, ..object.update(found) },
        Some(Ok(found)) if is_own(&found.client_id, settings) => IdentityPlan::default(),
        Some(Ok(found)) => object.update(found),
        Some(Err(failure)) if failure.is_gone() && claim != ClaimState::Deleted => {
            let plan = object.create();
            let blocker = observed.identity_write_failure.as_ref().map(Failure::verdict).or(plan.blocker);
            IdentityPlan { blocker, ..plan }
        }
        _ => IdentityPlan::default(),
    }
}

fn is_own(client_id: &str, settings: &Settings) -> bool {
    crate::acceptance::identities::is_own(Some(client_id), settings.own_client_id.as_deref())
}

/// The inputs to decisions about the identity; `None` if Ensign does not provision it.
fn object<'a>(owner: &'a ManagedIdentity, id: &'a ArmId, settings: &'a Settings) -> Option<Object<'a>> {
    Some(Object {
        id,
        spec: owner.spec.provision.as_ref()?,
        claim: owner.spec.claim_ref.as_ref(),
        uid: owner.metadata.uid.as_deref()?,
        recorded_principal: owner.status.as_ref().and_then(|status| status.principal_id.as_deref()),
        cluster: &settings.cluster,
    })
}

/// Whether the identity exists and Ensign provisions it.
pub(super) fn is_provisioned(owner: Option<&ManagedIdentity>, resolution: &Resolution) -> bool {
    owner.is_some_and(|owner| owner.spec.provision.is_some()) && resolution.facts.is_some()
}

/// Whether the binding that the object is reserved for exists.
pub(super) fn claim(snapshot: &Snapshot<'_>, object: &ManagedIdentity) -> ClaimState {
    claims::claim(object, |namespace| {
        snapshot.namespaces.get(namespace).map(|found| found.bindings.clone()).unwrap_or_default()
    })
}

/// The deletion of the identity, once its owner is being deleted and nothing of ours is left under it; only if it is
/// provably the owner's.
pub(super) fn reclaim(context: &Context<'_>) -> Option<IdentityWrite> {
    let owner = context.owner.filter(|owner| owner.metadata.deletion_timestamp.is_some())?;
    let id = usable_arm_id(Some(owner))?;
    let Some(Ok(found)) = &context.observed.identity else { return None };
    let clean = context.trust.unlisted.is_empty() && context.trust.ours_left.as_ref().is_some_and(Vec::is_empty);
    // Role assignments outlive their identity in Azure.
    let certain = !context.observed.confirmed.identity_uncertain;
    object(owner, &id, context.settings)?.reclaim(found).filter(|_| clean && certain && !context.permissions.ours_left)
}

/// Whether the identity, which is to be deleted with the object, may still exist in Azure. One that was there counts as gone
/// once that is certain: a single GET may lag.
pub(super) fn is_left(context: &Context<'_>, object: &ManagedIdentity) -> bool {
    let was_there = object.status.as_ref().is_some_and(|status| status.principal_id.is_some());
    let gone = context.observed.identity_missing() && (!was_there || context.observed.confirmed.identity_gone);
    claims::reclaims(object) && context.is_owner(object) && !gone && !is_not_provably_ours(context, object)
}

/// Whether the identity was read and its tags do not identify it as the object's.
fn is_not_provably_ours(context: &Context<'_>, owner: &ManagedIdentity) -> bool {
    let Some(Ok(found)) = &context.observed.identity else { return false };
    let Some(id) = usable_arm_id(Some(owner)) else { return false };
    object(owner, &id, context.settings).is_none_or(|object| object.holder(&found.tags) != Holder::ThisObject)
}

/// The condition `Claimed`, for objects that are reserved for one binding.
pub(super) fn claimed(context: &Context<'_>, object: &ManagedIdentity) -> Option<(ConditionType, Verdict)> {
    let verdict = claims::claimed(object, claim(context.snapshot, object))?;
    Some((ConditionType::Claimed, verdict))
}

/// Whether to delete the object itself, because its binding no longer exists.
pub(super) fn should_delete(context: &Context<'_>, object: &ManagedIdentity) -> bool {
    object.metadata.deletion_timestamp.is_none()
        && claims::reclaims(object)
        && claim(context.snapshot, object) == ClaimState::Deleted
}

/// Events about the identity itself.
pub(super) fn events(context: &Context<'_>, object: &ManagedIdentity, before: &ManagedIdentityStatus) -> Vec<Event> {
    let Some(id) = usable_arm_id(Some(object)).filter(|_| object.spec.provision.is_some()) else {
        return Vec::new();
    };
    if !context.is_owner(object) {
        return Vec::new();
    }
    if object.metadata.deletion_timestamp.is_some() {
        let clean = context.trust.ours_left.as_ref().is_some_and(Vec::is_empty);
        let left = claims::reclaims(object) && clean && is_not_provably_ours(context, object);
        return left
            .then(|| Event { reason: Reason::IdentityExists, message: provisioning::left_in_azure(&id) })
            .into_iter()
            .collect();
    }
    let found = context.resolution.facts.as_ref().map(|facts| facts.client_id.as_str());
    let recreated = before.client_id.as_deref().filter(|known| {
        let replaced = found.is_some_and(|found| !found.eq_ignore_ascii_case(known));
        replaced || (context.observed.identity_missing() && claim(context.snapshot, object) != ClaimState::Deleted)
    });
    let assigned = context.settings.roles.is_some() && !object.spec.role_assignments.is_empty();
    let roles = if assigned { "only the roles in spec.roleAssignments" } else { "no roles" };
    recreated
        .map(|known| Event {
            reason: Reason::IdentityRecreated,
            message: format!(
                "{id} (client ID {known}) no longer existed in Azure and is recreated, with a different client ID and {roles}: running pods have the previous client ID, so restart them"
            ),
        })
        .into_iter()
        .collect()
}

/// The objects to create for bindings that reference a class.
pub(super) fn desired_objects(context: &Context<'_>) -> Vec<ManagedIdentity> {
    if context.snapshot.missing.is_none() {
        return Vec::new();
    }
    context
        .bindings()
        .filter(|(namespace, facts, binding)| {
            let acceptance = context.acceptance(namespace, binding);
            !facts.terminating && acceptance.is_some_and(crate::acceptance::Acceptance::awaits_identity)
        })
        .filter_map(|(namespace, facts, binding)| {
            let class = facts.classes.known.get(binding.class_name()?)?;
            binding.uid()?;
            Some(claims::identity_for(namespace, binding, class, &context.settings.cluster.id))
        })
        .collect()
}
