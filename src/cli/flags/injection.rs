//! Flags of injection: who injects pods.

use clap::ValueEnum;
use kube::Client;

use crate::cli::Failure;
use crate::cli::usage_errors::Problems;
use ensign_controller::{InjectionTarget, choose_injection};
use ensign_core::admission;
use ensign_core::cel::Choice;

/// Who injects pods. Each flag is also an environment variable.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct InjectionArgs {
    /// Who injects pods: the API server, by admission policies, or the webhook
    #[arg(long, env = "ENSIGN_INJECTION", value_enum, default_value_t, value_name = "MODE")]
    injection: InjectionMode,
}

/// Values of the flag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum InjectionMode {
    /// The API server; the controller does not start if the API server does not support it
    Policy,
    /// The webhook
    Webhook,
    /// The API server if it can inject (Kubernetes 1.37 or later), otherwise the webhook
    #[default]
    Auto,
}

/// Why compatibility mode excludes policies.
const NEEDS_WEBHOOK: &str = "--azure-workload-identity-compat needs the webhook";

impl InjectionArgs {
    /// Validates the flags.
    pub(in crate::cli) fn check(&self, compatibility: bool, problems: &mut Problems) {
        problems.require(!compatibility || self.injection != InjectionMode::Policy, || {
            format!("--injection policy is not possible: {NEEDS_WEBHOOK}")
        });
    }

    /// Determines who injects pods in this cluster; `config` is what is injected.
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
    fn compatibility_mode_needs_the_webhook() {
        let is_valid = |args: &InjectionArgs, compatibility| {
            let mut problems = Problems::default();
            args.check(compatibility, &mut problems);
            problems.finish(Some(())).is_ok()
        };
        for (flags, valid) in [(&["--injection=policy"][..], false), (&["--injection=webhook"], true), (&[], true)] {
            let args = TestCli::try_parse_from(["ensign"].iter().chain(flags)).unwrap().args;
            assert_eq!(is_valid(&args, true), valid, "{flags:?}");
            assert!(is_valid(&args, false), "{flags:?}");
        }
    }
}
