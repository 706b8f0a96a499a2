//! Annotates the service accounts of bindings that request it, by server-side apply.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::ResourceExt;
use kube::api::{Api, PartialObjectMeta};

use crate::error::ReconcileError;
use crate::kube_request::{KubeError, within_deadline};
use crate::writers::kubernetes::{FIELD_MANAGER, KubeWriter};
use ensign_core::assess::{Annotated, Annotations, CLIENT_ID_ANNOTATION, TENANT_ID_ANNOTATION};

/// Brings the service account's annotations in sync; writes only if they differ.
pub(crate) async fn annotate(
    writer: &KubeWriter,
    namespace: &str,
    name: &str,
    desired: &Annotations,
) -> Result<Annotated, ReconcileError> {
    let api: Api<PartialObjectMeta<ServiceAccount>> = Api::namespaced(writer.client().clone(), namespace);
    let act = || format!("reading ServiceAccount {namespace}/{name}");
    let Some(account) = within_deadline(act, api.get_opt(name)).await? else {
        return Ok(Annotated::NoServiceAccount);
    };
    let desired = match desired {
        Annotations::Present { client_id, tenant_id } => BTreeMap::from([
            (CLIENT_ID_ANNOTATION.to_owned(), client_id.clone()),
            (TENANT_ID_ANNOTATION.to_owned(), tenant_id.clone()),
        ]),
        Annotations::Absent => BTreeMap::new(),
    };
    let ours = account.managed_fields().iter().any(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER));
    let in_place = desired.iter().all(|(key, value)| account.annotations().get(key) == Some(value));
    if in_place && ours != desired.is_empty() {
        return Ok(Annotated::Done);
    }
    match writer.annotate_service_account(&account, &desired).await {
        Ok(()) => Ok(Annotated::Done),
        Err(error) => match error.kubernetes().and_then(KubeError::field_conflict) {
            Some(text) => Ok(Annotated::Clash(text)),
            None => Err(error),
        },
    }
}
