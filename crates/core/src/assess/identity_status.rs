//! The status of `ManagedIdentity`.

use kube::ResourceExt;

use super::context::Context;
use super::outcome::{Finalizer, IdentityOutcome};
use super::resolution::writes;
use super::{conditions, provisioning, upstream};
use crate::credentials::issuers;
use crate::events;
use crate::events::Event;
use ensign_api::conditions::{ConditionType, Reason, Verdict, find};
use ensign_api::keys::ABANDON_ANNOTATION;
use ensign_api::{ManagedIdentity, ManagedIdentityStatus};

pub(super) fn outcome(context: &Context<'_>, object: &ManagedIdentity) -> IdentityOutcome {
    let name = object.name_any();
    let accepted = match context.accepted.get(name.as_str()) {
        Some(facts) => facts.accepted.clone(),
        None => Verdict::unknown(Reason::Pending, "not reconciled yet"),
    };
    let before = object.status.clone().unwrap_or_default();
    let mut after = ManagedIdentityStatus {
        issuers: before.issuers.clone(),
        role_assignments: before.role_assignments.clone(),
        bindings: count_accepted(context, &name),
        observed_generation: object.metadata.generation,
        ..ManagedIdentityStatus::default()
    };
    let mut verdicts = vec![(ConditionType::Accepted, accepted.clone())];
    verdicts.extend(provisioning::claimed(context, object));
    if accepted.holds() {
        fill(context, object, &before, &mut after, &mut verdicts);
    }
    let ready = if object.metadata.deletion_timestamp.is_some() {
        deleting(context, object)
    } else {
        let blocking = accepted.holds().then(|| context.observed.failure()).flatten();
        match blocking.filter(|_| verdicts.iter().all(|(_, verdict)| verdict.holds())) {
            Some(failure) => failure.verdict(),
            None => conditions::ready(&verdicts, "accepted bindings can use the identity"),
        }
    };
    let shared_id = accepted.holds().then(|| shared_id(context, &before)).flatten();
    // Pods are not affected by it, so it does not affect `Ready`.
    verdicts.extend(shared_id.clone().map(|verdict| (ConditionType::ClusterIDUnique, verdict)));
    let shared_id = shared_id.and_then(|now| events::warning(&before.conditions, ConditionType::ClusterIDUnique, &now));
    let upstream = accepted.holds().then(|| upstream::verdict(context.observed, &before)).flatten();
    verdicts.extend(upstream.clone().map(|verdict| (ConditionType::UpstreamWebhookAbsent, verdict)));
    let upstream =
        upstream.and_then(|now| events::warning(&before.conditions, ConditionType::UpstreamWebhookAbsent, &now));
    after.conditions =
        conditions::conditions(&ready, &verdicts, object.metadata.generation, &before.conditions, context.now);
    let abandonment = abandons(context, object).then(|| abandoned(context, object));
    IdentityOutcome {
        finalizer: finalizer(context, object, accepted.holds()),
        events: events::warning(&before.conditions, ConditionType::Ready, &ready)
            .into_iter()
            .chain(abandonment)
            .chain(shared_id)
            .chain(upstream)
            .chain(provisioning::events(context, object, &before))
            .collect(),
        should_delete: provisioning::should_delete(context, object),
        status: after,
        name,
    }
}

fn fill(
    context: &Context<'_>,
    object: &ManagedIdentity,
    before: &ManagedIdentityStatus,
    after: &mut ManagedIdentityStatus,
    verdicts: &mut Vec<(ConditionType, Verdict)>,
) {
    verdicts.push((ConditionType::IdentityResolved, context.resolution.verdict.clone()));
    if let Some(facts) = &context.resolution.facts {
        after.arm_id = Some(facts.arm_id.clone());
        after.client_id = Some(facts.client_id.clone());
        after.principal_id = Some(facts.principal_id.clone());
        after.tenant_id = Some(facts.tenant_id.clone());
        after.location = Some(facts.location.clone());
    } else if object.metadata.deletion_timestamp.is_some() {
        // What the deletion is about stays on record until it ends.
        after.arm_id.clone_from(&before.arm_id);
        after.client_id.clone_from(&before.client_id);
        after.principal_id.clone_from(&before.principal_id);
        after.tenant_id.clone_from(&before.tenant_id);
        after.location.clone_from(&before.location);
    } else if object.spec.provision.is_some() && context.observed.identity_missing() {
        // GET may lag: what Ensign created is on record until it is certain that it is gone, or created again.
        after.principal_id.clone_from(&before.principal_id);
    }
    if context.is_owner(object) {
        verdicts.extend(context.permissions.verdict.clone().map(|verdict| (ConditionType::PermissionsReady, verdict)));
        after.role_assignments.clone_from(&context.permissions.records);
    }
    after.credentials = context.trust.counts.or(before.credentials);
    if context.observed.identity_missing() {
        after.credentials = None;
    }
    if writes(object) && context.settings.issuer_refusal.is_none() && context.trust.wants_any() {
        after.issuers = issuers::record(&before.issuers, &context.settings.cluster.issuer, context.now);
        let expired: Vec<String> = context.trust.expired_issuers.clone();
        after.issuers.retain(|record| !expired.contains(&record.url));
    }
}

