//! Flags for what the cluster is to Azure: its ID and its service account issuer.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::cli::usage_errors::Problems;
use ensign_controller::IssuerWatch;

/// A change is believed after three looks; until then, pods with tokens of the new issuer have to wait.
const ISSUER_CHECK_SECONDS: RangeInclusive<u64> = 5..=3_600;
const MAX_CLUSTER_ID: usize = 253;
/// Longest issuer that Azure takes.
const MAX_ISSUER: usize = 600;

/// The cluster. Each flag is also an environment variable.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ClusterArgs {
    /// Service account issuer, exactly as tokens carry it [default: what the API server's discovery document says]
    #[arg(long, env = "ENSIGN_SERVICE_ACCOUNT_ISSUER", value_name = "URL")]
    pub(in crate::cli) service_account_issuer: Option<String>,
    /// Seconds between looks at the API server's discovery document, 5 to 3600; unused with a set issuer
    #[arg(long, env = "ENSIGN_ISSUER_CHECK_SECONDS", default_value_t = 60, value_name = "SECONDS")]
    issuer_check_seconds: u64,
    /// Accept an issuer that Entra cannot reach; for development with the emulator only
    #[arg(long, env = "ENSIGN_ALLOW_PRIVATE_ISSUER")]
    pub(in crate::cli) allow_private_issuer: bool,
    /// ID of this cluster, never shared with another [default: the UID of namespace kube-system]
    #[arg(long, env = "ENSIGN_CLUSTER_ID", value_name = "ID")]
    pub(in crate::cli) cluster_id: Option<String>,
    /// ID that this cluster had before: credentials that were written under it stay this cluster's own
    #[arg(long, env = "ENSIGN_PREVIOUS_CLUSTER_ID", value_name = "ID")]
    pub(in crate::cli) previous_cluster_id: Option<String>,
}

impl ClusterArgs {
    /// What is wrong with the flags.
    pub(in crate::cli) fn check(&self, problems: &mut Problems) {
        for (flag, id) in [("--cluster-id", &self.cluster_id), ("--previous-cluster-id", &self.previous_cluster_id)] {
            problems.require(id.as_ref().is_none_or(|id| !id.trim().is_empty() && id.len() <= MAX_CLUSTER_ID), || {
                format!("{flag} must have 1 to {MAX_CLUSTER_ID} characters")
            });
        }
        problems.require(self.cluster_id.is_none() || self.cluster_id != self.previous_cluster_id, || {
            "--previous-cluster-id must differ from --cluster-id".to_owned()
        });
        problems.within("--issuer-check-seconds", &self.issuer_check_seconds, &ISSUER_CHECK_SECONDS);
        // Whether Entra can reach it is a condition: what was trusted before can still be revoked.
        if let Some(issuer) = &self.service_account_issuer {
            let fits = issuer.chars().count() <= MAX_ISSUER && !issuer.contains(char::is_whitespace);
            problems.require(fits && url::Url::parse(issuer).is_ok_and(|url| url.has_host()), || {
                format!("--service-account-issuer {issuer:?} is not a URL of at most {MAX_ISSUER} characters")
            });
        }
    }

    /// How the issuer is watched, unless it is set.
    pub(in crate::cli) fn issuer_watch(&self) -> Option<IssuerWatch> {
        self.service_account_issuer.is_none().then_some(IssuerWatch {
            every: Duration::from_secs(self.issuer_check_seconds),
            allow_private: self.allow_private_issuer,
        })
    }
}
