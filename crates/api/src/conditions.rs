//! Condition types and the closed set of their reasons.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

/// Types of conditions. All but [`ConditionType::Reconciling`] and [`ConditionType::Stalled`] have positive polarity;
/// those two follow kstatus and are present only while true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// Everything that the object requests works.
    Ready,
    /// The object may have what it requests.
    Accepted,
    /// The identity exists in Azure.
    IdentityResolved,
    /// The only binding that may use the identity exists. Present only if `spec.claimRef` is set.
    Claimed,
    /// The identity has the requested roles. Present only if any are requested.
    PermissionsReady,
    /// The federated identity credential is in place.
    CredentialReady,
    /// A binding that is not accepted is not trusted either. Present only while false.
    TrustRevoked,
    /// The service account has the requested annotations. Present only if they are requested.
    ServiceAccountAnnotated,
    /// All pods that the binding selects were injected. Present only while false.
    PodsInjected,
    /// No other cluster writes credentials under this cluster's ID. Present only while false.
    ClusterIDUnique,
    /// No webhook of azure-workload-identity injects the same pods. Present only while false.
    UpstreamWebhookAbsent,
    /// Ensign is working on the object.
    Reconciling,
    /// Someone has to act before Ensign can continue.
    Stalled,
}

impl ConditionType {
    /// The type's name in a status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Accepted => "Accepted",
            Self::IdentityResolved => "IdentityResolved",
            Self::Claimed => "Claimed",
            Self::PermissionsReady => "PermissionsReady",
            Self::CredentialReady => "CredentialReady",
            Self::TrustRevoked => "TrustRevoked",
            Self::ServiceAccountAnnotated => "ServiceAccountAnnotated",
            Self::PodsInjected => "PodsInjected",
            Self::ClusterIDUnique => "ClusterIDUnique",
            Self::UpstreamWebhookAbsent => "UpstreamWebhookAbsent",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
        }
    }
}

impl fmt::Display for ConditionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a reason means for those who wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Working as intended.
    Good,
    /// In progress.
    Progressing,
    /// Failed, and retried automatically.
    Retrying,
    /// Someone has to act: `Stalled`.
    Terminal,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident => $severity:ident,)*) => {
        /// Reasons of conditions, a closed set.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// Every reason, for documentation and metrics.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The reason's name in a status.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// The reason of this name.
            pub fn named(name: &str) -> Option<Self> {
                Self::ALL.iter().find(|reason| reason.as_str() == name).copied()
            }

            /// What the reason means for those who wait.
            pub fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity,)* }
            }
        }
    };
}