/// The verdict `Ready` of an object that is being deleted, which waits until Azure confirms that nothing of it is left.
fn deleting(context: &Context<'_>, object: &ManagedIdentity) -> Verdict {
    let what = if provisioning::is_left(context, object) {
        "the identity and the federated identity credentials"
    } else {
        "the federated identity credentials"
    };
    // A deletion waits for exactly that: the identity does not exist.
    match context.observed.any_failure().filter(|failure| !failure.is_gone()) {
        Some(failure) => Verdict::bad(
            Reason::DeletionBlocked,
            format!(
                "deletion waits until {what} are deleted in Azure: {}. If Azure will never respond again, a cluster operator can abandon them with the annotation {ABANDON_ANNOTATION}=true on this object",
                failure.message
            ),
        ),
        None => Verdict::bad(Reason::Deleting, format!("deleting {what} in Azure")),
    }
}

fn finalizer(context: &Context<'_>, object: &ManagedIdentity, accepted: bool) -> Finalizer {
    if object.metadata.deletion_timestamp.is_none() {
        let writes = accepted && context.is_owner(object) && writes(object);
        let required = writes && (context.trust.wants_any() || context.keeps_identity || context.permissions.ours_left);
        return if required { Finalizer::Require } else { Finalizer::Keep };
    }
    if !context.is_owner(object) || abandons(context, object) {
        return Finalizer::Release;
    }
    // Role assignments outlive their identity in Azure.
    if context.permissions.ours_left || !context.trust.unlisted.is_empty() || provisioning::is_left(context, object) {
        return Finalizer::Keep;
    }
    let never_wrote = object.status.as_ref().is_none_or(|status| status.issuers.is_empty());
    let clean = context.trust.ours_left.as_ref().is_some_and(Vec::is_empty);
    let nothing_left = context.observed.identity_missing() || never_wrote || clean;
    if nothing_left { Finalizer::Release } else { Finalizer::Keep }
}

/// The condition `ClusterIDUnique`, while it does not hold.
fn shared_id(context: &Context<'_>, before: &ManagedIdentityStatus) -> Option<Verdict> {
    let Some(found) = &context.trust.shared_id else {
        // Azure did not respond: what was known still holds.
        let known = find(&before.conditions, ConditionType::ClusterIDUnique)?;
        return Some(Verdict::bad(Reason::ClusterIDShared, known.message.clone()));
    };
    let first = found.first()?;
    let message = format!(
        "{} of {} federated identity credential(s), for example {}, were written with this cluster's ID for another issuer ({}): another cluster has a copy of the ID. Ensign does not touch them. A cluster operator has to give one of the two clusters a separate --cluster-id, with its previous ID as --previous-cluster-id",
        found.len(),
        context.trust.counts.map_or(0, |counts| counts.this_cluster + counts.other_clusters + counts.foreign),
        first.name,
        first.issuer,
    );
    Some(Verdict::bad(Reason::ClusterIDShared, message))
}

/// Whether the object is released without Azure's confirmation, because an operator abandoned it.
fn abandons(context: &Context<'_>, object: &ManagedIdentity) -> bool {
    object.metadata.deletion_timestamp.is_some() && context.is_abandoned() && context.observed.any_failure().is_some()
}

/// The event that lists what may be left in Azure.
fn abandoned(context: &Context<'_>, object: &ManagedIdentity) -> Event {
    let names: Vec<&str> =
        context.trust.ours_left.iter().flatten().map(|credential| credential.name.as_str()).collect();
    let left =
        if names.is_empty() { "this cluster's federated identity credentials".to_owned() } else { names.join(", ") };
    let left = if provisioning::is_left(context, object) { format!("the identity itself, and {left}") } else { left };
    Event {
        reason: Reason::Abandoned,
        message: format!(
            "released without Azure's confirmation because of the annotation {ABANDON_ANNOTATION}; what may be left there and is still trusted: {left}. Delete it in Azure"
        ),
    }
}

fn count_accepted(context: &Context<'_>, name: &str) -> u32 {
    let accepted = context.bindings().filter(|(namespace, _, binding)| {
        binding.identity_name() == name
            && context.acceptance(namespace, binding).is_some_and(|acceptance| acceptance.verdict.holds())
    });
    u32::try_from(accepted.count()).unwrap_or(u32::MAX)
}
