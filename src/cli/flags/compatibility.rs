//! Flags of compatibility mode: pods and service accounts written for azure-workload-identity work unchanged.

use crate::cli::usage_errors::Problems;
use ensign_api::arm_id::is_guid;
use ensign_core::admission::azure_workload_identity::Compatibility;

/// Whether compatibility mode is enabled. The flag is also an environment variable.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct CompatibilityArgs {
    /// Also inject pods and service accounts written for azure-workload-identity
    #[arg(
        id = "compatibility",
        long = "azure-workload-identity-compat",
        env = "ENSIGN_AZURE_WORKLOAD_IDENTITY_COMPAT"
    )]
    pub(in crate::cli) compatibility: bool,
}

/// What the webhook needs in addition.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct WebhookCompatibilityArgs {
    #[command(flatten)]
    mode: CompatibilityArgs,
    /// Entra tenant of service accounts that do not set one, for --azure-workload-identity-compat
    #[arg(long, env = "ENSIGN_AZURE_TENANT_ID", value_name = "GUID")]
    azure_tenant_id: Option<String>,
}

impl WebhookCompatibilityArgs {
    /// Validates the flags.
    pub(in crate::cli) fn check(&self, problems: &mut Problems) {
        let tenant = self.azure_tenant_id.as_deref();
        problems.require(tenant.is_none_or(is_guid), || {
            format!("--azure-tenant-id {:?} is not a GUID", tenant.unwrap_or_default())
        });
        problems.require(tenant.is_some() || !self.mode.compatibility, || {
            "--azure-workload-identity-compat needs --azure-tenant-id: the tenant of service accounts without the \
             annotation azure.workload.identity/tenant-id"
                .to_owned()
        });
    }

    /// Compatibility mode, if it is enabled.
    pub(in crate::cli) fn compatibility(&self) -> Option<Compatibility> {
        let tenant_id = self.azure_tenant_id.clone().filter(|_| self.mode.compatibility)?;
        Some(Compatibility { tenant_id })
    }
}
