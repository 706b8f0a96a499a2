//! Pods of azure-workload-identity, admitted as its webhook admits them, so that a cluster can switch without changing
//! its manifests.
//!
//! A pod with the upstream label is injected from the annotations of its service account. They count as one more binding,
//! the youngest: a `ManagedIdentityBinding` for the same variable wins. Either way, the pod keeps what it may rely on: the
//! name of its volume, its skipped containers and its paths.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::binding::{Binding, BindingReadiness, Origin};
pub use super::config::Compatibility;
use super::config::Config;
use super::decision::{self, Decision};
use super::denial::{self, Denial};
use super::inject_label::InjectLabel;
use super::pod::Pod;
pub use super::upstream_keys::{EXPIRATION_ANNOTATION, PROXY_ANNOTATION, SKIP_CONTAINERS_ANNOTATION, USE_LABEL};
pub use super::upstream_pod::asks;
use crate::assess::{CLIENT_ID_ANNOTATION, TENANT_ID_ANNOTATION};
use crate::pods::gate::Start;
use ensign_api::keys::ENV_CLIENT_ID;
use ensign_api::{ContainerFilter, InjectionMode, MAX_TOKEN_EXPIRATION_SECONDS, MIN_TOKEN_EXPIRATION_SECONDS};

/// Stands in for the name of the identity, which annotations do not have.
const ANNOTATIONS: &str = "Annotations";

/// A pod's service account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Account {
    /// It does not exist.
    Missing,
    /// It exists.
    Present(Annotations),
}

/// The annotations of a service account that admission reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations {
    client_id: Option<Arc<str>>,
    tenant_id: Option<Arc<str>>,
    expiration: Option<Arc<str>>,
}

impl Annotations {
    /// A copy whose strings come from `share`, which interns them: many service accounts have the same ones.
    #[must_use]
    pub fn shared(&self, mut share: impl FnMut(&str) -> Arc<str>) -> Self {
        let mut shared = |value: &Option<Arc<str>>| value.as_deref().map(&mut share);
        Self {
            client_id: shared(&self.client_id),
            tenant_id: shared(&self.tenant_id),
            expiration: shared(&self.expiration),
        }
    }

    /// Whether admission reads an annotation of this name.
    pub fn has(key: &str) -> bool {
        [CLIENT_ID_ANNOTATION, TENANT_ID_ANNOTATION, EXPIRATION_ANNOTATION].contains(&key)
    }

    /// Whether they contain a client ID.
    pub fn name_a_client_id(&self) -> bool {
        self.client_id.as_ref().is_some_and(|id| !id.is_empty())
    }

    /// Total length of the values, in bytes.
    pub fn size(&self) -> usize {
        [&self.client_id, &self.tenant_id, &self.expiration].into_iter().flatten().map(|value| value.len()).sum()
    }
}

impl From<&BTreeMap<String, String>> for Annotations {
    fn from(all: &BTreeMap<String, String>) -> Self {
        let value = |key| all.get(key).map(|value| Arc::from(value.as_str()));
        Self {
            client_id: value(CLIENT_ID_ANNOTATION),
            tenant_id: value(TENANT_ID_ANNOTATION),
            expiration: value(EXPIRATION_ANNOTATION),
        }
    }
}

/// Decides about a pod for which [`asks`] is true, given its service account and every binding in its namespace for it.
pub fn admit(
    pod: &Pod<'_>,
    namespace: &str,
    bindings: &[Arc<Binding>],
    account: &Account,
    config: &Config,
) -> Decision {
    let Some(compatibility) = &config.compatibility else { return decision::admit(pod, namespace, bindings, config) };
    match annotations_as_binding(pod, account, compatibility) {
        Ok(annotated) => {
            let all: Vec<_> = bindings.iter().cloned().chain(annotated.map(Arc::new)).collect();
            decision::admit(pod, namespace, &all, config)
        }
        Err(denial) => Decision::Deny(denial),
    }
}

/// The annotations of the service account as a binding; `None` if the pod requires a client ID and they have none.
fn annotations_as_binding(
    pod: &Pod<'_>,
    account: &Account,
    compatibility: &Compatibility,
) -> Result<Option<Binding>, Denial> {
    let name = pod.service_account();
    if pod.annotations().is_some_and(|annotations| annotations.proxy) {
        return Err(denial::proxy_sidecar());
    }
    let Account::Present(annotations) = account else { return Err(denial::no_service_account(name)) };
    let token_expiration_seconds = expiration(pod, annotations)?;
    if InjectLabel::of(pod) == InjectLabel::Required && !annotations.name_a_client_id() {
        return Ok(None);
    }
    Ok(Some(Binding {
        name: format!("ServiceAccount/{name}").into(),
        service_account: name.into(),
        identity: ANNOTATIONS.into(),
        readiness: BindingReadiness::Resolved {
            client_id: annotations.client_id.clone().unwrap_or_default(),
            tenant_id: annotations.tenant_id.clone().unwrap_or_else(|| compatibility.tenant_id.as_str().into()),
        },
        origin: Origin::ServiceAccount,
        created: None,
        pod_selector: None,
        mode: InjectionMode::Pods,
        client_id_env: ENV_CLIENT_ID.into(),
        containers: ContainerFilter::default(),
        token_expiration_seconds,
        // Ensign does not know the federated identity credential, so it can't wait for it.
        start: Start::Immediate,
    }))
}

/// Lifetime of the token in seconds: the pod's annotation, otherwise the service account's. An empty value counts as
/// absent.
fn expiration(pod: &Pod<'_>, account: &Annotations) -> Result<u32, Denial> {
    let of_pod = pod.annotations().and_then(|annotations| annotations.expiration.as_deref());
    let of_account = account.expiration.as_deref();
    let values = [("pod", of_pod), ("service account", of_account)];
    let value = values.into_iter().find_map(|(object, value)| Some((object, value.filter(|value| !value.is_empty())?)));
    let Some((object, value)) = value else { return Ok(MIN_TOKEN_EXPIRATION_SECONDS) };
    let seconds = value
        .parse()
        .ok()
        .filter(|seconds| (MIN_TOKEN_EXPIRATION_SECONDS..=MAX_TOKEN_EXPIRATION_SECONDS).contains(seconds));
    seconds.ok_or_else(|| denial::token_expiration(object, value))
}

#[cfg(test)]
#[path = "azure_workload_identity_tests.rs"]
pub(super) mod tests;
