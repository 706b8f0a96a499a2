//! Which bindings of a namespace are accepted.
//!
//! Everything that this depends on is local to the namespace: its bindings, the identities that they reference, and
//! its labels. So each reconcile that concerns the namespace comes to the same answer.

pub mod claims;
pub mod conflicts;
pub mod grants;
pub mod identities;
pub mod scopes;

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt;

use self::claims::Classes;
use self::conflicts::{Clash, clash};
use crate::credentials::names::Subject;
use ensign_api::conditions::{ConditionType, Reason, Verdict, is_true};
use ensign_api::{AllowedSubject, ManagedIdentity, ManagedIdentityBinding};

/// A namespace as far as acceptance goes.
#[derive(Clone, Debug)]
pub struct NamespaceFacts<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its labels.
    pub labels: &'a BTreeMap<String, String>,
    /// Every binding in it.
    pub bindings: Vec<&'a ManagedIdentityBinding>,
    /// The classes that they reference.
    pub classes: &'a Classes<'a>,
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

impl Acceptance {
    /// Whether the binding only waits for an identity that is to be made for it.
    pub fn may_have_one_made(&self) -> bool {
        self.grant.is_some() && self.verdict.status.is_none()
    }
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
        // One that waits for its identity has its place already: it must not win later what a younger one has by then.
        let competes = |found: &&mut Acceptance| found.verdict.holds() || found.may_have_one_made();
        let Some(acceptance) = decided.get_mut(&binding.name_any()).filter(competes) else {
            continue;
        };
        let winner = winners.iter().find_map(|winner| {
            let same_account = winner.spec.service_account_name == binding.spec.service_account_name;
            clash(winner, binding).filter(|_| same_account).map(|clash| (winner, clash))
        });
        match winner {
            Some((winner, clash)) => {
                acceptance.verdict = Verdict::bad(Reason::Conflict, conflict_message(winner, binding, clash));
                acceptance.grant = None;
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

/// Subjects that each grant admits already, by its holder and its name, and identities that are still to be made, by class.
#[derive(Default)]
struct Places<'a> {
    admitted: BTreeMap<(Holder<'a>, &'a str), BTreeSet<&'a str>>,
    asked: BTreeMap<&'a str, u32>,
}

/// Which object has a grant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Holder<'a> {
    Identity(&'a str),
    Class(&'a str),
}

impl std::fmt::Display for Holder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Identity(name) => write!(f, "ManagedIdentity {name}"),
            Self::Class(name) => write!(f, "ManagedIdentityClass {name}"),
        }
    }
}

impl<'a> Places<'a> {
    /// The first grant of the holder that covers the subject and has a place for it, or why there is none.
    fn find(
        &mut self,
        holder: Holder<'a>,
        allowed: &'a [AllowedSubject],
        (namespace, account): (&NamespaceFacts<'_>, &'a str),
    ) -> Result<&'a AllowedSubject, Acceptance> {
        let subject = Subject::new(namespace.name, account);
        let mut used_up = None;
        for grant in allowed.iter().filter(|grant| grants::covers(grant, &subject, namespace.labels)) {
            let subjects = self.admitted.entry((holder, grant.name.as_str())).or_default();
            let room = grant.max_per_namespace.is_none_or(|limit| subjects.len() < limit as usize);
            if room || subjects.contains(account) {
                return Ok(grant);
            }
            used_up.get_or_insert(grant);
        }
        let message = match used_up {
            Some(grant) => grants::used_up(&holder.to_string(), grant, namespace.name),
            None => grants::refusal(&holder.to_string(), &subject),
        };
        Err(refused(Reason::NotAllowed, message))
    }

    fn take(&mut self, holder: Holder<'a>, grant: &'a AllowedSubject, account: &'a str) {
        self.admitted.entry((holder, grant.name.as_str())).or_default().insert(account);
    }
}

