//! Why a pod is denied, in messages that tell the pod's creator what to do.
//!
//! The policies in [`crate::cel`] get their messages from the same functions, called with placeholders.

use std::fmt;

use super::binding::{Binding, BindingReadiness, Origin};
use super::upstream_keys::{EXPIRATION_ANNOTATION, PROXY_ANNOTATION, SKIP_CONTAINERS_ANNOTATION, USE_LABEL};
use ensign_api::keys::{INJECT_LABEL, TOKEN_MOUNT_PATH};
use ensign_api::{InjectionMode, MAX_TOKEN_EXPIRATION_SECONDS, MIN_TOKEN_EXPIRATION_SECONDS};

/// Maximum number of bindings that a message lists, of those that do not cover the pod.
const MAX_LISTED: usize = 3;
/// Maximum length of an annotation's value in a message.
const MAX_SHOWN_CHARACTERS: usize = 64;

/// Reasons for denying a pod, a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DenialCode {
    /// The pod is labelled, and no binding covers it.
    NoBinding,
    /// The pod is labelled, and its binding is not accepted.
    NotAccepted,
    /// The pod is labelled, and the controller has not evaluated its binding yet.
    NotYetAccepted,
    /// The pod is labelled, and its binding is being deleted.
    BindingDeleting,
    /// The binding is accepted, but the identity's client ID is not known yet.
    IdentityUnknown,
    /// The pod is labelled, and its binding selects none of its containers.
    NoContainer,
    /// The pod has a different volume with the name of the token volume.
    VolumeClash,
    /// A container mounts something at or below the token's path.
    MountClash,
    /// In compatibility mode: the service account does not exist.
    NoServiceAccount,
    /// In compatibility mode: the token's lifetime is invalid.
    TokenExpiration,
    /// In compatibility mode: the pod requests the proxy sidecar.
    ProxySidecar,
}

impl DenialCode {
    /// The reason's name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoBinding => "no_binding",
            Self::NotAccepted => "not_accepted",
            Self::NotYetAccepted => "not_yet_accepted",
            Self::BindingDeleting => "binding_deleting",
            Self::IdentityUnknown => "identity_unknown",
            Self::NoContainer => "no_container",
            Self::VolumeClash => "volume_clash",
            Self::MountClash => "mount_clash",
            Self::NoServiceAccount => "no_service_account",
            Self::TokenExpiration => "token_expiration",
            Self::ProxySidecar => "proxy_sidecar",
        }
    }

    /// Whether newer bindings could change the decision, so that they should be read from the API server first.
    pub fn depends_on_bindings(self) -> bool {
        match self {
            Self::NoBinding
            | Self::NotAccepted
            | Self::NotYetAccepted
            | Self::BindingDeleting
            | Self::IdentityUnknown
            | Self::NoContainer => true,
            Self::VolumeClash
            | Self::MountClash
            | Self::NoServiceAccount
            | Self::TokenExpiration
            | Self::ProxySidecar => false,
        }
    }
}

impl fmt::Display for DenialCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A denied pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Why, for machines.
    pub code: DenialCode,
    /// Why, and what to do, for the pod's creator.
    pub message: String,
}

/// A binding and its namespace, as a message names them.
struct Named<'a>(&'a Binding, &'a str);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.origin {
            Origin::Object => write!(f, "ManagedIdentityBinding {:?} in namespace {:?}", self.0.name, self.1),
            Origin::ServiceAccount => {
                write!(f, "service account {:?} in namespace {:?}", self.0.service_account, self.1)
            }
        }
    }
}

