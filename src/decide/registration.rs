//! The webhook's registration at the API server.
//!
//! Two entries, because the selectors within one are `ANDed`: every unlabelled pod of the namespaces that some grant
//! names or selects, and every pod with the opt-in label anywhere. Other programs may add selector expressions of their
//! own (the AKS admissions enforcer does): these are kept, and count as no difference.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhook, MutatingWebhookConfiguration, RuleWithOperations, ServiceReference, WebhookClientConfig,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use crate::api::keys::INJECT_LABEL;

/// Entry for the namespaces that grants cover.
pub const GRANTED_ENTRY: &str = "pods.ensign.dev";
/// Entry for pods with the opt-in label.
pub const LABELLED_ENTRY: &str = "labelled-pods.ensign.dev";
/// Path of the webhook's one endpoint.
pub const MUTATE_PODS_PATH: &str = "/mutate-pods";
/// How long the API server waits for the webhook.
pub const TIMEOUT_SECONDS: i32 = 5;

/// Label that every namespace has, with its own name as the value.
pub(super) const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// A webhook in the way of these pods could keep a cluster from coming up.
const ALWAYS_EXCLUDED: [&str; 1] = ["kube-system"];
const HTTPS_PORT: i32 = 443;

/// Where the API server finds the webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Its URL, with or without the path.
    Url(String),
    /// Its Service, on port 443.
    Service {
        /// Namespace of the Service.
        namespace: String,
        /// Name of the Service.
        name: String,
    },
}

/// The namespaces that are never touched: kube-system, Ensign's own, and what the operator adds.
pub fn excluded_namespaces(own: &str, more: impl IntoIterator<Item = String>) -> BTreeSet<String> {
    ALWAYS_EXCLUDED.into_iter().map(str::to_owned).chain([own.to_owned()]).chain(more).collect()
}

/// The entries that the webhook configuration should have. `covered` are the namespaces that some grant names or
/// selects; without any, only labelled pods are asked about. `ca_bundle` is PEM.
pub fn desired(
    covered: &BTreeSet<String>,
    excluded: &BTreeSet<String>,
    endpoint: &Endpoint,
    ca_bundle: &[u8],
) -> Vec<MutatingWebhook> {
    let not_excluded = (!excluded.is_empty()).then(|| requirement(NAMESPACE_NAME_LABEL, "NotIn", excluded));
    let covered: BTreeSet<String> = covered.difference(excluded).cloned().collect();
    let mut entries = Vec::with_capacity(2);
    if !covered.is_empty() {
        let namespaces = [requirement(NAMESPACE_NAME_LABEL, "In", &covered)].into_iter().chain(not_excluded.clone());
        let unlabelled = ["false", "true"].map(str::to_owned).into();
        entries.push(entry(
            GRANTED_ENTRY,
            client_config(endpoint, ca_bundle),
            selector(namespaces.collect()),
            selector(vec![requirement(INJECT_LABEL, "NotIn", &unlabelled)]),
        ));
    }
    entries.push(entry(
        LABELLED_ENTRY,
        client_config(endpoint, ca_bundle),
        selector(not_excluded.into_iter().collect()),
        LabelSelector {
            match_labels: Some([(INJECT_LABEL.to_owned(), "true".to_owned())].into()),
            match_expressions: None,
        },
    ));
    entries
}

/// The entries to write, if the configuration lacks something of `desired`. What other programs added is in them.
pub fn differs(current: &MutatingWebhookConfiguration, desired: &[MutatingWebhook]) -> Option<Vec<MutatingWebhook>> {
    let before = current.webhooks.as_deref().unwrap_or_default();
    let is_wanted = |entry: &&MutatingWebhook| {
        ![GRANTED_ENTRY, LABELLED_ENTRY].contains(&entry.name.as_str())
            || desired.iter().any(|wanted| wanted.name == entry.name)
    };
    let mut after: Vec<MutatingWebhook> = before.iter().filter(is_wanted).cloned().collect();
    let mut changed = after.len() != before.len();
    for wanted in desired {
        match after.iter_mut().find(|entry| entry.name == wanted.name) {
            Some(entry) if same(entry, wanted) => {}
            Some(entry) => {
                *entry = merged(entry, wanted);
                changed = true;
            }
            None => {
                after.push(wanted.clone());
                changed = true;
            }
        }
    }
    changed.then_some(after)
}

fn entry(
    name: &str,
    client_config: WebhookClientConfig,
    namespace_selector: LabelSelector,
    object_selector: LabelSelector,
) -> MutatingWebhook {
    let list = |item: &str| vec![item.to_owned()];
    // Everything is said, nothing left to the API server's defaults: what is read back compares as written.
    MutatingWebhook {
        name: name.to_owned(),
        client_config,
        namespace_selector: Some(namespace_selector),
        object_selector: Some(object_selector),
        rules: Some(vec![RuleWithOperations {
            operations: Some(list("CREATE")),
            api_groups: Some(list("")),
            api_versions: Some(list("v1")),
            resources: Some(list("pods")),
            scope: Some("*".to_owned()),
        }]),
        failure_policy: Some("Fail".to_owned()),
        reinvocation_policy: Some("IfNeeded".to_owned()),
        side_effects: "None".to_owned(),
        timeout_seconds: Some(TIMEOUT_SECONDS),
        match_policy: Some("Equivalent".to_owned()),
        match_conditions: None,
        admission_review_versions: list("v1"),
    }
}

