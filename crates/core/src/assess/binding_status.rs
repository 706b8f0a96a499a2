//! The status of `ManagedIdentityBinding`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::context::Context;
use super::inputs::NamespaceSnapshot;
use super::outcome::{BindingOutcome, Finalizer};
use super::resolution::{usable_arm_id, writes};
use super::{conditions, service_account};
use crate::acceptance::claims;
use crate::credentials::names::Subject;
use crate::credentials::plan::{TrustState, az_delete};
use crate::credentials::propagation::propagated_at;
use crate::events::{self, Event};
use crate::failure::Failure;
use crate::pods::uninjected;
use ensign_api::conditions::{ConditionType, Reason, Verdict, find};
use ensign_api::keys::ABANDON_ANNOTATION;
use ensign_api::{
    CredentialOrigin, CredentialStatus, ManagedIdentityBinding, ManagedIdentityBindingStatus, NamespacedName,
};

/// New status, the verdict `Ready`, and the other verdicts.
type NewStatus = (ManagedIdentityBindingStatus, Verdict, Vec<(ConditionType, Verdict)>);

pub(super) fn outcomes(context: &Context<'_>) -> Vec<BindingOutcome> {
    context.bindings().map(|(name, namespace, binding)| outcome(context, name, namespace, binding)).collect()
}

fn outcome(
    context: &Context<'_>,
    namespace: &str,
    facts: &NamespaceSnapshot<'_>,
    binding: &ManagedIdentityBinding,
) -> BindingOutcome {
    let subject = Subject::new(namespace, &binding.spec.service_account_name);
    let before = binding.status.clone().unwrap_or_default();
    let finalizer = finalizer(context, namespace, binding, &subject);
    let (status, ready, verdicts) = if binding.metadata.deletion_timestamp.is_some() {
        deleting(context, binding, &before, finalizer)
    } else {
        current(context, namespace, binding, &subject, &before)
    };
    let mut events: Vec<Event> = verdicts
        .iter()
        .filter(|(kind, _)| is_independent_of_ready(*kind))
        .chain([&(ConditionType::Ready, ready)])
        .filter_map(|(kind, verdict)| events::warning(&before.conditions, *kind, verdict))
        .collect();
    if finalizer == Finalizer::Release && abandons(context, binding, &subject) {
        events.push(abandoned(&subject));
    }
    if facts.terminating {
        events.clear();
    }
    BindingOutcome {
        annotations: service_account::desired(context, namespace, binding, &status),
        namespace: namespace.to_owned(),
        name: binding.name_any(),
        status,
        finalizer,
        events,
    }
}

fn current(
    context: &Context<'_>,
    namespace: &str,
    binding: &ManagedIdentityBinding,
    subject: &Subject,
    before: &ManagedIdentityBindingStatus,
) -> NewStatus {
    let accepted = match context.acceptance(namespace, binding) {
        Some(acceptance) => match (&context.observed.creation_rejection, binding.class_name()) {
            (Some(rejection), Some(class)) if acceptance.awaits_identity() => {
                claims::creation_rejected(class, rejection)
            }
            _ => acceptance.verdict.clone(),
        },
        None => Verdict::unknown(Reason::Pending, "not reconciled yet"),
    };
    let mut after = ManagedIdentityBindingStatus {
        subject: Some(subject.to_string()),
        observed_generation: binding.metadata.generation,
        ..ManagedIdentityBindingStatus::default()
    };
    let mut verdicts = vec![(ConditionType::Accepted, accepted.clone())];
    // A binding that is not accepted must not reveal anything about the identity.
    if accepted.holds() {
        after.managed_identity_name = Some(binding.identity_name().into_owned());
        verdicts.push((ConditionType::IdentityResolved, context.resolution.verdict.clone()));
        if let Some(facts) = &context.resolution.facts {
            after.client_id = Some(facts.client_id.clone());
            after.tenant_id = Some(facts.tenant_id.clone());
            let (verdict, credential) = credential(context, subject, before);
            // Pods wait for this condition, and an identity without its roles is of no use to them.
            let missing_roles = context.permissions.lacking.clone().filter(|_| verdict.holds());
            verdicts.push((ConditionType::CredentialReady, missing_roles.unwrap_or(verdict)));
            after.credential = credential;
        }
    } else {
        verdicts.extend(still_trusted(context, subject, before).map(|verdict| (ConditionType::TrustRevoked, verdict)));
        // It is on record until Azure has confirmed that it was deleted.
        after.credential = before.credential.clone().filter(|_| context.trust.unlisted.contains_key(subject));
    }
    let ready = conditions::ready(&verdicts, &format!("pods of {subject} can use the identity"));
    // Pods do not need the annotations, so they do not affect `Ready`.
    verdicts.extend(
        service_account::verdict(context, namespace, binding)
            .filter(|_| after.client_id.is_some())
            .map(|verdict| (ConditionType::ServiceAccountAnnotated, verdict)),
    );
    // Pods that were not injected do not affect the injected ones, so they do not affect `Ready` either.
    verdicts.extend(
        uninjected::verdict(
            context.observed.uninjected_pods.get(&NamespacedName::new(namespace, binding.name_any())),
            &before.conditions,
            namespace,
        )
        .filter(|_| after.client_id.is_some())
        .map(|verdict| (ConditionType::PodsInjected, verdict)),
    );
    after.conditions =
        conditions::conditions(&ready, &verdicts, binding.metadata.generation, &before.conditions, context.now);
    (after, ready, verdicts)
}

