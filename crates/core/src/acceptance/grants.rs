//! Deny by default: which entry of `allowedSubjects` covers a subject.

use std::collections::BTreeMap;

use crate::credentials::names::Subject;
use ensign_api::AllowedSubject;

/// Whether the entry covers the subject.
pub fn covers(grant: &AllowedSubject, subject: &Subject, namespace_labels: &BTreeMap<String, String>) -> bool {
    covers_namespace(grant, &subject.namespace, namespace_labels)
        && grant.service_accounts.iter().any(|pattern| pattern.matches(&subject.service_account))
}

/// Whether the entry covers the namespace.
///
/// The CRD's schema rejects entries with both or neither of the two fields, and empty selectors. Such an entry would grant
/// nothing here either.
pub fn covers_namespace(grant: &AllowedSubject, namespace: &str, namespace_labels: &BTreeMap<String, String>) -> bool {
    match (&grant.namespace, &grant.namespace_selector) {
        (Some(name), None) => name == namespace,
        (None, Some(selector)) => !selector.is_empty() && selector.matches(namespace_labels),
        _ => false,
    }
}

/// The message for a binding that no grant covers.
pub fn not_covered(holder: &str, subject: &Subject) -> String {
    let Subject { namespace, service_account } = subject;
    format!(
        "{holder} does not allow service account {service_account} of namespace {namespace}: a cluster operator has to add an entry to its spec.allowedSubjects, for example {{name: {namespace}, namespace: {namespace}, serviceAccounts: [{service_account}]}}"
    )
}

/// The message for a binding whose grant has reached its limit in the namespace.
pub fn used_up(holder: &str, grant: &AllowedSubject, namespace: &str) -> String {
    let limit = grant.max_per_namespace.unwrap_or_default();
    format!(
        "allowedSubjects entry {} of {holder} admits {limit} service account(s) of namespace {namespace}, and other bindings use them all: delete one of those bindings, or a cluster operator has to raise maxPerNamespace",
        grant.name
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use ensign_api::selector::LabelSelector;
    use serde_json::json;

    fn grant(value: serde_json::Value) -> AllowedSubject {
        serde_json::from_value(value).unwrap()
    }

    fn allows(grants: &[AllowedSubject], namespace: &str, account: &str, labels: &[(&str, &str)]) -> bool {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        grants.iter().any(|grant| covers(grant, &Subject::new(namespace, account), &labels))
    }

    #[test]
    fn no_entries_allow_nobody() {
        assert!(!allows(&[], "shop", "orders", &[]));
    }

    #[test]
    fn an_entry_covers_its_namespace_and_its_service_accounts_only() {
        let grants = [grant(json!({"name": "a", "namespace": "shop", "serviceAccounts": ["orders"]}))];
        assert!(allows(&grants, "shop", "orders", &[]));
        assert!(!allows(&grants, "shop", "payments", &[]));
        assert!(!allows(&grants, "shop-2", "orders", &[]));
    }

    #[test]
    fn a_star_covers_every_service_account_of_the_namespace() {
        let grants = [grant(json!({"name": "a", "namespace": "shop", "serviceAccounts": ["*"]}))];
        assert!(allows(&grants, "shop", "anything", &[]));
        assert!(!allows(&grants, "other", "anything", &[]));
    }

    #[test]
    fn a_selector_covers_namespaces_by_label() {
        let grants = [grant(
            json!({"name": "a", "namespaceSelector": {"matchLabels": {"team": "orders"}}, "serviceAccounts": ["*"]}),
        )];
        assert!(allows(&grants, "preview-1", "x", &[("team", "orders")]));
        assert!(!allows(&grants, "preview-1", "x", &[("team", "pay")]));
        assert!(!allows(&grants, "preview-1", "x", &[]));
    }

    #[test]
    fn an_entry_that_the_schema_should_have_rejected_grants_nothing() {
        let mut both = grant(json!({"name": "a", "namespace": "shop", "serviceAccounts": ["*"]}));
        both.namespace_selector = Some(LabelSelector::default());
        let mut empty = both.clone();
        empty.namespace = None;
        let mut neither = empty.clone();
        neither.namespace_selector = None;
        assert!(!allows(&[both, empty, neither], "shop", "orders", &[]));
    }
}
