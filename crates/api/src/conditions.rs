//! Condition types and their closed sets of reasons.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

/// Types of conditions. All but [`ConditionType::Reconciling`] and [`ConditionType::Stalled`] have positive polarity;
/// those two follow kstatus and are present only while they hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// Everything that the object asks for works.
    Ready,
    /// The object may do what it asks for.
    Accepted,
    /// Azure knows the identity.
    IdentityResolved,
    /// The one binding that the identity is for exists. Present only where there is to be one.
    Claimed,
    /// The identity has the roles that it is to have. Present only where there are any.
    PermissionsReady,
    /// The federated identity credential stands.
    CredentialReady,
    /// A binding that is not accepted gives no trust. Present only while it does not hold.
    TrustRevoked,
    /// The service account carries the annotations that were asked for. Present only where they were.
    ServiceAccountAnnotated,
    /// Every pod that the binding means was injected. Present only while it does not hold.
    PodsInjected,
    /// No other cluster writes credentials under this cluster's ID. Present only while it does not hold.
    ClusterIDUnique,
    /// No webhook of azure-workload-identity injects the same pods. Present only while it does not hold.
    UpstreamWebhookAbsent,
    /// Work is under way.
    Reconciling,
    /// Work can't go on until somebody acts.
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

/// What a reason means for whoever waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// As it should be.
    Good,
    /// On its way; Ensign goes on by itself.
    Progressing,
    /// Went wrong, but Ensign retries by itself.
    Retrying,
    /// Somebody has to act: `Stalled`.
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

            /// What the reason means for whoever waits.
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
    /// Azure knows the identity.
    Resolved => Good,
    /// The credential was written by Ensign and confirmed by Azure.
    Confirmed => Good,
    /// A credential under another name gives the trust already.
    Adopted => Good,
    /// The service account carries the annotations.
    Annotated => Good,
    /// The binding that the identity is for exists.
    Bound => Good,
    /// The identity has its roles.
    Granted => Good,
    /// Not yet looked at.
    Pending => Progressing,
    /// The identity is about to be made or set right in Azure.
    Provisioning => Progressing,
    /// The identity was made anew in Azure, with another client ID. An event, never a condition.
    IdentityRecreated => Progressing,
    /// Roles are about to be assigned, or wait until Entra knows the identity.
    PermissionsPending => Progressing,
    /// The credential is about to be written.
    CredentialPending => Progressing,
    /// The credential stands, and pods wait until Entra has had time to learn of it.
    Propagating => Progressing,
    /// The object is being deleted and Azure is being cleaned up.
    Deleting => Progressing,
    /// The namespace is going away.
    NamespaceTerminating => Progressing,
    /// No entry of `allowedSubjects` covers the binding.
    NotAllowed => Terminal,
    /// The referenced `ManagedIdentity` does not exist.
    ManagedIdentityNotFound => Terminal,
    /// The referenced `ManagedIdentityClass` does not exist.
    ManagedIdentityClassNotFound => Terminal,
    /// The API server refused to have a `ManagedIdentity` made for the binding.
    ProvisioningFailed => Terminal,
    /// The `ManagedIdentity` is for another binding.
    ClaimMismatch => Terminal,
    /// The binding that the identity was for is gone.
    Released => Terminal,
    /// The referenced `ManagedIdentity` is not accepted itself.
    ManagedIdentityNotAccepted => Terminal,
    /// Another, older `ManagedIdentity` owns the same identity in Azure.
    DuplicateIdentity => Terminal,
    /// An older binding writes the same environment variable into the same pods, or differs in tenant or token lifetime.
    Conflict => Terminal,
    /// The token lifetime exceeds what the identity allows.
    TokenExpirationTooLong => Terminal,
    /// The spec can't be understood.
    InvalidSpec => Terminal,
    /// The identity is Ensign's own.
    OwnIdentity => Terminal,
    /// The identity lies outside of the scopes that the controller is limited to.
    ScopeNotAllowed => Terminal,
    /// The identity is in another Entra tenant.
    TenantMismatch => Terminal,
    /// The identity does not exist in Azure.
    IdentityNotFound => Terminal,
    /// An identity of the name exists in Azure that Ensign did not make for the object.
    IdentityExists => Terminal,
    /// The identity in Azure is in another region than the spec says.
    LocationMismatch => Terminal,
    /// The resource group in which the identity is to be made does not exist.
    ResourceGroupNotFound => Terminal,
    /// The controller does not assign roles.
    RoleAssignmentsDisabled => Terminal,
    /// The role or its scope is more than the controller may give.
    RoleNotAllowed => Terminal,
    /// Azure does not know the role.
    RoleNotFound => Terminal,
    /// The scope in which a role is to be assigned does not exist.
    RoleScopeNotFound => Terminal,
    /// Azure does not know the subscription.
    SubscriptionNotFound => Terminal,
    /// Identities of the region take no federated identity credentials.
    RegionNotSupported => Terminal,
    /// Entra can't reach the cluster's issuer.
    IssuerNotPublic => Terminal,
    /// Azure refused the controller for lack of a role.
    Forbidden => Terminal,
    /// A lock on the identity or above forbids the write.
    ResourceLocked => Terminal,
    /// An Azure Policy forbids the write.
    PolicyDenied => Terminal,
    /// Every slot for credentials is taken.
    QuotaExceeded => Terminal,
    /// A credential with the same issuer and subject has another audience, and is not Ensign's.
    CredentialConflict => Terminal,
    /// `credentialPolicy: Observe`, and the credential is missing.
    CredentialMissing => Terminal,
    /// The binding is not accepted, but a credential that Ensign did not make gives the trust all the same.
    ForeignCredential => Terminal,
    /// Another program owns the annotations of the service account.
    AnnotationConflict => Terminal,
    /// Pods that the binding means were admitted before they could be injected.
    PodsNotInjected => Terminal,
    /// A held pod starts, and its identity does not work. An event on the pod, never a condition.
    StartedWithoutIdentity => Terminal,
    /// The object was released on an operator's word, without Azure's confirmation. An event, never a condition.
    Abandoned => Terminal,
    /// Ensign was taken down, and its credentials were deleted.
    Uninstalled => Terminal,
    /// The object waits for Azure to confirm that its credentials are gone.
    DeletionBlocked => Retrying,
    /// Another cluster writes credentials under this cluster's ID.
    ClusterIDShared => Terminal,
    /// The webhook of azure-workload-identity injects the same pods.
    UpstreamWebhookPresent => Terminal,
    /// Azure asked for fewer requests.
    Throttled => Retrying,
    /// Somebody else writes credentials under the same identity.
    ConcurrentWrites => Retrying,
    /// Azure could not be reached, or answered with an error of its own.
    AzureUnavailable => Retrying,
    /// The controller could not get a token for itself.
    CredentialUnavailable => Retrying,
    /// Azure refused the request in a way that Ensign does not know.
    AzureRefused => Terminal,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A condition's meaning, apart from its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the condition holds; `None` is `Unknown`.
    pub status: Option<bool>,
    /// Why.
    pub reason: Reason,
    /// What a person should know, and who has to do what.
    pub message: String,
}

impl Verdict {
    /// The condition holds.
    pub fn good(reason: Reason, message: impl Into<String>) -> Self {
        Self { status: Some(true), reason, message: message.into() }
    }

    /// The condition does not hold.
    pub fn bad(reason: Reason, message: impl Into<String>) -> Self {
        Self { status: Some(false), reason, message: message.into() }
    }

    /// It is not known whether the condition holds.
    pub fn unknown(reason: Reason, message: impl Into<String>) -> Self {
        Self { status: None, reason, message: message.into() }
    }

    /// Whether the condition holds.
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

/// Whether the list says that the condition holds.
pub fn is_true(conditions: &[Condition], kind: ConditionType) -> bool {
    find(conditions, kind).is_some_and(|condition| condition.status == "True")
}