/// No binding covers the pod; `others` are bindings of its service account that do not.
pub(crate) fn no_binding<'a>(
    namespace: &str,
    service_account: &str,
    others: impl Iterator<Item = &'a Binding>,
) -> Denial {
    let mut near_misses = others.map(|binding| {
        let why = match binding.mode {
            InjectionMode::None => "its spec.injection.mode is None",
            InjectionMode::Pods => "its spec.podSelector does not match the pod's labels",
        };
        format!("{:?} does not: {why}", binding.name)
    });
    let listed: Vec<String> = near_misses.by_ref().take(MAX_LISTED).collect();
    let more = match near_misses.count() {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    let near_misses = if listed.is_empty() { String::new() } else { format!("{}{more}. ", listed.join("; ")) };
    let message = format!(
        "the pod is labelled {INJECT_LABEL}=true, but no ManagedIdentityBinding in namespace {namespace:?} covers it \
         (service account {service_account:?}). {near_misses}Create a ManagedIdentityBinding in namespace {namespace:?} with \
         spec.serviceAccountName: {service_account} and spec.identityRef naming the ManagedIdentity, or remove the label"
    );
    Denial { code: DenialCode::NoBinding, message }
}

/// The pod was not injected, and it is not known why.
pub(crate) fn not_injected(namespace: &str, service_account: &str) -> Denial {
    let message = format!(
        "the pod is labelled {INJECT_LABEL}=true, but no ready ManagedIdentityBinding in namespace {namespace:?} covers \
         it (service account {service_account:?}). See `kubectl get mib -n {namespace}`. Create a \
         ManagedIdentityBinding in namespace {namespace:?} with spec.serviceAccountName: {service_account} and \
         spec.identityRef naming the ManagedIdentity, or remove the label"
    );
    Denial { code: DenialCode::NoBinding, message }
}

/// The pod's binding is not ready. Callers must not pass one that is; it would be reported as not evaluated yet.
pub(crate) fn not_ready(binding: &Binding, namespace: &str) -> Denial {
    let named = Named(binding, namespace);
    let describe = format!("kubectl describe mib {} -n {namespace}", binding.name);
    match &binding.readiness {
        BindingReadiness::NotAccepted { reason, message } => {
            Denial { code: DenialCode::NotAccepted, message: format!("{named} is not accepted ({reason}): {message}") }
        }
        BindingReadiness::Unresolved { why } => Denial {
            code: DenialCode::IdentityUnknown,
            message: match why {
                Some(why) => format!(
                    "{named} is accepted, but the client ID of {} is not known yet ({why}); retry later, and see `{describe}`",
                    binding.identity
                ),
                None => format!(
                    "{named} is accepted, but the client ID of {} is not known yet; retry in a moment, and see `{describe}`",
                    binding.identity
                ),
            },
        },
        BindingReadiness::Deleting => Denial {
            code: DenialCode::BindingDeleting,
            message: format!(
                "{named} is being deleted; create another binding for {}, or remove the label",
                binding.identity
            ),
        },
        BindingReadiness::Pending | BindingReadiness::Resolved { .. } => Denial {
            code: DenialCode::NotYetAccepted,
            message: format!(
                "{named} has not been evaluated by the controller yet; retry in a moment. If this persists, check that the \
                 Ensign controller is running, and see `{describe}`"
            ),
        },
    }
}

/// The binding selects none of the pod's containers.
pub(crate) fn no_container(binding: &Binding, namespace: &str) -> Denial {
    let filter = match binding.origin {
        Origin::Object => "its spec.injection.containers".to_owned(),
        Origin::ServiceAccount => format!("the pod's annotation {SKIP_CONTAINERS_ANNOTATION}"),
    };
    Denial {
        code: DenialCode::NoContainer,
        message: format!(
            "{} selects none of the pod's containers; change {filter}, or remove the pod's label",
            Named(binding, namespace)
        ),
    }
}

/// The name of the token volume is taken.
pub(crate) fn volume_clash(name: &str) -> Denial {
    Denial {
        code: DenialCode::VolumeClash,
        message: format!(
            "the pod has a volume {name:?} other than the projected token that Ensign injects under that name; rename or \
             remove the volume"
        ),
    }
}

/// The token's path is taken.
pub(crate) fn mount_clash(container: &str, volume: &str, path: &str, token: &str) -> Denial {
    Denial {
        code: DenialCode::MountClash,
        message: format!(
            "container {container:?} mounts volume {volume:?} at {path:?}, which conflicts with the identity token that \
             Ensign mounts read-only at {TOKEN_MOUNT_PATH:?} from volume {token:?}; mount it elsewhere, or remove it"
        ),
    }
}

/// The pod's service account does not exist. The message begins like the API server's own.
pub(super) fn no_service_account(name: &str) -> Denial {
    Denial {
        code: DenialCode::NoServiceAccount,
        message: format!("serviceaccounts {name:?} not found; create it, or set spec.serviceAccountName to another"),
    }
}

/// The lifetime of the token is invalid. `object` has the annotation: the pod, or the service account.
pub(super) fn token_expiration(object: &str, value: &str) -> Denial {
    let shown: String = value.chars().take(MAX_SHOWN_CHARACTERS).collect();
    Denial {
        code: DenialCode::TokenExpiration,
        message: format!(
            "annotation {EXPIRATION_ANNOTATION} of the {object} is {shown:?}; it must be a whole number of seconds from \
             {MIN_TOKEN_EXPIRATION_SECONDS} to {MAX_TOKEN_EXPIRATION_SECONDS}"
        ),
    }
}

/// The pod requests the proxy sidecar.
pub(super) fn proxy_sidecar() -> Denial {
    Denial {
        code: DenialCode::ProxySidecar,
        message: format!(
            "the pod has the annotation {PROXY_ANNOTATION}, but Ensign has no proxy sidecar; use a version of the Azure \
             SDK that supports workload identity and remove the annotation, or remove the label {USE_LABEL}"
        ),
    }
}
