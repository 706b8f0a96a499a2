//! Flags of injection: who does it.

use clap::ValueEnum;
use kube::Client;

use crate::cli::Failure;
use ensign_controller::{InjectionTarget, choose_injection};
use ensign_core::admission;
use ensign_core::cel::Choice;

/// Who injects pods. Each flag is also an environment variable.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct InjectionArgs {
    /// Who injects pods: the API server by itself, by admission policies, or the webhook
    #[arg(long, env = "ENSIGN_INJECTION", value_enum, default_value_t, value_name = "MODE")]
    injection: InjectionMode,
}

/// Values of the flag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum InjectionMode {
    /// The API server; the controller does not start where that is too old for it
    Policy,
    /// The webhook
    Webhook,
    /// The API server where it can (Kubernetes 1.37 or later), else the webhook
    #[default]
    Auto,
}

/// Why policies are out of the question in compatibility mode.
const NEEDS_WEBHOOK: &str = "--azure-workload-identity-compat needs the webhook";

impl InjectionArgs {
    /// What is wrong with the flags.
    pub(in crate::cli) fn problems(&self, compatibility: bool) -> Vec<String> {
        let both = compatibility && self.injection == InjectionMode::Policy;
        both.then(|| format!("--injection policy can't be: {NEEDS_WEBHOOK}")).into_iter().collect()
    }

    /// Asks the cluster who can inject there; `config` is what pods get.
    pub(in crate::cli) async fn target(
        &self,
        client: &Client,
        compatibility: bool,
        namespace: &str,
        config: admission::Config,
    ) -> Result<InjectionTarget, Failure> {
        let choice = match self.injection {
            InjectionMode::Policy => Choice::Policy,
            InjectionMode::Webhook => Choice::Webhook,
            InjectionMode::Auto => Choice::Auto,
        };
        let mode = choose_injection(client, choice, compatibility.then_some(NEEDS_WEBHOOK)).await?;
        Ok(InjectionTarget { mode, namespace: namespace.to_owned(), config })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct TestCli {
        #[command(flatten)]
        args: InjectionArgs,
    }

    #[test]
    fn compatibility_mode_can_not_do_without_the_webhook() {
        for (flags, refused) in [(&["--injection=policy"][..], true), (&["--injection=webhook"], false), (&[], false)] {
            let args = TestCli::try_parse_from(["ensign"].iter().chain(flags)).unwrap().args;
            assert_eq!(args.problems(true).len(), usize::from(refused), "{flags:?}");
            assert!(args.problems(false).is_empty(), "{flags:?}");
        }
    }
}
