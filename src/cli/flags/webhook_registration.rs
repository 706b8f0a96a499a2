//! Flags of how the controller fills in the webhook configuration.

use std::net::SocketAddr;

use crate::cli::usage_errors::Problems;
use ensign_controller::{CaInjection, WebhookProbe};

/// How the webhook configuration is filled in. Each flag is also an environment variable.
#[derive(Debug, clap::Args)]
#[allow(clippy::struct_field_names, reason = "they are the names of the flags")]
pub(in crate::cli) struct RegistrationArgs {
    /// Who injects the CA of the webhook's certificates into the webhook configuration: the controller, from the webhook's
    /// Secret, or another program such as cert-manager's CA injector
    #[arg(long, env = "ENSIGN_WEBHOOK_CA_INJECTION", value_enum, default_value = "secret", value_name = "WHO")]
    webhook_ca_injection: CaInjector,
    /// Register the webhook only once it responds
    #[arg(long, env = "ENSIGN_WEBHOOK_PROBE", default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    webhook_probe: bool,
    /// Address at which the controller probes the webhook [default: resolved by DNS]
    #[arg(long, env = "ENSIGN_WEBHOOK_PROBE_ADDRESS", value_name = "IP:PORT")]
    webhook_probe_address: Option<SocketAddr>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum CaInjector {
    /// The controller, from the webhook's Secret
    Secret,
    /// Another program
    External,
}

impl RegistrationArgs {
    /// Who injects the CA.
    pub(in crate::cli) fn ca(&self) -> CaInjection {
        match self.webhook_ca_injection {
            CaInjector::Secret => CaInjection::Secret,
            CaInjector::External => CaInjection::External,
        }
    }

    /// How the webhook is probed before it is registered.
    pub(in crate::cli) fn probe(&self) -> Option<WebhookProbe> {
        self.webhook_probe.then_some(WebhookProbe { address: self.webhook_probe_address })
    }

    /// Validates the flags.
    pub(in crate::cli) fn check(&self, problems: &mut Problems) {
        problems.require(self.webhook_probe || self.webhook_probe_address.is_none(), || {
            "--webhook-probe-address has no effect with --webhook-probe=false".to_owned()
        });
    }
}
