use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;
use serde_json::{Value, json};

use super::super::{Endpoint, Input, desired};
use super::*;

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn entries(covered: &[&str], excluded: &[&str], external: bool) -> Vec<MutatingWebhook> {
    let endpoint = Endpoint::Url("https://127.0.0.1:9443".to_owned());
    let (covered, excluded) = (&set(covered), &set(excluded));
    let ca_bundle = (!external).then_some(b"ca".as_slice());
    desired(&Input { covered, excluded, endpoint: &endpoint, ca_bundle, compatibility: false })
}

fn wanted() -> Vec<MutatingWebhook> {
    entries(&["shop", "pay"], &["kube-system"], false)
}

fn stored(webhooks: &[MutatingWebhook]) -> MutatingWebhookConfiguration {
    MutatingWebhookConfiguration { webhooks: Some(webhooks.to_vec()), ..MutatingWebhookConfiguration::default() }
}

/// The entries after a change by the API server or another program.
fn changed(webhooks: &[MutatingWebhook], index: usize, change: &Value) -> MutatingWebhookConfiguration {
    let mut webhooks = serde_json::to_value(webhooks).unwrap();
    json_patch::merge(&mut webhooks[index], change);
    stored(&serde_json::from_value::<Vec<MutatingWebhook>>(webhooks).unwrap())
}

#[test]
fn an_empty_configuration_gets_all_entries() {
    assert_eq!(differs(&MutatingWebhookConfiguration::default(), &wanted()), Some(wanted()));
}

#[test]
fn what_was_written_does_not_differ() {
    assert_eq!(differs(&stored(&wanted()), &wanted()), None);
}

#[test]
fn defaults_of_the_api_server_are_not_drift() {
    // A selector without labels comes back with an empty map or without one.
    let current = changed(&wanted(), 0, &json!({"namespaceSelector": {"matchLabels": {}}}));
    assert_eq!(differs(&current, &wanted()), None);
    let open = entries(&[], &[], false);
    assert_eq!(differs(&changed(&open, 0, &json!({"namespaceSelector": {}})), &open), None);
}

