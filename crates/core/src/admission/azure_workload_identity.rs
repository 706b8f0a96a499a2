//! Pods of azure-workload-identity, admitted as its webhook admits them, so that a cluster can switch without touching a
//! manifest.
//!
//! A pod with the upstream's label is injected by the annotations of its service account. They count as one more binding,
//! the youngest: where a `ManagedIdentityBinding` claims the same variable, it wins. Whoever names the identity, the pod
//! keeps what it may rely on: the name of its volume, its skipped containers, its paths.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::binding::{Binding, BindingReadiness, Origin};
use super::denial::{self, Denial};
use super::pod::Pod;
use super::{Config, Decision, Wish, is_exempt};
use crate::assess::{CLIENT_ID_ANNOTATION, TENANT_ID_ANNOTATION};
use crate::credentials::names::hex;
use crate::pods::gate::Start;
use ensign_api::keys::ENV_CLIENT_ID;
use ensign_api::{ContainerFilter, InjectionMode, MAX_TOKEN_EXPIRATION_SECONDS, MIN_TOKEN_EXPIRATION_SECONDS};

/// Pod label that asks for an identity; only the value `true` does.
pub const USE_LABEL: &str = "azure.workload.identity/use";
/// Annotation of pods and service accounts: seconds that the token lives.
pub const EXPIRATION_ANNOTATION: &str = "azure.workload.identity/service-account-token-expiration";
/// Annotation of pods: containers that get nothing, separated by semicolons.
pub const SKIP_CONTAINERS_ANNOTATION: &str = "azure.workload.identity/skip-containers";
/// Annotation of pods: they want the proxy sidecar, whatever the value.
pub const PROXY_ANNOTATION: &str = "azure.workload.identity/inject-proxy-sidecar";

/// What the name of the token volume starts with; policies of clusters match on it.
pub(crate) const VOLUME_PREFIX: &str = "azure-workload-identity-reserved-";
/// How much of the hash the name has: with the prefix, as long as a name may be.
const VOLUME_HASH_DIGITS: usize = 30;
/// What the annotations of a service account stand for where bindings have a name of their identity.
const ANNOTATIONS: &str = "Annotations";

/// What compatibility mode has to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compatibility {
    /// Entra tenant of service accounts that name none.
    pub tenant_id: String,
}

/// A pod's service account, as far as its annotations say something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Account {
    /// It does not exist.
    Missing,
    /// It exists.
    Present(Annotations),
}

/// The annotations of a service account that matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations {
    client_id: Option<Arc<str>>,
    tenant_id: Option<Arc<str>>,
    expiration: Option<Arc<str>>,
}

impl Annotations {
    /// The same, with the texts that `share` hands out because many service accounts have them in common.
    #[must_use]
    pub fn shared(&self, mut share: impl FnMut(&str) -> Arc<str>) -> Self {
        let mut shared = |value: &Option<Arc<str>>| value.as_deref().map(&mut share);
        Self {
            client_id: shared(&self.client_id),
            tenant_id: shared(&self.tenant_id),
            expiration: shared(&self.expiration),
        }
    }

    /// Whether an annotation is one of those that matter.
    pub fn has(key: &str) -> bool {
        [CLIENT_ID_ANNOTATION, TENANT_ID_ANNOTATION, EXPIRATION_ANNOTATION].contains(&key)
    }

    /// Whether they name a client ID.
    pub fn name_a_client_id(&self) -> bool {
        self.client_id.as_ref().is_some_and(|id| !id.is_empty())
    }

