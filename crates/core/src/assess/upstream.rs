//! The webhook of azure-workload-identity beside one of Ensign's that injects the same pods.

use super::Observed;
use ensign_api::ManagedIdentityStatus;
use ensign_api::conditions::{ConditionType, Reason, Verdict, find};

/// Name of the upstream's `MutatingWebhookConfiguration`.
pub const UPSTREAM_WEBHOOK: &str = "azure-wi-webhook-mutating-webhook-configuration";

/// The condition `UpstreamWebhookAbsent`, while it does not hold. Every pod that is injected is injected all the same, so
/// that it does not bear on `Ready`.
pub(super) fn verdict(observed: &Observed, before: &ManagedIdentityStatus) -> Option<Verdict> {
    // What was known stands while it can't be looked at.
    let known = || find(&before.conditions, ConditionType::UpstreamWebhookAbsent).is_some();
    observed.upstream_webhook.unwrap_or_else(known).then(|| {
        Verdict::bad(
            Reason::UpstreamWebhookPresent,
            format!(
                "MutatingWebhookConfiguration {UPSTREAM_WEBHOOK} exists: the webhook of azure-workload-identity injects \
                 the same pods as Ensign's, and either may come first. A cluster operator has to uninstall it, or to run \
                 Ensign without --azure-workload-identity-compat"
            ),
        )
    })
}
