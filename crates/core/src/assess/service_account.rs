//! `annotateServiceAccount`: who may annotate, with what, and the condition that says how it went.

use kube::ResourceExt;

use super::Context;
use crate::acceptance::age_key;
use ensign_api::conditions::{ConditionType, Reason, Verdict, find};
use ensign_api::{ManagedIdentityBinding, ManagedIdentityBindingStatus};

/// Annotation that tools of azure-workload-identity read the client ID from.
pub const CLIENT_ID_ANNOTATION: &str = "azure.workload.identity/client-id";
/// Annotation that tools of azure-workload-identity read the tenant from.
pub const TENANT_ID_ANNOTATION: &str = "azure.workload.identity/tenant-id";

/// What the service account of a binding should carry of Ensign's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Annotations {
    /// These values.
    Present {
        /// The client ID.
        client_id: String,
        /// The tenant.
        tenant_id: String,
    },
    /// Nothing any more.
    Absent,
}

/// How it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Annotated {
    /// The service account is as it should be.
    Done,
    /// There is no such service account.
    NoServiceAccount,
    /// Another field manager owns the annotations with other values.
    Clash(String),
}

/// What the binding's service account should carry; `None` when the binding never asked.
pub(super) fn wish(
    context: &Context<'_>,
    namespace: &str,
    binding: &ManagedIdentityBinding,
    after: &ManagedIdentityBindingStatus,
) -> Option<Annotations> {
    let asked_before = binding
        .status
        .as_ref()
        .is_some_and(|status| find(&status.conditions, ConditionType::ServiceAccountAnnotated).is_some());
    let living = binding.metadata.deletion_timestamp.is_none();
    let values = after.client_id.clone().zip(after.tenant_id.clone());
    match values.filter(|_| living && asks(binding)) {
        Some(_) if winner(context, namespace, binding).is_some() => None,
        Some((client_id, tenant_id)) => Some(Annotations::Present { client_id, tenant_id }),
        // Another binding may annotate the same service account: then there is nothing to take away.
        None if asked_before && winner(context, namespace, binding).is_none() => Some(Annotations::Absent),
        None => None,
    }
}

/// The condition `ServiceAccountAnnotated`, for an accepted binding that asks for it.
pub(super) fn verdict(context: &Context<'_>, namespace: &str, binding: &ManagedIdentityBinding) -> Option<Verdict> {
    if !asks(binding) {
        return None;
    }
    let account = &binding.spec.service_account_name;
    if let Some(winner) = winner(context, namespace, binding) {
        return Some(Verdict::bad(
            Reason::AnnotationConflict,
            format!("binding {winner} is older and annotates service account {account} already"),
        ));
    }
    let key = (namespace.to_owned(), binding.name_any());
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

fn asks(binding: &ManagedIdentityBinding) -> bool {
    binding.spec.injection.annotate_service_account
}

/// The older accepted binding that annotates the same service account.
fn winner(context: &Context<'_>, namespace: &str, binding: &ManagedIdentityBinding) -> Option<String> {
    let facts = context.snapshot.namespaces.get(namespace)?;
    let accepted = |rival: &ManagedIdentityBinding| {
        context.acceptance(namespace, rival).is_some_and(|acceptance| acceptance.verdict.holds())
    };
    let mine = age_key(binding);
    let losing = binding.metadata.deletion_timestamp.is_some() || !accepted(binding);
    facts
        .bindings
        .iter()
        .filter(|rival| rival.name_any() != binding.name_any())
        .filter(|rival| rival.spec.service_account_name == binding.spec.service_account_name)
        .filter(|rival| asks(rival) && accepted(rival) && (losing || age_key(rival) < mine))
        .map(|rival| rival.name_any())
        .next()
}