#[test]
fn selector_expressions_of_others_are_not_drift() {
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
fn a_change_of_any_field_of_ours_is_drift() {
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
fn an_entry_that_is_no_longer_desired_is_removed() {
    let labelled_only = entries(&[], &["kube-system"], false);
    assert_eq!(differs(&stored(&wanted()), &labelled_only), Some(labelled_only));
}

#[test]
fn entries_of_others_are_kept() {
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

#[test]
fn the_entry_of_compatibility_mode_is_removed_with_it() {
    let endpoint = Endpoint::Url("https://127.0.0.1:9443".to_owned());
    let (covered, excluded) = (&set(&[]), &set(&[]));
    let compatible =
        desired(&Input { covered, excluded, endpoint: &endpoint, ca_bundle: Some(b"ca"), compatibility: true });
    let without = entries(&[], &[], false);
    assert_eq!(differs(&stored(&compatible), &without), Some(without));
}

/// The entries after another program injected a CA.
fn inject(webhooks: &[MutatingWebhook], ca: &[u8]) -> MutatingWebhookConfiguration {
    let mut webhooks = webhooks.to_vec();
    for entry in &mut webhooks {
        entry.client_config.ca_bundle = Some(ByteString(ca.to_vec()));
    }
    stored(&webhooks)
}

#[test]
fn without_an_injected_ca_an_entry_matches_nothing_and_with_it_everything() {
    let wanted = entries(&["shop"], &["kube-system"], true);
    let dormant = differs(&MutatingWebhookConfiguration::default(), &wanted).unwrap();
    assert_eq!(injected_ca(&stored(&dormant)), None);
    for entry in serde_json::to_value(&dormant).unwrap().as_array().unwrap() {
        let nowhere = json!({"key": "kubernetes.io/metadata.name", "operator": "In", "values": [""]});
        assert_eq!(entry["namespaceSelector"], json!({"matchExpressions": [nowhere]}));
    }
    assert_eq!(differs(&stored(&dormant), &wanted), None, "and it is stable");

    let injected = inject(&dormant, b"theirs");
    assert_eq!(injected_ca(&injected), Some(b"theirs".as_slice()));
    let awake = differs(&injected, &wanted).unwrap();
    assert!(awake.iter().all(|entry| entry.client_config.ca_bundle == Some(ByteString(b"theirs".to_vec()))));
    assert_eq!(awake[0].namespace_selector, wanted[0].namespace_selector);
    assert!(!asks_no_more(&injected, &awake));
}

#[test]
fn an_injected_ca_is_kept_even_if_it_changes() {
    let wanted = entries(&["shop"], &["kube-system"], true);
    for ca in [b"theirs".as_slice(), b"renewed"] {
        assert_eq!(differs(&inject(&wanted, ca), &wanted), None);
    }
}

#[test]
fn fewer_granted_namespaces_and_more_excluded_ones_match_no_further_pods() {
    let before = stored(&wanted());
    let no_more = |covered: &[&str], excluded: &[&str]| {
        let after = differs(&before, &entries(covered, excluded, false)).unwrap();
        asks_no_more(&before, &after)
    };
    assert!(no_more(&["shop"], &["kube-system"]), "one namespace less");
    assert!(no_more(&[], &["kube-system"]), "no namespace");
    assert!(no_more(&["shop"], &["kube-system", "pay"]), "one excluded namespace more");
    let widened = changed(&wanted(), 0, &json!({"namespaceSelector": null}));
    assert!(asks_no_more(&widened, &wanted()), "every namespace, set by another program");
    assert!(!no_more(&["shop", "new"], &["kube-system"]), "another namespace");
    assert!(!no_more(&["shop", "pay", "new"], &["kube-system"]), "one namespace more");
    assert!(!no_more(&["shop", "pay"], &["other"]), "one that was excluded");
}

#[test]
fn a_new_entry_and_any_other_change_may_match_further_pods() {
    assert!(!asks_no_more(&MutatingWebhookConfiguration::default(), &wanted()));
    let changes = [
        json!({"clientConfig": {"caBundle": "b2xk"}}),
        json!({"failurePolicy": "Ignore"}),
        json!({"objectSelector": {"matchExpressions": null}}),
    ];
    for change in changes {
        let before = changed(&wanted(), 0, &change);
        let after = differs(&before, &wanted()).unwrap();
        assert!(!asks_no_more(&before, &after), "{change}");
    }
}

#[test]
fn the_namespaces_of_an_entry_are_read_from_the_configuration() {
    use super::super::{GRANTED_ENTRY, LABELLED_ENTRY};
    assert_eq!(limited_to(&stored(&wanted()), GRANTED_ENTRY), set(&["pay", "shop"]));
    assert_eq!(limited_to(&stored(&wanted()), LABELLED_ENTRY), set(&[]));
    assert_eq!(limited_to(&stored(&[]), GRANTED_ENTRY), set(&[]));
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_first_repairs_are_immediate_and_later_ones_back_off() {
    let (mut repairs, mut now, mut waits) = (Repairs::default(), Duration::ZERO, Vec::new());
    for _ in 0..16 {
        let wait = repairs.wait(&wanted(), now).unwrap_or_default();
        waits.push(wait.as_secs());
        now += wait;
        assert_eq!(repairs.wait(&wanted(), now), None, "after the wait it may be written");
        repairs.written(&wanted(), now);
    }
    assert_eq!(waits, [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
}

#[test]
fn repeated_repairs_are_a_conflict_from_the_third_on() {
    let mut repairs = Repairs::default();
    let conflicts: Vec<bool> = (0..5).map(|_| is_fight(repairs.written(&wanted(), Duration::ZERO))).collect();
    assert_eq!(conflicts, [false, false, false, true, true]);
}

#[test]
fn a_new_desired_state_is_written_immediately_even_during_a_conflict() {
    let mut repairs = Repairs::default();
    for _ in 0..10 {
        repairs.written(&wanted(), Duration::ZERO);
    }
    assert!(repairs.wait(&wanted(), SECOND).is_some());
    assert_eq!(repairs.wait(&entries(&["new"], &[], false), SECOND), None);
}

#[test]
fn a_repair_that_lasts_ends_the_conflict() {
    let mut repairs = Repairs::default();
    for _ in 0..10 {
        repairs.written(&wanted(), Duration::ZERO);
    }
    assert_eq!(repairs.wait(&wanted(), SECOND * 700), None);
    repairs.written(&wanted(), SECOND * 700);
    assert_eq!(repairs.wait(&wanted(), SECOND * 701), None, "the count restarts");
}
