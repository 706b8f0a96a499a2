//! Names and subjects of federated identity credentials.

use std::fmt;

use sha2::{Digest, Sha256};

/// Longest name of a federated identity credential that Azure allows, in characters.
pub const MAX_CREDENTIAL_NAME_LENGTH: usize = 120;

const PREFIX: &str = "ensign-";
const CLUSTER_LENGTH: usize = 8;
const HASH_LENGTH: usize = 16;
/// Space for the namespace and the service account together, in characters.
const READABLE_LENGTH: usize = MAX_CREDENTIAL_NAME_LENGTH - PREFIX.len() - CLUSTER_LENGTH - HASH_LENGTH - 3;

/// A service account as Entra identifies it, and the unit of trust.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject {
    /// The namespace.
    pub namespace: String,
    /// The service account's name.
    pub service_account: String,
}

impl Subject {
    /// The subject of a service account.
    pub fn new(namespace: impl Into<String>, service_account: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), service_account: service_account.into() }
    }

    /// Parses `system:serviceaccount:<namespace>:<name>`.
    pub fn parse(text: &str) -> Option<Self> {
        let (namespace, service_account) = text.strip_prefix("system:serviceaccount:")?.split_once(':')?;
        let whole = !namespace.is_empty() && !service_account.is_empty() && !service_account.contains(':');
        whole.then(|| Self::new(namespace, service_account))
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "system:serviceaccount:{}:{}", self.namespace, self.service_account)
    }
}

/// Eight hexadecimal digits that identify the cluster in names, logs and the User-Agent.
pub fn cluster_tag(cluster_id: &str) -> String {
    hex(&Sha256::digest(cluster_id.as_bytes()), CLUSTER_LENGTH)
}

/// The name of the credential that trusts `subject` of `issuer` in the cluster.
///
/// `ensign-<cluster>-<namespace>-<service account>-<hash>`: the middle is for readability and may be truncated; the hash
/// covers the cluster, the issuer, the namespace and the service account, each with its length, and is never truncated.
pub fn credential_name(cluster_id: &str, issuer: &str, subject: &Subject) -> String {
    let mut hash = Sha256::new();
    for part in [cluster_id, issuer, &subject.namespace, &subject.service_account] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let namespace = safe(&subject.namespace);
    let account = safe(&subject.service_account);
    let half = READABLE_LENGTH / 2;
    let namespace_room = half.max(READABLE_LENGTH.saturating_sub(account.len()));
    let namespace = &namespace[..namespace.len().min(namespace_room)];
    let account = &account[..account.len().min(READABLE_LENGTH - namespace.len())];
    format!("{PREFIX}{}-{namespace}-{account}-{}", cluster_tag(cluster_id), hex(&hash.finalize(), HASH_LENGTH))
}

/// The cluster tag in a name; `None` if the name does not have the form of Ensign's names.
pub fn cluster_tag_of(name: &str) -> Option<&str> {
    let rest = name.strip_prefix(PREFIX)?;
    let (tag, rest) = rest.split_at_checked(CLUSTER_LENGTH)?;
    let (_, hash) = rest.strip_prefix('-')?.rsplit_once('-')?;
    let is_hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (is_hex(tag) && hash.len() == HASH_LENGTH && is_hex(hash)).then_some(tag)
}

/// Replaces everything but ASCII letters and digits with `-`.
pub(crate) fn safe(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}

