//! Flags of leader election, shared by what may run in several replicas but writes from one only.

use uuid::Uuid;

use crate::cli::Failure;
use crate::cli::kube_client;
use crate::cli::usage_errors::Problems;
use ensign_controller::LeaseConfig;
use ensign_core::scheduling::leader_election::{MAX_DURATION_SECONDS, MIN_DURATION_SECONDS};

/// Who leads. Each flag is also an environment variable.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct LeaderElectionArgs {
    /// Write only while holding a Lease; without it, no second controller may ever run
    #[arg(long, env = "ENSIGN_LEADER_ELECTION", default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    leader_election: bool,
    /// Name of the Lease in Ensign's own namespace
    #[arg(long, env = "ENSIGN_LEASE_NAME", default_value = "ensign-controller", value_name = "NAME")]
    lease_name: String,
    /// Seconds after which another controller takes over from one that is gone without a word
    #[arg(long, env = "ENSIGN_LEASE_DURATION_SECONDS", default_value_t = 15, value_name = "SECONDS")]
    lease_duration_seconds: u64,
}

impl LeaderElectionArgs {
    /// What is wrong with the flags.
    pub(in crate::cli) fn check(&self, problems: &mut Problems) {
        let range = MIN_DURATION_SECONDS..=MAX_DURATION_SECONDS;
        problems.within("--lease-duration-seconds", &self.lease_duration_seconds, &range);
        problems.dns_name("--lease-name", &self.lease_name);
    }

    /// The lease to hold, if there is to be one.
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
            // A restarted container keeps its pod's name, but is not the one that held the lease.
            identity: format!("{}_{}", instance.unwrap_or("ensign-controller"), Uuid::new_v4()),
            duration_seconds: self.lease_duration_seconds,
        }))
    }
}
