//! The status of `ManagedIdentityBinding`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::conditions;
use super::identity_status::{usable_arm_id, writes};
use super::{BindingOutcome, Context, Finalizer, NamespaceSnapshot, service_account};
use crate::acceptance::claims;
use crate::credentials::names::Subject;
use crate::credentials::plan::{TrustState, az_delete};
use crate::credentials::propagation::settled_at;
use crate::events::{self, Event};
use crate::failure::Failure;
use crate::mutants::{self, Mutant};
use crate::pods::uninjected;
use ensign_api::conditions::{ConditionType, Reason, Verdict, find};
use ensign_api::keys::ABANDON_ANNOTATION;
use ensign_api::{CredentialOrigin, CredentialStatus, ManagedIdentityBinding, ManagedIdentityBindingStatus};

/// New status, the verdict `Ready`, and the other verdicts.
type Told = (ManagedIdentityBindingStatus, Verdict, Vec<(ConditionType, Verdict)>);

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
        living(context, namespace, binding, &subject, &before)
    };
    let mut notes: Vec<Event> = verdicts
        .iter()
        .filter(|(kind, _)| beside_ready(*kind))
        .chain([&(ConditionType::Ready, ready)])
        .filter_map(|(kind, verdict)| events::warning(&before.conditions, *kind, verdict))
        .collect();
    if finalizer == Finalizer::Release && abandons(context, binding, &subject) {
        notes.push(abandoned(&subject));
    }
    if facts.terminating {
        notes.clear();
    }
    BindingOutcome {
        annotations: service_account::wish(context, namespace, binding, &status),
        namespace: namespace.to_owned(),
        name: binding.name_any(),
        status,
        finalizer,
        notes,
    }
}

