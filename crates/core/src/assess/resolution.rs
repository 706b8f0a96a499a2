//! Resolves the identity in Azure that a `ManagedIdentity` names.

use std::collections::BTreeMap;

use super::inputs::{Observed, Settings};
use crate::acceptance::identities;
use crate::provisioning::AzureIdentity;
use ensign_api::conditions::{Reason, Verdict};
use ensign_api::{ArmId, CredentialPolicy, ManagedIdentity};

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

/// The ARM ID of the identity that the owner names; `None` without an owner, or if its spec is invalid.
pub(super) fn usable_arm_id(owner: Option<&ManagedIdentity>) -> Option<ArmId> {
    identities::arm_id(owner?).ok()
}

/// Whether Ensign may write under the identity.
pub(super) fn writes(object: &ManagedIdentity) -> bool {
    object.credential_policy() == CredentialPolicy::Manage
}
