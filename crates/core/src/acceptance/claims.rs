//! Identities of their own: which binding gets one, under which name, and whose it is when its binding is gone.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use sha2::{Digest, Sha256};

use crate::credentials::names::{cluster_tag, hex, safe};
use ensign_api::conditions::{Reason, Verdict};
use ensign_api::{
    AllowedSubject, ClaimRef, IfExists, MAX_TOKEN_EXPIRATION_SECONDS, ManagedIdentity, ManagedIdentityBinding,
    ManagedIdentityClass, ManagedIdentitySpec, ProvisionedIdentity, ReclaimPolicy, ServiceAccountPattern,
};

/// Longest name of an identity in Azure, in characters.
const MAX_NAME: usize = 128;
const HASH_LENGTH: usize = 16;
/// Longest part that stands for a namespace or a binding.
const MAX_PART: usize = 48;
/// The one grant of an identity that was made for a binding.
const GRANT: &str = "claim";

/// The classes that bindings of a namespace reference, and what was made of them.
#[derive(Clone, Debug, Default)]
pub struct Classes<'a> {
    /// Classes that exist, by name.
    pub known: BTreeMap<&'a str, &'a ManagedIdentityClass>,
    /// How many identities there are for the namespace, by class: those of bindings that are gone, too.
    pub made: BTreeMap<&'a str, u32>,
}

/// Whether the one binding that an identity is for exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimState {
    /// The identity is for no binding in particular.
    None,
    /// It exists.
    Bound,
    /// It is gone; another of its name does not count.
    Gone,
}

/// Whether the binding that the identity is for is among those of its namespace.
pub fn claim<'a>(
    object: &ManagedIdentity,
    bindings: impl FnOnce(&str) -> Vec<&'a ManagedIdentityBinding>,
) -> ClaimState {
    let Some(claim) = &object.spec.claim_ref else { return ClaimState::None };
    let found = bindings(&claim.namespace).into_iter().any(|binding| is_claimant(claim, &claim.namespace, binding));
    if found { ClaimState::Bound } else { ClaimState::Gone }
}

/// Whether the claim is this very binding's.
pub fn is_claimant(claim: &ClaimRef, namespace: &str, binding: &ManagedIdentityBinding) -> bool {
    let same_uid = binding.metadata.uid.as_ref() == Some(&claim.uid);
    claim.namespace == namespace && claim.name == binding.name_any() && same_uid
}

/// Why the identity does not serve the binding, if so.
pub fn mismatch(object: &ManagedIdentity, namespace: &str, binding: &ManagedIdentityBinding) -> Option<Verdict> {
    let name = object.name_any();
    let message = match &object.spec.claim_ref {
        Some(claim) if is_claimant(claim, namespace, binding) => return None,
        Some(_) => format!(
            "ManagedIdentity {name} is for another binding (spec.claimRef names it by its UID): make a binding on a ManagedIdentityClass to get an identity of its own, or a cluster operator has to remove spec.claimRef from ManagedIdentity {name} once that binding is gone"
        ),
        None if binding.class_name().is_none() => return None,
        None => format!(
            "ManagedIdentity {name} was made for this binding, but a cluster operator has removed its spec.claimRef: make a new binding to get another identity, or one that references ManagedIdentity {name} by name"
        ),
    };
    Some(Verdict::bad(Reason::ClaimMismatch, message))
}

/// The condition `Claimed`.
pub fn claimed(object: &ManagedIdentity, claim: ClaimState) -> Option<Verdict> {
    let reference = object.spec.claim_ref.as_ref()?;
    let binding = format!("ManagedIdentityBinding {}/{} (UID {})", reference.namespace, reference.name, reference.uid);
    Some(match claim {
        ClaimState::None => return None,
        ClaimState::Bound => Verdict::good(Reason::Bound, format!("{binding} has the identity")),
        ClaimState::Gone if reclaims(object) => {
            Verdict::bad(Reason::Deleting, format!("{binding} is gone, and the identity goes with it"))
        }
        ClaimState::Gone => Verdict::bad(
            Reason::Released,
            format!(
                "{binding} is gone, and the identity stays; it serves no other binding. A cluster operator has to delete this object, or to remove spec.claimRef to use the identity again"
            ),
        ),
    })
}

/// Whether the object goes when its binding is gone.
pub fn reclaims(object: &ManagedIdentity) -> bool {
    object.spec.provision.as_ref().is_some_and(|spec| spec.reclaim_policy == ReclaimPolicy::Delete)
}