/// The first `digits` hexadecimal digits of the bytes.
pub(crate) fn hex(bytes: &[u8], digits: usize) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 0xf])
        .take(digits)
        .filter_map(|n| char::from_digit(n.into(), 16))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const ISSUER: &str = "https://issuer.example/cluster";

    fn is_valid(name: &str) -> bool {
        (3..=MAX_CREDENTIAL_NAME_LENGTH).contains(&name.len())
            && name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    }

    #[test]
    fn service_accounts_that_differ_only_in_dot_and_dash_get_valid_distinct_names() {
        let dotted = credential_name("cluster", ISSUER, &Subject::new("shop", "a.b"));
        let dashed = credential_name("cluster", ISSUER, &Subject::new("shop", "a-b"));
        assert!(is_valid(&dotted), "{dotted}");
        assert_ne!(dotted, dashed);
    }

    #[test]
    fn the_longest_namespace_and_service_account_get_valid_distinct_names() {
        let (namespace, account) = ("n".repeat(63), "s".repeat(252));
        let names: BTreeSet<_> = ["a", "b"]
            .iter()
            .map(|last| credential_name("cluster", ISSUER, &Subject::new(&namespace, format!("{account}{last}"))))
            .collect();
        assert_eq!(names.len(), 2);
        assert!(names.iter().all(|name| is_valid(name)), "{names:?}");
    }

    #[test]
    fn the_boundaries_between_parts_affect_the_name() {
        let one = credential_name("cluster", ISSUER, &Subject::new("a", "bc"));
        let other = credential_name("cluster", ISSUER, &Subject::new("ab", "c"));
        assert_ne!(one[one.len() - 16..], other[other.len() - 16..]);
    }

    #[test]
    fn many_long_similar_names_do_not_collide() {
        let namespace = "n".repeat(63);
        let name = |number: u32| {
            let account = format!("{}{number}", "s".repeat(200));
            credential_name("cluster", ISSUER, &Subject::new(&namespace, account))
        };
        let names: BTreeSet<_> = (0..20_000).map(name).collect();
        assert_eq!(names.len(), 20_000);
    }

    #[test]
    fn a_short_name_is_readable() {
        let name = credential_name("cluster", ISSUER, &Subject::new("shop", "orders"));
        assert!(name.contains("-shop-orders-"), "{name}");
    }

    #[test]
    fn subjects_that_are_not_service_accounts_do_not_parse() {
        for text in [
            "",
            "repo:org/name:ref",
            "system:serviceaccount:",
            "system:serviceaccount:a",
            "system:serviceaccount:a:b:c",
            "system:serviceaccount::b",
        ] {
            assert_eq!(Subject::parse(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn names_are_valid_and_can_be_recomputed(namespace in "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", account in "[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", cluster in ".{1,40}") {
            let subject = Subject::new(namespace, account);
            let name = credential_name(&cluster, ISSUER, &subject);
            prop_assert!(is_valid(&name), "{}", name);
            let tag = cluster_tag(&cluster);
            prop_assert_eq!(cluster_tag_of(&name), Some(tag.as_str()));
            let parsed = Subject::parse(&subject.to_string());
            prop_assert_eq!(parsed.map(|subject| credential_name(&cluster, ISSUER, &subject)), Some(name));
        }

        #[test]
        fn for_any_parts_azure_accepts_the_name(namespace in ".{0,90}", account in ".{0,300}", cluster in ".{0,300}", issuer in ".{0,600}") {
            let name = credential_name(&cluster, &issuer, &Subject::new(namespace, account));
            prop_assert!(is_valid(&name), "{}", name);
            let tag = cluster_tag(&cluster);
            prop_assert_eq!(cluster_tag_of(&name), Some(tag.as_str()));
        }

        #[test]
        fn each_part_affects_the_name_wherever_the_boundaries_are(parts in prop::array::uniform4("[a-b.-]{0,3}"), others in prop::array::uniform4("[a-b.-]{0,3}")) {
            let name = |[cluster, issuer, namespace, account]: &[String; 4]| {
                credential_name(cluster, issuer, &Subject::new(namespace.as_str(), account.as_str()))
            };
            prop_assert_eq!(name(&parts) == name(&others), parts == others);
        }

        #[test]
        fn distinct_subjects_get_distinct_names(a in "[a-z]{1,8}", b in "[a-z.-]{1,8}", c in "[a-z]{1,8}", d in "[a-z.-]{1,8}") {
            let (one, other) = (Subject::new(a, b), Subject::new(c, d));
            prop_assume!(one != other);
            prop_assert_ne!(credential_name("x", ISSUER, &one), credential_name("x", ISSUER, &other));
        }
    }
}
