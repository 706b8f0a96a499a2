//! Who throttles requests, in which scope, and until when.

use std::time::Duration;

use super::monotonic::Moment;
use super::rate_limits::{PerKind, Provider, RequestKind};
use ensign_api::ArmId;

/// The scope that Azure throttles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One identity.
    Identity,
    /// All identities of a subscription.
    Subscription,
    /// All identities.
    Tenant,
}

/// Who throttles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Throttler {
    /// Resource Manager itself, whatever provider a request is for.
    ResourceManager,
    /// `Microsoft.ManagedIdentity`.
    ManagedIdentity,
    /// `Microsoft.Authorization`, which nothing but requests about roles reaches.
    Authorization,
}

/// What Azure throttles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttle {
    /// Who does.
    pub by: Throttler,
    /// In which scope.
    pub scope: Scope,
}

impl Throttle {
    /// The message for status; it does not change during a pause, so that status does not churn.
    pub fn message(self, id: &ArmId) -> String {
        let what = match self.by {
            Throttler::ResourceManager | Throttler::ManagedIdentity => "requests",
            Throttler::Authorization => "requests about roles",
        };
        match self.scope {
            Scope::Identity => format!("Azure throttles {what} to {id}; retrying"),
            Scope::Subscription => format!("Azure throttles {what} to subscription {}; retrying", id.subscription()),
            Scope::Tenant => format!("Azure throttles {what} to the tenant; retrying"),
        }
    }
}

/// Until when each of them throttles one scope.
#[derive(Debug, Default)]
pub(super) struct ThrottledUntil {
    resource_manager: PerKind<Moment>,
    managed_identity: PerKind<Moment>,
    authorization: PerKind<Moment>,
}

impl ThrottledUntil {
    /// Takes note of a throttled request of this kind, and of those that are throttled together with it.
    pub(super) fn extend(&mut self, by: Throttler, kind: RequestKind, until: Moment) {
        let throttled = match by {
            Throttler::ResourceManager => &mut self.resource_manager,
            Throttler::ManagedIdentity => &mut self.managed_identity,
            Throttler::Authorization => &mut self.authorization,
        };
        for kind in kind.throttled_together() {
            let throttled = throttled.of_mut(*kind);
            *throttled = (*throttled).max(until);
        }
    }

    /// Who pauses requests of this kind longest, and until when; before the first pause, `Duration::ZERO`.
    pub(super) fn longest(&self, kind: RequestKind) -> (Moment, Throttler) {
        let provider = match kind.provider() {
            Provider::ManagedIdentity => (*self.managed_identity.of(kind), Throttler::ManagedIdentity),
            Provider::Authorization => (*self.authorization.of(kind), Throttler::Authorization),
        };
        let manager: (Duration, Throttler) = (*self.resource_manager.of(kind), Throttler::ResourceManager);
        if provider.0 > manager.0 { provider } else { manager }
    }
}
