//! Why a pod is refused, in words that say what to do.

use std::fmt;

use super::azure_workload_identity::{EXPIRATION_ANNOTATION, PROXY_ANNOTATION, USE_LABEL};
use super::binding::{Binding, BindingReadiness, Origin};
use ensign_api::keys::{INJECT_LABEL, TOKEN_MOUNT_PATH};
use ensign_api::{InjectionMode, MAX_TOKEN_EXPIRATION_SECONDS, MIN_TOKEN_EXPIRATION_SECONDS};

/// How many bindings that miss the pod its refusal lists.
const MAX_LISTED: usize = 3;
/// How much of a tenant's value a refusal shows.
const MAX_SHOWN_CHARACTERS: usize = 64;

/// Reasons for refusing a pod, a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DenialCode {
    /// The pod is labelled, and no binding covers it.
    NoBinding,
    /// The pod is labelled, and its binding is not accepted.
    NotAccepted,
    /// The pod is labelled, and the controller has not judged its binding yet.
    NotYetAccepted,
    /// The pod is labelled, and its binding is being deleted.
    BindingDeleting,
    /// The binding is accepted, but the identity's client ID is not known yet.
    IdentityUnknown,
    /// The pod is labelled, and its binding is for none of its containers.
    NoContainer,
    /// The pod has another volume under the name of the token volume.
    VolumeClash,
    /// A container has another mount where the token is mounted.
    MountClash,
    /// In compatibility mode: there is no such service account.
    NoServiceAccount,
    /// In compatibility mode: the token's lifetime is none.
    TokenExpiration,
    /// In compatibility mode: the pod wants the proxy sidecar.
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

    /// Whether newer facts about bindings could turn the refusal around, so that it is worth a look at the API server.
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

/// A refused pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Why, for machines.
    pub code: DenialCode,
    /// Why, and what to do, for whoever created the pod.
    pub message: String,
}

/// How a binding is named in a message.
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

/// Nothing that would inject covers the pod; `others` are bindings of its service account that don't.
pub(crate) fn no_binding<'a>(
    namespace: &str,
    service_account: &str,
    others: impl Iterator<Item = &'a Binding>,
) -> Denial {
    let mut near = others.map(|binding| {
        let why = match binding.mode {
            InjectionMode::None => "its spec.injection.mode is None",
            InjectionMode::Pods => "its spec.podSelector does not match the pod's labels",
        };
        format!("{:?} does not: {why}", binding.name)
    });
    let listed: Vec<String> = near.by_ref().take(MAX_LISTED).collect();
    let more = match near.count() {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    let near = if listed.is_empty() { String::new() } else { format!("{}{more}. ", listed.join("; ")) };
    let message = format!(
        "the pod is labelled {INJECT_LABEL}=true, but no ManagedIdentityBinding in namespace {namespace:?} covers it \
         (service account {service_account:?}). {near}Create a ManagedIdentityBinding in namespace {namespace:?} with \
         spec.serviceAccountName: {service_account} and spec.identityRef naming the ManagedIdentity, or remove the label"
    );
    Denial { code: DenialCode::NoBinding, message }
}

/// Nothing has injected the pod, and who refuses it knows no more than that.
pub(crate) fn not_injected(namespace: &str, service_account: &str) -> Denial {
    let message = format!(
        "the pod is labelled {INJECT_LABEL}=true, but no ManagedIdentityBinding in namespace {namespace:?} that is ready \
         covers it (service account {service_account:?}). See `kubectl get mib -n {namespace}`. Create a \
         ManagedIdentityBinding in namespace {namespace:?} with spec.serviceAccountName: {service_account} and \
         spec.identityRef naming the ManagedIdentity, or remove the label"
    );
    Denial { code: DenialCode::NoBinding, message }
}

/// The pod's binding can't serve it. A binding that can is a fault of the caller and reads as not judged yet.
pub(crate) fn unfit(binding: &Binding, namespace: &str) -> Denial {
    let named = Named(binding, namespace);
    let describe = format!("kubectl describe mib {} -n {namespace}", binding.name);
    match &binding.standing {
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
                "{named} is not yet accepted by the controller; retry in a moment. If this stays, see whether the Ensign \
                 controller runs, and `{describe}`"
            ),
        },
    }
}

/// The bindings choose none of the pod's containers.
pub(crate) fn no_container(binding: &Binding, namespace: &str) -> Denial {
    let whose = match binding.origin {
        Origin::Object => "its spec.injection.containers",
        Origin::ServiceAccount => "what the pod skips",
    };
    Denial {
        code: DenialCode::NoContainer,
        message: format!(
            "{} chooses none of the pod's containers; change {whose} or remove the pod's label",
            Named(binding, namespace)
        ),
    }
}

/// The name of the token volume is taken.
pub(crate) fn volume_clash(name: &str) -> Denial {
    Denial {
        code: DenialCode::VolumeClash,
        message: format!(
            "the pod has a volume {name:?} that is not the projected token that Ensign injects under this \
             name; rename the volume or remove it"
        ),
    }
}

/// The place of the token is taken.
pub(crate) fn mount_clash(container: &str, volume: &str, path: &str, token: &str) -> Denial {
    Denial {
        code: DenialCode::MountClash,
        message: format!(
            "container {container:?} mounts volume {volume:?} at {path:?}, in the way of the identity token that Ensign \
             mounts read-only at {TOKEN_MOUNT_PATH:?} from volume {token:?}; mount it elsewhere or remove it"
        ),
    }
}

/// The pod's service account does not exist; in the words that its creator knows.
pub(super) fn no_service_account(name: &str) -> Denial {
    Denial {
        code: DenialCode::NoServiceAccount,
        message: format!("serviceaccounts {name:?} not found; create it, or name another in spec.serviceAccountName"),
    }
}

/// What the pod or its service account says of the token's lifetime is none.
pub(super) fn token_expiration(whose: &str, value: &str) -> Denial {
    let shown: String = value.chars().take(MAX_SHOWN_CHARACTERS).collect();
    Denial {
        code: DenialCode::TokenExpiration,
        message: format!(
            "annotation {EXPIRATION_ANNOTATION} of the {whose} is {shown:?}; it must be a whole number of seconds from \
             {MIN_TOKEN_EXPIRATION_SECONDS} to {MAX_TOKEN_EXPIRATION_SECONDS}"
        ),
    }
}

/// The pod wants the proxy sidecar.
pub(super) fn proxy_sidecar() -> Denial {
    Denial {
        code: DenialCode::ProxySidecar,
        message: format!(
            "the pod has the annotation {PROXY_ANNOTATION}, but Ensign has no proxy sidecar; use a version of the Azure \
             SDK that knows workload identity and remove the annotation, or remove the label {USE_LABEL}"
        ),
    }
}
