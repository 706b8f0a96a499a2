//! The resources in Azure that the emulator knows.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::directory::{DeletedIdentities, DirectorySettings, IdentityInEntra};
use super::history::Tracked;
use super::reads::{ReadCounter, ReadSettings};
use super::roles::{self, RoleAssignment, RoleDefinition, RoleSettings};

/// The emulator's whole state. Keys of maps are in lower case, because ARM compares IDs case-insensitively.
#[derive(Debug)]
pub struct State {
    /// The default tenant of subscriptions.
    pub tenant_id: String,
    /// How Azure behaves.
    pub settings: Settings,
    /// Subscriptions by ID.
    pub subscriptions: BTreeMap<String, Subscription>,
    /// Identities by ARM ID.
    pub identities: Tracked<Identity>,
    /// Resource locks.
    pub locks: Vec<Lock>,
    /// Policies that deny writes.
    pub deny_policies: Vec<DenyPolicy>,
    /// Deny assignments.
    pub deny_assignments: Vec<DenyAssignment>,
    /// Custom role definitions by GUID.
    pub role_definitions: Tracked<RoleDefinition>,
    /// Role assignments by GUID.
    pub role_assignments: Tracked<RoleAssignment>,
    pub(super) guids_given: u64,
    pub(super) reads: ReadCounter,
    pub(super) deleted_identities: DeletedIdentities,
    /// Exchanges so far with a matching credential.
    pub(super) exchanges: u64,
    pub(super) credential_writes_under_way: BTreeSet<String>,
}

/// How Azure behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Seconds after which a written credential is accepted for tokens.
    pub propagation_seconds: u32,
    /// Lifetime of issued tokens, in seconds.
    pub token_lifetime_seconds: u32,
    /// How long a write of a credential takes, in milliseconds.
    pub write_latency_ms: u64,
    /// Credentials on a page without `$top`.
    pub credential_page_size: usize,
    /// Identities on a page.
    pub identity_page_size: usize,
    /// Regions whose identities do not support federated identity credentials.
    pub regions_without_credentials: BTreeSet<String>,
    /// How roles behave.
    pub roles: RoleSettings,
    /// How the directory behaves.
    pub directory: DirectorySettings,
    /// How far reads of ARM lag behind writes.
    pub reads: ReadSettings,
}

/// A subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Its GUID.
    pub id: String,
    /// Its tenant.
    pub tenant_id: String,
    /// Its resource groups by name.
    pub resource_groups: BTreeMap<String, ResourceGroup>,
    /// What it does not allow.
    pub conditions: SubscriptionConditions,
}

/// What a subscription does not allow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionConditions {
    /// Namespaces of resource providers that it is not registered for, such as `Microsoft.ManagedIdentity`.
    pub unregistered_providers: BTreeSet<String>,
    /// It is disabled, and therefore read-only.
    pub disabled: bool,
}

/// A resource group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceGroup {
    /// Its name, as it was created.
    pub name: String,
    /// Its region.
    pub location: String,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

/// The ARM ID of an identity, its parts as they were written. To compare, use [`IdentityId::key`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityId {
    /// Subscription GUID.
    pub subscription: String,
    /// Resource group name.
    pub resource_group: String,
    /// Identity name.
    pub name: String,
}

/// A user-assigned managed identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its ARM ID.
    pub id: IdentityId,
    /// Region, without spaces and in lower case.
    pub location: String,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// `None` or `Regional`.
    pub isolation_scope: String,
    /// The resource providers that it may be assigned to; empty if there is no restriction.
    pub assignment_restrictions: Vec<String>,
    /// The client ID in token requests.
    pub client_id: String,
    /// The object ID in tokens.
    pub principal_id: String,
    /// What the identity may do in ARM.
    pub arm_rights: ArmRights,
    /// When it was created.
    pub created_at: Timestamp,
    /// Federated identity credentials by name.
    pub credentials: BTreeMap<String, Credential>,
    /// Entries of any other shape in the list of credentials, by name in lower case: flexible credentials, and whatever
    /// other tools may have written. GET and LIST return them as they are, and they count as credentials. No token matches
    /// them.
    pub raw_credentials: BTreeMap<String, Value>,
    /// What Entra has of it.
    pub entra: IdentityInEntra,
}

