//! Detects the webhook of azure-workload-identity, if it injects the same pods as Ensign's.

use super::inputs::Observed;
use ensign_api::ManagedIdentityStatus;
use ensign_api::conditions::{ConditionType, Reason, Verdict, find};

/// Name of the `MutatingWebhookConfiguration` of azure-workload-identity.
pub const UPSTREAM_WEBHOOK: &str = "azure-wi-webhook-mutating-webhook-configuration";

/// The condition `UpstreamWebhookAbsent`; `None` while it holds. Pods are injected either way, so it does not affect `Ready`.
pub(super) fn verdict(observed: &Observed, before: &ManagedIdentityStatus) -> Option<Verdict> {
    // Keep the previous result while the configuration can't be read.
    let known = || find(&before.conditions, ConditionType::UpstreamWebhookAbsent).is_some();
    observed.upstream_webhook.unwrap_or_else(known).then(|| {
        Verdict::bad(
            Reason::UpstreamWebhookPresent,
            format!(
                "MutatingWebhookConfiguration {UPSTREAM_WEBHOOK} exists: the webhook of azure-workload-identity injects \
                 the same pods as Ensign's, in undefined order. A cluster operator has to uninstall it, or run Ensign \
                 without --azure-workload-identity-compat"
            ),
        )
    })
}
