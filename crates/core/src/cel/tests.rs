use super::*;
use ensign_api::keys::{GATED_LABEL, TOKEN_MOUNT_PATH, TOKEN_VOLUME};

fn config() -> Config {
    Config {
        authority_host: "https://login.example/".to_owned(),
        audience: "api://it's".to_owned(),
        excluded: names(&["ensign-system", "kube-system"]),
        compatibility: None,
        hold: true,
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
    // Every namespace has this label, and nobody can take it away.
    *requirement == json!({"key": "kubernetes.io/metadata.name", "operator": "DoesNotExist"})
}

#[test]
fn what_the_chart_makes_matches_no_pod() {
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
fn without_a_grant_unlabelled_pods_are_left_alone() {
    for covered in [&[][..], &["kube-system"]] {
        let policies = live(covered);
        for kind in [PolicyKind::Mutating, PolicyKind::Validating] {
            assert!(matches_nothing(&spec(&policies, kind, GRANTED_ENTRY)));
            assert!(!matches_nothing(&spec(&policies, kind, LABELLED_ENTRY)));
        }
    }
}

#[test]
fn only_pods_at_their_creation_are_matched() {
    let all = policies(Form::Inert).into_iter().chain(live(&["shop"]));
    for policy in all.filter(|policy| policy.name != PROBE_POLICY) {
        let rules = policy.spec["matchConstraints"]["resourceRules"].clone();
        assert_eq!(rules.as_array().map(Vec::len), Some(1));
        assert_eq!((&rules[0]["operations"], &rules[0]["resources"]), (&json!(["CREATE"]), &json!(["pods"])));
    }
}

#[test]
fn what_refuses_is_written_before_what_injects() {
    let kinds: Vec<PolicyKind> = live(&["shop"]).iter().map(|policy| policy.kind).collect();
    assert!(kinds.is_sorted_by(|one, other| one >= other), "{kinds:?}");
}

#[test]
fn a_binding_that_has_given_all_is_turned_away_before_it_is_patched_or_judged_again() {
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
fn the_guarantee_is_judged_by_the_outcome_and_never_by_an_annotation() {
    let outcome = spec(&live(&["shop"]), PolicyKind::Validating, OUTCOME_POLICY);
    assert_eq!(outcome.get("paramKind"), None);
    let text = outcome.to_string();
    for part in
        [TOKEN_VOLUME, TOKEN_MOUNT_PATH, "AZURE_FEDERATED_TOKEN_FILE", "AZURE_TENANT_ID", "AZURE_AUTHORITY_HOST"]
    {
        assert!(text.contains(part), "{part}");
    }
    assert!(!text.contains("injected-by"));
}

#[test]
fn refusals_are_worded_as_by_the_webhook_with_expressions_in_place_of_values() {
    let judge = spec(&live(&["shop"]), PolicyKind::Validating, LABELLED_ENTRY);
    let messages: Vec<&str> =
        judge["validations"].as_array().unwrap().iter().filter_map(|one| one["messageExpression"].as_str()).collect();
    let wanted = [
        "' is accepted, but the client ID of ' + string(string(params.spec.identityRef.?kind.orValue('ManagedIdentity')) + '/' + string(params.spec.identityRef.name))",
        "' is not yet accepted by the controller; retry in a moment.",
        "' is not accepted (' + string(variables.not_accepted_reason)",
        "' is being deleted; create another binding for ' + string(string(params.spec.identityRef.?kind.orValue('ManagedIdentity'))",
        "' chooses none of the pod\\'s containers;",
        "its spec.podSelector does not match the pod\\'s labels",
        "its spec.injection.mode is None",
        "'container \"' + string(variables.in_the_way[0][0])",
    ];
    for part in wanted {
        let part = part.trim_start_matches('\'');
        assert!(messages.iter().any(|message| message.contains(part)), "{part} is in none of {messages:#?}");
    }
    assert!(!judge.to_string().contains('⟦'), "a slot is not filled");
}

#[test]
fn unlabelled_pods_are_refused_only_for_what_concerns_their_binding() {
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
fn the_mark_tells_policies_apart_and_the_probe_comes_last() {
    let (one, other) = (live(&["shop"]), live(&["shop", "pay"]));
    assert_eq!(mark(&one), mark(&live(&["shop"])));
    assert_ne!(mark(&one), mark(&other));
    assert_ne!(mark(&one), mark(&policies(Form::Inert)));
    let probe = one.last().unwrap();
    assert_eq!(probe.name, PROBE_POLICY);
    assert!(probe.spec.to_string().contains(&mark(&one)));
}

#[test]
fn the_probe_is_for_dry_runs_in_the_own_namespace_and_can_not_be_in_the_way() {
    let probe = spec(&live(&["shop"]), PolicyKind::Mutating, PROBE_POLICY);
    assert_eq!(probe["failurePolicy"], "Ignore");
    assert_eq!(probe["matchConditions"][0]["expression"], "request.dryRun");
    let own = json!({"kubernetes.io/metadata.name": "ensign-system"});
    assert_eq!(probe["matchConstraints"]["namespaceSelector"]["matchLabels"], own);
}

#[test]
fn what_is_as_it_should_be_is_not_written() {
    let wanted = live(&["shop"]);
    let find = |kind: PolicyKind, name: &str| Some(spec(&wanted, kind, name));
    assert!(differs(&wanted, find).is_empty());
    let without_one = |kind: PolicyKind, name: &str| find(kind, name).filter(|_| name != OUTCOME_POLICY);
    let found: Vec<&str> = differs(&wanted, without_one).iter().map(|policy| policy.name).collect();
    assert_eq!(found, [OUTCOME_POLICY]);
    assert_eq!(differs(&wanted, |_, _| Some(json!({}))).len(), wanted.len());
}

#[test]
fn without_holding_no_pod_is_held() {
    let without = Config { hold: false, ..config() };
    let policies = policies(Form::Live { config: &without, own: "ensign-system", covered: &names(&["shop"]) });
    let text = spec(&policies, PolicyKind::Mutating, GRANTED_ENTRY).to_string();
    assert!(!text.contains("startPolicy"), "{text}");
}
