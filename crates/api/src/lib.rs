//! The API group `ensign.dev`: kinds, conditions, labels and validated names.
//!
//! The split is the one of storage: a [`ManagedIdentity`] is like a `PersistentVolume` (cluster scoped, written by
//! cluster operators), a [`ManagedIdentityBinding`] like a `PersistentVolumeClaim` (namespaced, written by app teams), a
//! [`ManagedIdentityClass`] like a `StorageClass`.

pub mod arm_id;
pub mod conditions;
pub mod crds;
pub mod injected_env;
pub mod keys;
mod managed_identity;
mod managed_identity_binding;
mod managed_identity_class;
mod namespaced_name;
mod provision;
pub mod reference;
mod role_assignment;
pub mod selector;

pub use arm_id::ArmId;
pub use managed_identity::{
    AllowedSubject, CredentialCounts, CredentialPolicy, ExistingIdentity, IssuerRecord, IssuerState, ManagedIdentity,
    ManagedIdentitySpec, ManagedIdentityStatus, ServiceAccountPattern,
};
pub use managed_identity_binding::{
    ContainerFilter, CredentialOrigin, CredentialStatus, IdentityKind, IdentityRef, Injection, InjectionMode,
    ManagedIdentityBinding, ManagedIdentityBindingSpec, ManagedIdentityBindingStatus, StartPolicy,
};
pub use managed_identity_class::{ClassProvision, ManagedIdentityClass, ManagedIdentityClassSpec};
pub use namespaced_name::NamespacedName;
pub use provision::{ClaimRef, IfExists, IsolationScope, ProvisionedIdentity, ReclaimPolicy, TagValue};
pub use role_assignment::{RoleAssignment, RoleAssignmentStatus};

/// API group of every kind.
pub const GROUP: &str = "ensign.dev";
/// Version of every kind.
pub const VERSION: &str = "v1alpha1";
/// Azure's limit of federated identity credentials under one identity.
pub const MAX_CREDENTIALS_PER_IDENTITY: u32 = 20;
/// Shortest life of a projected service account token that Ensign requests, in seconds.
pub const MIN_TOKEN_EXPIRATION_SECONDS: u32 = 3_600;
/// Longest life of a projected service account token that Ensign requests, in seconds.
pub const MAX_TOKEN_EXPIRATION_SECONDS: u32 = 86_400;
