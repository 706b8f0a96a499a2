use serde_json::json;

use super::*;

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn url() -> Endpoint {
    Endpoint::Url("https://127.0.0.1:9443".to_owned())
}

fn entries(covered: &[&str], excluded: &[&str], endpoint: &Endpoint, compatibility: bool) -> Vec<MutatingWebhook> {
    let (covered, excluded) = (&set(covered), &set(excluded));
    desired(&Input { covered, excluded, endpoint, ca_bundle: Some(b"ca"), compatibility })
}

fn wanted() -> Vec<MutatingWebhook> {
    entries(&["shop", "pay"], &["kube-system"], &url(), false)
}

#[test]
fn unlabelled_pods_are_sent_in_granted_namespaces_and_labelled_ones_everywhere() {
    let entries = serde_json::to_value(wanted()).unwrap();
    let not_excluded = json!({"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system"]});
    let granted = json!({"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["pay", "shop"]});
    let unlabelled = json!({"key": "ensign.dev/inject", "operator": "NotIn", "values": ["false", "true"]});
    assert_eq!(entries[0]["name"], "pods.ensign.dev");
    assert_eq!(entries[0]["namespaceSelector"], json!({"matchExpressions": [granted, not_excluded]}));
    assert_eq!(entries[0]["objectSelector"], json!({"matchExpressions": [unlabelled]}));
    assert_eq!(entries[1]["name"], "labelled-pods.ensign.dev");
    assert_eq!(entries[1]["namespaceSelector"], json!({"matchExpressions": [not_excluded]}));
    assert_eq!(entries[1]["objectSelector"], json!({"matchLabels": {"ensign.dev/inject": "true"}}));
}

#[test]
fn all_entries_match_pod_creation_and_fail_closed() {
    for entry in serde_json::to_value(wanted()).unwrap().as_array().unwrap() {
        let rule = json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"], "scope": "*"});
        assert_eq!(entry["rules"], json!([rule]));
        assert_eq!(entry["failurePolicy"], "Fail");
        assert_eq!(entry["reinvocationPolicy"], "IfNeeded");
        assert_eq!(entry["sideEffects"], "None");
        assert_eq!(entry["timeoutSeconds"], 5);
        assert_eq!(entry["matchPolicy"], "Equivalent");
        assert_eq!(entry["admissionReviewVersions"], json!(["v1"]));
        assert_eq!(entry["clientConfig"], json!({"url": "https://127.0.0.1:9443/mutate-pods", "caBundle": "Y2E="}));
    }
}

#[test]
fn a_url_gets_the_path_once() {
    for given in ["https://h:1", "https://h:1/", "https://h:1/mutate-pods", "https://h:1/mutate-pods/"] {
        let entries = entries(&[], &[], &Endpoint::Url(given.to_owned()), false);
        assert_eq!(entries[0].client_config.url.as_deref(), Some("https://h:1/mutate-pods"), "{given}");
    }
}

#[test]
fn a_service_has_path_and_port() {
    let endpoint = Endpoint::Service { namespace: "ensign-system".to_owned(), name: "ensign-webhook".to_owned() };
    let entries = serde_json::to_value(entries(&[], &[], &endpoint, false)).unwrap();
    let service = json!({"namespace": "ensign-system", "name": "ensign-webhook", "path": "/mutate-pods", "port": 443});
    assert_eq!(entries[0]["clientConfig"], json!({"service": service, "caBundle": "Y2E="}));
}

#[test]
fn without_a_grant_only_labelled_pods_are_sent() {
    let names = |covered: &[&str], excluded: &[&str]| -> Vec<String> {
        entries(covered, excluded, &url(), false).into_iter().map(|entry| entry.name).collect()
    };
    assert_eq!(names(&[], &[]), [LABELLED_ENTRY]);
    assert_eq!(names(&["kube-system"], &["kube-system"]), [LABELLED_ENTRY], "an excluded namespace counts as no grant");
}

#[test]
fn kube_system_and_ensigns_own_namespace_are_always_excluded() {
    let excluded = excluded_namespaces("ensign-system", ["extra".to_owned()]);
    assert_eq!(excluded, set(&["ensign-system", "extra", "kube-system"]));
}

#[test]
fn in_compatibility_mode_pods_with_the_upstream_label_are_sent_where_no_other_entry_matches() {
    let entries = serde_json::to_value(entries(&["shop"], &["kube-system"], &url(), true)).unwrap();
    assert_eq!(entries.as_array().unwrap().len(), 3);
    assert_eq!(entries[2]["name"], "compatible-pods.ensign.dev");
    let elsewhere =
        json!({"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system", "shop"]});
    assert_eq!(entries[2]["namespaceSelector"], json!({"matchExpressions": [elsewhere]}));
    let unlabelled = json!({"key": "ensign.dev/inject", "operator": "NotIn", "values": ["false", "true"]});
    let objects = json!({"matchLabels": {"azure.workload.identity/use": "true"}, "matchExpressions": [unlabelled]});
    assert_eq!(entries[2]["objectSelector"], objects);
    for key in ["rules", "failurePolicy", "timeoutSeconds", "clientConfig", "reinvocationPolicy", "sideEffects"] {
        assert_eq!(entries[2][key], entries[1][key], "{key}");
    }
}

#[test]
fn no_entry_has_a_ca_if_another_program_injects_it() {
    let (covered, excluded, endpoint) = (&set(&["shop"]), &set(&[]), &url());
    let input = Input { covered, excluded, endpoint, ca_bundle: None, compatibility: true };
    assert!(desired(&input).iter().all(|entry| entry.client_config.ca_bundle.is_none()));
}