/// Conditions that get events of their own, because `Ready` does not reflect them.
fn is_independent_of_ready(kind: ConditionType) -> bool {
    use ConditionType::{PodsInjected, ServiceAccountAnnotated, TrustRevoked};
    matches!(kind, TrustRevoked | ServiceAccountAnnotated | PodsInjected)
}

/// The condition `TrustRevoked` of a binding that is not accepted, if a credential that Ensign does not manage still trusts
/// its subject.
fn still_trusted(context: &Context<'_>, subject: &Subject, before: &ManagedIdentityBindingStatus) -> Option<Verdict> {
    let Some(foreign) = &context.trust.foreign else {
        let known = find(&before.conditions, ConditionType::TrustRevoked)?;
        return Some(Verdict::bad(Reason::ForeignCredential, known.message.clone()));
    };
    let found = foreign.iter().find(|credential| credential.subject == subject.to_string())?;
    let id = usable_arm_id(context.owner)?;
    let message = format!(
        "federated identity credential {}, which Ensign does not manage, still lets {subject} use the identity although no grant does: delete it with {}",
        found.name,
        az_delete(&id, &found.name)
    );
    Some(Verdict::bad(Reason::ForeignCredential, message))
}

/// The condition `CredentialReady`, and the credential that Azure confirmed.
fn credential(
    context: &Context<'_>,
    subject: &Subject,
    before: &ManagedIdentityBindingStatus,
) -> (Verdict, Option<CredentialStatus>) {
    let issuer = &context.settings.cluster.issuer;
    let confirmed = before.credential.as_ref().filter(|credential| credential.issuer == *issuer);
    match context.trust.states.get(subject) {
        Some(TrustState::Given { name, origin }) => {
            // A credential that was rewritten, because it had been changed or deleted, has to propagate again.
            let is_known = |credential: &&CredentialStatus| credential.name == *name && credential.origin == *origin;
            let since = confirmed.filter(is_known).filter(|_| !context.observed.written.contains(name));
            let confirmed_since = since.map_or(Time(context.now), |credential| credential.confirmed_since.clone());
            let credential =
                CredentialStatus { name: name.clone(), issuer: issuer.clone(), origin: *origin, confirmed_since };
            (in_place(context, &credential), Some(credential))
        }
        Some(TrustState::Planned { name }) => {
            let pending = || {
                let state = match context.observed.postponed {
                    Some(_) => "is waiting for Azure rate-limit budget to be written",
                    None => "is about to be written",
                };
                let message = format!("federated identity credential {name} {state}");
                Verdict::unknown(Reason::CredentialPending, message)
            };
            let failure = context.observed.write_failures.get(name).or_else(|| context.observed.identity_failure());
            (failure.map_or_else(pending, Failure::verdict), None)
        }
        Some(TrustState::Blocked { reason, message }) => (Verdict::bad(*reason, message.clone()), None),
        // The credentials could not be listed: what Azure confirmed before still holds.
        None => match (confirmed, &context.observed.credentials) {
            (Some(credential), _) => (in_place(context, credential), Some(credential.clone())),
            (None, Some(Err(failure))) => (failure.verdict(), None),
            (None, _) => (Verdict::unknown(Reason::Pending, context.observed.pending_message()), None),
        },
    }
}

/// When the credential of this status counts as propagated; `None` if it does already.
pub(super) fn propagates_at(context: &Context<'_>, status: &ManagedIdentityBindingStatus) -> Option<Timestamp> {
    let credential = status.credential.as_ref()?;
    let propagated = propagated_at(credential.confirmed_since.0, context.settings.propagation_delay);
    (propagated > context.now).then_some(propagated)
}