fn authorize<'a>(
    namespace: &NamespaceFacts<'a>,
    bindings: &[&'a ManagedIdentityBinding],
    identities: &BTreeMap<&str, IdentityFacts<'a>>,
) -> BTreeMap<String, Acceptance> {
    // Those that Azure confirmed keep their place.
    let mut places = Places::default();
    let mut order = bindings.to_vec();
    order.sort_by_key(|binding| !was_confirmed(binding));
    order
        .into_iter()
        .map(|binding| {
            let acceptance = match identities.get(binding.identity_name().as_ref()) {
                Some(identity) => authorize_one(namespace, binding, identity, &mut places),
                None => match binding.class_name() {
                    Some(class) => ask(namespace, binding, class, &mut places),
                    None => refused(Reason::ManagedIdentityNotFound, not_found(binding)),
                },
            };
            (binding.name_any(), acceptance)
        })
        .collect()
}

fn authorize_one<'a>(
    namespace: &NamespaceFacts<'a>,
    binding: &'a ManagedIdentityBinding,
    identity: &IdentityFacts<'a>,
    places: &mut Places<'a>,
) -> Acceptance {
    let object = identity.object;
    let name = object.metadata.name.as_deref().unwrap_or_default();
    if object.metadata.deletion_timestamp.is_some() {
        return refused(Reason::ManagedIdentityNotFound, format!("ManagedIdentity {name} is being deleted"));
    }
    if let Some(verdict) = claims::mismatch(object, namespace.name, binding) {
        return Acceptance { verdict, grant: None };
    }
    if !identity.accepted.holds() {
        let message = format!("ManagedIdentity {name} is not accepted itself: {}", identity.accepted.message);
        return refused(Reason::ManagedIdentityNotAccepted, message);
    }
    let account = binding.spec.service_account_name.as_str();
    let own = Holder::Identity(name);
    let grant = match places.find(own, &object.spec.allowed_subjects, (namespace, account)) {
        Ok(grant) => grant,
        Err(refusal) => return refusal,
    };
    // Who may use a class is asked anew each time. Identities of a class that is gone live on with the grant of their own.
    let class = binding.class_name().and_then(|class| namespace.classes.known.get(class).copied());
    let of_class = match class.and_then(|class| Some((class.metadata.name.as_deref()?, class))) {
        Some((class_name, class)) => {
            let holder = Holder::Class(class_name);
            match places.find(holder, &class.spec.allowed_subjects, (namespace, account)) {
                Ok(grant) => Some((holder, grant)),
                Err(refusal) => return refusal,
            }
        }
        None => None,
    };
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
    places.take(own, grant, account);
    let (holder, grant) = of_class.unwrap_or((own, grant));
    places.take(holder, grant, account);
    let message = format!("allowed by entry {} of {holder}", grant.name);
    Acceptance { verdict: Verdict::good(Reason::Accepted, message), grant: Some(grant.name.clone()) }
}

/// A binding on a class, for which there is no identity yet.
fn ask<'a>(
    namespace: &NamespaceFacts<'a>,
    binding: &'a ManagedIdentityBinding,
    class_name: &'a str,
    places: &mut Places<'a>,
) -> Acceptance {
    let Some(class) = namespace.classes.known.get(class_name).copied() else {
        return Acceptance { verdict: claims::class_not_found(class_name), grant: None };
    };
    let account = binding.spec.service_account_name.as_str();
    let holder = Holder::Class(class_name);
    let grant = match places.find(holder, &class.spec.allowed_subjects, (namespace, account)) {
        Ok(grant) => grant,
        Err(refusal) => return refusal,
    };
    let made = namespace.classes.made.get(class_name).copied().unwrap_or_default();
    let asked = places.asked.entry(class_name).or_default();
    if made.saturating_add(*asked) >= class.spec.max_per_namespace {
        return Acceptance { verdict: claims::used_up(class, namespace.name), grant: None };
    }
    *asked += 1;
    places.take(holder, grant, account);
    Acceptance { verdict: claims::about_to_be_made(class_name, grant), grant: Some(grant.name.clone()) }
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
mod class_tests;
#[cfg(test)]
mod tests;
