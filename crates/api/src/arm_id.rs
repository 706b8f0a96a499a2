//! The ARM resource ID of a user-assigned managed identity.

use std::fmt;
use std::str::FromStr;

const PROVIDER: &str = "Microsoft.ManagedIdentity";
const TYPE: &str = "userAssignedIdentities";

/// A parsed ARM resource ID of a user-assigned managed identity.
///
/// Equality, order and hash ignore case, as ARM does. Only the parsed parts reach a URL, so an ID can't inject a path, a
/// query or another host.
#[derive(Clone, Debug)]
pub struct ArmId {
    subscription: String,
    resource_group: String,
    name: String,
    key: String,
}

/// Why a string is not the ARM resource ID of a user-assigned managed identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not the resource ID of a user-assigned managed identity: {problem}; expected /subscriptions/<guid>/resourceGroups/<name>/providers/Microsoft.ManagedIdentity/userAssignedIdentities/<name>"
)]
pub struct InvalidArmId {
    text: String,
    problem: &'static str,
}

impl ArmId {
    /// The subscription's GUID, in its original spelling.
    pub fn subscription(&self) -> &str {
        &self.subscription
    }

    /// The resource group's name, in its original spelling.
    pub fn resource_group(&self) -> &str {
        &self.resource_group
    }

    /// The identity's name, in its original spelling.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The ID in lower case: the reconcile key of the identity.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The path segments of the resource, unencoded, in order.
    pub fn segments(&self) -> [&str; 8] {
        [
            "subscriptions",
            &self.subscription,
            "resourceGroups",
            &self.resource_group,
            "providers",
            PROVIDER,
            TYPE,
            &self.name,
        ]
    }
}

impl FromStr for ArmId {
    type Err = InvalidArmId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = |problem| InvalidArmId { text: text.chars().take(512).collect(), problem };
        let rest = text.strip_prefix('/').ok_or_else(|| invalid("it must start with a slash"))?;
        let segments: Vec<&str> = rest.split('/').collect();
        let [subscriptions, subscription, groups, group, providers, provider, kind, name] = segments[..] else {
            return Err(invalid("it must have eight segments"));
        };
        let keywords = [
            (subscriptions, "subscriptions"),
            (groups, "resourceGroups"),
            (providers, "providers"),
            (provider, PROVIDER),
            (kind, TYPE),
        ];
        if keywords.iter().any(|(found, wanted)| !found.eq_ignore_ascii_case(wanted)) {
            return Err(invalid("a fixed segment is wrong"));
        }
        if !is_guid(subscription) {
            return Err(invalid("the subscription is not a GUID"));
        }
        if !is_resource_group(group) {
            return Err(invalid("the resource group's name is not valid"));
        }
        if !is_identity_name(name) {
            return Err(invalid("the identity's name is not valid (3 to 128 letters, digits, '-' and '_')"));
        }
        let (subscription, resource_group, name) = (subscription.to_owned(), group.to_owned(), name.to_owned());
        let mut id = Self { subscription, resource_group, name, key: String::new() };
        id.key = id.to_string().to_lowercase();
        Ok(id)
    }
}

impl fmt::Display for ArmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.segments().iter().try_for_each(|segment| write!(f, "/{segment}"))
    }
}

impl PartialEq for ArmId {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for ArmId {}

impl PartialOrd for ArmId {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ArmId {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.cmp(&other.key)
    }
}

impl std::hash::Hash for ArmId {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

/// Whether a string is a GUID in its 8-4-4-4-12 form.
pub fn is_guid(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    parts.len() == 5
        && parts
            .iter()
            .zip([8, 4, 4, 4, 12])
            .all(|(part, length)| part.len() == length && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Whether a string is a valid name of a resource group.
pub fn is_resource_group(text: &str) -> bool {
    let length = text.chars().count();
    (1..=90).contains(&length)
        && !text.ends_with('.')
        && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '(' | ')'))
}

fn is_identity_name(text: &str) -> bool {
    (3..=128).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "/subscriptions/00000000-0000-0000-0000-00000000000A/resourceGroups/Shop-RG/providers/Microsoft.ManagedIdentity/userAssignedIdentities/Orders";

    #[test]
    fn ids_are_compared_without_case() {
        let written: ArmId = ID.parse().unwrap();
        let returned: ArmId = ID.to_lowercase().parse().unwrap();
        assert_eq!(written, returned);
        assert_eq!(written.key(), ID.to_lowercase());
        assert_eq!(written.to_string(), ID, "the original spelling is shown");
    }

    #[test]
    fn an_id_can_not_inject_anything_into_a_url() {
        let bad = [
            "",
            "orders",
            "https://evil.example/subscriptions",
            &ID.replace("Shop-RG", ".."),
            &ID.replace("Shop-RG", "a/../b"),
            &ID.replace("Shop-RG", "a%2fb"),
            &ID.replace("Shop-RG", ""),
            &ID.replace("Orders", "orders?x=y"),
            &ID.replace("Orders", "orders#f"),
            &ID.replace("Orders", "or"),
            &ID.replace("Orders", "_orders"),
            &ID.replace("00000000000A", "zzz"),
            &ID.replace("userAssignedIdentities", "systemAssignedIdentities"),
            &format!("{ID}/federatedIdentityCredentials/x"),
            &format!("{ID} "),
        ];
        for text in bad {
            assert!(text.parse::<ArmId>().is_err(), "{text:?} must be rejected");
        }
    }

    #[test]
    fn an_error_contains_the_text_and_the_expected_form() {
        let message = "orders".parse::<ArmId>().unwrap_err().to_string();
        assert!(
            message.contains("\"orders\"") && message.contains("/subscriptions/<guid>/resourceGroups"),
            "{message}"
        );
    }
}
