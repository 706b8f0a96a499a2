//! `--azure-allowed-scopes`: where in Azure the controller may act, regardless of what objects request.

use std::fmt;
use std::str::FromStr;

use crate::failure::Failure;
use ensign_api::conditions::{Reason, Verdict};
use ensign_api::{ArmId, arm_id};

/// The ARM ID of a subscription, a resource group or a user-assigned managed identity; matched case-insensitively.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AzureScope {
    subscription: String,
    resource_group: Option<String>,
    identity: Option<ArmId>,
    /// In lower case, without a trailing slash.
    key: String,
}

/// The text is not a scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a scope: {problem}; expected /subscriptions/<guid>, /subscriptions/<guid>/resourceGroups/<name>, or the resource ID of a user-assigned managed identity"
)]
pub struct InvalidScope {
    text: String,
    problem: &'static str,
}

impl AzureScope {
    /// Whether the identity is the scope itself or within it. Whole path segments are compared: `rg` does not cover `rg2`.
    pub fn covers(&self, identity: &ArmId) -> bool {
        self.contains(identity.key())
    }

    fn contains(&self, key: &str) -> bool {
        key.strip_prefix(&self.key).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The identity, if the scope is one.
    pub fn identity(&self) -> Option<&ArmId> {
        self.identity.as_ref()
    }

    /// The path segments of the subscription or resource group.
    pub fn container(&self) -> Vec<&str> {
        let group = self.resource_group.iter().flat_map(|group| ["resourceGroups", group.as_str()]);
        ["subscriptions", self.subscription.as_str()].into_iter().chain(group).collect()
    }

    /// The smallest scope that contains this one and can be an assignable scope of a custom role: a resource group or a
    /// subscription.
    #[must_use]
    pub fn assignable(&self) -> Self {
        Self::new(self.subscription.clone(), self.resource_group.clone(), None)
    }

    fn new(subscription: String, resource_group: Option<String>, identity: Option<ArmId>) -> Self {
        let mut scope = Self { subscription, resource_group, identity, key: String::new() };
        scope.key = scope.to_string().to_lowercase();
        scope
    }
}

impl FromStr for AzureScope {
    type Err = InvalidScope;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = |problem| InvalidScope { text: text.chars().take(512).collect(), problem };
        let rest = text.strip_prefix('/').ok_or_else(|| invalid("it does not start with a slash"))?;
        // The portal shows scopes with a trailing slash.
        let segments: Vec<&str> = rest.strip_suffix('/').unwrap_or(rest).split('/').collect();
        let (subscription, group) = match segments[..] {
            [_, subscription] => (subscription, None),
            [_, subscription, groups, group] if groups.eq_ignore_ascii_case("resourceGroups") => {
                (subscription, Some(group))
            }
            _ => {
                let id: ArmId = text.parse().map_err(|_| invalid("it has none of the three forms"))?;
                let group = Some(id.resource_group().to_owned());
                return Ok(Self::new(id.subscription().to_owned(), group, Some(id)));
            }
        };
        if !segments.first().is_some_and(|first| first.eq_ignore_ascii_case("subscriptions")) {
            return Err(invalid("it does not start with /subscriptions/"));
        }
        if !arm_id::is_guid(subscription) {
            return Err(invalid("the subscription is not a GUID"));
        }
        if group.is_some_and(|group| !arm_id::is_resource_group(group)) {
            return Err(invalid("the resource group's name is not valid"));
        }
        Ok(Self::new(subscription.to_owned(), group.map(str::to_owned), None))
    }
}

impl fmt::Display for AzureScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.identity, &self.resource_group) {
            (Some(identity), _) => identity.fmt(f),
            (None, Some(group)) => write!(f, "/subscriptions/{}/resourceGroups/{group}", self.subscription),
            (None, None) => write!(f, "/subscriptions/{}", self.subscription),
        }
    }
}

/// The scopes within which the controller may act. If empty, it is not restricted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedScopes(Vec<AzureScope>);

impl AllowedScopes {
    /// Restricts the controller to these scopes; no restriction if there are none.
    pub fn new(scopes: impl IntoIterator<Item = AzureScope>) -> Self {
        Self(scopes.into_iter().collect())
    }

    /// The scopes.
    pub fn iter(&self) -> impl Iterator<Item = &AzureScope> {
        self.0.iter()
    }

    /// Whether the controller may act on the identity.
    pub fn allow(&self, identity: &ArmId) -> bool {
        self.0.is_empty() || self.0.iter().any(|scope| scope.covers(identity))
    }

    /// Whether the controller may act on the resource with this ARM ID, given in lower case and without a trailing slash.
    pub fn contain(&self, key: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|scope| scope.contains(key))
    }

    /// Whether one of the scopes is within the resource with this ARM ID, given in lower case and without a trailing slash. The
    /// resource itself need not be allowed then.
    pub fn any_within(&self, key: &str) -> bool {
        let is_within = |scope: &AzureScope| scope.key.strip_prefix(key).is_some_and(|rest| rest.starts_with('/'));
        self.0.iter().any(is_within)
    }

    /// The verdict for an identity outside the scopes. It does not list the scopes, because app teams can read it.
    pub fn refusal(&self, identity: &ArmId) -> Option<Verdict> {
        (!self.allow(identity)).then(|| Verdict::bad(Reason::ScopeNotAllowed, outside(identity)))
    }

    /// The same as a failure, used in place of a response from Azure: no request was made, so nothing counts as deleted.
    pub fn unasked(&self, identity: &ArmId) -> Option<Failure> {
        self.refusal(identity).map(|Verdict { reason, message, .. }| Failure { reason, message, retry_after: None })
    }
}

