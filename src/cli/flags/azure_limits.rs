//! Flags of the pace at which Azure is asked.

use ensign_core::scheduling::rate_limiter::{PerKind, RateLimits};
use ensign_core::scheduling::token_bucket::Rate;

const PUBLISHED: RateLimits = RateLimits::PUBLISHED;

/// How fast requests to Azure go out. Each flag is also an environment variable.
///
/// A limit is BURST+RATE: so many requests at once, and so many per second in the long run.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_field_names, reason = "a flag says that it is about Azure")]
pub(in crate::cli) struct AzureLimitsArgs {
    /// This cluster's share, above 0 and up to 1, of the limits of its subscriptions and its tenant; for fleets that
    /// share them
    #[arg(long, env = "ENSIGN_AZURE_RATE_SHARE", default_value_t = 1.0, value_name = "SHARE")]
    azure_rate_share: f64,
    /// Limit on writes under one identity
    #[arg(long, env = "ENSIGN_AZURE_IDENTITY_WRITES", default_value_t = PUBLISHED.identity.write, value_name = "BURST+RATE")]
    azure_identity_writes: Rate,
    /// Limit on lists under one identity
    #[arg(long, env = "ENSIGN_AZURE_IDENTITY_LISTS", default_value_t = PUBLISHED.identity.list, value_name = "BURST+RATE")]
    azure_identity_lists: Rate,
    /// Limit on reads of one identity
    #[arg(long, env = "ENSIGN_AZURE_IDENTITY_GETS", default_value_t = PUBLISHED.identity.get, value_name = "BURST+RATE")]
    azure_identity_gets: Rate,
    /// Limit on writes in one subscription
    #[arg(long, env = "ENSIGN_AZURE_SUBSCRIPTION_WRITES", default_value_t = PUBLISHED.subscription.write, value_name = "BURST+RATE")]
    azure_subscription_writes: Rate,
    /// Limit on lists in one subscription
    #[arg(long, env = "ENSIGN_AZURE_SUBSCRIPTION_LISTS", default_value_t = PUBLISHED.subscription.list, value_name = "BURST+RATE")]
    azure_subscription_lists: Rate,
    /// Limit on reads of identities in one subscription
    #[arg(long, env = "ENSIGN_AZURE_SUBSCRIPTION_GETS", default_value_t = PUBLISHED.subscription.get, value_name = "BURST+RATE")]
    azure_subscription_gets: Rate,
    /// Limit on all writes
    #[arg(long, env = "ENSIGN_AZURE_TENANT_WRITES", default_value_t = PUBLISHED.tenant.write, value_name = "BURST+RATE")]
    azure_tenant_writes: Rate,
    /// Limit on all lists
    #[arg(long, env = "ENSIGN_AZURE_TENANT_LISTS", default_value_t = PUBLISHED.tenant.list, value_name = "BURST+RATE")]
    azure_tenant_lists: Rate,
    /// Limit on all reads of identities
    #[arg(long, env = "ENSIGN_AZURE_TENANT_GETS", default_value_t = PUBLISHED.tenant.get, value_name = "BURST+RATE")]
    azure_tenant_gets: Rate,
}

impl AzureLimitsArgs {
    /// What is wrong with the flags.
    pub(in crate::cli) fn problems(&self) -> Vec<String> {
        let share = self.azure_rate_share;
        let fits = share > 0.0 && share <= 1.0;
        (!fits).then(|| format!("--azure-rate-share must be above 0 and at most 1, not {share}")).into_iter().collect()
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

    #[test]
    fn without_flags_the_published_limits_hold() {
        assert_eq!(flags(&[]).limits(), RateLimits::PUBLISHED);
        assert!(flags(&[]).problems().is_empty());
    }

    #[test]
    fn a_share_divides_what_the_flags_say() {
        let limits = flags(&["--azure-subscription-writes", "40+8", "--azure-rate-share", "0.25"]).limits();
        assert_eq!(limits.subscription.write.to_string(), "10+2");
        assert_eq!(limits.identity, RateLimits::PUBLISHED.identity);
    }

    #[test]
    fn a_share_is_more_than_nothing_and_no_more_than_everything() {
        for share in ["0", "-0.5", "1.5", "NaN"] {
            let argument = format!("--azure-rate-share={share}");
            assert_eq!(flags(&[&argument]).problems().len(), 1, "{share}");
        }
        assert!(flags(&["--azure-rate-share", "1"]).problems().is_empty());
    }
}