    /// How many bytes the values have.
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

/// Whether the annotations of the pod's service account have a say.
pub fn asks(pod: &Pod<'_>, namespace: &str, config: &Config) -> bool {
    config.compatibility.is_some() && is_labelled(pod) && !is_exempt(pod, namespace, config)
}

/// Decides about a pod for which [`asks`] holds, given its service account and every binding there for it.
pub fn admit(
    pod: &Pod<'_>,
    namespace: &str,
    bindings: &[Arc<Binding>],
    account: &Account,
    config: &Config,
) -> Decision {
    let Some(compatibility) = &config.compatibility else { return super::admit(pod, namespace, bindings, config) };
    match annotated(pod, account, compatibility) {
        Ok(annotated) => {
            let all: Vec<_> = bindings.iter().cloned().chain(annotated.map(Arc::new)).collect();
            super::admit(pod, namespace, &all, config)
        }
        Err(refusal) => Decision::Refuse(refusal),
    }
}

fn is_labelled(pod: &Pod<'_>) -> bool {
    pod.labels().and_then(|labels| labels.get(USE_LABEL)).is_some_and(|value| value == "true")
}

/// The annotations of the service account as a binding; none if the pod asks for more than they say.
fn annotated(pod: &Pod<'_>, account: &Account, compatibility: &Compatibility) -> Result<Option<Binding>, Denial> {
    let name = pod.service_account();
    if pod.annotations().is_some_and(|annotations| annotations.proxy) {
        return Err(denial::proxy_sidecar());
    }
    let Account::Present(annotations) = account else { return Err(denial::no_service_account(name)) };
    let token_expiration_seconds = expiration(pod, annotations)?;
    if Wish::of(pod) == Wish::Guaranteed && !annotations.name_a_client_id() {
        return Ok(None);
    }
    Ok(Some(Binding {
        name: format!("ServiceAccount/{name}").into(),
        service_account: name.into(),
        identity: ANNOTATIONS.into(),
        standing: BindingReadiness::Resolved {
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
        // Nobody knows of a credential that would have to be waited for.
        start: Start::AtOnce,
    }))
}

/// Seconds that the token lives: the pod's word, else the service account's. An empty one is none.
fn expiration(pod: &Pod<'_>, account: &Annotations) -> Result<u32, Denial> {
    let of_pod = pod.annotations().and_then(|annotations| annotations.expiration.as_deref());
    let of_account = account.expiration.as_deref();
    let said = [("pod", of_pod), ("service account", of_account)];
    let said = said.into_iter().find_map(|(whose, value)| Some((whose, value.filter(|value| !value.is_empty())?)));
    let Some((whose, value)) = said else { return Ok(MIN_TOKEN_EXPIRATION_SECONDS) };
    let seconds = value
        .parse()
        .ok()
        .filter(|seconds| (MIN_TOKEN_EXPIRATION_SECONDS..=MAX_TOKEN_EXPIRATION_SECONDS).contains(seconds));
    seconds.ok_or_else(|| denial::token_expiration(whose, value))
}

/// What a pod says of its injection besides who it wants to be.
pub(super) struct Terms<'a> {
    /// Name for its token volume.
    pub(super) volume: Cow<'a, str>,
    skipped: Vec<&'a str>,
}

impl<'a> Terms<'a> {
    /// The terms of a pod; Ensign's own name for the volume is `usual`.
    pub(super) fn of(pod: &'a Pod<'_>, usual: &'a str, config: &Config) -> Self {
        if config.compatibility.is_none() || !is_labelled(pod) {
            return Self { volume: Cow::Borrowed(usual), skipped: Vec::new() };
        }
        let skipped = pod.annotations().and_then(|annotations| annotations.skip_containers.as_deref());
        Self {
            volume: Cow::Owned(volume_name(pod)),
            skipped: skipped.unwrap_or_default().split(';').map(str::trim).collect(),
        }
    }

    /// Whether the container is to be left alone.
    pub(super) fn skip(&self, container: &str) -> bool {
        self.skipped.contains(&container)
    }
}

/// The volume's name, which says nothing, but is the same wherever it is computed.
fn volume_name(pod: &Pod<'_>) -> String {
    let mut hash = Sha256::new();
    hash.update(pod.name());
    if pod.own_name().is_none() {
        hash.update(" (prefix)");
    }
    format!("{VOLUME_PREFIX}{}", hex(&hash.finalize(), VOLUME_HASH_DIGITS))
}

#[cfg(test)]
#[path = "azure_workload_identity_tests.rs"]
pub(super) mod tests;