fn living(
    context: &Context<'_>,
    namespace: &str,
    binding: &ManagedIdentityBinding,
    subject: &Subject,
    before: &ManagedIdentityBindingStatus,
) -> Told {
    let accepted = match context.acceptance(namespace, binding) {
        Some(acceptance) => match (&context.observed.not_made, binding.class_name()) {
            (Some(refusal), Some(class)) if acceptance.may_have_one_made() => claims::not_made(class, refusal),
            _ => acceptance.verdict.clone(),
        },
        None => Verdict::unknown(Reason::Pending, "not yet looked at"),
    };
    let mut after = ManagedIdentityBindingStatus {
        subject: Some(subject.to_string()),
        observed_generation: binding.metadata.generation,
        ..ManagedIdentityBindingStatus::default()
    };
    let mut verdicts = vec![(ConditionType::Accepted, accepted.clone())];
    // A refused binding learns nothing about the identity.
    if accepted.holds() {
        after.managed_identity_name = Some(binding.identity_name().into_owned());
        verdicts.push((ConditionType::IdentityResolved, context.resolution.verdict.clone()));
        if let Some(facts) = &context.resolution.facts {
            after.client_id = Some(facts.client_id.clone());
            after.tenant_id = Some(facts.tenant_id.clone());
            let (verdict, credential) = credential(context, subject, before);
            // Pods wait for this condition, and without its roles an identity is of no use to them.
            let lacking = context.permissions.lacking.clone().filter(|_| verdict.holds());
            verdicts.push((ConditionType::CredentialReady, lacking.unwrap_or(verdict)));
            after.credential = credential;
        }
    } else if let Some(verdict) = trusted_all_the_same(context, subject, before) {
        verdicts.push((ConditionType::TrustRevoked, verdict));
    }
    let ready = conditions::ready(&verdicts, &format!("pods of {subject} can use the identity"));
    // Pods do not need the annotations, so they are no part of Ready.
    verdicts.extend(
        service_account::verdict(context, namespace, binding)
            .filter(|_| after.client_id.is_some())
            .map(|verdict| (ConditionType::ServiceAccountAnnotated, verdict)),
    );
    // Nor do those that work suffer from others that were missed.
    verdicts.extend(
        uninjected::verdict(
            context.observed.missed.get(&(namespace.to_owned(), binding.name_any())),
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

/// Conditions that have events of their own, because `Ready` does not tell what they say.
fn beside_ready(kind: ConditionType) -> bool {
    use ConditionType::{PodsInjected, ServiceAccountAnnotated, TrustRevoked};
    matches!(kind, TrustRevoked | ServiceAccountAnnotated | PodsInjected)
}

/// A refused binding whose subject is trusted all the same, by a credential that is not Ensign's.
fn trusted_all_the_same(
    context: &Context<'_>,
    subject: &Subject,
    before: &ManagedIdentityBindingStatus,
) -> Option<Verdict> {
    let Some(foreign) = &context.trust.foreign else {
        let known = find(&before.conditions, ConditionType::TrustRevoked)?;
        return Some(Verdict::bad(Reason::ForeignCredential, known.message.clone()));
    };
    let found = foreign.iter().find(|credential| credential.subject == subject.to_string())?;
    let id = usable_arm_id(context.owner)?;
    let message = format!(
        "federated identity credential {}, which Ensign did not make and leaves alone, lets {subject} use the identity though no grant does: remove it with {}",
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
    match context.trust.standings.get(subject) {
        Some(TrustState::Given { name, origin }) => {
            // One that was written anew, because somebody had changed or deleted it, is new to Entra too.
            let is_known = |credential: &&CredentialStatus| credential.name == *name && credential.origin == *origin;
            let since = confirmed.filter(is_known).filter(|_| !context.observed.written.contains(name));
            let confirmed_since = since.map_or(Time(context.now), |credential| credential.confirmed_since.clone());
            let credential =
                CredentialStatus { name: name.clone(), issuer: issuer.clone(), origin: *origin, confirmed_since };
            (standing(context, &credential), Some(credential))
        }
        Some(TrustState::Planned { name }) => {
            let pending = || {
                let when = match context.observed.postponed {
                    Some(_) => "is written as soon as the limits on requests to Azure allow",
                    None => "is about to be written",
                };
                let message = format!("federated identity credential {name} {when}");
                Verdict::unknown(Reason::CredentialPending, message)
            };
            if mutants::active(Mutant::ReadyBeforeConfirmed) {
                return (Verdict::good(Reason::Confirmed, ""), None);
            }
            let failure = context.observed.write_failures.get(name).or_else(|| context.observed.identity_failure());
            (failure.map_or_else(pending, Failure::verdict), None)
        }
        Some(TrustState::Blocked { reason, message }) => (Verdict::bad(*reason, message.clone()), None),
        // Azure's list is not known now: what it confirmed before still stands.
        None => match (confirmed, &context.observed.credentials) {
            (Some(credential), _) => (standing(context, credential), Some(credential.clone())),
            (None, Some(Err(failure))) => (failure.verdict(), None),
            (None, _) => (Verdict::unknown(Reason::Pending, context.observed.not_asked()), None),
        },
    }
}

/// When the credential of this status has settled, if it has yet to.
pub(super) fn settles(context: &Context<'_>, status: &ManagedIdentityBindingStatus) -> Option<Timestamp> {
    let credential = status.credential.as_ref()?;
    let settled = settled_at(credential.confirmed_since.0, context.settings.settle);
    (settled > context.now).then_some(settled)
}

/// A credential that stands, and that Entra has had time to learn of.
fn standing(context: &Context<'_>, credential: &CredentialStatus) -> Verdict {
    let name = &credential.name;
    let settled = settled_at(credential.confirmed_since.0, context.settings.settle);
    if settled > context.now && !mutants::active(Mutant::ReadyBeforeConfirmed) {
        let message = format!("federated identity credential {name} stands; Entra gets until {settled} to learn of it");
        return Verdict::unknown(Reason::Propagating, message);
    }
    match credential.origin {
        CredentialOrigin::Created => {
            Verdict::good(Reason::Confirmed, format!("federated identity credential {name} stands"))
        }
        CredentialOrigin::Adopted => Verdict::good(
            Reason::Adopted,
            format!("federated identity credential {name}, which Ensign did not make, gives the trust already"),
        ),
    }
}

/// A binding that is being deleted keeps its status, unless somebody has to know why that takes long.
fn deleting(
    context: &Context<'_>,
    binding: &ManagedIdentityBinding,
    before: &ManagedIdentityBindingStatus,
    finalizer: Finalizer,
) -> Told {
    let told = |ready: Verdict| {
        let (generation, conditions) = (binding.metadata.generation, &before.conditions);
        let mut after = before.clone();
        after.observed_generation = generation;
        after.conditions = conditions::conditions(&ready, &[], generation, conditions, context.now);
        (after, ready, Vec::new())
    };
    let Some(failure) = context.observed.any_failure().filter(|failure| !failure.is_gone()) else {
        if context.observed.postponed.is_some() && finalizer != Finalizer::Release {
            let message =
                "the federated identity credential is deleted as soon as the limits on requests to Azure allow";
            return told(Verdict::bad(Reason::Deleting, message));
        }
        return (before.clone(), Verdict::unknown(Reason::Deleting, ""), Vec::new());
    };
    let message = format!(
        "deletion waits until the federated identity credential in Azure is gone: {}. If Azure will never answer again, a cluster operator may give it up with the annotation {ABANDON_ANNOTATION}=true on the ManagedIdentity",
        failure.message
    );
    told(Verdict::bad(Reason::DeletionBlocked, message))
}

/// Whether the binding is let go on an operator's word, because Azure does not confirm.
fn abandons(context: &Context<'_>, binding: &ManagedIdentityBinding, subject: &Subject) -> bool {
    binding.metadata.deletion_timestamp.is_some()
        && (context.is_abandoned() || tenant_abandons(binding))
        && context.observed.any_failure().is_some()
        && !context.observed.gone()
        && !context.trust.wanted.contains(subject)
}

/// Never: the annotation counts on a `ManagedIdentity` only.
fn tenant_abandons(binding: &ManagedIdentityBinding) -> bool {
    mutants::active(Mutant::TenantAbandons) && binding.annotations().contains_key(ABANDON_ANNOTATION)
}

/// The event that says what may be left in Azure.
fn abandoned(subject: &Subject) -> Event {
    Event {
        reason: Reason::Abandoned,
        message: format!(
            "released without Azure's confirmation because the ManagedIdentity has the annotation {ABANDON_ANNOTATION}; a federated identity credential that trusts {subject} may be left in Azure: remove it there"
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
    if abandons(context, binding, subject) || mutants::active(Mutant::ReleasedBeforeDelete) {
        return Finalizer::Release;
    }
    let Some(left) = &context.trust.ours_left else {
        let nothing_to_ask = context.owner.is_none() || context.observed.gone() || never_wrote(context, binding);
        return if nothing_to_ask { Finalizer::Release } else { Finalizer::Keep };
    };
    let still_trusted = left.iter().any(|credential| credential.subject == subject.to_string());
    let wanted_by_another = context.trust.wanted.contains(subject);
    if !still_trusted || wanted_by_another { Finalizer::Release } else { Finalizer::Keep }
}

/// Whether no write can ever have been made for the binding: its identity never recorded an issuer.
fn never_wrote(context: &Context<'_>, binding: &ManagedIdentityBinding) -> bool {
    let recorded =
        context.owner.and_then(|owner| owner.status.as_ref()).is_some_and(|status| !status.issuers.is_empty());
    !recorded && binding.status.as_ref().is_none_or(|status| status.credential.is_none())
}
