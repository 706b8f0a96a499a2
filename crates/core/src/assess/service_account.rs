//! `annotateServiceAccount`: which binding annotates the service account, with what, and the condition that reports it.

use kube::ResourceExt;

use super::context::Context;
use super::inputs::Annotated;
use super::outcome::Annotations;
use crate::acceptance::age_key;
use ensign_api::conditions::{ConditionType, Reason, Verdict, find};
use ensign_api::{ManagedIdentityBinding, ManagedIdentityBindingStatus, NamespacedName};

/// Annotation from which tools of azure-workload-identity read the client ID.
pub const CLIENT_ID_ANNOTATION: &str = "azure.workload.identity/client-id";
/// Annotation from which tools of azure-workload-identity read the tenant.
pub const TENANT_ID_ANNOTATION: &str = "azure.workload.identity/tenant-id";

/// The desired annotations of the binding's service account; `None` if they are not this binding's to write.
pub(super) fn desired(
    context: &Context<'_>,
    namespace: &str,
    binding: &ManagedIdentityBinding,
    after: &ManagedIdentityBindingStatus,
) -> Option<Annotations> {
    let annotated_before = binding
        .status
        .as_ref()
        .is_some_and(|status| find(&status.conditions, ConditionType::ServiceAccountAnnotated).is_some());
    let exists = binding.metadata.deletion_timestamp.is_none();
    let values = after.client_id.clone().zip(after.tenant_id.clone());
    match values.filter(|_| exists && annotates(binding)) {
        Some(_) if winner(context, namespace, binding).is_some() => None,
        Some((client_id, tenant_id)) => Some(Annotations::Present { client_id, tenant_id }),
        // If another binding annotates the same service account, its annotations stay.
        None if annotated_before && winner(context, namespace, binding).is_none() => Some(Annotations::Absent),
        None => None,
    }
}

/// The condition `ServiceAccountAnnotated`, for an accepted binding with `annotateServiceAccount`.
pub(super) fn verdict(context: &Context<'_>, namespace: &str, binding: &ManagedIdentityBinding) -> Option<Verdict> {
    if !annotates(binding) {
        return None;
    }
    let account = &binding.spec.service_account_name;
    if let Some(winner) = winner(context, namespace, binding) {
        return Some(Verdict::bad(
            Reason::AnnotationConflict,
            format!("binding {winner} is older and already annotates service account {account}"),
        ));
    }
    let key = NamespacedName::new(namespace, binding.name_any());
    Some(match context.observed.annotated.get(&key) {
        Some(Annotated::Done) => Verdict::good(Reason::Annotated, format!("service account {account} is annotated")),
        Some(Annotated::NoServiceAccount) => {
            Verdict::bad(Reason::Pending, format!("service account {account} does not exist yet"))
        }
        Some(Annotated::Clash(who)) => Verdict::bad(
            Reason::AnnotationConflict,
            format!(
                "{who}: remove {CLIENT_ID_ANNOTATION} and {TENANT_ID_ANNOTATION} from service account {account} there, or set annotateServiceAccount: false in a new binding"
            ),
        ),
        None => Verdict::unknown(Reason::Pending, format!("service account {account} is about to be annotated")),
    })
}

fn annotates(binding: &ManagedIdentityBinding) -> bool {
    binding.spec.injection.annotate_service_account
}

/// The accepted binding that annotates the same service account instead of this one: an older one, or any if this one is
/// being deleted or is not accepted.
fn winner(context: &Context<'_>, namespace: &str, binding: &ManagedIdentityBinding) -> Option<String> {
    let facts = context.snapshot.namespaces.get(namespace)?;
    let accepted = |other: &ManagedIdentityBinding| {
        context.acceptance(namespace, other).is_some_and(|acceptance| acceptance.verdict.holds())
    };
    let yields = binding.metadata.deletion_timestamp.is_some() || !accepted(binding);
    facts
        .bindings
        .iter()
        .filter(|other| other.name_any() != binding.name_any())
        .filter(|other| other.spec.service_account_name == binding.spec.service_account_name)
        .filter(|other| annotates(other) && accepted(other) && (yields || age_key(other) < age_key(binding)))
        .map(|other| other.name_any())
        .next()
}
