//! Flags of compatibility mode: pods and service accounts of azure-workload-identity work as they are.

use ensign_core::admission::azure_workload_identity::Compatibility;

/// Whether the mode is on. Each flag is also an environment variable.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct CompatibilityArgs {
    /// Inject pods with azure-workload-identity's label by the annotations of their service account too
    #[arg(
        id = "compatibility",
        long = "azure-workload-identity-compat",
        env = "ENSIGN_AZURE_WORKLOAD_IDENTITY_COMPAT"
    )]
    pub(in crate::cli) compatibility: bool,
}

/// What the webhook has to be told besides.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct WebhookCompatibilityArgs {
    #[command(flatten)]
    mode: CompatibilityArgs,
    /// Entra tenant for service accounts that name none, with --azure-workload-identity-compat
    #[arg(long, env = "ENSIGN_AZURE_TENANT_ID", value_name = "GUID")]
    azure_tenant_id: Option<String>,
}

impl WebhookCompatibilityArgs {
    /// What is wrong with the flags.
    pub(in crate::cli) fn problems(&self) -> Vec<String> {
        match &self.azure_tenant_id {
            Some(tenant) if !ensign_api::arm_id::is_guid(tenant) => {
                vec![format!("--azure-tenant-id {tenant:?} is not a GUID")]
            }
            None if self.mode.compatibility => {
                vec![
                    "--azure-workload-identity-compat needs --azure-tenant-id: the tenant of service accounts without \
                      the annotation azure.workload.identity/tenant-id"
                        .to_owned(),
                ]
            }
            _ => Vec::new(),
        }
    }

    /// The mode, if it is on.
    pub(in crate::cli) fn compatibility(&self) -> Option<Compatibility> {
        let tenant_id = self.azure_tenant_id.clone().filter(|_| self.mode.compatibility)?;
        Some(Compatibility { tenant_id })
    }
}
