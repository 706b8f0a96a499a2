//! What is known about the identity in Azure, and the status of `ManagedIdentity`.

use std::collections::BTreeMap;

use kube::ResourceExt;

use super::conditions;
use super::{AzureIdentity, Context, Finalizer, IdentityOutcome, Observed, Settings, provisioning, upstream};
use crate::acceptance::identities;
use crate::credentials::issuers;
use crate::events;
use crate::events::Event;
use crate::mutants::{self, Mutant};
use ensign_api::conditions::{ConditionType, Reason, Verdict, find};
use ensign_api::keys::ABANDON_ANNOTATION;
use ensign_api::{CredentialPolicy, ManagedIdentity, ManagedIdentityStatus};

/// What is known about the identity in Azure.
#[derive(Clone, Debug)]
pub(super) struct Resolution {
    /// The identity as Azure returned it, now or earlier; `None` if it can't be used.
    pub(super) facts: Option<AzureIdentity>,
    /// The condition `IdentityResolved`.
    pub(super) verdict: Verdict,
}

/// Resolves the identity. `blocker` is why a provisioned identity can't be used, if so.
pub(super) fn resolve(
    owner: Option<&ManagedIdentity>,
    observed: &Observed,
    settings: &Settings,
    blocker: Option<Verdict>,
) -> Resolution {
    let known = owner.and_then(known_facts);
    let unresolved = |verdict| Resolution { facts: None, verdict };
    let listed_gone = observed.credentials.as_ref().and_then(|answer| answer.as_ref().err()).filter(|f| f.is_gone());
    let facts = match (&observed.identity, listed_gone) {
        (Some(Ok(facts)), _) => facts.clone(),
        (Some(Err(failure)), _) if failure.is_gone() => {
            return unresolved(blocker.unwrap_or_else(|| failure.verdict()));
        }
        (_, Some(failure)) => return unresolved(failure.verdict()),
        // Azure did not respond: what it returned before still holds.
        (Some(Err(failure)), None) => match known {
            Some(facts) => facts,
            None => return unresolved(failure.verdict()),
        },
        (None, None) => match known {
            Some(facts) => facts,
            None => return unresolved(Verdict::unknown(Reason::Pending, observed.pending_message())),
        },
    };
    let expected = settings.tenant_id.as_deref();
    if let Some(tenant) = expected.filter(|tenant| !facts.tenant_id.eq_ignore_ascii_case(tenant)) {
        let message = format!(
            "{} is in Entra tenant {}, but Ensign in this cluster serves tenant {tenant}: a cluster operator has to name an identity in that tenant",
            facts.arm_id, facts.tenant_id
        );
        return unresolved(Verdict::bad(Reason::TenantMismatch, message));
    }
    if let Some(blocker) = blocker {
        return unresolved(blocker);
    }
    let verdict = Verdict::good(Reason::Resolved, format!("client ID {}", facts.client_id));
    Resolution { facts: Some(facts), verdict }
}

/// The identity from the status, as Azure returned it earlier.
fn known_facts(object: &ManagedIdentity) -> Option<AzureIdentity> {
    let status = object.status.as_ref()?;
    Some(AzureIdentity {
        arm_id: status.arm_id.clone()?,
        client_id: status.client_id.clone()?,
        principal_id: status.principal_id.clone()?,
        tenant_id: status.tenant_id.clone()?,
        location: status.location.clone()?,
        tags: BTreeMap::new(),
        isolation_scope: None,
    })
}

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
    }
    if context.is_owner(object) {
        verdicts.extend(context.permissions.verdict.clone().map(|verdict| (ConditionType::PermissionsReady, verdict)));
        after.role_assignments.clone_from(&context.permissions.records);
    }
    after.credentials = context.trust.counts.or(before.credentials);
    if context.observed.gone() {
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
    let never_wrote = object.status.as_ref().is_none_or(|status| status.issuers.is_empty());
    let clean = context.trust.ours_left.as_ref().is_some_and(Vec::is_empty);
    // Role assignments outlive their identity in Azure.
    let nothing_left = context.observed.gone() && !context.permissions.ours_left;
    if !context.is_owner(object) || nothing_left || abandons(context, object) {
        return Finalizer::Release;
    }
    if context.permissions.ours_left {
        return Finalizer::Keep;
    }
    if provisioning::is_left(context, object) && !mutants::active(Mutant::ReleasedBeforeIdentityDelete) {
        return Finalizer::Keep;
    }
    if never_wrote || clean { Finalizer::Release } else { Finalizer::Keep }
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

/// Whether Ensign may write under the identity.
pub(super) fn writes(object: &ManagedIdentity) -> bool {
    object.credential_policy() == CredentialPolicy::Manage
}

fn count_accepted(context: &Context<'_>, name: &str) -> u32 {
    let accepted = context.bindings().filter(|(namespace, _, binding)| {
        binding.identity_name() == name
            && context.acceptance(namespace, binding).is_some_and(|acceptance| acceptance.verdict.holds())
    });
    u32::try_from(accepted.count()).unwrap_or(u32::MAX)
}

/// The ARM ID of the identity that the owner names; `None` without an owner, or if its spec is invalid.
pub(super) fn usable_arm_id(owner: Option<&ManagedIdentity>) -> Option<ensign_api::ArmId> {
    identities::arm_id(owner?).ok()
}
