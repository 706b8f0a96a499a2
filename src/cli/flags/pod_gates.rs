//! Flags of holding pods back: the webhook holds them, and the controller says when they may start.

use std::time::Duration;

use crate::cli::usage_errors::Problems;

/// Entra takes seconds to minutes to learn of a credential.
const MAX_SETTLE_SECONDS: u64 = 3_600;

/// Whether pods wait for their identity. Controller and webhook need the same, which is also an environment variable.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct HoldingArgs {
    /// Hold pods back until their identity works, and look for pods that were missed; false needs no right on pods
    #[arg(long, env = "ENSIGN_HOLD", default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub(in crate::cli) hold: bool,
}

/// How long the controller waits until it calls an identity ready. Also an environment variable.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct SettleArgs {
    /// Seconds that Entra gets to learn of a credential before it counts as ready, 0 to 3600
    #[arg(long, env = "ENSIGN_SETTLE_SECONDS", default_value_t = 30, value_name = "SECONDS")]
    settle_seconds: u64,
}

impl SettleArgs {
    /// Notes what is wrong with the flags.
    pub(in crate::cli) fn check(&self, problems: &mut Problems) {
        problems.within("--settle-seconds", &self.settle_seconds, &(0..=MAX_SETTLE_SECONDS));
    }

    /// How long a credential settles.
    pub(in crate::cli) fn settle(&self) -> Duration {
        Duration::from_secs(self.settle_seconds)
    }
}
