//! API versions of Microsoft.ManagedIdentity.

use super::ArmError;
use crate::state::text::query_parameter;

/// Known versions, oldest first.
const KNOWN: [&str; 11] = [
    "2015-08-31-preview",
    "2018-11-30",
    "2021-09-30-preview",
    "2022-01-31-preview",
    "2023-01-31",
    "2023-07-31-preview",
    "2024-11-30",
    "2025-01-31-preview",
    "2025-05-31-preview",
    "2026-04-30",
    "2026-05-31",
];

/// The known version of Microsoft.Authorization.
const AUTHORIZATION: &str = "2022-04-01";

/// A known version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ApiVersion(&'static str);

impl ApiVersion {
    /// The version in a query.
    pub(super) fn from_query(query: &str) -> Result<Self, ArmError> {
        Self::one_of(&KNOWN, query)
    }

    /// The version of Microsoft.Authorization in a query.
    pub(super) fn of_authorization(query: &str) -> Result<Self, ArmError> {
        Self::one_of(&[AUTHORIZATION], query)
    }

    fn one_of(known: &[&'static str], query: &str) -> Result<Self, ArmError> {
        let Some(wanted) = query_parameter(query, "api-version").filter(|version| !version.is_empty()) else {
            return Err(ArmError::new(
                400,
                "MissingApiVersionParameter",
                "The api-version query parameter (?api-version=) is required for all requests.",
            ));
        };
        let found = known.iter().find(|version| version.eq_ignore_ascii_case(&wanted)).copied().map(Self);
        found.ok_or_else(|| {
            let message =
                format!("The api-version '{wanted}' is invalid. The supported versions are '{}'.", known.join(","));
            ArmError::new(400, "InvalidApiVersionParameter", message)
        })
    }

    /// The version's name.
    pub(super) fn name(self) -> &'static str {
        self.0
    }

    /// Whether responses have `isolationScope`.
    pub(super) fn has_isolation_scope(self) -> bool {
        self.0 >= "2024-11-30"
    }

    /// Whether it has federated identity credentials.
    pub(super) fn has_credentials(self) -> bool {
        self.0 >= "2022-01-31"
    }

    /// Whether it has flexible federated identity credentials, which compare claims with an expression. `az` uses such a
    /// version for its credential commands (azure-cli PR 31391).
    pub(super) fn has_flexible_credentials(self) -> bool {
        matches!(self.0, "2025-01-31-preview" | "2025-05-31-preview")
    }

    /// The versions with federated identity credentials.
    pub(super) fn all_with_credentials() -> impl Iterator<Item = &'static str> {
        KNOWN.into_iter().filter(|version| Self(version).has_credentials())
    }
}
