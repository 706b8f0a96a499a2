//! The entries of the `MutatingWebhookConfiguration`.
//!
//! There are several, because the selectors of one entry are `ANDed`: one for unlabelled pods in namespaces that a grant
//! names or selects; one for pods with the opt-in label, in every namespace; and in compatibility mode one for pods with
//! the upstream webhook's label in all other namespaces. No pod matches two of them. For changes by other programs, see
//! [`self::drift`].

pub mod drift;

use std::collections::BTreeSet;

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhook, RuleWithOperations, ServiceReference, WebhookClientConfig,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use crate::admission::azure_workload_identity::USE_LABEL;
use ensign_api::keys::INJECT_LABEL;

/// Entry for unlabelled pods in namespaces that grants cover.
pub const GRANTED_ENTRY: &str = "pods.ensign.dev";
/// Entry for pods with the opt-in label.
pub const LABELLED_ENTRY: &str = "labelled-pods.ensign.dev";
/// Entry for pods with the upstream webhook's label, in compatibility mode.
pub const COMPATIBLE_ENTRY: &str = "compatible-pods.ensign.dev";
/// Every entry of Ensign's.
pub const ENTRIES: [&str; 3] = [GRANTED_ENTRY, LABELLED_ENTRY, COMPATIBLE_ENTRY];
/// Pod label that requests injection by the upstream webhook.
pub const COMPATIBLE_LABEL: &str = USE_LABEL;
/// Path of the webhook's only endpoint.
pub const MUTATE_PODS_PATH: &str = "/mutate-pods";
/// How long the API server waits for the webhook, in seconds.
pub const TIMEOUT_SECONDS: i32 = 5;

/// Label of every namespace, with its name as the value.
pub(crate) const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// Namespaces whose pods a webhook must not block, because the cluster could not start.
const ALWAYS_EXCLUDED: [&str; 1] = ["kube-system"];
const HTTPS_PORT: i32 = 443;

/// Where the API server reaches the webhook.
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

/// The namespaces whose pods are never changed: kube-system, Ensign's own, and those that the operator adds.
pub fn excluded_namespaces(own: &str, more: impl IntoIterator<Item = String>) -> BTreeSet<String> {
    ALWAYS_EXCLUDED.into_iter().map(str::to_owned).chain([own.to_owned()]).chain(more).collect()
}

/// What the entries depend on.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The namespaces that a grant names or selects; without any, only labelled pods are sent to the webhook.
    pub covered: &'a BTreeSet<String>,
    /// The namespaces whose pods are never sent to the webhook.
    pub excluded: &'a BTreeSet<String>,
    /// Where the API server reaches the webhook.
    pub endpoint: &'a Endpoint,
    /// The CA bundle, PEM; `None` if another program injects it.
    pub ca_bundle: Option<&'a [u8]>,
    /// Whether pods with the upstream webhook's label are sent to the webhook too.
    pub compatibility: bool,
}

/// The entries that the webhook configuration should have.
pub fn desired(input: &Input<'_>) -> Vec<MutatingWebhook> {
    let Input { excluded, compatibility, .. } = *input;
    let names = |operator: &str, values: &BTreeSet<String>| {
        (!values.is_empty()).then(|| requirement(NAMESPACE_NAME_LABEL, operator, values))
    };
    let covered: BTreeSet<String> = input.covered.difference(excluded).cloned().collect();
    let has = |label: &str| Some([(label.to_owned(), "true".to_owned())].into());
    let unlabelled = vec![requirement(INJECT_LABEL, "NotIn", &["false", "true"].map(str::to_owned).into())];
    let entry = |name, namespaces: Vec<Option<LabelSelectorRequirement>>, objects| {
        entry(name, client_config(input), selector(namespaces.into_iter().flatten().collect()), objects)
    };

    let mut entries = Vec::with_capacity(ENTRIES.len());
    if !covered.is_empty() {
        let namespaces = vec![names("In", &covered), names("NotIn", excluded)];
        entries.push(entry(GRANTED_ENTRY, namespaces, selector(unlabelled.clone())));
    }
    let labelled = LabelSelector { match_labels: has(INJECT_LABEL), match_expressions: None };
    entries.push(entry(LABELLED_ENTRY, vec![names("NotIn", excluded)], labelled));
    if compatibility {
        let elsewhere = covered.union(excluded).cloned().collect();
        let compatible = LabelSelector { match_labels: has(COMPATIBLE_LABEL), match_expressions: Some(unlabelled) };
        entries.push(entry(COMPATIBLE_ENTRY, vec![names("NotIn", &elsewhere)], compatible));
    }
    entries
}

fn entry(
    name: &str,
    client_config: WebhookClientConfig,
    namespace_selector: LabelSelector,
    object_selector: LabelSelector,
) -> MutatingWebhook {
    let list = |item: &str| vec![item.to_owned()];
    // No field is left to the API server's defaults, so that the entry can be compared with what is read back.
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

fn client_config(input: &Input<'_>) -> WebhookClientConfig {
    let ca_bundle = input.ca_bundle.map(|pem| ByteString(pem.to_vec()));
    match input.endpoint {
        Endpoint::Url(url) => WebhookClientConfig { url: Some(with_path(url)), service: None, ca_bundle },
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

/// The URL of a webhook, with the path appended unless it has it already.
pub fn with_path(url: &str) -> String {
    let base = url.trim_end_matches('/');
    let base = base.strip_suffix(MUTATE_PODS_PATH).unwrap_or(base);
    format!("{base}{MUTATE_PODS_PATH}")
}

pub(crate) fn requirement(key: &str, operator: &str, values: &BTreeSet<String>) -> LabelSelectorRequirement {
    LabelSelectorRequirement {
        key: key.to_owned(),
        operator: operator.to_owned(),
        values: Some(values.iter().cloned().collect()),
    }
}

fn selector(match_expressions: Vec<LabelSelectorRequirement>) -> LabelSelector {
    LabelSelector { match_labels: None, match_expressions: Some(match_expressions).filter(|list| !list.is_empty()) }
}

#[cfg(test)]
mod tests;
