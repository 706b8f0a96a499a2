//! The emulator's state, and how requests change it: no I/O and no clock (now is an argument).
//!
//! ```text
//! StateDocument (JSON) ⇄ State ── arm::plan + arm::apply ──▶ ArmAnswer
//!                              └─ entra::examine + entra::grant ─▶ AccessClaims
//! ```

pub mod arm;
mod directory;
pub mod document;
pub mod entra;
mod history;
mod model;
pub mod protected;
mod reads;
pub mod roles;
mod settings;
pub mod text;

use k8s_openapi::jiff::Timestamp;
use uuid::Uuid;

pub use directory::{DirectorySettings, IdentityInEntra};
pub use document::{Defaults, InvalidDocument, StateDocument};
pub use history::Tracked;
pub use model::{
    ArmRights, Credential, DenyAssignment, DenyPolicy, Identity, IdentityId, Lock, LockLevel, ResourceGroup, Settings,
    State, Subscription, SubscriptionConditions,
};
pub use reads::{ReadSettings, Staleness};

/// The principal of `GET /_emulator/arm-token`, which may do everything and belongs to no identity.
pub const ADMINISTRATOR: &str = "ad000000-0000-4000-8000-000000000ad0";

/// Namespace of generated GUIDs: the same state generates the same ones.
const GUIDS: Uuid = Uuid::from_u128(0xe5f1_6e00_0000_4000_8000_0000_0000_0001);

impl State {
    /// A GUID that this state has not generated before.
    pub(crate) fn next_guid(&mut self, what: &str) -> String {
        self.guids_given += 1;
        Uuid::new_v5(&GUIDS, format!("{}/{what}", self.guids_given).as_bytes()).to_string()
    }

    /// Whether a tenant exists, by its GUID, case-insensitive.
    pub fn has_tenant(&self, tenant: &str) -> bool {
        self.tenant_id.eq_ignore_ascii_case(tenant)
            || self.subscriptions.values().any(|subscription| subscription.tenant_id.eq_ignore_ascii_case(tenant))
    }

    /// The subscription with this ID, case-insensitive.
    pub fn subscription(&self, id: &str) -> Option<&Subscription> {
        self.subscriptions.get(&id.to_lowercase())
    }

    /// The tenant that an identity's subscription trusts.
    pub fn tenant_of(&self, id: &IdentityId) -> &str {
        self.subscription(&id.subscription).map_or(&self.tenant_id, |subscription| &subscription.tenant_id)
    }

    /// The identity with this client ID.
    pub fn identity_by_client_id(&self, client_id: &str) -> Option<&Identity> {
        self.identities.values().find(|identity| identity.client_id.eq_ignore_ascii_case(client_id))
    }

    /// The identity with this principal ID.
    pub fn identity_by_principal_id(&self, principal_id: &str) -> Option<&Identity> {
        self.identities.values().find(|identity| identity.principal_id.eq_ignore_ascii_case(principal_id))
    }

    /// Replaces everything but the writes in progress.
    pub(crate) fn replace(&mut self, other: Self) {
        let credential_writes_under_way = std::mem::take(&mut self.credential_writes_under_way);
        *self = Self { credential_writes_under_way, ..other };
    }

    /// Marks the start of a write of a federated identity credential of an identity. False if another one is in progress:
    /// Azure rejects two at a time.
    pub fn begin_credential_write(&mut self, identity: &IdentityId) -> bool {
        self.credential_writes_under_way.insert(identity.key())
    }

    /// Marks the end of that write.
    pub fn end_credential_write(&mut self, identity: &IdentityId) {
        self.credential_writes_under_way.remove(&identity.key());
    }
}

/// Whether a token's audience is ARM: that of a known cloud, or the emulator's own URL.
pub(crate) fn names_arm(audience: &str, arm_url: &str) -> bool {
    const CLOUDS: [&str; 6] = [
        "https://management.azure.com",
        "https://management.core.windows.net",
        "https://management.usgovcloudapi.net",
        "https://management.core.usgovcloudapi.net",
        "https://management.chinacloudapi.cn",
        "https://management.core.chinacloudapi.cn",
    ];
    let audience = audience.strip_suffix('/').unwrap_or(audience);
    CLOUDS.contains(&audience) || audience == arm_url
}

/// Whether something written at `written` has taken effect at `now`.
pub(crate) fn has_propagated(written: Timestamp, now: Timestamp, seconds: u32) -> bool {
    now.duration_since(written).as_secs() >= i64::from(seconds)
}
