//! Which bindings of a namespace are accepted.
//!
//! The inputs are local to the namespace: its bindings, the identities and classes that they reference, and its labels. So
//! every reconcile that concerns the namespace comes to the same result.

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

/// The inputs from one namespace.
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

/// A `ManagedIdentity` and whether it is accepted itself.
#[derive(Clone, Debug)]
pub struct IdentityFacts<'a> {
    /// The object.
    pub object: &'a ManagedIdentity,
    /// Its condition `Accepted`.
    pub accepted: Verdict,
}

/// The decision about one binding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acceptance {
    /// The condition `Accepted`.
    pub verdict: Verdict,
    /// The name of the grant, for the audit log.
    pub grant: Option<String>,
}

impl Acceptance {
    /// Whether the binding is allowed and only waits for its dedicated identity to be created.
    pub fn awaits_identity(&self) -> bool {
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
        // A binding that waits for its identity competes already, so that it does not take over from a younger one later.
        let competes = |found: &&mut Acceptance| found.verdict.holds() || found.awaits_identity();
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

/// Sort key: oldest first, then by name.
pub fn age_key(binding: &ManagedIdentityBinding) -> (Option<k8s_openapi::jiff::Timestamp>, String) {
    (binding.metadata.creation_timestamp.as_ref().map(|time| time.0), binding.name_any())
}

/// How much of each limit is used.
#[derive(Default)]
struct Usage<'a> {
    /// Service accounts that a grant admits, by the grant's holder and name.
    admitted: BTreeMap<(Holder<'a>, &'a str), BTreeSet<&'a str>>,
    /// Number of identities that are yet to be created, by class.
    pending: BTreeMap<&'a str, u32>,
}

/// The object that contains a grant.
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

impl<'a> Usage<'a> {
    /// The first grant of the holder that covers the subject and is not used up, or the rejection.
    fn find_grant(
        &mut self,
        holder: Holder<'a>,
        allowed: &'a [AllowedSubject],
        (namespace, account): (&NamespaceFacts<'_>, &'a str),
    ) -> Result<&'a AllowedSubject, Acceptance> {
        let subject = Subject::new(namespace.name, account);
        let mut used_up = None;
        for grant in allowed.iter().filter(|grant| grants::covers(grant, &subject, namespace.labels)) {
            let subjects = self.admitted.entry((holder, grant.name.as_str())).or_default();
            let has_room = grant.max_per_namespace.is_none_or(|limit| subjects.len() < limit as usize);
            if has_room || subjects.contains(account) {
                return Ok(grant);
            }
            used_up.get_or_insert(grant);
        }
        let message = match used_up {
            Some(grant) => grants::used_up(&holder.to_string(), grant, namespace.name),
            None => grants::not_covered(&holder.to_string(), &subject),
        };
        Err(rejected(Reason::NotAllowed, message))
    }

    fn admit(&mut self, holder: Holder<'a>, grant: &'a AllowedSubject, account: &'a str) {
        self.admitted.entry((holder, grant.name.as_str())).or_default().insert(account);
    }
}

