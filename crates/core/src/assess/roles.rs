//! The role assignments of one identity, as part of its assessment.

use super::inputs::{Observed, Settings};
use super::resolution::{Resolution, writes};
use crate::roles::{self, Inputs, Maker, Permissions};
use ensign_api::ManagedIdentity;
use ensign_api::conditions::{ConditionType, Reason, Verdict, is_true};

/// The inputs to decisions about the owner's roles; `None` if it has none in its spec and none in its status.
pub fn role_inputs<'a>(
    owner: &'a ManagedIdentity,
    observed: &'a Observed,
    settings: &'a Settings,
) -> Option<Inputs<'a>> {
    let status = owner.status.as_ref();
    let records = status.map_or(&[][..], |status| &status.role_assignments);
    let wanted = &owner.spec.role_assignments[..];
    if wanted.is_empty() && records.is_empty() {
        return None;
    }
    let found = observed.identity.as_ref().and_then(|answer| answer.as_ref().ok());
    let known = status.and_then(|status| status.principal_id.as_deref());
    Some(Inputs {
        maker: Maker {
            cluster_id: &settings.cluster.id,
            previous_id: settings.cluster.previous_id.as_deref(),
            owner_uid: owner.metadata.uid.as_deref()?,
        },
        wanted,
        records,
        was_ready: status.is_some_and(|status| is_true(&status.conditions, ConditionType::PermissionsReady)),
        principal: found.map(|found| found.principal_id.as_str()).or(known),
        deleting: owner.metadata.deletion_timestamp.is_some(),
        policy: settings.roles.as_ref().filter(|_| writes(owner)),
        bounds: &settings.allowed_scopes,
        observed: &observed.roles,
    })
}

/// Decides the owner's roles. Nothing is assigned or removed for an owner that is not accepted, or whose identity is not
/// resolved.
pub(super) fn decide(
    owner: Option<&ManagedIdentity>,
    accepted: bool,
    resolution: &Resolution,
    observed: &Observed,
    settings: &Settings,
) -> Permissions {
    let Some((owner, inputs)) = owner.and_then(|owner| Some((owner, role_inputs(owner, observed, settings)?))) else {
        return Permissions::default();
    };
    let mut permissions = roles::decide(&inputs);
    let foreign = resolution.verdict.reason == Reason::TenantMismatch;
    if foreign || (!inputs.deleting && (!accepted || resolution.facts.is_none())) {
        permissions.writes.clear();
        permissions.records = inputs.records.to_vec();
    }
    if settings.roles.is_some() && !writes(owner) && !inputs.wanted.is_empty() {
        let verdict = Verdict::bad(
            Reason::RoleAssignmentsDisabled,
            "spec.roleAssignments requests roles, but credentialPolicy is Observe, so nothing is written to Azure: a cluster operator has to set credentialPolicy to Manage, or remove spec.roleAssignments",
        );
        (permissions.verdict, permissions.lacking) = (Some(verdict.clone()), Some(verdict));
    }
    permissions
}
