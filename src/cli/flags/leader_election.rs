//! Flags of leader election, shared by the commands of which only one process may write at a time.

use std::ops::RangeInclusive;

use uuid::Uuid;

use crate::cli::Failure;
use crate::cli::kube_client;
use crate::cli::usage_errors::Problems;
use ensign_controller::LeaseConfig;
use ensign_core::scheduling::leader_election::{MAX_DURATION_SECONDS, MIN_DURATION_SECONDS};
use ensign_runtime::duration_arg::DurationArg;

const LEASE_DURATION: RangeInclusive<DurationArg> =
    DurationArg::from_secs(MIN_DURATION_SECONDS)..=DurationArg::from_secs(MAX_DURATION_SECONDS);

/// Leader election. Each flag is also an environment variable.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct LeaderElectionArgs {
    /// Write only while holding the Lease; if false, no second controller may ever run
    #[arg(long, env = "ENSIGN_LEADER_ELECTION", default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    leader_election: bool,
    /// Name of the Lease, in Ensign's namespace
    #[arg(long, env = "ENSIGN_LEASE_NAME", default_value = "ensign-controller", value_name = "NAME")]
    lease_name: String,
    /// Lease duration in whole seconds, 2s to 10m: a standby takes over after this long without a renewal
    #[arg(long, env = "ENSIGN_LEASE_DURATION", default_value_t = DurationArg::from_secs(15), value_name = "DURATION")]
    lease_duration: DurationArg,
}

impl LeaderElectionArgs {
    /// Validates the flags.
    pub(in crate::cli) fn check(&self, problems: &mut Problems) {
        problems.within("--lease-duration", &self.lease_duration, &LEASE_DURATION);
        // A Lease has whole seconds.
        problems.require(self.lease_duration.whole_seconds().is_some(), || {
            format!("--lease-duration must be whole seconds, not {}", self.lease_duration)
        });
        problems.dns_name("--lease-name", &self.lease_name);
    }

    /// The lease to acquire, if leader election is enabled.
    pub(in crate::cli) async fn lease(
        &self,
        namespace: &str,
        instance: Option<&str>,
    ) -> Result<Option<LeaseConfig>, Failure> {
        if !self.leader_election {
            return Ok(None);
        }
        Ok(Some(LeaseConfig {
            client: kube_client::client_without_retries().await?,
            namespace: namespace.to_owned(),
            name: self.lease_name.clone(),
            // A restarted container keeps its pod's name, but did not hold the lease.
            identity: format!("{}_{}", instance.unwrap_or("ensign-controller"), Uuid::new_v4()),
            duration_seconds: self.lease_duration.get().as_secs(),
        }))
    }
}