fn authorize<'a>(
    namespace: &NamespaceFacts<'a>,
    bindings: &[&'a ManagedIdentityBinding],
    identities: &BTreeMap<&str, IdentityFacts<'a>>,
) -> BTreeMap<String, Acceptance> {
    // Bindings with a confirmed credential come first, so that they are never displaced.
    let mut usage = Usage::default();
    let mut order = bindings.to_vec();
    order.sort_by_key(|binding| !was_confirmed(binding));
    order
        .into_iter()
        .map(|binding| {
            let acceptance = match identities.get(binding.identity_name().as_ref()) {
                Some(identity) => authorize_one(namespace, binding, identity, &mut usage),
                None => match binding.class_name() {
                    Some(class) => authorize_new(namespace, binding, class, &mut usage),
                    None => rejected(Reason::ManagedIdentityNotFound, not_found(binding)),
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
    usage: &mut Usage<'a>,
) -> Acceptance {
    let object = identity.object;
    let name = object.metadata.name.as_deref().unwrap_or_default();
    if object.metadata.deletion_timestamp.is_some() {
        return rejected(Reason::ManagedIdentityNotFound, format!("ManagedIdentity {name} is being deleted"));
    }
    if let Some(verdict) = claims::mismatch(object, namespace.name, binding) {
        return Acceptance { verdict, grant: None };
    }
    if !identity.accepted.holds() {
        let message = format!("ManagedIdentity {name} is not accepted itself: {}", identity.accepted.message);
        return rejected(Reason::ManagedIdentityNotAccepted, message);
    }
    let account = binding.spec.service_account_name.as_str();
    let own = Holder::Identity(name);
    let grant = match usage.find_grant(own, &object.spec.allowed_subjects, (namespace, account)) {
        Ok(grant) => grant,
        Err(rejection) => return rejection,
    };
    // The class's grants are rechecked every time. If the class was deleted, the identity's own grant is enough.
    let class = binding.class_name().and_then(|class| namespace.classes.known.get(class).copied());
    let of_class = match class.and_then(|class| Some((class.metadata.name.as_deref()?, class))) {
        Some((class_name, class)) => {
            let holder = Holder::Class(class_name);
            match usage.find_grant(holder, &class.spec.allowed_subjects, (namespace, account)) {
                Ok(grant) => Some((holder, grant)),
                Err(rejection) => return rejection,
            }
        }
        None => None,
    };
    let expiration = binding.spec.injection.token_expiration_seconds;
    let longest = object.spec.max_token_expiration_seconds;
    if expiration > longest {
        return rejected(
            Reason::TokenExpirationTooLong,
            format!(
                "spec.injection.tokenExpirationSeconds is {expiration}, but ManagedIdentity {name} allows at most {longest}: lower it, or a cluster operator has to raise spec.maxTokenExpirationSeconds"
            ),
        );
    }
    usage.admit(own, grant, account);
    let (holder, grant) = of_class.unwrap_or((own, grant));
    usage.admit(holder, grant, account);
    let message = format!("allowed by entry {} of {holder}", grant.name);
    Acceptance { verdict: Verdict::good(Reason::Accepted, message), grant: Some(grant.name.clone()) }
}

/// A binding that references a class and has no identity yet.
fn authorize_new<'a>(
    namespace: &NamespaceFacts<'a>,
    binding: &'a ManagedIdentityBinding,
    class_name: &'a str,
    usage: &mut Usage<'a>,
) -> Acceptance {
    let Some(class) = namespace.classes.known.get(class_name).copied() else {
        return Acceptance { verdict: claims::class_not_found(class_name), grant: None };
    };
    let account = binding.spec.service_account_name.as_str();
    let holder = Holder::Class(class_name);
    let grant = match usage.find_grant(holder, &class.spec.allowed_subjects, (namespace, account)) {
        Ok(grant) => grant,
        Err(rejection) => return rejection,
    };
    let created = namespace.classes.made.get(class_name).copied().unwrap_or_default();
    let pending = usage.pending.entry(class_name).or_default();
    if created.saturating_add(*pending) >= class.spec.max_per_namespace {
        return Acceptance { verdict: claims::used_up(class, namespace.name), grant: None };
    }
    *pending += 1;
    usage.admit(holder, grant, account);
    Acceptance { verdict: claims::identity_pending(class_name, grant), grant: Some(grant.name.clone()) }
}

fn rejected(reason: Reason, message: String) -> Acceptance {
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
            "binding {winner} is older and sets {} in the same containers to another identity's client ID: use another spec.injection.clientIDEnv, or a narrower podSelector or containers, in a new binding",
            binding.spec.injection.client_id_env
        ),
        Clash::TokenExpiration => format!(
            "binding {winner} is older and can match the same pods with another spec.injection.tokenExpirationSeconds, but a pod has a single token: use the same value in both, or a narrower podSelector"
        ),
    }
}

#[cfg(test)]
mod class_tests;
#[cfg(test)]
mod tests;