/// The message for an identity outside the scopes.
pub fn outside(identity: &ArmId) -> String {
    format!(
        "{identity} is outside the scopes that this controller is restricted to: nothing is read, written or deleted there, and credentials written earlier are still trusted. An administrator of Ensign has to add the identity, its resource group or its subscription to --azure-allowed-scopes, or a cluster operator has to name an identity within the scopes"
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SUBSCRIPTION: &str = "00000000-0000-0000-0000-00000000000a";

    fn id(group: &str, name: &str) -> ArmId {
        format!(
            "/subscriptions/{SUBSCRIPTION}/resourceGroups/{group}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}"
        )
        .parse()
        .unwrap()
    }

    fn allowed(scopes: &[&str]) -> AllowedScopes {
        AllowedScopes::new(scopes.iter().map(|scope| scope.parse().unwrap()))
    }

    #[test]
    fn without_scopes_there_is_no_restriction() {
        assert!(allowed(&[]).allow(&id("rg", "orders")));
        assert_eq!(allowed(&[]).refusal(&id("rg", "orders")), None);
    }

    #[test]
    fn a_subscription_a_resource_group_and_an_identity_cover_what_is_within_them_regardless_of_case() {
        let subscription = format!("/subscriptions/{SUBSCRIPTION}");
        let group = format!("{subscription}/resourceGroups/rg");
        for scope in [&subscription, &group, &id("rg", "orders").to_string()] {
            for written in [scope.clone(), scope.to_uppercase(), scope.to_lowercase(), format!("{group}/")] {
                assert!(allowed(&[&written]).allow(&id("RG", "Orders")), "{written}");
            }
        }
    }

    #[test]
    fn a_scope_does_not_cover_a_sibling_whose_name_starts_with_its_own() {
        let group = format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/rg");
        assert!(!allowed(&[&group]).allow(&id("rg2", "orders")));
        assert!(!allowed(&[&group]).allow(&id("rg-", "orders")));
        assert!(!allowed(&[&id("rg", "orders").to_string()]).allow(&id("rg", "orders2")));
        let other = "/subscriptions/00000000-0000-0000-0000-00000000000b";
        assert!(!allowed(&[other]).allow(&id("rg", "orders")));
        assert!(allowed(&[other, &group]).allow(&id("rg", "orders")), "one of them is enough");
    }

    #[test]
    fn a_text_that_is_not_a_scope_is_rejected_and_quoted() {
        let subscription = format!("/subscriptions/{SUBSCRIPTION}");
        let bad = [
            "",
            "/",
            "*",
            "orders",
            "/subscriptions",
            "/subscriptions/",
            "/subscriptions/*",
            "/subscriptions/my-subscription",
            "/providers/Microsoft.Management/managementGroups/root",
            &format!("{subscription}/resourceGroups"),
            &format!("{subscription}/resourceGroups/"),
            &format!("{subscription}/resourceGroups/.."),
            &format!("{subscription}/resourceGroups/a*"),
            &format!("{subscription}/groups/rg"),
            &format!("{subscription}/resourceGroups/rg/providers/Microsoft.Storage/storageAccounts/x"),
            &format!("{subscription} "),
            &format!("subscriptions/{SUBSCRIPTION}"),
            &format!("https://management.azure.com{subscription}"),
        ];
        for text in bad {
            let error = text.parse::<AzureScope>().expect_err(text);
            assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
        }
    }

    #[test]
    fn a_rejection_reports_who_has_to_do_what_and_lists_no_other_scope() {
        let rejected = allowed(&["/subscriptions/00000000-0000-0000-0000-00000000000b"]).refusal(&id("rg", "orders"));
        let Verdict { status, reason, message } = rejected.unwrap();
        assert_eq!((status, reason), (Some(false), Reason::ScopeNotAllowed));
        assert!(
            message.contains("An administrator of Ensign has to add") && message.contains("--azure-allowed-scopes")
        );
        assert!(!message.contains("0000000b"), "{message}");
    }

    #[test]
    fn a_role_is_limited_to_at_least_a_resource_group() {
        let assignable = |text: &str| text.parse::<AzureScope>().unwrap().assignable().to_string();
        let subscription = format!("/subscriptions/{SUBSCRIPTION}");
        let group = format!("{subscription}/resourceGroups/rg");
        assert_eq!(assignable(&id("rg", "orders").to_string()), group);
        assert_eq!(assignable(&group), group);
        assert_eq!(assignable(&subscription), subscription);
    }

    fn segment() -> impl Strategy<Value = String> {
        "[a-b]{3,4}"
    }

    proptest! {
        #[test]
        fn a_scope_covers_an_identity_only_if_all_its_segments_match(
            (group, name) in (segment(), segment()), (other_group, other_name) in (segment(), segment()), depth in 0..3_usize,
        ) {
            let (identity, other) = (id(&group, &name), id(&other_group, &other_name));
            let scopes = [
                format!("/subscriptions/{SUBSCRIPTION}"),
                format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/{other_group}"),
                other.to_string(),
            ];
            let expected = [true, group == other_group, group == other_group && name == other_name][depth];
            prop_assert_eq!(allowed(&[&scopes[depth]]).allow(&identity), expected);
        }

        #[test]
        fn a_scope_survives_formatting_and_parsing(group in "[a-zA-Z0-9._()-]{1,20}[a-z]", name in "[a-z][a-z0-9_-]{2,30}") {
            for text in [format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/{group}"), id(&group, &name).to_string()] {
                let scope: AzureScope = text.parse().unwrap();
                prop_assert_eq!(scope.to_string(), text);
            }
        }
    }
}
