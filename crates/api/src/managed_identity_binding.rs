//! `ManagedIdentityBinding`: the pods of one service account get one identity.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::MIN_TOKEN_EXPIRATION_SECONDS;
use super::injected_env::{reserved_name_message, reserved_name_rule};
use super::keys::ENV_CLIENT_ID;
use super::selector::LabelSelector;

/// Before the binding's UID, in the name of an identity that was made for it.
const OWN_IDENTITY_PREFIX: &str = "mib-";

/// Binds the pods of a service account to an Azure identity.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "ensign.dev",
    version = "v1alpha1",
    kind = "ManagedIdentityBinding",
    plural = "managedidentitybindings",
    shortname = "mib",
    category = "ensign",
    namespaced,
    selectable = ".spec.identityRef.name",
    selectable = ".spec.serviceAccountName",
    status = "ManagedIdentityBindingStatus",
    derive = "PartialEq",
    doc = "ManagedIdentityBinding gives the pods of one service account an Azure identity. App teams write it beside their Deployment; the ManagedIdentity it references has to allow it.",
    printcolumn(name = "Identity", type_ = "string", json_path = ".spec.identityRef.name"),
    printcolumn(name = "Service Account", type_ = "string", json_path = ".spec.serviceAccountName"),
    printcolumn(name = "Client ID", type_ = "string", json_path = ".status.clientID"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    )
)]
pub struct ManagedIdentityBindingSpec {
    /// The identity. Immutable: another identity is another binding beside this one.
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("spec.identityRef is immutable: create a new binding beside this one, then delete this one"))]
    pub identity_ref: IdentityRef,
    /// The service account whose pods get the identity. Immutable. Entra trusts every pod of it: podSelector narrows
    /// injection, not trust.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("spec.serviceAccountName is immutable: create a new binding beside this one, then delete this one"))]
    pub service_account_name: String,
    /// Which pods of the service account are injected. Absent or empty: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
    /// How pods are injected.
    #[serde(default)]
    pub injection: Injection,
}

/// A reference to the identity.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IdentityRef {
    /// Kind of the referenced object.
    #[serde(default)]
    pub kind: IdentityKind,
    /// Name of the referenced object.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub name: String,
}

/// Kinds that a binding can reference.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum IdentityKind {
    /// A `ManagedIdentity`.
    #[default]
    ManagedIdentity,
    /// A `ManagedIdentityClass`: the binding gets an identity of its own.
    ManagedIdentityClass,
}

impl IdentityKind {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ManagedIdentity => "ManagedIdentity",
            Self::ManagedIdentityClass => "ManagedIdentityClass",
        }
    }
}

impl ManagedIdentityBinding {
    /// Name of the `ManagedIdentity` that serves the binding: the one that it references, or one of its own.
    pub fn identity_name(&self) -> Cow<'_, str> {
        match self.spec.identity_ref.kind {
            IdentityKind::ManagedIdentity => Cow::Borrowed(&self.spec.identity_ref.name),
            IdentityKind::ManagedIdentityClass => {
                Cow::Owned(format!("{OWN_IDENTITY_PREFIX}{}", self.metadata.uid.as_deref().unwrap_or_default()))
            }
        }
    }

    /// The class that the binding asks for an identity of its own, if it does.
    pub fn class_name(&self) -> Option<&str> {
        let reference = &self.spec.identity_ref;
        (reference.kind == IdentityKind::ManagedIdentityClass).then_some(reference.name.as_str())
    }
}

/// How the pods of a binding are injected.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Injection {
    /// Whether pods are injected, or only the trust in Azure is made.
    #[serde(default)]
    pub mode: InjectionMode,
    /// Environment variable for the client ID; a second identity in the same container needs another name.
    #[serde(rename = "clientIDEnv", default = "client_id_env")]
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]*$"))]
    #[x_kube(validation = Rule::new(reserved_name_rule()).message(reserved_name_message().as_str()))]
    pub client_id_env: String,
    /// Which containers are injected.
    #[serde(default)]
    pub containers: ContainerFilter,
    /// Lifetime of the projected token, in seconds.
    #[serde(default = "token_expiration_seconds")]
    #[schemars(range(min = 3600, max = 86400))]
    pub token_expiration_seconds: u32,
    /// Whether a pod waits for its identity to work before it is scheduled.
    #[serde(default)]
    pub start_policy: StartPolicy,
    /// Also write azure.workload.identity/client-id and tenant-id on the service account, for tools that read those.
    #[serde(default)]
    pub annotate_service_account: bool,
}

impl Default for Injection {
    fn default() -> Self {
        Self {
            mode: InjectionMode::default(),
            client_id_env: client_id_env(),
            containers: ContainerFilter::default(),
            token_expiration_seconds: token_expiration_seconds(),
            start_policy: StartPolicy::default(),
            annotate_service_account: false,
        }
    }
}

/// Whether pods are injected.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum InjectionMode {
    /// Pods get the environment and the token.
    #[default]
    Pods,
    /// Only the trust in Azure is made, for programs that exchange tokens of their own.
    None,
}

/// Whether a pod waits for its identity.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum StartPolicy {
    /// The pod is scheduled once the identity works.
    #[default]
    WaitForIdentity,
    /// The pod starts at once.
    Immediate,
}

/// Chooses containers and init containers by name.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerFilter {
    /// Only these containers. Empty: all of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub include: Vec<String>,
    /// Never these containers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub exclude: Vec<String>,
}

impl ContainerFilter {
    /// Whether it chooses the container.
    pub fn chooses(&self, container: &str) -> bool {
        let listed = |names: &[String]| names.iter().any(|name| name == container);
        (self.include.is_empty() || listed(&self.include)) && !listed(&self.exclude)
    }
}

/// What the controller found and Azure confirmed.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManagedIdentityBindingStatus {
    /// The subject that Entra sees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Client ID of the identity.
    #[serde(default, rename = "clientID", skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Entra tenant of the identity.
    #[serde(default, rename = "tenantID", skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<String>,
    /// The ManagedIdentity that serves this binding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed_identity_name: Option<String>,
    /// The federated identity credential that gives the trust.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<CredentialStatus>,
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Accepted, IdentityResolved, CredentialReady, PodsInjected while it does not hold, and Reconciling or
    /// Stalled while they hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A federated identity credential that Azure confirmed.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CredentialStatus {
    /// Its name in Azure.
    pub name: String,
    /// Its issuer.
    pub issuer: String,
    /// Whether Ensign made it or found it.
    pub origin: CredentialOrigin,
    /// Since when Azure has had it, as far as Ensign knows.
    pub confirmed_since: Time,
}

/// Where a federated identity credential comes from.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CredentialOrigin {
    /// Ensign wrote it and will delete it.
    Created,
    /// It was there under a name that is not Ensign's; it stays.
    Adopted,
}

fn client_id_env() -> String {
    ENV_CLIENT_ID.to_owned()
}

fn token_expiration_seconds() -> u32 {
    MIN_TOKEN_EXPIRATION_SECONDS
}
