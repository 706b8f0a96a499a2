//! Flags that identify the cluster to Azure: its ID and its service account issuer.

use std::ops::RangeInclusive;

use crate::cli::usage_errors::Problems;
use ensign_controller::IssuerWatch;
use ensign_runtime::duration_arg::DurationArg;

/// A change takes effect after three checks that agree; until then, pods with tokens of the new issuer wait.
const ISSUER_CHECK_INTERVAL: RangeInclusive<DurationArg> = DurationArg::from_secs(5)..=DurationArg::from_secs(3_600);
const MAX_CLUSTER_ID: usize = 253;
/// Maximum length of an issuer in Azure.
const MAX_ISSUER: usize = 600;

/// The cluster. Each flag is also an environment variable.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ClusterArgs {
    /// Service account issuer, exactly as in the tokens [default: read from the API server's discovery document]
    #[arg(long, env = "ENSIGN_SERVICE_ACCOUNT_ISSUER", value_name = "URL")]
    pub(in crate::cli) service_account_issuer: Option<String>,
    /// Interval between reads of the API server's discovery document, 5s to 1h; unused with --service-account-issuer
    #[arg(long, env = "ENSIGN_ISSUER_CHECK_INTERVAL", default_value_t = DurationArg::from_secs(60), value_name = "DURATION")]
    issuer_check_interval: DurationArg,
    /// Accept an issuer that Entra cannot reach; for development with the emulator only
    #[arg(long, env = "ENSIGN_ALLOW_PRIVATE_ISSUER")]
    pub(in crate::cli) allow_private_issuer: bool,
    /// ID of this cluster, never shared with another [default: the UID of namespace kube-system]
    #[arg(long, env = "ENSIGN_CLUSTER_ID", value_name = "ID")]
    pub(in crate::cli) cluster_id: Option<String>,
    /// Previous ID of this cluster: credentials written under it still belong to this cluster
    #[arg(long, env = "ENSIGN_PREVIOUS_CLUSTER_ID", value_name = "ID")]
    pub(in crate::cli) previous_cluster_id: Option<String>,
}

impl ClusterArgs {
    /// Validates the flags.
    pub(in crate::cli) fn check(&self, problems: &mut Problems) {
        for (flag, id) in [("--cluster-id", &self.cluster_id), ("--previous-cluster-id", &self.previous_cluster_id)] {
            problems.require(id.as_ref().is_none_or(|id| !id.trim().is_empty() && id.len() <= MAX_CLUSTER_ID), || {
                format!("{flag} must have 1 to {MAX_CLUSTER_ID} characters")
            });
        }
        problems.require(self.cluster_id.is_none() || self.cluster_id != self.previous_cluster_id, || {
            "--previous-cluster-id must differ from --cluster-id".to_owned()
        });
        problems.within("--issuer-check-interval", &self.issuer_check_interval, &ISSUER_CHECK_INTERVAL);
        // Whether Entra can reach it is reported in a condition instead: existing trust can still be revoked.
        if let Some(issuer) = &self.service_account_issuer {
            let fits = issuer.chars().count() <= MAX_ISSUER && !issuer.contains(char::is_whitespace);
            problems.require(fits && url::Url::parse(issuer).is_ok_and(|url| url.has_host()), || {
                format!("--service-account-issuer {issuer:?} is not a URL of at most {MAX_ISSUER} characters")
            });
        }
    }

    /// How the issuer is watched, unless it is set by a flag.
    pub(in crate::cli) fn issuer_watch(&self) -> Option<IssuerWatch> {
        self.service_account_issuer.is_none().then_some(IssuerWatch {
            every: self.issuer_check_interval.get(),
            allow_private: self.allow_private_issuer,
        })
    }
}