reasons! {
    /// Everything works.
    Ready => Good,
    /// A grant covers the binding, or the identity may be used.
    Accepted => Good,
    /// The identity exists in Azure.
    Resolved => Good,
    /// The credential was written by Ensign and confirmed by Azure.
    Confirmed => Good,
    /// A credential that Ensign does not manage already gives the trust.
    Adopted => Good,
    /// The service account has the annotations.
    Annotated => Good,
    /// The only binding that may use the identity exists.
    Bound => Good,
    /// The identity has its roles.
    Granted => Good,
    /// Not reconciled yet.
    Pending => Progressing,
    /// The identity is about to be created or updated in Azure.
    Provisioning => Progressing,
    /// The identity was recreated in Azure, with a different client ID. An event, never a condition.
    IdentityRecreated => Progressing,
    /// Roles are about to be assigned, or wait until Entra knows the identity.
    PermissionsPending => Progressing,
    /// The credential is about to be written.
    CredentialPending => Progressing,
    /// The credential is in place, and pods wait for it to propagate in Entra.
    Propagating => Progressing,
    /// The object is being deleted and Azure is being cleaned up.
    Deleting => Progressing,
    /// The namespace is being deleted.
    NamespaceTerminating => Progressing,
    /// No entry of `allowedSubjects` covers the binding.
    NotAllowed => Terminal,
    /// The referenced `ManagedIdentity` does not exist.
    ManagedIdentityNotFound => Terminal,
    /// The referenced `ManagedIdentityClass` does not exist.
    ManagedIdentityClassNotFound => Terminal,
    /// The API server rejected the creation of a `ManagedIdentity` for the binding.
    ProvisioningFailed => Terminal,
    /// The `ManagedIdentity` belongs to another binding.
    ClaimMismatch => Terminal,
    /// The binding that the identity belonged to was deleted.
    Released => Terminal,
    /// The referenced `ManagedIdentity` is not accepted itself.
    ManagedIdentityNotAccepted => Terminal,
    /// Another, older `ManagedIdentity` owns the same identity in Azure.
    DuplicateIdentity => Terminal,
    /// An older binding writes the same environment variable into the same pods, or differs in tenant or token lifetime.
    Conflict => Terminal,
    /// The token lifetime exceeds what the identity allows.
    TokenExpirationTooLong => Terminal,
    /// The spec is invalid.
    InvalidSpec => Terminal,
    /// The identity is the controller's own.
    OwnIdentity => Terminal,
    /// The identity is outside the scopes that the controller may act in.
    ScopeNotAllowed => Terminal,
    /// The identity is in another Entra tenant.
    TenantMismatch => Terminal,
    /// The identity does not exist in Azure.
    IdentityNotFound => Terminal,
    /// An identity of the name exists in Azure that Ensign did not create for the object.
    IdentityExists => Terminal,
    /// The identity in Azure is in a different region than in the spec.
    LocationMismatch => Terminal,
    /// The resource group for the identity does not exist.
    ResourceGroupNotFound => Terminal,
    /// Role assignments are disabled in the controller.
    RoleAssignmentsDisabled => Terminal,
    /// The role or its scope exceeds what the controller may assign.
    RoleNotAllowed => Terminal,
    /// Azure does not know the role.
    RoleNotFound => Terminal,
    /// The scope to assign a role in does not exist.
    RoleScopeNotFound => Terminal,
    /// Azure does not know the subscription.
    SubscriptionNotFound => Terminal,
    /// Identities in the region do not support federated identity credentials.
    RegionNotSupported => Terminal,
    /// Entra can't fetch the cluster's signing keys.
    IssuerNotPublic => Terminal,
    /// The controller's identity lacks a role.
    Forbidden => Terminal,
    /// A lock blocks the write.
    ResourceLocked => Terminal,
    /// An Azure Policy denies the write.
    PolicyDenied => Terminal,
    /// A deny assignment blocks the request, which no role overrides.
    DeniedByAssignment => Terminal,
    /// The subscription is disabled, or its type does not allow identities.
    SubscriptionDisabled => Terminal,
    /// The subscription has not registered the resource provider.
    ProviderNotRegistered => Terminal,
    /// This Azure supports no API version that Ensign knows to work.
    APIVersionNotSupported => Terminal,
    /// All credential slots are taken.
    QuotaExceeded => Terminal,
    /// A credential that Ensign does not manage is in the way: another audience, or the name is taken.
    CredentialConflict => Terminal,
    /// `credentialPolicy: Observe`, and the credential is missing.
    CredentialMissing => Terminal,
    /// The binding is not accepted, but a credential that Ensign does not manage gives the trust.
    ForeignCredential => Terminal,
    /// Another program owns the annotations of the service account.
    AnnotationConflict => Terminal,
    /// Pods that the binding selects were created before they could be injected.
    PodsNotInjected => Terminal,
    /// A gated pod starts although its identity does not work. An event on the pod, never a condition.
    StartedWithoutIdentity => Terminal,
    /// An operator gave up waiting for Azure's confirmation. An event, never a condition.
    Abandoned => Terminal,
    /// Ensign was uninstalled, and its credentials were deleted.
    Uninstalled => Terminal,
    /// The object waits until Azure confirms that its credentials are deleted.
    DeletionBlocked => Retrying,
    /// Another cluster writes credentials under this cluster's ID.
    ClusterIDShared => Terminal,
    /// The webhook of azure-workload-identity injects the same pods.
    UpstreamWebhookPresent => Terminal,
    /// Azure throttles requests.
    Throttled => Retrying,
    /// Another program writes credentials under the same identity.
    ConcurrentWrites => Retrying,
    /// Azure could not be reached, returned a server error, or has not finished something that it does by itself.
    AzureUnavailable => Retrying,
    /// The controller gets no token for itself.
    CredentialUnavailable => Retrying,
    /// Azure rejected the request for a reason that Ensign does not know.
    AzureRefused => Terminal,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The status, reason and message of a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The condition's status; `None` is `Unknown`.
    pub status: Option<bool>,
    /// The reason.
    pub reason: Reason,
    /// The message for people: what happened, and who has to do what.
    pub message: String,
}

impl Verdict {
    /// The condition is true.
    pub fn good(reason: Reason, message: impl Into<String>) -> Self {
        Self { status: Some(true), reason, message: message.into() }
    }

    /// The condition is false.
    pub fn bad(reason: Reason, message: impl Into<String>) -> Self {
        Self { status: Some(false), reason, message: message.into() }
    }

    /// The condition is unknown.
    pub fn unknown(reason: Reason, message: impl Into<String>) -> Self {
        Self { status: None, reason, message: message.into() }
    }

    /// Whether the condition is true.
    pub fn holds(&self) -> bool {
        self.status == Some(true)
    }
}

/// Builds a status condition, keeping the transition time of `before` unless the status changed.
pub fn condition(
    kind: ConditionType,
    verdict: &Verdict,
    generation: Option<i64>,
    before: &[Condition],
    now: Timestamp,
) -> Condition {
    let status = match verdict.status {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    let since = find(before, kind)
        .filter(|condition| condition.status == status)
        .map_or(Time(now), |condition| condition.last_transition_time.clone());
    Condition {
        type_: kind.as_str().to_owned(),
        status: status.to_owned(),
        reason: verdict.reason.as_str().to_owned(),
        message: verdict.message.clone(),
        observed_generation: generation,
        last_transition_time: since,
    }
}

/// The condition of a type, if the list has it.
pub fn find(conditions: &[Condition], kind: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == kind.as_str())
}

/// Whether the condition is true in the list.
pub fn is_true(conditions: &[Condition], kind: ConditionType) -> bool {
    find(conditions, kind).is_some_and(|condition| condition.status == "True")
}
