//! The result of a decision: writes to Azure, and status, events and finalizer of each object.

use k8s_openapi::jiff::Timestamp;

use crate::credentials::plan::CredentialWrite;
use crate::events::Event;
use crate::provisioning::IdentityWrite;
use crate::roles::RoleWrite;
use ensign_api::{ManagedIdentity, ManagedIdentityBindingStatus, ManagedIdentityStatus};

/// A write to Azure and its cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedCredentialWrite {
    /// The write.
    pub write: CredentialWrite,
    /// The binding that requires it; `None` for deletions.
    pub cause: Option<Cause>,
}

/// The binding and the grant behind a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Namespace of the binding.
    pub namespace: String,
    /// Name of the binding.
    pub binding: String,
    /// UID of the binding.
    pub uid: String,
    /// Name of the grant.
    pub grant: String,
}

/// What to do with Ensign's finalizer on an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finalizer {
    /// Leave it as it is.
    Keep,
    /// It has to be set before the next write to Azure.
    Require,
    /// Remove it: nothing in Azure depends on the object any more.
    Release,
}

/// The decisions about a `ManagedIdentity`.
#[derive(Clone, Debug)]
pub struct IdentityOutcome {
    /// Its name.
    pub name: String,
    /// Its new status.
    pub status: ManagedIdentityStatus,
    /// What to do with its finalizer.
    pub finalizer: Finalizer,
    /// Events to publish, one for each new problem.
    pub events: Vec<Event>,
    /// Whether to delete the object, because the binding that it was created for no longer exists.
    pub should_delete: bool,
}

/// The decisions about a `ManagedIdentityBinding`.
#[derive(Clone, Debug)]
pub struct BindingOutcome {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its new status.
    pub status: ManagedIdentityBindingStatus,
    /// What to do with its finalizer.
    pub finalizer: Finalizer,
    /// Events to publish, one for each new problem.
    pub events: Vec<Event>,
    /// The annotations of the service account; `None` if the binding never requested them.
    pub annotations: Option<Annotations>,
}

/// The desired annotations of a binding's service account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Annotations {
    /// These values.
    Present {
        /// The client ID.
        client_id: String,
        /// The tenant.
        tenant_id: String,
    },
    /// Remove Ensign's annotations.
    Absent,
}

/// All decisions about one identity.
#[derive(Clone, Debug, Default)]
pub struct Assessment {
    /// The write of the identity itself; precedes all others.
    pub identity_write: Option<IdentityWrite>,
    /// Writes of credentials, to be sent in order, one at a time.
    pub credential_writes: Vec<PlannedCredentialWrite>,
    /// Writes of role assignments, to be sent in order, one at a time.
    pub role_writes: Vec<RoleWrite>,
    /// `ManagedIdentity` objects to create for bindings that reference a class.
    pub identities_to_create: Vec<ManagedIdentity>,
    /// Per `ManagedIdentity`.
    pub identities: Vec<IdentityOutcome>,
    /// Per `ManagedIdentityBinding`.
    pub bindings: Vec<BindingOutcome>,
    /// When the next credential counts as propagated; `None` if none is propagating.
    pub propagates_at: Option<Timestamp>,
}
