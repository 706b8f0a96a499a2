//! The API version of each provider, as far as this process has found out.

use std::sync::Arc;

use parking_lot::Mutex;

use ensign_core::api_versions::{self, ApiVersion, default_version};
use ensign_core::scheduling::rate_limiter::Provider;

/// The API versions of one process; clones share them.
#[derive(Clone, Debug)]
pub(super) struct Versions {
    /// Set by a flag, and never changed.
    set: Arc<[ApiVersion]>,
    /// Found to work instead of the default.
    found: Arc<Mutex<Vec<ApiVersion>>>,
}

impl Versions {
    /// The versions that a flag sets, and the default of the other providers.
    pub(super) fn new(set: &[ApiVersion]) -> Self {
        Self { set: set.into(), found: Arc::default() }
    }

    /// The version for requests to this provider.
    pub(super) fn of(&self, provider: Provider) -> String {
        let one_of = |versions: &[ApiVersion]| {
            let of = versions.iter().find(|version| version.provider == provider);
            of.map(|version| version.version.clone())
        };
        one_of(&self.set).or_else(|| one_of(&self.found.lock())).unwrap_or_else(|| default_version(provider).to_owned())
    }

    /// The version to try after Azure refused this one with a message; the next requests have it, too.
    pub(super) fn instead_of(&self, provider: Provider, refused: &str, message: &str) -> Option<String> {
        if self.set.iter().any(|version| version.provider == provider) {
            return None;
        }
        let current = self.of(provider);
        if current != refused {
            // Another request has found it out in the meantime.
            return Some(current);
        }
        let version = api_versions::fallback(provider, refused, message)?;
        let mut found = self.found.lock();
        found.retain(|one| one.provider != provider);
        found.push(ApiVersion { provider, version: version.to_owned() });
        tracing::warn!(
            provider = provider.namespace(),
            refused,
            version,
            "this Azure does not support the API version; using another one from now on (--azure-api-version sets it)"
        );
        Some(version.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "The supported api-versions are '2018-11-30, 2023-01-31'.";

    #[test]
    fn a_version_that_works_is_remembered_by_all_clones() {
        let versions = Versions::new(&[]);
        let clone = versions.clone();
        assert_eq!(versions.of(Provider::ManagedIdentity), "2024-11-30");
        assert_eq!(versions.instead_of(Provider::ManagedIdentity, "2024-11-30", OLD).as_deref(), Some("2023-01-31"));
        assert_eq!(clone.of(Provider::ManagedIdentity), "2023-01-31");
        assert_eq!(clone.of(Provider::Authorization), "2022-04-01", "each provider has its own");
        let late = clone.instead_of(Provider::ManagedIdentity, "2024-11-30", OLD);
        assert_eq!(late.as_deref(), Some("2023-01-31"), "a request that was under way");
        assert_eq!(clone.instead_of(Provider::ManagedIdentity, "2023-01-31", OLD), None);
    }

    #[test]
    fn a_version_that_was_set_is_never_replaced() {
        let set = ApiVersion { provider: Provider::ManagedIdentity, version: "2025-05-31-preview".to_owned() };
        let versions = Versions::new(&[set]);
        assert_eq!(versions.of(Provider::ManagedIdentity), "2025-05-31-preview");
        assert_eq!(versions.instead_of(Provider::ManagedIdentity, "2025-05-31-preview", OLD), None);
        assert_eq!(versions.of(Provider::ManagedIdentity), "2025-05-31-preview");
    }
}
