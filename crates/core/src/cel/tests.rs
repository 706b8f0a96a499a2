use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;
use crate::admission::Config;
use crate::webhook_configuration::{GRANTED_ENTRY, LABELLED_ENTRY};
use ensign_api::injected_env::{INJECTED_ENV, ValueSource, reserved_names};
use ensign_api::keys::{GATED_LABEL, INJECT_LABEL, TOKEN_MOUNT_PATH, TOKEN_VOLUME};

fn config() -> Config {
    Config {
        authority_host: "https://login.example/".to_owned(),
        audience: "api://it's".to_owned(),
        excluded: names(&["ensign-system", "kube-system"]),
        compatibility: None,
        gate_pods: true,
    }
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn live(covered: &[&str]) -> Vec<Policy> {
    policies(Form::Live { config: &config(), own: "ensign-system", covered: &names(covered) })
}

fn spec(policies: &[Policy], kind: PolicyKind, name: &str) -> Value {
    let found = policies.iter().find(|policy| policy.kind == kind && policy.name == name);
    found.unwrap_or_else(|| panic!("no {} {name}", kind.as_str())).spec.clone()
}

fn matches_nothing(spec: &Value) -> bool {
    let requirement = &spec["matchConstraints"]["namespaceSelector"]["matchExpressions"][0];
    // Every namespace has this label; it can't be removed.
    *requirement == json!({"key": "kubernetes.io/metadata.name", "operator": "DoesNotExist"})
}

#[test]
fn inert_policies_match_no_pod() {
    let policies = policies(Form::Inert);
    assert_eq!(policies.len(), 6);
    for policy in policies {
        assert!(matches_nothing(&policy.spec), "{} {}", policy.kind.as_str(), policy.name);
    }
}

#[test]
fn each_policy_has_a_binding_of_its_name() {
    let (policies, bindings) = (inert(), bindings());
    let named = |objects: &[Value], kind: &str| -> BTreeSet<String> {
        let of_kind = objects.iter().filter(|object| object["kind"] == kind);
        of_kind.filter_map(|object| object["metadata"]["name"].as_str().map(str::to_owned)).collect()
    };
    for kind in [PolicyKind::Mutating, PolicyKind::Validating] {
        assert!(!named(&policies, kind.as_str()).is_empty());
        assert_eq!(named(&policies, kind.as_str()), named(&bindings, kind.binding()));
    }
    assert_eq!(policies.len(), bindings.len());
    assert!(policies.iter().all(|object| object["spec"]["failurePolicy"] == "Fail"));
    assert!(bindings.iter().all(|object| object["spec"]["policyName"] == object["metadata"]["name"]));
}

#[test]
fn unlabelled_pods_are_matched_where_grants_are_and_labelled_ones_everywhere() {
    let policies = live(&["shop", "kube-system"]);
    for kind in [PolicyKind::Mutating, PolicyKind::Validating] {
        let constraints = spec(&policies, kind, GRANTED_ENTRY)["matchConstraints"].clone();
        let only = json!([{"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["shop"]}]);
        assert_eq!(constraints["namespaceSelector"]["matchExpressions"], only, "excluded ones are not covered");
        let unlabelled = json!([{"key": INJECT_LABEL, "operator": "NotIn", "values": ["false", "true"]}]);
        assert_eq!(constraints["objectSelector"]["matchExpressions"], unlabelled);

        let constraints = spec(&policies, kind, LABELLED_ENTRY)["matchConstraints"].clone();
        let excluded = json!(["ensign-system", "kube-system"]);
        let not = json!([{"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": excluded}]);
        assert_eq!(constraints["namespaceSelector"]["matchExpressions"], not);
        assert_eq!(constraints["objectSelector"]["matchLabels"], json!({INJECT_LABEL: "true"}));
    }
}

#[test]
fn without_a_grant_unlabelled_pods_are_not_matched() {
    for covered in [&[][..], &["kube-system"]] {
        let policies = live(covered);
        for kind in [PolicyKind::Mutating, PolicyKind::Validating] {
            assert!(matches_nothing(&spec(&policies, kind, GRANTED_ENTRY)));
            assert!(!matches_nothing(&spec(&policies, kind, LABELLED_ENTRY)));
        }
    }
}

#[test]
fn only_the_creation_of_pods_is_matched() {
    let all = policies(Form::Inert).into_iter().chain(live(&["shop"]));
    for policy in all.filter(|policy| policy.name != PROBE_POLICY) {
        let rules = policy.spec["matchConstraints"]["resourceRules"].clone();
        assert_eq!(rules.as_array().map(Vec::len), Some(1));
        assert_eq!((&rules[0]["operations"], &rules[0]["resources"]), (&json!(["CREATE"]), &json!(["pods"])));
    }
}

#[test]
fn validating_policies_are_written_before_mutating_ones() {
    let kinds: Vec<PolicyKind> = live(&["shop"]).iter().map(|policy| policy.kind).collect();
    assert!(kinds.is_sorted_by(|one, other| one >= other), "{kinds:?}");
}

#[test]
fn match_conditions_exclude_bindings_that_have_injected_the_pod_already() {
    let policies = live(&["shop"]);
    for kind in [PolicyKind::Mutating, PolicyKind::Validating] {
        for name in [GRANTED_ENTRY, LABELLED_ENTRY] {
            let conditions = spec(&policies, kind, name)["matchConditions"].clone();
            let last = conditions.as_array().unwrap().last().unwrap()["expression"].as_str().unwrap().to_owned();
            assert!(last.starts_with("!(") && last.contains("ensign.dev/injected-by"), "{last}");
        }
    }
}

#[test]
fn labelled_pods_are_validated_by_their_contents_and_never_by_their_annotation() {
    let outcome = spec(&live(&["shop"]), PolicyKind::Validating, OUTCOME_POLICY);
    assert_eq!(outcome.get("paramKind"), None);
    let text = outcome.to_string();
    for part in [TOKEN_VOLUME, TOKEN_MOUNT_PATH].into_iter().chain(reserved_names()) {
        assert!(text.contains(part), "{part}");
    }
    assert!(!text.contains("injected-by"));
}

#[test]
fn denials_have_the_webhooks_messages_with_expressions_in_place_of_values() {
    let policy = spec(&live(&["shop"]), PolicyKind::Validating, LABELLED_ENTRY);
    let messages: Vec<&str> =
        policy["validations"].as_array().unwrap().iter().filter_map(|one| one["messageExpression"].as_str()).collect();
    let wanted = [
        "' is accepted, but the client ID of ' + string(string(params.spec.identityRef.?kind.orValue('ManagedIdentity')) + '/' + string(params.spec.identityRef.name))",
        "' has not been evaluated by the controller yet; retry in a moment.",
        "' is not accepted (' + string(variables.not_accepted_reason)",
        "' is being deleted; create another binding for ' + string(string(params.spec.identityRef.?kind.orValue('ManagedIdentity'))",
        "' selects none of the pod\\'s containers;",
        "its spec.podSelector does not match the pod\\'s labels",
        "its spec.injection.mode is None",
        "'container \"' + string(variables.conflicting_mounts[0][0])",
    ];
    for part in wanted {
        let part = part.trim_start_matches('\'');
        assert!(messages.iter().any(|message| message.contains(part)), "{part} is in none of {messages:#?}");
    }
    assert!(!policy.to_string().contains('⟦'), "a placeholder is left");
}

#[test]
fn unlabelled_pods_are_denied_only_for_what_concerns_their_binding() {
    let policies = live(&["shop"]);
    let count = |name| spec(&policies, PolicyKind::Validating, name)["validations"].as_array().map(Vec::len);
    assert_eq!(count(GRANTED_ENTRY), Some(3));
    assert!(count(LABELLED_ENTRY) > count(GRANTED_ENTRY));
}

#[test]
fn values_of_the_install_are_quoted() {
    let text = spec(&live(&["shop"]), PolicyKind::Mutating, GRANTED_ENTRY).to_string();
    assert!(text.contains(r"api://it\\'s"), "{text}");
    assert!(text.contains(GATED_LABEL));
}

#[test]
fn policies_set_every_variable_and_read_only_those_of_the_binding_from_it() {
    let policy = spec(&live(&["shop"]), PolicyKind::Mutating, GRANTED_ENTRY);
    let variables = policy["variables"].as_array().unwrap();
    let wanted = variables.iter().find(|one| one["name"] == "wanted").unwrap()["expression"].as_str().unwrap();
    let pairs: Vec<&str> = wanted.trim_start_matches('[').trim_end_matches(']').split("], [").collect();
    assert_eq!(pairs.len(), INJECTED_ENV.len(), "{wanted}");
    for (pair, variable) in pairs.iter().zip(INJECTED_ENV) {
        let (name, value) = pair.split_once(", ").unwrap();
        assert!(name.contains(variable.key), "{pair}");
        assert_eq!(name.contains("params."), variable.renamable, "{pair}");
        assert_eq!(value.contains("params."), variable.source == ValueSource::Binding, "{pair}");
    }
}

#[test]
fn the_mark_differs_between_policies_and_the_probe_comes_last() {
    let (one, other) = (live(&["shop"]), live(&["shop", "pay"]));
    assert_eq!(mark(&one), mark(&live(&["shop"])));
    assert_ne!(mark(&one), mark(&other));
    assert_ne!(mark(&one), mark(&policies(Form::Inert)));
    let probe = one.last().unwrap();
    assert_eq!(probe.name, PROBE_POLICY);
    assert!(probe.spec.to_string().contains(&mark(&one)));
}

#[test]
fn the_probe_matches_only_dry_runs_in_ensigns_namespace_and_fails_open() {
    let probe = spec(&live(&["shop"]), PolicyKind::Mutating, PROBE_POLICY);
    assert_eq!(probe["failurePolicy"], "Ignore");
    assert_eq!(probe["matchConditions"][0]["expression"], "request.dryRun");
    let own = json!({"kubernetes.io/metadata.name": "ensign-system"});
    assert_eq!(probe["matchConstraints"]["namespaceSelector"]["matchLabels"], own);
}

#[test]
fn only_policies_that_differ_are_written() {
    let wanted = live(&["shop"]);
    let find = |kind: PolicyKind, name: &str| Some(spec(&wanted, kind, name));
    assert!(differs(&wanted, find).is_empty());
    let without_one = |kind: PolicyKind, name: &str| find(kind, name).filter(|_| name != OUTCOME_POLICY);
    let found: Vec<&str> = differs(&wanted, without_one).iter().map(|policy| policy.name).collect();
    assert_eq!(found, [OUTCOME_POLICY]);
    assert_eq!(differs(&wanted, |_, _| Some(json!({}))).len(), wanted.len());
}

#[test]
fn no_pod_is_gated_by_policies_if_gating_is_disabled() {
    let without = Config { gate_pods: false, ..config() };
    let policies = policies(Form::Live { config: &without, own: "ensign-system", covered: &names(&["shop"]) });
    let text = spec(&policies, PolicyKind::Mutating, GRANTED_ENTRY).to_string();
    assert!(!text.contains("startPolicy"), "{text}");
}
