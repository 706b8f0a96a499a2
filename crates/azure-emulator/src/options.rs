//! How an emulator is configured.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::state::roles::RoleSettings;
use super::state::{Defaults, DirectorySettings, ReadSettings, Settings, StateDocument};
use ensign_runtime::clock::{SharedClock, SystemClock};

/// How an emulator is configured. The default suits a test: a free port, and no state but an empty resource group.
#[derive(Clone)]
pub struct EmulatorOptions {
    /// The address to listen on; port 0 selects a free one.
    pub listen: SocketAddr,
    /// The folder for `ca.crt`; by default a temporary one, which is removed at the end.
    pub data_dir: Option<PathBuf>,
    /// The state at the start and after a reset.
    pub seed: StateDocument,
    /// PEM bundles of CAs to trust when reading issuers' documents.
    pub issuer_ca_pems: Vec<String>,
    /// Seconds after which a written credential is accepted for tokens.
    pub propagation_seconds: u32,
    /// Seconds after which roles can be assigned to the principal of a new identity.
    pub principal_replication_seconds: u32,
    /// Seconds after which a written role assignment takes effect.
    pub role_propagation_seconds: u32,
    /// How long a write of a credential takes. Meanwhile another one for the same identity is rejected.
    pub write_latency_ms: u64,
    /// How the directory behaves: how soon it knows new identities, and what it denies.
    pub directory: DirectorySettings,
    /// How far reads of ARM lag behind writes: each is answered by a replica that lags at most this many seconds. 0 is off.
    pub read_lag_seconds: u32,
    /// Enforce Azure's published rate limits with 429.
    pub published_limits: bool,
    /// Lifetime of tokens.
    pub token_lifetime_seconds: u32,
    /// The tenant.
    pub tenant_id: String,
    /// The subscription.
    pub subscription_id: String,
    /// The resource group.
    pub resource_group: String,
    /// The default region.
    pub location: String,
    /// The clock for checking tokens.
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
            directory: DirectorySettings::default(),
            read_lag_seconds: 0,
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
                directory: self.directory.clone(),
                reads: ReadSettings { lag_seconds: self.read_lag_seconds, ..ReadSettings::default() },
                regions_without_credentials: ["malaysiasouth", "newzealandnorth"].map(str::to_owned).into(),
            },
        }
    }
}
