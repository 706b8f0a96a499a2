//! API versions.

use super::{ArmError, names};
use crate::state::text::query_parameter;

/// Known versions of Microsoft.ManagedIdentity, oldest first.
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

/// Known versions of role assignments and definitions. `az` and azure-mgmt-authorization ask role definitions with the
/// preview version (azure-cli 2.91).
const ASSIGNMENTS: [&str; 1] = ["2022-04-01"];
const DEFINITIONS: [&str; 2] = ["2022-04-01", "2022-05-01-preview"];
/// Known versions of locks.
const LOCKS: [&str; 5] = ["2015-01-01", "2016-09-01", "2017-04-01", "2020-05-01", "2020-05-01-preview"];

/// The known versions of Microsoft.ManagedIdentity, oldest first.
pub(super) fn identities() -> impl DoubleEndedIterator<Item = &'static str> {
    KNOWN.into_iter()
}

/// A known version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ApiVersion(&'static str);

impl ApiVersion {
    /// The version that a query asks for, known or not.
    pub(super) fn wanted(query: &str) -> Result<String, ArmError> {
        query_parameter(query, "api-version").filter(|version| !version.is_empty()).ok_or_else(|| {
            let message = "The api-version query parameter (?api-version=) is required for all requests.";
            ArmError::front(400, "MissingApiVersionParameter", message)
        })
    }

    /// A version of Microsoft.ManagedIdentity. `location` and `resource_type` (without the namespace) are for the error.
    pub(super) fn of_identities(wanted: &str, location: &str, resource_type: &str) -> Result<Self, ArmError> {
        Self::one_of(&KNOWN, wanted).ok_or_else(|| {
            // A provider's type gets this code (azure-cli issues 28496 and 23985), ARM's own types get another one.
            let message = format!(
                "No registered resource provider found for location '{location}' and API version '{wanted}' for type '{resource_type}'. The supported api-versions are '{}'. The supported locations are '{}'.",
                KNOWN.join(", "),
                names::locations(", ")
            );
            ArmError::front(400, "NoRegisteredProviderFound", message)
        })
    }

    /// The version of Microsoft.Authorization in a query.
    pub(super) fn of_authorization(query: &str, resource_type: &str) -> Result<Self, ArmError> {
        let known: &[&str] = match resource_type.to_lowercase().as_str() {
            "roledefinitions" => &DEFINITIONS,
            "locks" => &LOCKS,
            _ => &ASSIGNMENTS,
        };
        Self::of_resources(query, known)
    }

    /// The version of one of ARM's own types in a query.
    pub(super) fn of_resources(query: &str, known: &[&'static str]) -> Result<Self, ArmError> {
        let wanted = Self::wanted(query)?;
        Self::one_of(known, &wanted).ok_or_else(|| {
            let message =
                format!("The api-version '{wanted}' is invalid. The supported versions are '{}'.", known.join(","));
            ArmError::front(400, "InvalidApiVersionParameter", message)
        })
    }

    fn one_of(known: &[&'static str], wanted: &str) -> Option<Self> {
        known.iter().find(|version| version.eq_ignore_ascii_case(wanted)).copied().map(Self)
    }

    /// The version's name.
    pub(super) fn name(self) -> &'static str {
        self.0
    }

    /// Whether responses have `isolationScope`.
    pub(super) fn has_isolation_scope(self) -> bool {
        self.0 >= "2024-11-30"
    }

    /// Whether identities have `assignmentRestrictions`.
    pub(super) fn has_assignment_restrictions(self) -> bool {
        self.0 >= "2026-04-30"
    }

    /// Whether it has `listAssociatedResources`.
    pub(super) fn has_associated_resources(self) -> bool {
        matches!(self.0, "2021-09-30-preview" | "2022-01-31-preview")
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
