//! Scopes of roles: the root, a management group, a subscription, a resource group, a resource.

use std::fmt;

use super::names::is_guid;

/// A scope, its segments as they were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::state) struct Scope(Vec<String>);

impl Scope {
    /// Parses an ARM ID; `/` is the root.
    pub(in crate::state) fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix('/')?;
        if text.is_empty() {
            return Some(Self(Vec::new()));
        }
        let segments = text.strip_suffix('/').unwrap_or(text);
        Self::from_segments(segments.split('/').map(str::to_owned).collect())
    }

    /// The scope with these decoded path segments.
    pub(in crate::state) fn from_segments(segments: Vec<String>) -> Option<Self> {
        let plain = |text: &String| {
            !text.is_empty() && text != "." && text != ".." && !text.contains(['/', '?', '#', '%', '\\'])
        };
        let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
        let known = match parts[..] {
            [] => true,
            [providers, namespace, kind, _] if is(providers, "providers") => {
                is(namespace, "Microsoft.Management") && is(kind, "managementGroups")
            }
            [subscriptions, id, ref rest @ ..] if is(subscriptions, "subscriptions") && is_guid(id) => match rest {
                [] => true,
                [groups, _, resource @ ..] if is(groups, "resourceGroups") => is_resource(resource),
                resource => is_resource(resource),
            },
            _ => false,
        };
        (known && segments.iter().all(plain)).then_some(Self(segments))
    }

    /// The subscription's GUID, if the scope is in one.
    pub(in crate::state) fn subscription(&self) -> Option<&str> {
        self.under("subscriptions", 0)
    }

    /// The resource group's name, if the scope is in one.
    pub(in crate::state) fn resource_group(&self) -> Option<&str> {
        self.under("resourceGroups", 2)
    }

    /// The resource type, in lower case; empty if the scope is not a resource.
    pub(in crate::state) fn kind(&self) -> String {
        let Some(at) = self.0.iter().rposition(|segment| is(segment, "providers")) else { return String::new() };
        let namespace = self.0.get(at + 1).into_iter();
        let types = self.0.iter().skip(at + 2).step_by(2);
        namespace.chain(types).map(|part| part.to_lowercase()).collect::<Vec<_>>().join("/")
    }

    /// The ID of the user-assigned identity at or above the scope.
    pub(super) fn identity(&self) -> Option<String> {
        super::names::identity_id(&format!("/{}", self.0.get(..8)?.join("/"))).map(|id| id.key())
    }

    fn under(&self, keyword: &str, at: usize) -> Option<&str> {
        let found = self.0.get(at).is_some_and(|segment| is(segment, keyword));
        self.0.get(at + 1).filter(|_| found).map(String::as_str)
    }
}

fn is(segment: &str, keyword: &str) -> bool {
    segment.eq_ignore_ascii_case(keyword)
}

/// `providers`, a namespace, and pairs of type and name; repeated for extension resources. No segments are valid too: the
/// scope above.
fn is_resource(segments: &[&str]) -> bool {
    match segments {
        [] => true,
        [providers, _, _, _, rest @ ..] if is(providers, "providers") => {
            let next = rest.iter().position(|segment| is(segment, "providers")).unwrap_or(rest.len());
            next % 2 == 0 && is_resource(&rest[next..])
        }
        _ => false,
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str("/") } else { self.0.iter().try_for_each(|part| write!(f, "/{part}")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBSCRIPTION: &str = "/subscriptions/50b00000-0000-4000-8000-000000000001";

    #[test]
    fn a_scope_is_formatted_as_it_was_parsed() {
        let account = format!("{SUBSCRIPTION}/resourceGroups/rg/providers/Microsoft.Storage/storageAccounts/data");
        for text in [
            "/",
            "/providers/Microsoft.Management/managementGroups/top",
            SUBSCRIPTION,
            &format!("{SUBSCRIPTION}/resourcegroups/rg"),
            &account,
            &format!("{account}/blobServices/default/containers/orders"),
            &format!("{account}/providers/Microsoft.Insights/diagnosticSettings/x"),
            &format!("{SUBSCRIPTION}/providers/Microsoft.Web/sites/x"),
        ] {
            assert_eq!(Scope::parse(text).map(|scope| scope.to_string()).as_deref(), Some(text));
        }
        let scope = Scope::parse(&account).unwrap();
        assert_eq!((scope.subscription(), scope.resource_group()), (SUBSCRIPTION.split('/').nth(2), Some("rg")));
    }

    #[test]
    fn invalid_scopes_are_rejected() {
        for text in [
            "",
            "x",
            "//",
            "/subscriptions",
            "/subscriptions/x",
            &format!("{SUBSCRIPTION}/resourceGroups"),
            &format!("{SUBSCRIPTION}/resourceGroups/.."),
            &format!("{SUBSCRIPTION}/resourceGroups/rg/providers/Microsoft.Storage"),
            &format!("{SUBSCRIPTION}/resourceGroups/rg/providers/Microsoft.Storage/storageAccounts"),
            &format!("{SUBSCRIPTION}/resourceGroups/rg/providers/Microsoft.Storage/storageAccounts/a/blobServices"),
            "/providers/Microsoft.Storage/storageAccounts/a",
        ] {
            assert_eq!(Scope::parse(text), None, "{text:?}");
        }
    }
}