/// The condition `CredentialReady` for a credential that is in place, depending on whether it has had time to propagate.
fn in_place(context: &Context<'_>, credential: &CredentialStatus) -> Verdict {
    let name = &credential.name;
    let propagated_by = propagated_at(credential.confirmed_since.0, context.settings.propagation_delay);
    if propagated_by > context.now {
        let message = format!(
            "federated identity credential {name} is in place; allowing until {propagated_by} for it to propagate in Entra"
        );
        return Verdict::unknown(Reason::Propagating, message);
    }
    match credential.origin {
        CredentialOrigin::Created => {
            Verdict::good(Reason::Confirmed, format!("federated identity credential {name} is in place"))
        }
        CredentialOrigin::Adopted => Verdict::good(
            Reason::Adopted,
            format!("using the existing federated identity credential {name}, which Ensign does not manage"),
        ),
    }
}

/// A binding that is being deleted keeps its status, unless the deletion is delayed for a reason worth reporting.
fn deleting(
    context: &Context<'_>,
    binding: &ManagedIdentityBinding,
    before: &ManagedIdentityBindingStatus,
    finalizer: Finalizer,
) -> NewStatus {
    let report = |ready: Verdict| {
        let (generation, conditions) = (binding.metadata.generation, &before.conditions);
        let mut after = before.clone();
        after.observed_generation = generation;
        after.conditions = conditions::conditions(&ready, &[], generation, conditions, context.now);
        (after, ready, Vec::new())
    };
    let Some(failure) = context.observed.any_failure().filter(|failure| !failure.is_gone()) else {
        if context.observed.postponed.is_some() && finalizer != Finalizer::Release {
            let message = "waiting for Azure rate-limit budget to delete the federated identity credential";
            return report(Verdict::bad(Reason::Deleting, message));
        }
        return (before.clone(), Verdict::unknown(Reason::Deleting, ""), Vec::new());
    };
    let message = format!(
        "deletion waits until the federated identity credential is deleted in Azure: {}. If Azure will never respond again, a cluster operator can abandon it with the annotation {ABANDON_ANNOTATION}=true on the ManagedIdentity",
        failure.message
    );
    report(Verdict::bad(Reason::DeletionBlocked, message))
}

/// Whether the binding is released without Azure's confirmation, because an operator abandoned it.
fn abandons(context: &Context<'_>, binding: &ManagedIdentityBinding, subject: &Subject) -> bool {
    binding.metadata.deletion_timestamp.is_some()
        && context.is_abandoned()
        && context.observed.any_failure().is_some()
        && !context.observed.identity_missing()
        && !context.trust.wanted.contains(subject)
}

/// The event that lists what may be left in Azure.
fn abandoned(subject: &Subject) -> Event {
    Event {
        reason: Reason::Abandoned,
        message: format!(
            "released without Azure's confirmation because the ManagedIdentity has the annotation {ABANDON_ANNOTATION}; a federated identity credential that trusts {subject} may be left: delete it in Azure"
        ),
    }
}

fn finalizer(context: &Context<'_>, namespace: &str, binding: &ManagedIdentityBinding, subject: &Subject) -> Finalizer {
    if binding.metadata.deletion_timestamp.is_none() {
        let accepted = context.acceptance(namespace, binding).is_some_and(|acceptance| acceptance.verdict.holds());
        let may_write = context.owner.is_some_and(writes) && context.settings.issuer_refusal.is_none();
        let required = accepted && may_write && context.trust.wanted.contains(subject);
        return if required { Finalizer::Require } else { Finalizer::Keep };
    }
    if abandons(context, binding, subject) {
        return Finalizer::Release;
    }
    if context.trust.unlisted.contains_key(subject) {
        return Finalizer::Keep;
    }
    let Some(left) = &context.trust.ours_left else {
        let nothing_to_delete =
            context.owner.is_none() || context.observed.identity_missing() || never_wrote(context, binding);
        return if nothing_to_delete { Finalizer::Release } else { Finalizer::Keep };
    };
    let still_trusted = left.iter().any(|credential| credential.subject == subject.to_string());
    let wanted_by_another = context.trust.wanted.contains(subject);
    if !still_trusted || wanted_by_another { Finalizer::Release } else { Finalizer::Keep }
}

/// Whether no credential was ever written for the binding: its identity never recorded an issuer.
fn never_wrote(context: &Context<'_>, binding: &ManagedIdentityBinding) -> bool {
    let recorded =
        context.owner.and_then(|owner| owner.status.as_ref()).is_some_and(|status| !status.issuers.is_empty());
    !recorded && binding.status.as_ref().is_none_or(|status| status.credential.is_none())
}
