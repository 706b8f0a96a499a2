//! The scope in which a role is assigned.

use std::fmt;
use std::str::FromStr;

use ensign_api::arm_id::{is_guid, is_resource_group};

/// Maximum length of a scope, in bytes.
const MAX_LENGTH: usize = 1024;

/// A parsed ARM ID at which a role can be assigned: the root, a management group, a subscription, a resource group, or a
/// resource.
///
/// Equality, order and hash ignore case, as ARM does. Only parsed segments are ever put into a URL.
#[derive(Clone, Debug)]
pub struct RoleScope {
    segments: Vec<String>,
    key: String,
}

/// Why a text is not a scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a valid scope: {problem}; expected /subscriptions/<guid>/resourceGroups/<name>, or the resource ID of something in it"
)]
pub struct InvalidRoleScope {
    text: String,
    problem: &'static str,
}

impl RoleScope {
    /// The scope in lower case, without a trailing slash; empty for the root.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The path segments, unencoded, in order.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().map(String::as_str)
    }

    /// Whether the scope is a resource group or in one.
    pub fn is_in_resource_group(&self) -> bool {
        self.segments.first().is_some_and(|first| is(first, "subscriptions"))
            && self.segments.get(2).is_some_and(|third| is(third, "resourceGroups"))
    }

    /// The resource group that the scope is in, otherwise the scope itself.
    #[must_use]
    pub fn root(&self) -> Self {
        if self.is_in_resource_group() { Self::new(self.segments[..4].to_vec()) } else { self.clone() }
    }

    /// Whether the other scope is this one or below it.
    pub fn covers(&self, other: &Self) -> bool {
        other.key.strip_prefix(&self.key).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    fn new(segments: Vec<String>) -> Self {
        let key = segments.iter().flat_map(|segment| ["/".to_owned(), segment.to_lowercase()]).collect();
        Self { segments, key }
    }
}

fn is(segment: &str, keyword: &str) -> bool {
    segment.eq_ignore_ascii_case(keyword)
}

/// Whether a resource type or name consists of characters without a special meaning in URLs and shells.
fn is_plain(segment: &str) -> bool {
    !matches!(segment, "" | "." | "..")
        && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.()$@+=,:~".contains(&byte))
}

impl FromStr for RoleScope {
    type Err = InvalidRoleScope;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = |problem| InvalidRoleScope { text: text.chars().take(512).collect(), problem };
        if text.len() > MAX_LENGTH {
            return Err(invalid("it is too long"));
        }
        let rest = text.strip_prefix('/').ok_or_else(|| invalid("it does not start with a slash"))?;
        if rest.is_empty() {
            return Ok(Self::new(Vec::new()));
        }
        let segments: Vec<&str> = rest.split('/').collect();
        let resource = match segments[..] {
            [providers, namespace, kind, group] if is(providers, "providers") => {
                if !is(namespace, "Microsoft.Management") || !is(kind, "managementGroups") || !is_plain(group) {
                    return Err(invalid("it does not start with /subscriptions/"));
                }
                &[]
            }
            [subscriptions, subscription, ref rest @ ..] if is(subscriptions, "subscriptions") => {
                if !is_guid(subscription) {
                    return Err(invalid("the subscription is not a GUID"));
                }
                match rest {
                    [groups, group, resource @ ..] if is(groups, "resourceGroups") => {
                        if !is_resource_group(group) {
                            return Err(invalid("the resource group's name is not valid"));
                        }
                        resource
                    }
                    resource => resource,
                }
            }
            _ => return Err(invalid("it does not start with /subscriptions/")),
        };
        check_resource(resource).map_err(invalid)?;
        Ok(Self::new(segments.into_iter().map(str::to_owned).collect()))
    }
}

/// Checks `providers`, a namespace, and pairs of type and name; several times for extension resources.
fn check_resource(segments: &[&str]) -> Result<(), &'static str> {
    if segments.is_empty() {
        return Ok(());
    }
    let [providers, namespace, parts @ ..] = segments else { return Err("it is incomplete") };
    if !is(providers, "providers") {
        return Err("/providers/ is missing before the resource");
    }
    if !segments.iter().all(|segment| is_plain(segment)) {
        return Err("a segment is empty, . or .., or contains an invalid character");
    }
    if is(namespace, "Microsoft.Authorization") {
        return Err("roles and role assignments are not scopes");
    }
    let next = parts.iter().position(|segment| is(segment, "providers")).unwrap_or(parts.len());
    if next == 0 || next % 2 != 0 {
        return Err("a type or a name is missing");
    }
    check_resource(&parts[next..])
}

