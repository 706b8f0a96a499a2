//! Flags of pod gates: the webhook gates pods, and the controller ungates them once their identity works.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::cli::usage_errors::Problems;
use ensign_runtime::duration_arg::DurationArg;

/// Propagation in Entra takes from seconds to minutes.
const PROPAGATION_DELAY: RangeInclusive<DurationArg> = DurationArg::from_secs(0)..=DurationArg::from_secs(3_600);

/// Whether pods are gated until their identity works. Controller and webhook need the same value.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct PodGateArgs {
    /// Gate pods until their identity works, and detect pods that were not injected; false needs no permission on pods
    #[arg(long, env = "ENSIGN_GATE_PODS", default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub(in crate::cli) gate_pods: bool,
}

/// How long a new credential is given to propagate.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct PropagationArgs {
    /// How long a credential is given to propagate in Entra before it counts as ready, 0s to 1h
    #[arg(long, env = "ENSIGN_PROPAGATION_DELAY", default_value_t = DurationArg::from_secs(30), value_name = "DURATION")]
    propagation_delay: DurationArg,
}

impl PropagationArgs {
    /// Validates the flags.
    pub(in crate::cli) fn check(&self, problems: &mut Problems) {
        problems.within("--propagation-delay", &self.propagation_delay, &PROPAGATION_DELAY);
    }

    /// How long a credential is given to propagate.
    pub(in crate::cli) fn delay(&self) -> Duration {
        self.propagation_delay.get()
    }
}