/// The limit of a class on identities for one namespace, when it is reached.
pub fn used_up(class: &ManagedIdentityClass, namespace: &str) -> Verdict {
    let (name, limit) = (class.name_any(), class.spec.max_per_namespace);
    let message = format!(
        "ManagedIdentityClass {name} allows {limit} identities for namespace {namespace}, and there are as many (see `kubectl get mi --field-selector spec.claimRef.namespace={namespace}`): delete a binding on the class, or a cluster operator has to delete identities that are Released, or raise spec.maxPerNamespace"
    );
    Verdict::bad(Reason::NotAllowed, message)
}

/// The class does not exist.
pub fn class_not_found(class: &str) -> Verdict {
    let message = format!(
        "ManagedIdentityClass {class} does not exist: a cluster operator has to create it, or create a new binding that names another (see `kubectl get managedidentityclasses`)"
    );
    Verdict::bad(Reason::ManagedIdentityClassNotFound, message)
}

/// The binding gets an identity of its own.
pub fn about_to_be_made(class: &str, grant: &AllowedSubject) -> Verdict {
    let message = format!(
        "allowed by entry {} of ManagedIdentityClass {class}; a ManagedIdentity is about to be made for the binding",
        grant.name
    );
    Verdict::unknown(Reason::Pending, message)
}

/// The binding would get an identity of its own, but the API server refuses the object, in these words.
pub fn not_made(class: &str, refusal: &str) -> Verdict {
    let message = format!(
        "allowed by ManagedIdentityClass {class}, but the API server refuses the ManagedIdentity for the binding ({refusal}): whoever runs Ensign has to let its controller create and delete ManagedIdentities (identityClasses in the values of its chart), or to cure what the refusal names"
    );
    Verdict::bad(Reason::ProvisioningFailed, message)
}

/// The object that the binding gets. It serves this very binding, and nobody else.
pub fn identity_for(
    namespace: &str,
    binding: &ManagedIdentityBinding,
    class: &ManagedIdentityClass,
    cluster_id: &str,
) -> ManagedIdentity {
    let provision = &class.spec.provision;
    let uid = binding.metadata.uid.clone().unwrap_or_default();
    let claim = ClaimRef { namespace: namespace.to_owned(), name: binding.name_any(), uid };
    ManagedIdentity {
        metadata: ObjectMeta { name: Some(binding.identity_name().into_owned()), ..ObjectMeta::default() },
        spec: ManagedIdentitySpec {
            existing: None,
            provision: Some(ProvisionedIdentity {
                subscription_id: provision.subscription_id.clone(),
                resource_group: provision.resource_group.clone(),
                location: provision.location.clone(),
                name: azure_name(&provision.name_template, cluster_id, &claim),
                tags: provision.tags.clone(),
                isolation_scope: provision.isolation_scope,
                if_exists: IfExists::Refuse,
                reclaim_policy: class.spec.reclaim_policy,
            }),
            allowed_subjects: vec![AllowedSubject {
                name: GRANT.to_owned(),
                namespace: Some(namespace.to_owned()),
                namespace_selector: None,
                service_accounts: vec![ServiceAccountPattern(binding.spec.service_account_name.clone())],
                max_per_namespace: None,
            }],
            claim_ref: Some(claim),
            class_name: Some(class.name_any()),
            max_token_expiration_seconds: MAX_TOKEN_EXPIRATION_SECONDS,
            role_assignments: class.spec.role_assignments.clone(),
        },
        status: None,
    }
}

/// The name of the identity in Azure: what the template says for people, shortened where it is long, and a hash over the
/// cluster, the namespace, the binding and its UID, each with its length, which is never cut.
pub fn azure_name(template: &str, cluster_id: &str, claim: &ClaimRef) -> String {
    let mut hash = Sha256::new();
    for part in [cluster_id, &claim.namespace, &claim.name, &claim.uid] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let part = |text: &str| safe(text).chars().take(MAX_PART).collect::<String>();
    let filled = template
        .replace("{cluster}", &cluster_tag(cluster_id))
        .replace("{namespace}", &part(&claim.namespace))
        .replace("{binding}", &part(&claim.name));
    // The schema leaves nothing else in a template; Azure would refuse it.
    let readable: String = filled
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' })
        .skip_while(|c| !c.is_ascii_alphanumeric())
        .take(MAX_NAME - HASH_LENGTH - 1)
        .collect();
    let readable = if readable.is_empty() { "ensign" } else { &readable };
    format!("{readable}-{}", hex(&hash.finalize(), HASH_LENGTH))
}

#[cfg(test)]
#[path = "claims_tests.rs"]
mod tests;
