//! What admission needs of a binding, extracted once when the binding changes and not for every pod.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;

use crate::pods::gate::Start;
use ensign_api::conditions::{ConditionType, find};
use ensign_api::selector::LabelSelector;
use ensign_api::{
    ContainerFilter, InjectionMode, MAX_TOKEN_EXPIRATION_SECONDS, MIN_TOKEN_EXPIRATION_SECONDS, ManagedIdentityBinding,
};

/// A `ManagedIdentityBinding` as admission sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Binding {
    /// Its name. Shared with the index, like the next field: there are thousands.
    pub name: Arc<str>,
    /// The service account whose pods it covers.
    pub service_account: Arc<str>,
    /// The identity, as `kind/name`.
    pub identity: Arc<str>,
    /// Whether its pods can be injected.
    pub readiness: BindingReadiness,
    pub(super) origin: Origin,
    pub(super) created: Option<Timestamp>,
    pub(super) pod_selector: Option<Box<LabelSelector>>,
    pub(super) mode: InjectionMode,
    pub(super) client_id_env: Arc<str>,
    pub(super) containers: ContainerFilter,
    pub(super) token_expiration_seconds: u32,
    pub(super) start: Start,
}

/// What gives the pods of a service account an identity. Earlier variants take precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// A `ManagedIdentityBinding`.
    Object,
    /// Annotations of the service account, in compatibility mode.
    ServiceAccount,
}

/// Whether the pods of a binding can be injected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindingReadiness {
    /// The controller has not evaluated it yet.
    Pending,
    /// It is not accepted.
    NotAccepted {
        /// Reason of the `Accepted` condition.
        reason: Arc<str>,
        /// Message of the `Accepted` condition.
        message: Box<str>,
    },
    /// It is accepted, but the identity's client ID and tenant are not known.
    Unresolved {
        /// Reason and message of the `IdentityResolved` condition, if there is one.
        why: Option<Box<str>>,
    },
    /// It is accepted, and everything that a pod needs is known.
    Resolved {
        /// Client ID of the identity.
        client_id: Arc<str>,
        /// Entra tenant of the identity.
        tenant_id: Arc<str>,
    },
    /// It is being deleted, and its federated identity credential with it.
    Deleting,
}

impl Binding {
    /// Sort key of bindings of which only one can apply: oldest first, then by name.
    pub(super) fn seniority(&self) -> (Origin, bool, Option<Timestamp>, &str) {
        (self.origin, self.created.is_none(), self.created, &self.name)
    }

    /// Extracts what admission needs of an object. `share` interns strings that many bindings have in common.
    pub fn read(object: &ManagedIdentityBinding, share: &mut impl FnMut(&str) -> Arc<str>) -> Self {
        let spec = &object.spec;
        let kind = spec.identity_ref.kind.as_str();
        Self {
            name: object.metadata.name.as_deref().unwrap_or_default().into(),
            service_account: spec.service_account_name.as_str().into(),
            identity: share(&format!("{kind}/{}", spec.identity_ref.name)),
            readiness: BindingReadiness::of(object, share),
            origin: Origin::Object,
            created: object.metadata.creation_timestamp.as_ref().map(|time| time.0),
            pod_selector: spec.pod_selector.clone().filter(|selector| !selector.is_empty()).map(Box::new),
            mode: spec.injection.mode,
            client_id_env: share(&spec.injection.client_id_env),
            containers: spec.injection.containers.clone(),
            token_expiration_seconds: spec
                .injection
                .token_expiration_seconds
                .clamp(MIN_TOKEN_EXPIRATION_SECONDS, MAX_TOKEN_EXPIRATION_SECONDS),
            start: Start::of(object),
        }
    }

    /// Whether it selects the container.
    pub(super) fn selects(&self, container: &str) -> bool {
        self.containers.selects(container)
    }
}

impl From<&ManagedIdentityBinding> for Binding {
    fn from(object: &ManagedIdentityBinding) -> Self {
        Self::read(object, &mut |text| text.into())
    }
}

impl BindingReadiness {
    fn of(object: &ManagedIdentityBinding, share: &mut impl FnMut(&str) -> Arc<str>) -> Self {
        if object.metadata.deletion_timestamp.is_some() {
            return Self::Deleting;
        }
        let Some(status) = &object.status else { return Self::Pending };
        let Some(accepted) = find(&status.conditions, ConditionType::Accepted) else { return Self::Pending };
        match accepted.status.as_str() {
            "True" => {}
            "False" => {
                let (reason, message) = (share(&accepted.reason), accepted.message.as_str().into());
                return Self::NotAccepted { reason, message };
            }
            _ => return Self::Pending,
        }
        let known = |value| Option::filter(value, |value: &&str| !value.is_empty());
        match (known(status.client_id.as_deref()), known(status.tenant_id.as_deref())) {
            (Some(client_id), Some(tenant_id)) => {
                Self::Resolved { client_id: share(client_id), tenant_id: share(tenant_id) }
            }
            _ => Self::Unresolved {
                why: find(&status.conditions, ConditionType::IdentityResolved)
                    .filter(|condition| condition.status != "True")
                    .map(|condition| format!("{}: {}", condition.reason, condition.message).into()),
            },
        }
    }
}
