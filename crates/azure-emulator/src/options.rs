//! How a stand-in is set up.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::state::roles::RoleSettings;
use super::state::{Defaults, Settings, StateDocument};
use ensign_runtime::clock::{SharedClock, SystemClock};

/// How a stand-in is set up. The default is good for a test: any free port, nothing seeded but one empty resource
/// group.
#[derive(Clone)]
pub struct EmulatorOptions {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where `ca.crt` goes; a temporary folder, removed at the end, unless given.
    pub data_dir: Option<PathBuf>,
    /// The state at the start and after a reset.
    pub seed: StateDocument,
    /// PEM bundles of CAs that are trusted when issuers' documents are read.
    pub issuer_ca_pems: Vec<String>,
    /// A credential gives tokens this many seconds after its write.
    pub propagation_seconds: u32,
    /// A new identity's principal gets no role before this many seconds have passed.
    pub principal_replication_seconds: u32,
    /// A role assignment gives something this many seconds after its write.
    pub role_propagation_seconds: u32,
    /// How long a write of a credential takes; another one under the same identity is refused meanwhile.
    pub write_latency_ms: u64,
    /// Refuse requests beyond Azure's published limits, with 429.
    pub published_limits: bool,
    /// Lifetime of tokens.
    pub token_lifetime_seconds: u32,
    /// The tenant.
    pub tenant_id: String,
    /// The subscription.
    pub subscription_id: String,
    /// The resource group.
    pub resource_group: String,
    /// The region of what names no other.
    pub location: String,
    /// The time that tokens are judged by.
    pub clock: SharedClock,
}

impl Default for EmulatorOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            data_dir: None,
            seed: StateDocument::default(),
            issuer_ca_pems: Vec::new(),
            propagation_seconds: 0,
            principal_replication_seconds: 0,
            role_propagation_seconds: 0,
            write_latency_ms: 20,
            published_limits: false,
            token_lifetime_seconds: 86_400,
            tenant_id: "7e000000-0000-4000-8000-00000000007e".to_owned(),
            subscription_id: "50b00000-0000-4000-8000-00000000050b".to_owned(),
            resource_group: "ensign-emulator".to_owned(),
            location: "westeurope".to_owned(),
            clock: SystemClock::shared(),
        }
    }
}

impl EmulatorOptions {
    pub(super) fn defaults(&self) -> Defaults {
        Defaults {
            tenant_id: self.tenant_id.clone(),
            subscription_id: self.subscription_id.clone(),
            resource_group: self.resource_group.clone(),
            location: self.location.clone(),
            settings: Settings {
                propagation_seconds: self.propagation_seconds,
                token_lifetime_seconds: self.token_lifetime_seconds,
                write_latency_ms: self.write_latency_ms,
                credential_page_size: 20,
                identity_page_size: 100,
                roles: RoleSettings {
                    principal_replication_seconds: self.principal_replication_seconds,
                    propagation_seconds: self.role_propagation_seconds,
                    ..RoleSettings::default()
                },
                regions_without_credentials: ["malaysiasouth", "newzealandnorth"].map(str::to_owned).into(),
            },
        }
    }
}
