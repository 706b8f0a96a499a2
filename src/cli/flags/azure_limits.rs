//! Flags of the rate limits on requests to Azure.

use crate::cli::usage_errors::Problems;
use ensign_core::scheduling::rate_limiter::{PerKind, RateLimits};
use ensign_core::scheduling::token_bucket::Rate;

const PUBLISHED: RateLimits = RateLimits::PUBLISHED;

/// Rate limits on requests to Azure. Each flag is also an environment variable.
///
/// A limit is BURST+RATE: BURST requests at once, and RATE requests per second on average.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_field_names, reason = "the flags start with azure")]
pub(in crate::cli) struct AzureLimitsArgs {
    /// This cluster's share, above 0 and up to 1, of the rate limits of its subscriptions and its tenant, if several
    /// clusters share them
    #[arg(long, env = "ENSIGN_AZURE_RATE_SHARE", default_value_t = 1.0, value_name = "SHARE")]
    azure_rate_share: f64,
    /// Rate limit of writes under one identity
    #[arg(long, env = "ENSIGN_AZURE_IDENTITY_WRITES", default_value_t = PUBLISHED.identity.write, value_name = "BURST+RATE")]
    azure_identity_writes: Rate,
    /// Rate limit of lists under one identity
    #[arg(long, env = "ENSIGN_AZURE_IDENTITY_LISTS", default_value_t = PUBLISHED.identity.list, value_name = "BURST+RATE")]
    azure_identity_lists: Rate,
    /// Rate limit of reads of one identity
    #[arg(long, env = "ENSIGN_AZURE_IDENTITY_GETS", default_value_t = PUBLISHED.identity.get, value_name = "BURST+RATE")]
    azure_identity_gets: Rate,
    /// Rate limit of writes in one subscription
    #[arg(long, env = "ENSIGN_AZURE_SUBSCRIPTION_WRITES", default_value_t = PUBLISHED.subscription.write, value_name = "BURST+RATE")]
    azure_subscription_writes: Rate,
    /// Rate limit of lists in one subscription
    #[arg(long, env = "ENSIGN_AZURE_SUBSCRIPTION_LISTS", default_value_t = PUBLISHED.subscription.list, value_name = "BURST+RATE")]
    azure_subscription_lists: Rate,
    /// Rate limit of reads of identities in one subscription
    #[arg(long, env = "ENSIGN_AZURE_SUBSCRIPTION_GETS", default_value_t = PUBLISHED.subscription.get, value_name = "BURST+RATE")]
    azure_subscription_gets: Rate,
    /// Rate limit of all writes
    #[arg(long, env = "ENSIGN_AZURE_TENANT_WRITES", default_value_t = PUBLISHED.tenant.write, value_name = "BURST+RATE")]
    azure_tenant_writes: Rate,
    /// Rate limit of all lists
    #[arg(long, env = "ENSIGN_AZURE_TENANT_LISTS", default_value_t = PUBLISHED.tenant.list, value_name = "BURST+RATE")]
    azure_tenant_lists: Rate,
    /// Rate limit of all reads of identities
    #[arg(long, env = "ENSIGN_AZURE_TENANT_GETS", default_value_t = PUBLISHED.tenant.get, value_name = "BURST+RATE")]
    azure_tenant_gets: Rate,
}

impl AzureLimitsArgs {
    /// Validates the flags.
    pub(in crate::cli) fn check(&self, problems: &mut Problems) {
        let share = self.azure_rate_share;
        problems.require(share > 0.0 && share <= 1.0, || {
            format!("--azure-rate-share must be above 0 and at most 1, not {share}")
        });
    }

    /// The limits to keep to, the cluster's share counted in.
    pub(in crate::cli) fn limits(&self) -> RateLimits {
        let limits = RateLimits {
            identity: PerKind {
                get: self.azure_identity_gets,
                list: self.azure_identity_lists,
                write: self.azure_identity_writes,
            },
            subscription: PerKind {
                get: self.azure_subscription_gets,
                list: self.azure_subscription_lists,
                write: self.azure_subscription_writes,
            },
            tenant: PerKind {
                get: self.azure_tenant_gets,
                list: self.azure_tenant_lists,
                write: self.azure_tenant_writes,
            },
        };
        limits.shared(self.azure_rate_share)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        limits: AzureLimitsArgs,
    }

    fn flags(arguments: &[&str]) -> AzureLimitsArgs {
        Flags::parse_from([&["test"], arguments].concat()).limits
    }

    fn is_valid(args: &AzureLimitsArgs) -> bool {
        let mut problems = Problems::default();
        args.check(&mut problems);
        problems.finish(Some(())).is_ok()
    }

    #[test]
    fn the_defaults_are_the_published_limits() {
        assert_eq!(flags(&[]).limits(), RateLimits::PUBLISHED);
        assert!(is_valid(&flags(&[])));
    }

    #[test]
    fn a_share_applies_to_the_limits_of_the_flags() {
        let limits = flags(&["--azure-subscription-writes", "40+8", "--azure-rate-share", "0.25"]).limits();
        assert_eq!(limits.subscription.write.to_string(), "10+2");
        assert_eq!(limits.identity, RateLimits::PUBLISHED.identity);
    }

    #[test]
    fn a_share_is_above_0_and_at_most_1() {
        for share in ["0", "-0.5", "1.5", "NaN"] {
            let argument = format!("--azure-rate-share={share}");
            assert!(!is_valid(&flags(&[&argument])), "{share}");
        }
        assert!(is_valid(&flags(&["--azure-rate-share", "1"])));
    }
}
