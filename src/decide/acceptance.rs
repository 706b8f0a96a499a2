//! Which bindings of a namespace are accepted.
//!
//! Everything that this depends on is local to the namespace: its bindings, the identities that they reference, and
//! its labels. So each reconcile that concerns the namespace comes to the same answer.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt;

use super::conflicts::{Clash, clash};
use super::grants;
use super::names::Subject;
use crate::api::conditions::{ConditionType, Reason, Verdict, is_true};
use crate::api::{ManagedIdentity, ManagedIdentityBinding};
use crate::mutants::{self, Mutant};

/// A namespace as far as acceptance goes.
#[derive(Clone, Debug)]
pub struct NamespaceFacts<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its labels.
    pub labels: &'a BTreeMap<String, String>,
    /// Every binding in it.
    pub bindings: Vec<&'a ManagedIdentityBinding>,
}

/// A `ManagedIdentity` and whether it may be used at all.
#[derive(Clone, Debug)]
pub struct IdentityFacts<'a> {
    /// The object.
    pub object: &'a ManagedIdentity,
    /// Whether the object itself is accepted.
    pub accepted: Verdict,
}

/// What was decided of one binding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acceptance {
    /// The condition `Accepted`.
    pub verdict: Verdict,
    /// The name of the grant, for audit records.
    pub grant: Option<String>,
}

/// Decides every binding of the namespace that is not being deleted, by name.
pub fn decide(
    namespace: &NamespaceFacts<'_>,
    identities: &BTreeMap<&str, IdentityFacts<'_>>,
) -> BTreeMap<String, Acceptance> {
    let mut bindings: Vec<&ManagedIdentityBinding> =
        namespace.bindings.iter().copied().filter(|binding| binding.metadata.deletion_timestamp.is_none()).collect();
    bindings.sort_by_key(|binding| age_key(binding));

    let mut decided = authorize(namespace, &bindings, identities);
    let mut winners: Vec<&ManagedIdentityBinding> = Vec::new();
    for binding in bindings {
        let Some(acceptance) = decided.get_mut(&binding.name_any()).filter(|found| found.verdict.holds()) else {
            continue;
        };
        let winner = winners.iter().find_map(|winner| {
            let same_account = winner.spec.service_account_name == binding.spec.service_account_name;
            clash(winner, binding).filter(|_| same_account).map(|clash| (winner, clash))
        });
        match winner {
            Some((winner, clash)) => {
                acceptance.verdict = Verdict::bad(Reason::Conflict, conflict_message(winner, binding, clash));
            }
            None => winners.push(binding),
        }
    }
    decided
}

/// Older first; the name decides between equals.
pub fn age_key(binding: &ManagedIdentityBinding) -> (Option<k8s_openapi::jiff::Timestamp>, String) {
    (binding.metadata.creation_timestamp.as_ref().map(|time| time.0), binding.name_any())
}

fn authorize(
    namespace: &NamespaceFacts<'_>,
    bindings: &[&ManagedIdentityBinding],
    identities: &BTreeMap<&str, IdentityFacts<'_>>,
) -> BTreeMap<String, Acceptance> {
    // Subjects that each (identity, grant) admits already; those that Azure confirmed keep their place.
    let mut admitted: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    let mut order = bindings.to_vec();
    order.sort_by_key(|binding| !was_confirmed(binding));
    order
        .into_iter()
        .map(|binding| {
            let acceptance = match identities.get(binding.identity_name().as_ref()) {
                Some(identity) => authorize_one(namespace, binding, identity, &mut admitted),
                None => refused(Reason::ManagedIdentityNotFound, not_found(binding)),
            };
            (binding.name_any(), acceptance)
        })
        .collect()
}

fn authorize_one<'a>(
    namespace: &NamespaceFacts<'_>,
    binding: &'a ManagedIdentityBinding,
    identity: &IdentityFacts<'a>,
    admitted: &mut BTreeMap<(&'a str, &'a str), BTreeSet<&'a str>>,
) -> Acceptance {
    let object = identity.object;
    let name = binding.spec.identity_ref.name.as_str();
    if object.metadata.deletion_timestamp.is_some() {
        return refused(Reason::ManagedIdentityNotFound, format!("ManagedIdentity {name} is being deleted"));
    }
    if !identity.accepted.holds() {
        let message = format!("ManagedIdentity {name} is not accepted itself: {}", identity.accepted.message);
        return refused(Reason::ManagedIdentityNotAccepted, message);
    }
    if was_confirmed(binding) && mutants::active(Mutant::GrantNotRechecked) {
        let grant = Some("once".to_owned());
        return Acceptance { verdict: Verdict::good(Reason::Accepted, ""), grant };
    }
    let account = binding.spec.service_account_name.as_str();
    let subject = Subject::new(namespace.name, account);
    let covering: Vec<_> = grants::covering(&object.spec.allowed_subjects, &subject, namespace.labels)
        .map(|grant| grant.name.as_str())
        .collect();
    let covering = object.spec.allowed_subjects.iter().filter(|grant| covering.contains(&grant.name.as_str()));
    let mut used_up = None;
    for grant in covering {
        let subjects = admitted.entry((name, grant.name.as_str())).or_default();
        let room = grant.max_per_namespace.is_none_or(|limit| subjects.len() < limit as usize);
        if room || subjects.contains(account) {
            let expiration = binding.spec.injection.token_expiration_seconds;
            let longest = object.spec.max_token_expiration_seconds;
            if expiration > longest {
                return refused(
                    Reason::TokenExpirationTooLong,
                    format!(
                        "spec.injection.tokenExpirationSeconds is {expiration}, but ManagedIdentity {name} allows at most {longest}: lower it, or a cluster operator has to raise spec.maxTokenExpirationSeconds"
                    ),
                );
            }
            subjects.insert(account);
            let message = format!("allowed by entry {} of ManagedIdentity {name}", grant.name);
            return Acceptance { verdict: Verdict::good(Reason::Accepted, message), grant: Some(grant.name.clone()) };
        }
        used_up.get_or_insert(grant);
    }
    let message = match used_up {
        Some(grant) => grants::used_up(name, grant, namespace.name),
        None => grants::refusal(name, &subject),
    };
    refused(Reason::NotAllowed, message)
}

fn refused(reason: Reason, message: String) -> Acceptance {
    Acceptance { verdict: Verdict::bad(reason, message), grant: None }
}

fn was_confirmed(binding: &ManagedIdentityBinding) -> bool {
    binding
        .status
        .as_ref()
        .is_some_and(|status| status.credential.is_some() && is_true(&status.conditions, ConditionType::Accepted))
}

fn not_found(binding: &ManagedIdentityBinding) -> String {
    let name = &binding.spec.identity_ref.name;
    format!(
        "ManagedIdentity {name} does not exist: a cluster operator has to create it, or create a new binding that names another (see `kubectl get managedidentities`)"
    )
}

fn conflict_message(winner: &ManagedIdentityBinding, binding: &ManagedIdentityBinding, clash: Clash) -> String {
    let winner = winner.name_any();
    match clash {
        Clash::ClientIdEnv => format!(
            "binding {winner} is older and writes {} into the same containers for another identity: set another spec.injection.clientIDEnv, or narrow podSelector or containers, in a new binding",
            binding.spec.injection.client_id_env
        ),
        Clash::TokenExpiration => format!(
            "binding {winner} is older and can match the same pods with another spec.injection.tokenExpirationSeconds, but a pod has one token: use the same value in both, or narrow podSelector"
        ),
    }
}

#[cfg(test)]
#[path = "acceptance_tests.rs"]
mod tests;
