//! Valid names and IDs.

use crate::state::model::IdentityId;

/// Azure's regions that the emulator lists.
const LOCATIONS: [&str; 44] = [
    "australiacentral",
    "australiaeast",
    "australiasoutheast",
    "austriaeast",
    "brazilsouth",
    "canadacentral",
    "canadaeast",
    "centralindia",
    "centralus",
    "chilecentral",
    "eastasia",
    "eastus",
    "eastus2",
    "francecentral",
    "germanywestcentral",
    "indonesiacentral",
    "israelcentral",
    "italynorth",
    "japaneast",
    "japanwest",
    "koreacentral",
    "koreasouth",
    "malaysiasouth",
    "malaysiawest",
    "mexicocentral",
    "newzealandnorth",
    "northcentralus",
    "northeurope",
    "norwayeast",
    "polandcentral",
    "qatarcentral",
    "southafricanorth",
    "southcentralus",
    "southeastasia",
    "southindia",
    "spaincentral",
    "swedencentral",
    "switzerlandnorth",
    "uaenorth",
    "uksouth",
    "ukwest",
    "westeurope",
    "westus2",
    "westus3",
];

/// Whether identities can be created in a region, given in lower case without spaces.
pub(super) fn is_location(location: &str) -> bool {
    LOCATIONS.contains(&location) || matches!(location, "westus" | "westcentralus" | "westindia")
}

/// The regions, for error messages.
pub(super) fn locations(separator: &str) -> String {
    LOCATIONS.join(separator)
}

/// Whether a text is a GUID in 8-4-4-4-12 form.
pub(crate) fn is_guid(text: &str) -> bool {
    text.len() == 36 && uuid::Uuid::try_parse(text).is_ok()
}

/// 3 to 128 letters, digits, `-` and `_`, starting with a letter or digit.
pub(crate) fn is_identity_name(name: &str) -> bool {
    is_name(name, 128)
}

/// `^[a-zA-Z0-9]{1}[a-zA-Z0-9-_]{2,119}$`
pub(super) fn is_credential_name(name: &str) -> bool {
    is_name(name, 120)
}

fn is_name(name: &str, longest: usize) -> bool {
    (3..=longest).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// Parses the ARM ID of a user-assigned identity.
pub(crate) fn identity_id(text: &str) -> Option<IdentityId> {
    let segments: Vec<&str> = text.strip_prefix('/')?.split('/').collect();
    let [subscriptions, subscription, groups, group, providers, provider, kind, name] = segments[..] else {
        return None;
    };
    let fixed = [
        (subscriptions, "subscriptions"),
        (groups, "resourceGroups"),
        (providers, "providers"),
        (provider, "Microsoft.ManagedIdentity"),
        (kind, "userAssignedIdentities"),
    ];
    let fits = fixed.iter().all(|(found, wanted)| found.eq_ignore_ascii_case(wanted))
        && is_guid(subscription)
        && !group.is_empty()
        && is_identity_name(name);
    fits.then(|| IdentityId {
        subscription: subscription.to_owned(),
        resource_group: group.to_owned(),
        name: name.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credential_names_have_3_to_120_plain_characters() {
        for name in ["abc", "0-_", &"a".repeat(120)] {
            assert!(is_credential_name(name), "{name}");
        }
        for name in ["ab", "-ab", "_ab", "a.b", "a b", "äöü", &"a".repeat(121)] {
            assert!(!is_credential_name(name), "{name}");
        }
    }

    #[test]
    fn a_guid_has_hyphens() {
        assert!(is_guid("AAAAAAAA-0000-4000-8000-000000000001"));
        assert!(!is_guid("aaaaaaaa000040008000000000000001"));
        assert!(!is_guid("{aaaaaaaa-0000-4000-8000-000000000001}"));
    }
}
