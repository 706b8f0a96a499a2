//! `ManagedIdentityBinding`: gives the pods of one service account an Azure identity.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::MIN_TOKEN_EXPIRATION_SECONDS;
use super::injected_env::{reserved_name_message, reserved_name_rule};
use super::keys::ENV_CLIENT_ID;
use super::selector::LabelSelector;

/// Prefix of the name of a dedicated identity; the binding's UID follows.
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
    doc = "ManagedIdentityBinding gives the pods of one service account an Azure identity. App teams write it next to their Deployment. The ManagedIdentity that it references has to allow it.",
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
    /// Reference to the identity. Immutable: for another identity, create a new binding.
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("spec.identityRef is immutable: create a new binding, then delete this one"))]
    pub identity_ref: IdentityRef,
    /// Name of the service account whose pods get the identity. Immutable. Entra trusts all pods of the service account:
    /// podSelector restricts injection, not trust.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("spec.serviceAccountName is immutable: create a new binding, then delete this one"))]
    pub service_account_name: String,
    /// Selects the pods of the service account that are injected. If absent or empty, all of them are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
    /// How pods are injected.
    #[serde(default)]
    pub injection: Injection,
}

/// A reference to an identity, or to a class of identities.
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
    /// A `ManagedIdentityClass`: the binding gets a dedicated identity.
    ManagedIdentityClass,
}

impl IdentityKind {
    /// Name of the kind.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ManagedIdentity => "ManagedIdentity",
            Self::ManagedIdentityClass => "ManagedIdentityClass",
        }
    }
}

impl ManagedIdentityBinding {
    /// Name of the `ManagedIdentity` that serves the binding: the referenced one, or a dedicated one.
    pub fn identity_name(&self) -> Cow<'_, str> {
        match self.spec.identity_ref.kind {
            IdentityKind::ManagedIdentity => Cow::Borrowed(&self.spec.identity_ref.name),
            IdentityKind::ManagedIdentityClass => {
                Cow::Owned(format!("{OWN_IDENTITY_PREFIX}{}", self.metadata.uid.as_deref().unwrap_or_default()))
            }
        }
    }

    /// The class that the binding references, if it requests a dedicated identity.
    pub fn class_name(&self) -> Option<&str> {
        let reference = &self.spec.identity_ref;
        (reference.kind == IdentityKind::ManagedIdentityClass).then_some(reference.name.as_str())
    }
}

/// How the pods of a binding are injected.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Injection {
    /// Whether pods are injected, or only the trust in Azure is established.
    #[serde(default)]
    pub mode: InjectionMode,
    /// Name of the environment variable for the client ID. A second identity in the same container needs a different name.
    #[serde(rename = "clientIDEnv", default = "client_id_env")]
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]*$"))]
    #[x_kube(validation = Rule::new(reserved_name_rule()).message(reserved_name_message().as_str()))]
    pub client_id_env: String,
    /// Selects the containers and init containers that are injected.
    #[serde(default)]
    pub containers: ContainerFilter,
    /// Lifetime of the projected service account token, in seconds.
    #[serde(default = "token_expiration_seconds")]
    #[schemars(range(min = 3600, max = 86400))]
    pub token_expiration_seconds: u32,
    /// Whether pods are gated until their identity works.
    #[serde(default)]
    pub start_policy: StartPolicy,
    /// Also write the annotations azure.workload.identity/client-id and azure.workload.identity/tenant-id on the service
    /// account, for tools that read them.
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
    /// Environment variables and the token are injected into pods.
    #[default]
    Pods,
    /// Only the trust in Azure is established, for programs that exchange tokens themselves.
    None,
}

/// Whether pods are gated until their identity works.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum StartPolicy {
    /// Pods are gated, and scheduled once their identity works.
    #[default]
    WaitForIdentity,
    /// Pods start immediately.
    Immediate,
}

/// Selects containers and init containers by name.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerFilter {
    /// Names of the only containers to inject. If empty, all of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub include: Vec<String>,
    /// Names of containers not to inject.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub exclude: Vec<String>,
}

impl ContainerFilter {
    /// Whether the container is selected.
    pub fn selects(&self, container: &str) -> bool {
        let listed = |names: &[String]| names.iter().any(|name| name == container);
        (self.include.is_empty() || listed(&self.include)) && !listed(&self.exclude)
    }
}

/// Observed state of the binding.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManagedIdentityBindingStatus {
    /// Subject of the service account's tokens, as Entra sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Client ID of the identity.
    #[serde(default, rename = "clientID", skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Entra tenant of the identity.
    #[serde(default, rename = "tenantID", skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<String>,
    /// Name of the ManagedIdentity that serves this binding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed_identity_name: Option<String>,
    /// The federated identity credential that establishes the trust.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<CredentialStatus>,
    /// The metadata.generation this status was computed for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions of the binding: Ready, Accepted, IdentityResolved and CredentialReady; TrustRevoked and PodsInjected while
    /// false; ServiceAccountAnnotated if requested; and Reconciling or Stalled while true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A federated identity credential that Azure confirmed.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CredentialStatus {
    /// Name of the credential in Azure.
    pub name: String,
    /// Issuer that the credential trusts.
    pub issuer: String,
    /// Whether Ensign created the credential.
    pub origin: CredentialOrigin,
    /// Time since which Azure is known to have the credential.
    pub confirmed_since: Time,
}

/// Origin of a federated identity credential or a role assignment.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CredentialOrigin {
    /// Created by Ensign, which also deletes it.
    Created,
    /// Existed before, and is not managed by Ensign; it is kept.
    Adopted,
}

fn client_id_env() -> String {
    ENV_CLIENT_ID.to_owned()
}

fn token_expiration_seconds() -> u32 {
    MIN_TOKEN_EXPIRATION_SECONDS
}
