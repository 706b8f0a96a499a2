//! The identity itself, where Ensign makes it: what is to be done about it, and which objects go with their bindings.

use kube::ResourceExt;

use super::{Context, Observed, Settings, Snapshot};
use crate::acceptance::claims::{self, ClaimState};
use crate::events::Event;
use crate::failure::Failure;
use crate::provisioning::{self, Holder, IdentityWrite, Object, Upkeep};
use ensign_api::conditions::{ConditionType, Reason, Verdict};
use ensign_api::{ArmId, ManagedIdentity, ManagedIdentityStatus};

/// What is to be done about the identity of an owner that wants it.
pub(super) fn upkeep(
    snapshot: &Snapshot<'_>,
    owner: Option<&ManagedIdentity>,
    observed: &Observed,
    settings: &Settings,
) -> Upkeep {
    let Some((owner, id)) = owner.and_then(|owner| Some((owner, super::identity_status::usable_arm_id(Some(owner))?)))
    else {
        return Upkeep::default();
    };
    let Some(object) = object(owner, &id, settings) else { return Upkeep::default() };
    if owner.metadata.deletion_timestamp.is_some() {
        return Upkeep::default();
    }
    let claim = claim(snapshot, owner);
    match &observed.identity {
        // Nothing is made, or set right, for a binding that is gone.
        Some(Ok(found)) if claim == ClaimState::Gone => Upkeep { step: None, ..object.keep(found) },
        Some(Ok(found)) if is_own(&found.client_id, settings) => Upkeep::default(),
        Some(Ok(found)) => object.keep(found),
        Some(Err(failure)) if failure.is_gone() && claim != ClaimState::Gone => {
            let upkeep = object.create();
            let refusal = observed.identity_write.as_ref().map(Failure::verdict).or(upkeep.refusal);
            Upkeep { refusal, ..upkeep }
        }
        _ => Upkeep::default(),
    }
}

fn is_own(client_id: &str, settings: &Settings) -> bool {
    crate::acceptance::identities::is_own(Some(client_id), settings.own_client_id.as_deref())
}

/// The identity as decisions about it take it, if Ensign makes it.
pub(super) fn object<'a>(owner: &'a ManagedIdentity, id: &'a ArmId, settings: &'a Settings) -> Option<Object<'a>> {
    Some(Object {
        id,
        spec: owner.spec.provision.as_ref()?,
        claim: owner.spec.claim_ref.as_ref(),
        uid: owner.metadata.uid.as_deref()?,
        recorded_principal: owner.status.as_ref().and_then(|status| status.principal_id.as_deref()),
        cluster: &settings.cluster,
    })
}

/// Whether Azure has the identity because of its owner.
pub(super) fn is_provisioned(owner: Option<&ManagedIdentity>, resolution: &super::identity_status::Resolution) -> bool {
    owner.is_some_and(|owner| owner.spec.provision.is_some()) && resolution.facts.is_some()
}

/// Whether the binding that the object is for exists.
pub(super) fn claim(snapshot: &Snapshot<'_>, object: &ManagedIdentity) -> ClaimState {
    claims::claim(object, |namespace| {
        snapshot.namespaces.get(namespace).map(|found| found.bindings.clone()).unwrap_or_default()
    })
}

/// The deletion of the identity, when its object goes, nothing of ours is left under it, and it is provably ours.
pub(super) fn reclaim(context: &Context<'_>) -> Option<IdentityWrite> {
    let owner = context.owner.filter(|owner| owner.metadata.deletion_timestamp.is_some())?;
    let id = super::identity_status::usable_arm_id(Some(owner))?;
    let Some(Ok(found)) = &context.observed.identity else { return None };
    let clean = context.trust.ours_left.as_ref().is_some_and(Vec::is_empty);
    // Azure leaves assignments of an identity behind that is gone.
    object(owner, &id, context.settings)?.reclaim(found).filter(|_| clean && !context.permissions.ours_left)
}

/// Whether the identity may still be in Azure because of the object, which is to take it along.
pub(super) fn is_left(context: &Context<'_>, object: &ManagedIdentity) -> bool {
    claims::reclaims(object) && context.is_owner(object) && !context.observed.gone() && !is_anothers(context, object)
}

/// Whether Azure says that the identity is not provably the object's own.
fn is_anothers(context: &Context<'_>, owner: &ManagedIdentity) -> bool {
    let Some(Ok(found)) = &context.observed.identity else { return false };
    let Some(id) = super::identity_status::usable_arm_id(Some(owner)) else { return false };
    object(owner, &id, context.settings).is_none_or(|object| object.holder(&found.tags) != Holder::ThisObject)
}

/// The condition `Claimed`, for objects that are for one binding.
pub(super) fn claimed(context: &Context<'_>, object: &ManagedIdentity) -> Option<(ConditionType, Verdict)> {
    let verdict = claims::claimed(object, claim(context.snapshot, object))?;
    Some((ConditionType::Claimed, verdict))
}

/// Whether the object itself goes, because its binding is gone.
pub(super) fn goes(context: &Context<'_>, object: &ManagedIdentity) -> bool {
    object.metadata.deletion_timestamp.is_none()
        && claims::reclaims(object)
        && claim(context.snapshot, object) == ClaimState::Gone
}

/// Events about the identity itself.
pub(super) fn notes(context: &Context<'_>, object: &ManagedIdentity, before: &ManagedIdentityStatus) -> Vec<Event> {
    let Some(id) = super::identity_status::usable_arm_id(Some(object)).filter(|_| object.spec.provision.is_some())
    else {
        return Vec::new();
    };
    if !context.is_owner(object) {
        return Vec::new();
    }
    if object.metadata.deletion_timestamp.is_some() {
        let clean = context.trust.ours_left.as_ref().is_some_and(Vec::is_empty);
        let left = claims::reclaims(object) && clean && is_anothers(context, object);
        return left
            .then(|| Event { reason: Reason::IdentityExists, message: provisioning::left_alone(&id) })
            .into_iter()
            .collect();
    }
    let found = context.resolution.facts.as_ref().map(|facts| facts.client_id.as_str());
    let recreated = before.client_id.as_deref().filter(|known| {
        let anew = found.is_some_and(|found| !found.eq_ignore_ascii_case(known));
        anew || (context.observed.gone() && claim(context.snapshot, object) != ClaimState::Gone)
    });
    let assigned = context.settings.roles.is_some() && !object.spec.role_assignments.is_empty();
    let roles = if assigned { "no role but those of spec.roleAssignments" } else { "no role" };
    recreated
        .map(|known| Event {
            reason: Reason::IdentityRecreated,
            message: format!(
                "{id} (client ID {known}) was gone in Azure and is made anew; it has another client ID then, and {roles}: pods that run have the former client ID, so restart them"
            ),
        })
        .into_iter()
        .collect()
}

/// The objects that bindings on classes get.
pub(super) fn wanted(context: &Context<'_>) -> Vec<ManagedIdentity> {
    if context.snapshot.missing.is_none() {
        return Vec::new();
    }
    context
        .bindings()
        .filter(|(namespace, facts, binding)| {
            let acceptance = context.acceptance(namespace, binding);
            !facts.terminating && acceptance.is_some_and(crate::acceptance::Acceptance::may_have_one_made)
        })
        .filter_map(|(namespace, facts, binding)| {
            let class = facts.classes.known.get(binding.class_name()?)?;
            binding.uid()?;
            Some(claims::identity_for(namespace, binding, class, &context.settings.cluster.id))
        })
        .collect()
}
