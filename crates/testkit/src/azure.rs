//! The Azure emulator as tests set it up: identities, credentials, and a token for ARM.

use std::collections::BTreeMap;
use std::time::Duration;

use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use azure_core::time::OffsetDateTime;
use ensign_azure_emulator::state::{ArmRights, Credential, Identity, IdentityId, IdentityInEntra};
use ensign_azure_emulator::{Emulator, EmulatorOptions};
use k8s_openapi::jiff::Timestamp;
use uuid::Uuid;

use super::control_plane::ControlPlane;

/// The audience of tokens that Entra exchanges.
pub const AUDIENCE: &str = "api://AzureADTokenExchange";

/// How long the test controllers expect Azure's reads to lag.
pub const AZURE_READ_LAG: Duration = Duration::from_secs(2);
/// How far the reads of the shared emulators lag at most, in seconds.
pub const EMULATOR_READ_LAG_SECONDS: u32 = 1;

/// Starts an emulator whose token exchange trusts the control plane's certificate.
pub fn start_emulator(control_plane: &ControlPlane, options: EmulatorOptions) -> Emulator {
    let ca = std::fs::read_to_string(&control_plane.ca_file).expect("read the cluster's CA");
    Emulator::start(EmulatorOptions { issuer_ca_pems: vec![ca], ..options }).expect("start the Azure emulator")
}

/// A user-assigned identity with random client and principal IDs, and without credentials.
pub fn identity(id: IdentityId, location: &str) -> Identity {
    Identity {
        id,
        location: location.to_owned(),
        tags: BTreeMap::new(),
        isolation_scope: "None".to_owned(),
        assignment_restrictions: Vec::new(),
        client_id: Uuid::new_v4().to_string(),
        principal_id: Uuid::new_v4().to_string(),
        arm_rights: ArmRights::None,
        created_at: Timestamp::UNIX_EPOCH,
        credentials: BTreeMap::new(),
        raw_credentials: BTreeMap::new(),
        entra: IdentityInEntra::default(),
    }
}

/// The ARM ID of an identity, as users write it.
pub fn arm_id(id: &IdentityId) -> String {
    let IdentityId { subscription, resource_group, name } = id;
    format!(
        "/subscriptions/{subscription}/resourceGroups/{resource_group}/providers/Microsoft.ManagedIdentity/\
         userAssignedIdentities/{name}"
    )
}

/// A federated identity credential that was written long ago.
pub fn credential(name: &str, issuer: &str, subject: &str) -> Credential {
    Credential {
        name: name.to_owned(),
        issuer: issuer.to_owned(),
        subject: subject.to_owned(),
        audiences: vec![AUDIENCE.to_owned()],
        written_at: Timestamp::UNIX_EPOCH,
    }
}

/// Ensign's own credential for ARM: it always returns the same token.
#[derive(Debug)]
pub struct FixedToken(pub String);

#[async_trait::async_trait]
impl TokenCredential for FixedToken {
    async fn get_token(
        &self,
        _scopes: &[&str],
        _options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        let expires_on = OffsetDateTime::now_utc() + azure_core::time::Duration::hours(12);
        Ok(AccessToken::new(self.0.clone(), expires_on))
    }
}
