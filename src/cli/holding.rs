//! Flags of holding pods back, shared by the webhook, which holds them, and the controller, which lets them go.

use std::time::Duration;

/// Entra takes seconds to minutes to learn of a credential.
const MAX_SETTLE_SECONDS: u64 = 3_600;

/// Whether and how long pods wait for their identity. Both processes need the same flags, which are also environment
/// variables.
#[derive(Debug, clap::Args)]
pub(super) struct HoldingArgs {
    /// Hold pods back until their identity works, and look for pods that were missed; false needs no right on pods
    #[arg(long, env = "ENSIGN_HOLD", default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    hold: bool,
    /// Seconds that Entra gets to learn of a credential, before pods that need it start
    #[arg(long, env = "ENSIGN_SETTLE_SECONDS", default_value_t = 30, value_name = "SECONDS")]
    settle_seconds: u64,
}

impl HoldingArgs {
    /// What is wrong with the flags.
    pub(super) fn problems(&self) -> Vec<String> {
        let fits = self.settle_seconds <= MAX_SETTLE_SECONDS;
        (!fits).then(|| format!("--settle-seconds must be 0 to {MAX_SETTLE_SECONDS}")).into_iter().collect()
    }

    /// How long a credential settles, if pods are held at all.
    pub(super) fn settle(&self) -> Option<Duration> {
        self.hold.then(|| Duration::from_secs(self.settle_seconds))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct TestCli {
        #[command(flatten)]
        args: HoldingArgs,
    }

    fn parse(flags: &[&str]) -> HoldingArgs {
        TestCli::try_parse_from(["ensign"].iter().chain(flags)).unwrap().args
    }

    #[test]
    fn pods_are_held_unless_somebody_says_otherwise() {
        assert_eq!(parse(&[]).settle(), Some(Duration::from_secs(30)));
        assert_eq!(parse(&["--settle-seconds=0"]).settle(), Some(Duration::ZERO));
        assert_eq!(parse(&["--hold=false"]).settle(), None);
    }

    #[test]
    fn more_than_an_hour_is_refused() {
        assert!(parse(&["--settle-seconds=3600"]).problems().is_empty());
        let problems = parse(&["--settle-seconds=3601"]).problems();
        assert!(problems.len() == 1 && problems[0].contains("--settle-seconds"), "{problems:?}");
    }
}
