use serde_json::{Value, json};

use super::*;

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn url() -> Endpoint {
    Endpoint::Url("https://127.0.0.1:9443".to_owned())
}

fn wanted() -> Vec<MutatingWebhook> {
    desired(&set(&["shop", "pay"]), &set(&["kube-system"]), &url(), b"ca")
}

fn stored(webhooks: &[MutatingWebhook]) -> MutatingWebhookConfiguration {
    MutatingWebhookConfiguration { webhooks: Some(webhooks.to_vec()), ..MutatingWebhookConfiguration::default() }
}

/// What the API server or another program makes of the entries.
fn changed(webhooks: &[MutatingWebhook], index: usize, change: &Value) -> MutatingWebhookConfiguration {
    let mut webhooks = serde_json::to_value(webhooks).unwrap();
    json_patch::merge(&mut webhooks[index], change);
    stored(&serde_json::from_value::<Vec<MutatingWebhook>>(webhooks).unwrap())
}

#[test]
fn unlabelled_pods_are_asked_about_in_granted_namespaces_and_labelled_ones_everywhere() {
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
fn both_entries_ask_at_pod_creation_and_fail_closed() {
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
        let entries = desired(&set(&[]), &set(&[]), &Endpoint::Url(given.to_owned()), b"ca");
        assert_eq!(entries[0].client_config.url.as_deref(), Some("https://h:1/mutate-pods"), "{given}");
    }
}

#[test]
fn a_service_is_named_with_path_and_port() {
    let endpoint = Endpoint::Service { namespace: "ensign-system".to_owned(), name: "ensign-webhook".to_owned() };
    let entries = serde_json::to_value(desired(&set(&[]), &set(&[]), &endpoint, b"ca")).unwrap();
    let service = json!({"namespace": "ensign-system", "name": "ensign-webhook", "path": "/mutate-pods", "port": 443});
    assert_eq!(entries[0]["clientConfig"], json!({"service": service, "caBundle": "Y2E="}));
}

#[test]
fn without_a_grant_only_labelled_pods_are_asked_about() {
    let names = |covered: &[&str], excluded: &[&str]| -> Vec<String> {
        desired(&set(covered), &set(excluded), &url(), b"ca").into_iter().map(|entry| entry.name).collect()
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
fn an_empty_configuration_gets_both_entries() {
    assert_eq!(differs(&MutatingWebhookConfiguration::default(), &wanted()), Some(wanted()));
}

#[test]
fn what_was_written_is_no_difference() {
    assert_eq!(differs(&stored(&wanted()), &wanted()), None);
}

#[test]
fn defaults_of_the_api_server_are_no_difference() {
    // A selector without labels comes back with an empty map or without one.
    let current = changed(&wanted(), 0, &json!({"namespaceSelector": {"matchLabels": {}}}));
    assert_eq!(differs(&current, &wanted()), None);
    let open = desired(&set(&[]), &set(&[]), &url(), b"ca");
    assert_eq!(differs(&changed(&open, 0, &json!({"namespaceSelector": {}})), &open), None);
}

#[test]
fn selector_expressions_of_others_are_no_difference() {
    let mut current = wanted();
    let foreign = LabelSelectorRequirement {
        key: "control-plane".to_owned(),
        operator: "NotIn".to_owned(),
        values: Some(vec!["true".to_owned()]),
    };
    for entry in &mut current {
        let selector = entry.namespace_selector.get_or_insert_default();
        selector.match_expressions.get_or_insert_default().insert(0, foreign.clone());
        selector.match_labels.get_or_insert_default().insert("tier".to_owned(), "x".to_owned());
    }
    assert_eq!(differs(&stored(&current), &wanted()), None);
}

#[test]
fn selector_expressions_of_others_survive_a_change_of_ours() {
    let foreign = json!({"key": "control-plane", "operator": "DoesNotExist"});
    let ours = json!({"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["old"]});
    let selector = json!({"namespaceSelector": {"matchExpressions": [ours, foreign], "matchLabels": {"tier": "x"}}});
    let after = differs(&changed(&wanted(), 0, &selector), &wanted()).unwrap();
    let after = serde_json::to_value(&after[0].namespace_selector).unwrap();
    assert_eq!(after["matchLabels"], json!({"tier": "x"}));
    let expressions = after["matchExpressions"].as_array().unwrap();
    assert!(expressions.contains(&foreign), "{expressions:?}");
    assert!(!expressions.contains(&ours), "{expressions:?}");
    assert_eq!(expressions[0]["values"], json!(["pay", "shop"]));
}

#[test]
fn every_field_of_ours_that_is_not_as_wanted_is_a_difference() {
    let changes = [
        json!({"clientConfig": {"caBundle": "b2xk"}}),
        json!({"clientConfig": {"caBundle": null}}),
        json!({"clientConfig": {"url": "https://elsewhere/mutate-pods"}}),
        json!({"failurePolicy": "Ignore"}),
        json!({"reinvocationPolicy": "Never"}),
        json!({"timeoutSeconds": 30}),
        json!({"matchPolicy": "Exact"}),
        json!({"rules": []}),
        json!({"objectSelector": {"matchExpressions": null}}),
        json!({"namespaceSelector": {"matchExpressions": null}}),
        json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}}),
    ];
    for change in changes {
        let current = changed(&wanted(), 0, &change);
        assert_eq!(differs(&current, &wanted()), Some(wanted()), "{change}");
    }
}

#[test]
fn an_entry_that_is_no_longer_wanted_goes() {
    let labelled_only = desired(&set(&[]), &set(&["kube-system"]), &url(), b"ca");
    assert_eq!(differs(&stored(&wanted()), &labelled_only), Some(labelled_only));
}

#[test]
fn entries_of_others_stay() {
    let other = MutatingWebhook { name: "other.example.com".to_owned(), ..wanted()[0].clone() };
    let current = [vec![other.clone()], wanted()].concat();
    assert_eq!(differs(&stored(&current), &wanted()), None);
    let after = differs(&stored(std::slice::from_ref(&other)), &wanted()).unwrap();
    assert_eq!(after[0], other);
    assert_eq!(after[1..], wanted());
}

#[test]
fn a_merge_is_stable() {
    let foreign = json!({"key": "control-plane", "operator": "DoesNotExist"});
    let current = changed(&wanted(), 1, &json!({"namespaceSelector": {"matchExpressions": [foreign]}}));
    let after = differs(&current, &wanted()).unwrap();
    assert_eq!(differs(&stored(&after), &wanted()), None);
}
