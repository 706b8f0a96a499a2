//! Dedicated identities: which binding gets one, its name, and what happens to it when the binding is deleted.

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
/// Longest part for a namespace or a binding, in characters.
const MAX_PART: usize = 48;
/// Name of the only grant of a dedicated identity.
const GRANT: &str = "claim";

/// The classes that bindings of a namespace reference, and how many identities were created from them.
#[derive(Clone, Debug, Default)]
pub struct Classes<'a> {
    /// Classes that exist, by name.
    pub known: BTreeMap<&'a str, &'a ManagedIdentityClass>,
    /// Number of identities for the namespace, by class, including those whose binding was deleted.
    pub made: BTreeMap<&'a str, u32>,
}

/// Whether the binding that an identity is reserved for exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimState {
    /// The identity is not reserved for a binding.
    None,
    /// The binding exists.
    Bound,
    /// The binding was deleted; a new one of the same name does not count.
    Deleted,
}

/// Whether the claimed binding exists; `bindings` returns the bindings of a namespace.
pub fn claim<'a>(
    object: &ManagedIdentity,
    bindings: impl FnOnce(&str) -> Vec<&'a ManagedIdentityBinding>,
) -> ClaimState {
    let Some(claim) = &object.spec.claim_ref else { return ClaimState::None };
    let found = bindings(&claim.namespace).into_iter().any(|binding| is_claimant(claim, &claim.namespace, binding));
    if found { ClaimState::Bound } else { ClaimState::Deleted }
}

/// Whether the claim names this binding, by namespace, name and UID.
pub fn is_claimant(claim: &ClaimRef, namespace: &str, binding: &ManagedIdentityBinding) -> bool {
    let same_uid = binding.metadata.uid.as_ref() == Some(&claim.uid);
    claim.namespace == namespace && claim.name == binding.name_any() && same_uid
}

/// Why the identity can't serve the binding; `None` if it can.
pub fn mismatch(object: &ManagedIdentity, namespace: &str, binding: &ManagedIdentityBinding) -> Option<Verdict> {
    let name = object.name_any();
    let message = match &object.spec.claim_ref {
        Some(claim) if is_claimant(claim, namespace, binding) => return None,
        Some(_) => format!(
            "ManagedIdentity {name} belongs to another binding (whose UID is in spec.claimRef): create a binding that references a ManagedIdentityClass to get a dedicated identity, or a cluster operator has to remove spec.claimRef from ManagedIdentity {name} once that binding is deleted"
        ),
        None if binding.class_name().is_none() => return None,
        None => format!(
            "ManagedIdentity {name} was created for this binding, but a cluster operator removed its spec.claimRef: create a new binding to get another identity, or one that references ManagedIdentity {name} by name"
        ),
    };
    Some(Verdict::bad(Reason::ClaimMismatch, message))
}

/// The condition `Claimed`; `None` if the identity is not reserved for a binding.
pub fn claimed(object: &ManagedIdentity, claim: ClaimState) -> Option<Verdict> {
    let reference = object.spec.claim_ref.as_ref()?;
    let binding = format!("ManagedIdentityBinding {}/{} (UID {})", reference.namespace, reference.name, reference.uid);
    Some(match claim {
        ClaimState::None => return None,
        ClaimState::Bound => Verdict::good(Reason::Bound, format!("the identity belongs to {binding}")),
        ClaimState::Deleted if reclaims(object) => {
            Verdict::bad(Reason::Deleting, format!("{binding} was deleted, so the identity is deleted too"))
        }
        ClaimState::Deleted => Verdict::bad(
            Reason::Released,
            format!(
                "{binding} was deleted, and the identity is kept; it serves no other binding. A cluster operator has to delete this object, or remove spec.claimRef to use the identity again"
            ),
        ),
    })
}

/// Whether the identity in Azure is deleted with the object, and the object with its binding.
pub fn reclaims(object: &ManagedIdentity) -> bool {
    object.spec.provision.as_ref().is_some_and(|spec| spec.reclaim_policy == ReclaimPolicy::Delete)
}

/// The class's limit on identities for the namespace is reached.
pub fn used_up(class: &ManagedIdentityClass, namespace: &str) -> Verdict {
    let (name, limit) = (class.name_any(), class.spec.max_per_namespace);
    let message = format!(
        "ManagedIdentityClass {name} allows {limit} identities for namespace {namespace}, and all of them are used (see `kubectl get mi --field-selector spec.claimRef.namespace={namespace}`): delete a binding that references the class, or a cluster operator has to delete identities that are Released, or raise spec.maxPerNamespace"
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

/// The binding is allowed and waits for its dedicated identity.
pub fn identity_pending(class: &str, grant: &AllowedSubject) -> Verdict {
    let message = format!(
        "allowed by entry {} of ManagedIdentityClass {class}; a ManagedIdentity is about to be created for the binding",
        grant.name
    );
    Verdict::unknown(Reason::Pending, message)
}

/// The binding is allowed, but the API server rejects its `ManagedIdentity`; `error` is the server's message.
pub fn creation_rejected(class: &str, error: &str) -> Verdict {
    let message = format!(
        "allowed by ManagedIdentityClass {class}, but the API server rejects the ManagedIdentity for the binding ({error}): an administrator of Ensign has to let the controller create and delete ManagedIdentities (identityClasses: true in the chart), or fix what the error reports"
    );
    Verdict::bad(Reason::ProvisioningFailed, message)
}

/// The `ManagedIdentity` to create for the binding; it serves only this binding.
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

/// The name of the identity in Azure: the filled-in template, truncated if too long, and a hash of the cluster, the
/// namespace, the binding and its UID, each with its length. The hash is never truncated.
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
    // The CRD's schema allows no other characters in a template; Azure would reject them.
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