impl fmt::Display for RoleScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.segments.is_empty() {
            return f.write_str("/");
        }
        self.segments.iter().try_for_each(|segment| write!(f, "/{segment}"))
    }
}

impl PartialEq for RoleScope {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for RoleScope {}

impl PartialOrd for RoleScope {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for RoleScope {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.cmp(&other.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: &str = "/subscriptions/00000000-0000-0000-0000-00000000000a/resourceGroups/Shop-RG";

    fn scope(text: &str) -> RoleScope {
        text.parse().unwrap()
    }

    #[test]
    fn a_scope_keeps_its_spelling_and_is_compared_without_case() {
        let account = format!("{GROUP}/providers/Microsoft.Storage/storageAccounts/data");
        let container = format!("{account}/blobServices/default/containers/$logs");
        let extension = format!("{account}/providers/Microsoft.Insights/diagnosticSettings/x");
        for text in
            ["/", "/providers/Microsoft.Management/managementGroups/top", GROUP, &account, &container, &extension]
        {
            assert_eq!(scope(text).to_string(), text);
            assert_eq!(scope(text), scope(&text.to_uppercase()));
        }
    }

    #[test]
    fn scopes_in_a_resource_group_are_distinguished_from_wider_ones() {
        let account = format!("{GROUP}/providers/Microsoft.Storage/storageAccounts/data");
        for text in [GROUP, &account] {
            assert!(scope(text).is_in_resource_group(), "{text}");
            assert_eq!(scope(text).root(), scope(GROUP));
        }
        let subscription = &GROUP[..GROUP.find("/resourceGroups").unwrap()];
        let resource = format!("{subscription}/providers/Microsoft.Network/networkManagers/x");
        for text in ["/", "/providers/Microsoft.Management/managementGroups/top", subscription, &resource] {
            assert!(!scope(text).is_in_resource_group(), "{text}");
            assert_eq!(scope(text).root(), scope(text));
        }
    }

    #[test]
    fn a_scope_covers_itself_and_what_is_below_but_no_sibling_with_a_longer_name() {
        let below = format!("{GROUP}/providers/Microsoft.Storage/storageAccounts/data");
        assert!(scope(GROUP).covers(&scope(&below.to_lowercase())));
        assert!(scope("/").covers(&scope(&below)));
        assert!(!scope(&below).covers(&scope(GROUP)));
        assert!(!scope(GROUP).covers(&scope(&format!("{GROUP}2"))));
    }

    #[test]
    fn a_scope_cannot_smuggle_anything_into_a_url() {
        let account = format!("{GROUP}/providers/Microsoft.Storage/storageAccounts/data");
        let bad = [
            "",
            "x",
            "//",
            "https://management.azure.com/subscriptions",
            "/subscriptions",
            "/subscriptions/mine",
            "/providers/Microsoft.Storage/storageAccounts/x",
            "/providers/Microsoft.Management/managementGroups/..",
            &GROUP.replace("Shop-RG", ".."),
            &GROUP.replace("Shop-RG", "a%2f.."),
            &GROUP.replace("Shop-RG", ""),
            &format!("{GROUP}/"),
            &format!("{GROUP}/.."),
            &format!("{GROUP}/../.."),
            &format!("{GROUP}?x"),
            &format!("{GROUP} "),
            &format!("{GROUP}/providers/Microsoft.Storage"),
            &format!("{GROUP}/providers/Microsoft.Storage/storageAccounts"),
            &format!("{account}/.."),
            &format!("{account}/../other"),
            &format!("{account}/blobServices"),
            &format!("{account}//x"),
            &account.replace("data", "%2e%2e"),
            &account.replace("data", "da ta"),
            &account.replace("data", "da\u{661}ta"),
            &account.replace("data", "da#ta"),
            &account.replace("data", "da\\ta"),
            &format!("{GROUP}/providers/Microsoft.Authorization/roleAssignments/x"),
            &format!("{account}/providers/microsoft.authorization/roleAssignments/x"),
            &format!("{GROUP}/resourceGroups/other"),
            &"/x".repeat(1000),
        ];
        for text in bad {
            assert!(text.parse::<RoleScope>().is_err(), "{text:?} must be rejected");
        }
    }
}