/// A federated identity credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// Its name, as it was created.
    pub name: String,
    /// The issuer that tokens must have.
    pub issuer: String,
    /// The subject that tokens must have.
    pub subject: String,
    /// The audiences that tokens may have; Azure allows exactly one.
    pub audiences: Vec<String>,
    /// When it was last written.
    pub written_at: Timestamp,
}

/// What a principal may do in ARM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ArmRights {
    /// Everything.
    All,
    /// Reads.
    Read,
    /// Only these actions, as in a custom role; case-insensitive, without wildcards.
    Actions(BTreeSet<String>),
    /// Nothing: 403 `AuthorizationFailed`.
    #[default]
    None,
}

/// A resource lock on its scope and everything below.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Lock {
    /// The ARM ID that is locked.
    pub scope: String,
    /// What it forbids.
    #[serde(default)]
    pub level: LockLevel,
}

/// What a lock forbids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LockLevel {
    /// Deletes.
    #[default]
    CanNotDelete,
    /// Deletes and writes.
    ReadOnly,
}

/// An Azure Policy assignment that denies writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DenyPolicy {
    /// Name of the assignment.
    pub name: String,
    /// The ARM ID that it is assigned to.
    pub scope: String,
    /// Deny writes of this resource type only, for example
    /// `Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_type: Option<String>,
    /// The error is one of the details of a `ResourceValidationFailed`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub wrapped: bool,
}

/// A deny assignment: it forbids actions even to those whose roles allow them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DenyAssignment {
    /// Its display name.
    pub name: String,
    /// Its ID in the error.
    #[serde(default)]
    pub id: String,
    /// The ARM ID where it applies, and below.
    pub scope: String,
    /// The denied actions; `*` is a wildcard.
    #[serde(default = "writes")]
    pub actions: Vec<String>,
}

fn writes() -> Vec<String> {
    ["*/write", "*/delete"].map(str::to_owned).into()
}

impl IdentityId {
    /// The ID in lower case.
    pub fn key(&self) -> String {
        self.path("resourceGroups").to_lowercase()
    }

    /// The ID as in responses, with `resourcegroups` in lower case.
    pub fn in_answers(&self) -> String {
        self.path("resourcegroups")
    }

    fn path(&self, groups: &str) -> String {
        let Self { subscription, resource_group, name } = self;
        format!(
            "/subscriptions/{subscription}/{groups}/{resource_group}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}"
        )
    }
}

impl Lock {
    /// Whether the lock covers a resource: its scope, or anything below.
    pub fn covers(&self, resource: &str) -> bool {
        is_within(resource, &self.scope)
    }
}

impl DenyPolicy {
    /// Whether the policy covers a resource of this type.
    pub fn covers(&self, resource: &str, resource_type: &str) -> bool {
        is_within(resource, &self.scope)
            && self.resource_type.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(resource_type))
    }
}

impl DenyAssignment {
    /// Whether it forbids an action on a resource.
    pub fn covers(&self, action: &str, resource: &str) -> bool {
        is_within(resource, &self.scope) && roles::any_matches(&self.actions, action)
    }
}

/// Whether an ARM ID is `scope` or below it, case-insensitive.
pub(super) fn is_within(resource: &str, scope: &str) -> bool {
    let (resource, scope) = (resource.to_lowercase(), scope.trim_end_matches('/').to_lowercase());
    resource.strip_prefix(&scope).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_covers_itself_and_everything_below_but_not_a_sibling_with_a_longer_name() {
        assert!(is_within("/subscriptions/S/resourcegroups/RG", "/subscriptions/s/resourceGroups/rg/"));
        assert!(is_within("/subscriptions/s/resourceGroups/rg/providers/x", "/subscriptions/S"));
        assert!(!is_within("/subscriptions/s/resourceGroups/rg-two", "/subscriptions/s/resourceGroups/rg"));
    }
}
