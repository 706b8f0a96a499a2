//! Rate limits for requests to Azure, by scope and by kind of request.

use super::token_bucket::Rate;

/// The kind of a request, which determines the limits that apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// Reading one resource.
    Get,
    /// Reading a list.
    List,
    /// Creating, changing or deleting.
    Write,
    /// Reading role definitions or role assignments. It counts against the limits of [`RequestKind::Get`].
    RoleRead,
    /// Creating or deleting a role assignment. It counts against the limits of [`RequestKind::Write`].
    RoleWrite,
}

/// The resource provider that a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// `Microsoft.ManagedIdentity`: identities and their credentials.
    ManagedIdentity,
    /// `Microsoft.Authorization`: roles.
    Authorization,
}

impl Provider {
    /// Its namespace.
    pub fn namespace(self) -> &'static str {
        match self {
            Self::ManagedIdentity => "Microsoft.ManagedIdentity",
            Self::Authorization => "Microsoft.Authorization",
        }
    }
}

impl RequestKind {
    /// The provider of the request.
    pub fn provider(self) -> Provider {
        match self {
            Self::Get | Self::List | Self::Write => Provider::ManagedIdentity,
            Self::RoleRead | Self::RoleWrite => Provider::Authorization,
        }
    }

    /// The kinds that Azure throttles together, by their token buckets: all reads, or all writes.
    pub(super) fn throttled_together(self) -> &'static [Self] {
        match self {
            Self::Get | Self::List | Self::RoleRead => &[Self::Get, Self::List],
            Self::Write | Self::RoleWrite => &[Self::Write],
        }
    }
}

/// A value for each kind of request. Resource Manager counts requests to all providers together, so those about roles share
/// the value of the other reads, or of the other writes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PerKind<T> {
    /// For [`RequestKind::Get`].
    pub get: T,
    /// For [`RequestKind::List`].
    pub list: T,
    /// For [`RequestKind::Write`].
    pub write: T,
}

impl<T> PerKind<T> {
    /// The value for a kind.
    pub fn of(&self, kind: RequestKind) -> &T {
        match kind {
            RequestKind::Get | RequestKind::RoleRead => &self.get,
            RequestKind::List => &self.list,
            RequestKind::Write | RequestKind::RoleWrite => &self.write,
        }
    }

    pub(super) fn of_mut(&mut self, kind: RequestKind) -> &mut T {
        match kind {
            RequestKind::Get | RequestKind::RoleRead => &mut self.get,
            RequestKind::List => &mut self.list,
            RequestKind::Write | RequestKind::RoleWrite => &mut self.write,
        }
    }
}

impl PerKind<Rate> {
    fn scaled(self, share: f64) -> Self {
        Self { get: self.get.scaled(share), list: self.list.scaled(share), write: self.write.scaled(share) }
    }
}

/// The limits on requests, in each scope.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateLimits {
    /// For one identity.
    pub identity: PerKind<Rate>,
    /// For one subscription.
    pub subscription: PerKind<Rate>,
    /// For the whole tenant.
    pub tenant: PerKind<Rate>,
}

impl RateLimits {
    /// The rates that Azure publishes for managed identities. It publishes no bursts: these are chosen so that the 20
    /// credentials of a new identity can be written at once, and that all reads together stay within the 250 that Resource
    /// Manager accepts.
    pub const PUBLISHED: Self = Self {
        identity: PerKind { get: Rate::known(20, 0.5), list: Rate::known(20, 0.25), write: Rate::known(20, 0.25) },
        subscription: PerKind {
            get: Rate::known(100, 10.0),
            list: Rate::known(150, 5.0),
            write: Rate::known(200, 2.0),
        },
        tenant: PerKind { get: Rate::known(300, 30.0), list: Rate::known(450, 15.0), write: Rate::known(1000, 10.0) },
    };

    /// This cluster's share of the limits that several clusters use together: those of subscriptions and of the tenant. The
    /// limits of an identity are not divided, because all clusters together write at most its 20 credentials.
    #[must_use]
    pub fn shared(self, share: f64) -> Self {
        Self {
            identity: self.identity,
            subscription: self.subscription.scaled(share),
            tenant: self.tenant.scaled(share),
        }
    }

    /// The maximum number of tokens that can be available at once.
    pub(super) fn max_burst(&self, kind: RequestKind) -> u32 {
        let rates = [&self.identity, &self.subscription, &self.tenant];
        rates.into_iter().map(|rates| rates.of(kind).burst()).min().unwrap_or(1)
    }
}
