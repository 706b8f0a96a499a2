//! Flags of the webhook's registration, beyond where it is.

use std::net::SocketAddr;

use ensign_controller::{CaInjection, WebhookProbe};

/// How the registration is filled in. Each flag is also an environment variable.
#[derive(Debug, clap::Args)]
#[allow(clippy::struct_field_names, reason = "they are the names of the flags")]
pub(in crate::cli) struct RegistrationArgs {
    /// Who puts the CA of the webhook's certificates into the registration: the controller, out of the webhook's Secret, or
    /// another program such as cert-manager's CA injector
    #[arg(long, env = "ENSIGN_WEBHOOK_CA_INJECTION", value_enum, default_value = "secret", value_name = "WHO")]
    webhook_ca_injection: WhoInjects,
    /// Send pods to the webhook only after it has answered
    #[arg(long, env = "ENSIGN_WEBHOOK_PROBE", default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    webhook_probe: bool,
    /// Where the controller finds the webhook to see whether it answers, if DNS does not tell it
    #[arg(long, env = "ENSIGN_WEBHOOK_PROBE_ADDRESS", value_name = "IP:PORT")]
    webhook_probe_address: Option<SocketAddr>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum WhoInjects {
    /// The controller
    Secret,
    /// Another program
    External,
}

impl RegistrationArgs {
    /// Who puts the CA in.
    pub(in crate::cli) fn ca(&self) -> CaInjection {
        match self.webhook_ca_injection {
            WhoInjects::Secret => CaInjection::Secret,
            WhoInjects::External => CaInjection::External,
        }
    }

    /// How the webhook is looked at before it is registered.
    pub(in crate::cli) fn probe(&self) -> Option<WebhookProbe> {
        self.webhook_probe.then_some(WebhookProbe { address: self.webhook_probe_address })
    }

    /// What is wrong with the flags.
    pub(in crate::cli) fn problems(&self) -> Vec<String> {
        let useless = !self.webhook_probe && self.webhook_probe_address.is_some();
        let problem = "--webhook-probe-address has no use with --webhook-probe=false";
        useless.then(|| problem.to_owned()).into_iter().collect()
    }
}