fn client_config(endpoint: &Endpoint, ca_bundle: &[u8]) -> WebhookClientConfig {
    let ca_bundle = (!ca_bundle.is_empty()).then(|| ByteString(ca_bundle.to_vec()));
    match endpoint {
        Endpoint::Url(url) => {
            let base = url.trim_end_matches('/');
            let base = base.strip_suffix(MUTATE_PODS_PATH).unwrap_or(base);
            WebhookClientConfig { url: Some(format!("{base}{MUTATE_PODS_PATH}")), service: None, ca_bundle }
        }
        Endpoint::Service { namespace, name } => WebhookClientConfig {
            url: None,
            service: Some(ServiceReference {
                namespace: namespace.clone(),
                name: name.clone(),
                path: Some(MUTATE_PODS_PATH.to_owned()),
                port: Some(HTTPS_PORT),
            }),
            ca_bundle,
        },
    }
}

fn requirement(key: &str, operator: &str, values: &BTreeSet<String>) -> LabelSelectorRequirement {
    LabelSelectorRequirement {
        key: key.to_owned(),
        operator: operator.to_owned(),
        values: Some(values.iter().cloned().collect()),
    }
}

fn selector(match_expressions: Vec<LabelSelectorRequirement>) -> LabelSelector {
    LabelSelector { match_labels: None, match_expressions: Some(match_expressions).filter(|list| !list.is_empty()) }
}

/// Whether nothing of ours is missing or different.
fn same(current: &MutatingWebhook, wanted: &MutatingWebhook) -> bool {
    let scalars = |entry: &MutatingWebhook| MutatingWebhook {
        namespace_selector: None,
        object_selector: None,
        match_conditions: None,
        ..entry.clone()
    };
    scalars(current) == scalars(wanted)
        && Ours::of(current.namespace_selector.as_ref()) == Ours::of(wanted.namespace_selector.as_ref())
        && Ours::of(current.object_selector.as_ref()) == Ours::of(wanted.object_selector.as_ref())
}

/// `wanted`, with what others added to `current`.
fn merged(current: &MutatingWebhook, wanted: &MutatingWebhook) -> MutatingWebhook {
    MutatingWebhook {
        namespace_selector: Some(with_foreign(current.namespace_selector.as_ref(), wanted.namespace_selector.as_ref())),
        object_selector: Some(with_foreign(current.object_selector.as_ref(), wanted.object_selector.as_ref())),
        match_conditions: current.match_conditions.clone(),
        ..wanted.clone()
    }
}

fn is_our_key(key: &str) -> bool {
    matches!(key, NAMESPACE_NAME_LABEL | INJECT_LABEL)
}

/// Our part of a selector, in an order that does not matter.
#[derive(Debug, PartialEq, Eq)]
struct Ours<'a> {
    labels: BTreeMap<&'a str, &'a str>,
    expressions: BTreeSet<(&'a str, &'a str, BTreeSet<&'a str>)>,
}

impl<'a> Ours<'a> {
    fn of(selector: Option<&'a LabelSelector>) -> Self {
        let labels = selector.and_then(|selector| selector.match_labels.as_ref()).into_iter().flatten();
        let expressions = selector.and_then(|selector| selector.match_expressions.as_ref()).into_iter().flatten();
        Self {
            labels: labels
                .filter(|(key, _)| is_our_key(key))
                .map(|(key, value)| (key.as_str(), value.as_str()))
                .collect(),
            expressions: expressions
                .filter(|requirement| is_our_key(&requirement.key))
                .map(|requirement| {
                    let values = requirement.values.iter().flatten().map(String::as_str).collect();
                    (requirement.key.as_str(), requirement.operator.as_str(), values)
                })
                .collect(),
        }
    }
}

fn with_foreign(current: Option<&LabelSelector>, wanted: Option<&LabelSelector>) -> LabelSelector {
    let mut selector = wanted.cloned().unwrap_or_default();
    let foreign = current.cloned().unwrap_or_default();
    for (key, value) in foreign.match_labels.into_iter().flatten().filter(|(key, _)| !is_our_key(key)) {
        selector.match_labels.get_or_insert_default().insert(key, value);
    }
    for requirement in foreign.match_expressions.into_iter().flatten().filter(|other| !is_our_key(&other.key)) {
        selector.match_expressions.get_or_insert_default().push(requirement);
    }
    selector
}

#[cfg(test)]
#[path = "registration_tests.rs"]
mod tests;
