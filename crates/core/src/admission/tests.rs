use std::collections::BTreeSet;
use std::sync::Arc;

use ::json_patch::Patch;
use serde_json::{Value, json};

use super::*;
use ensign_api::ManagedIdentityBinding;
use ensign_api::keys::{INJECT_LABEL, INJECTED_BY_ANNOTATION, TOKEN_FILE, TOKEN_MOUNT_PATH, TOKEN_PATH, TOKEN_VOLUME};

const AUTHORITY: &str = "https://login.example/";
const AUDIENCE: &str = "api://AzureADTokenExchange";

pub(super) fn config() -> Config {
    Config {
        authority_host: AUTHORITY.to_owned(),
        audience: AUDIENCE.to_owned(),
        excluded: BTreeSet::from(["kube-system".to_owned()]),
        compatibility: None,
        gate_pods: true,
    }
}

/// A binding of service account `orders`, accepted and resolved, changed by a merge patch.
pub(super) fn binding(name: &str, change: &Value) -> Arc<Binding> {
    let mut object = json!({
        "apiVersion": "ensign.dev/v1alpha1",
        "kind": "ManagedIdentityBinding",
        "metadata": {"name": name, "namespace": "shop", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"identityRef": {"name": name}, "serviceAccountName": "orders"},
        "status": {
            "clientID": format!("{name}-client"),
            "tenantID": "tenant",
            "credential": {
                "name": "ensign-orders", "issuer": "https://issuer.example", "origin": "Created",
                "confirmedSince": "2026-01-01T00:00:00Z",
            },
            "conditions": [
                condition("Accepted", "True", "Accepted", ""),
                condition("CredentialReady", "True", "Confirmed", ""),
            ],
        },
    });
    ::json_patch::merge(&mut object, change);
    Arc::new(Binding::from(&serde_json::from_value::<ManagedIdentityBinding>(object).unwrap()))
}

pub(super) fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({
        "type": kind, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    })
}

pub(super) fn resolved(name: &str) -> Arc<Binding> {
    binding(name, &json!({}))
}

fn not_accepted(name: &str) -> Arc<Binding> {
    let not_allowed = condition("Accepted", "False", "NotAllowed", "ask the owner of ManagedIdentity orders");
    binding(name, &json!({"status": {"conditions": [not_allowed]}}))
}

fn unresolved(name: &str) -> Arc<Binding> {
    let conditions = [
        condition("Accepted", "True", "Accepted", ""),
        condition("IdentityResolved", "False", "AzureUnavailable", "ARM answered 503"),
    ];
    binding(name, &json!({"status": {"clientID": null, "conditions": conditions}}))
}

fn pending(name: &str) -> Arc<Binding> {
    binding(name, &json!({"status": null}))
}

/// A pod of service account `orders`, changed by a merge patch.
pub(super) fn pod(change: &Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "orders-1", "labels": {"app": "orders"}},
        "spec": {"serviceAccountName": "orders", "containers": [{"name": "app", "image": "orders:1"}]},
    });
    ::json_patch::merge(&mut pod, change);
    pod
}

fn labelled(change: &Value) -> Value {
    let mut pod = pod(&json!({"metadata": {"labels": {INJECT_LABEL: "true"}}}));
    ::json_patch::merge(&mut pod, change);
    pod
}

pub(super) fn decide(pod: &Value, bindings: &[Arc<Binding>]) -> Decision {
    let text = pod.to_string();
    let pod: Pod<'_> = serde_json::from_str(&text).unwrap();
    admit(&pod, "shop", bindings, &config())
}

pub(super) fn patched(pod: &Value, decision: &Decision) -> Value {
    let mut patched = pod.clone();
    if let Decision::Patch { operations, .. } = decision {
        let operations: Patch = serde_json::from_value(json!(operations)).unwrap();
        ::json_patch::patch(&mut patched, &operations).unwrap();
    }
    patched
}

pub(super) fn injected(pod: &Value, bindings: &[Arc<Binding>]) -> Value {
    let decision = decide(pod, bindings);
    assert!(matches!(decision, Decision::Patch { .. }), "{decision:?}");
    patched(pod, &decision)
}

fn denial(pod: &Value, bindings: &[Arc<Binding>]) -> Denial {
    match decide(pod, bindings) {
        Decision::Deny(denial) => denial,
        other => panic!("not denied: {other:?}"),
    }
}

pub(super) fn warnings(pod: &Value, bindings: &[Arc<Binding>]) -> Vec<String> {
    match decide(pod, bindings) {
        Decision::Allow { warnings } | Decision::Patch { warnings, .. } => warnings,
        Decision::Deny(denial) => panic!("denied: {denial:?}"),
    }
}

pub(super) fn env(container: &Value) -> Vec<(&str, &str)> {
    let variables = container["env"].as_array().unwrap();
    variables.iter().map(|one| (one["name"].as_str().unwrap(), one["value"].as_str().unwrap())).collect()
}

pub(super) fn left_unchanged(decision: &Decision) -> bool {
    *decision == Decision::Allow { warnings: Vec::new() }
}

#[test]
fn a_pod_with_a_resolved_binding_gets_env_volume_mount_and_annotation() {
    let pod = injected(&pod(&json!({})), &[resolved("orders")]);
    let container = &pod["spec"]["containers"][0];
    assert_eq!(
        env(container),
        [
            ("AZURE_CLIENT_ID", "orders-client"),
            ("AZURE_TENANT_ID", "tenant"),
            ("AZURE_FEDERATED_TOKEN_FILE", TOKEN_FILE),
            ("AZURE_AUTHORITY_HOST", AUTHORITY),
        ]
    );
    assert_eq!(
        container["volumeMounts"],
        json!([{"name": TOKEN_VOLUME, "mountPath": TOKEN_MOUNT_PATH, "readOnly": true}])
    );
    assert_eq!(
        pod["spec"]["volumes"],
        json!([{"name": TOKEN_VOLUME, "projected": {"sources": [{"serviceAccountToken": {
            "path": TOKEN_PATH, "audience": AUDIENCE, "expirationSeconds": 3600,
        }}]}}])
    );
    assert_eq!(pod["metadata"]["annotations"], json!({INJECTED_BY_ANNOTATION: "orders=ManagedIdentity/orders"}));
}

#[test]
fn an_identity_is_injected_before_its_credential_is_confirmed() {
    let conditions = [
        condition("Accepted", "True", "Accepted", ""),
        condition("CredentialReady", "Unknown", "CredentialPending", ""),
    ];
    let binding = binding("orders", &json!({"status": {"conditions": conditions}}));
    injected(&pod(&json!({})), &[binding]);
}

#[test]
fn a_known_identity_is_injected_while_azure_is_unavailable() {
    let conditions = [
        condition("Accepted", "True", "Accepted", ""),
        condition("IdentityResolved", "Unknown", "AzureUnavailable", ""),
    ];
    let binding = binding("orders", &json!({"status": {"conditions": conditions}}));
    injected(&pod(&json!({})), &[binding]);
}

#[test]
fn init_containers_and_native_sidecars_are_injected_too() {
    let init = json!([{"name": "migrate"}, {"name": "proxy", "restartPolicy": "Always"}]);
    let pod = injected(&pod(&json!({"spec": {"initContainers": init}})), &[resolved("orders")]);
    for container in pod["spec"]["initContainers"].as_array().unwrap() {
        assert_eq!(env(container).len(), 4);
        assert_eq!(container["volumeMounts"].as_array().unwrap().len(), 1);
    }
}

#[test]
fn ephemeral_containers_are_never_injected() {
    let ephemeral = json!([{"name": "debug"}]);
    let pod = injected(&pod(&json!({"spec": {"ephemeralContainers": ephemeral}})), &[resolved("orders")]);
    assert_eq!(pod["spec"]["ephemeralContainers"], ephemeral);
}

#[test]
fn lists_that_exist_are_appended_to() {
    let pod = pod(&json!({
        "metadata": {"annotations": {"note": "kept"}},
        "spec": {
            "volumes": [{"name": "data", "emptyDir": {}}],
            "containers": [{
                "name": "app",
                "env": [{"name": "A", "value": "1"}],
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }],
        },
    }));
    let pod = injected(&pod, &[resolved("orders")]);
    assert_eq!(pod["metadata"]["annotations"]["note"], "kept");
    assert_eq!(pod["spec"]["volumes"][0]["name"], "data");
    assert_eq!(pod["spec"]["volumes"].as_array().unwrap().len(), 2);
    assert_eq!(env(&pod["spec"]["containers"][0])[0], ("A", "1"));
    assert_eq!(pod["spec"]["containers"][0]["volumeMounts"][0]["name"], "data");
}

#[test]
fn lists_that_are_null_are_created() {
    // A merge patch can't set null, and the API server omits nulls; other callers may not.
    let mut null = pod(&json!({}));
    null["spec"]["volumes"] = Value::Null;
    null["metadata"]["annotations"] = Value::Null;
    null["spec"]["containers"][0]["env"] = Value::Null;
    let pod = injected(&null, &[resolved("orders")]);
    assert_eq!(pod["spec"]["volumes"].as_array().unwrap().len(), 1);
    assert_eq!(env(&pod["spec"]["containers"][0]).len(), 4);
}

#[test]
fn a_second_pass_changes_nothing() {
    let bindings = [resolved("orders"), binding("pay", &json!({"spec": {"injection": {"clientIDEnv": "PAY_ID"}}}))];
    let once = injected(&pod(&json!({})), &bindings);
    assert!(left_unchanged(&decide(&once, &bindings)));
}

#[test]
fn without_a_service_account_name_the_default_service_account_is_used() {
    let binding = binding("orders", &json!({"spec": {"serviceAccountName": "default"}}));
    for name in [Value::Null, json!("")] {
        let mut pod = pod(&json!({}));
        pod["spec"]["serviceAccountName"] = name;
        injected(&pod, std::slice::from_ref(&binding));
    }
}

#[test]
fn a_pod_without_a_binding_is_left_unchanged() {
    assert!(left_unchanged(&decide(&pod(&json!({})), &[])));
}

#[test]
fn bindings_of_another_service_account_do_not_count() {
    let other = binding("orders", &json!({"spec": {"serviceAccountName": "pay"}}));
    assert!(left_unchanged(&decide(&pod(&json!({})), &[other])));
}

#[test]
fn an_unlabelled_pod_is_left_unchanged_if_its_binding_is_not_accepted() {
    assert!(left_unchanged(&decide(&pod(&json!({})), &[not_accepted("orders")])));
}

#[test]
fn an_unlabelled_pod_is_left_unchanged_if_its_binding_was_not_evaluated_yet() {
    assert!(left_unchanged(&decide(&pod(&json!({})), &[pending("orders")])));
}

#[test]
fn an_unlabelled_pod_is_left_unchanged_if_its_binding_is_being_deleted() {
    let deleting = json!({"metadata": {"deletionTimestamp": "2026-01-02T00:00:00Z"}});
    assert!(left_unchanged(&decide(&pod(&json!({})), &[binding("orders", &deleting)])));
}

#[test]
fn the_label_false_opts_out() {
    let pod = pod(&json!({"metadata": {"labels": {INJECT_LABEL: "false"}}}));
    assert!(left_unchanged(&decide(&pod, &[resolved("orders")])));
    assert!(left_unchanged(&decide(&pod, &[unresolved("orders")])));
}

#[test]
fn pods_of_an_excluded_namespace_are_left_unchanged_whatever_their_label() {
    let text = labelled(&json!({})).to_string();
    let pod: Pod<'_> = serde_json::from_str(&text).unwrap();
    assert!(left_unchanged(&admit(&pod, "kube-system", &[resolved("orders")], &config())));
}

#[test]
fn pods_that_mirror_static_pods_are_left_unchanged() {
    let mirror = pod(&json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "hash"}}}));
    assert!(left_unchanged(&decide(&mirror, &[resolved("orders")])));
}

#[test]
fn injection_mode_none_never_matches() {
    let trust_only = binding("orders", &json!({"spec": {"injection": {"mode": "None"}}}));
    assert!(left_unchanged(&decide(&pod(&json!({})), std::slice::from_ref(&trust_only))));
    let denial = denial(&labelled(&json!({})), &[trust_only]);
    assert_eq!(denial.code, DenialCode::NoBinding);
    assert!(denial.message.contains("spec.injection.mode is None"), "{}", denial.message);
}

#[test]
fn a_pod_selector_narrows_injection() {
    let narrow = binding("orders", &json!({"spec": {"podSelector": {"matchLabels": {"app": "pay"}}}}));
    assert!(left_unchanged(&decide(&pod(&json!({})), std::slice::from_ref(&narrow))));
    let denial = denial(&labelled(&json!({})), std::slice::from_ref(&narrow));
    assert!(denial.message.contains("spec.podSelector does not match"), "{}", denial.message);
    injected(&pod(&json!({"metadata": {"labels": {"app": "pay"}}})), &[narrow]);
}

#[test]
fn a_pod_selector_without_requirements_selects_pods_without_labels() {
    let wide = binding("orders", &json!({"spec": {"podSelector": {}}}));
    injected(&pod(&json!({"metadata": {"labels": null}})), &[wide]);
}

#[test]
fn an_accepted_binding_without_client_id_denies_labelled_and_unlabelled_pods() {
    for pod in [pod(&json!({})), labelled(&json!({}))] {
        let denial = denial(&pod, &[unresolved("orders")]);
        assert_eq!(denial.code, DenialCode::IdentityUnknown);
        for part in
            ["\"orders\"", "\"shop\"", "AzureUnavailable: ARM answered 503", "kubectl describe mib orders -n shop"]
        {
            assert!(denial.message.contains(part), "{part} is missing: {}", denial.message);
        }
    }
}

#[test]
fn an_identity_without_a_tenant_is_not_resolved() {
    let denial = denial(&pod(&json!({})), &[binding("orders", &json!({"status": {"tenantID": null}}))]);
    assert_eq!(denial.code, DenialCode::IdentityUnknown);
}

#[test]
fn without_a_binding_a_labelled_pod_is_denied_with_the_object_to_create() {
    let denial = denial(&labelled(&json!({})), &[]);
    assert_eq!(denial.code, DenialCode::NoBinding);
    for part in ["Create a ManagedIdentityBinding", "namespace \"shop\"", "spec.serviceAccountName: orders"] {
        assert!(denial.message.contains(part), "{part} is missing: {}", denial.message);
    }
}

#[test]
fn a_labelled_pod_whose_binding_is_not_accepted_is_denied_with_the_reason() {
    let denial = denial(&labelled(&json!({})), &[not_accepted("orders")]);
    assert_eq!(denial.code, DenialCode::NotAccepted);
    for part in ["\"orders\"", "NotAllowed", "ask the owner of ManagedIdentity orders"] {
        assert!(denial.message.contains(part), "{part} is missing: {}", denial.message);
    }
}

#[test]
fn a_labelled_pod_whose_binding_was_not_evaluated_yet_is_denied_with_the_advice_to_retry() {
    let denial = denial(&labelled(&json!({})), &[pending("orders")]);
    assert_eq!(denial.code, DenialCode::NotYetAccepted);
    assert!(denial.message.contains("retry"), "{}", denial.message);
}

#[test]
fn a_binding_whose_acceptance_is_unknown_counts_as_not_evaluated_yet() {
    let unknown = condition("Accepted", "Unknown", "Pending", "");
    let denial = denial(&labelled(&json!({})), &[binding("orders", &json!({"status": {"conditions": [unknown]}}))]);
    assert_eq!(denial.code, DenialCode::NotYetAccepted);
}

#[test]
fn a_labelled_pod_whose_binding_is_being_deleted_is_denied() {
    let deleting = json!({"metadata": {"deletionTimestamp": "2026-01-02T00:00:00Z"}});
    let denial = denial(&labelled(&json!({})), &[binding("orders", &deleting)]);
    assert_eq!(denial.code, DenialCode::BindingDeleting);
}

#[test]
fn two_identities_share_everything_but_the_client_id() {
    let second = json!({
        "metadata": {"creationTimestamp": "2026-01-02T00:00:00Z"},
        "spec": {"injection": {"clientIDEnv": "PAY_CLIENT_ID"}},
    });
    let pod = injected(&pod(&json!({})), &[binding("pay", &second), resolved("orders")]);
    let names: Vec<_> = env(&pod["spec"]["containers"][0]).into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        names,
        ["AZURE_CLIENT_ID", "PAY_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_AUTHORITY_HOST"]
    );
    assert_eq!(pod["spec"]["volumes"].as_array().unwrap().len(), 1);
    assert_eq!(
        pod["metadata"]["annotations"][INJECTED_BY_ANNOTATION],
        "orders=ManagedIdentity/orders,pay=ManagedIdentity/pay"
    );
}

#[test]
fn of_two_bindings_with_the_same_variable_the_older_wins_or_the_first_by_name() {
    let older = binding("zebra", &json!({"metadata": {"creationTimestamp": "2025-01-01T00:00:00Z"}}));
    let pod = pod(&json!({}));
    let client_id = |bindings: &[Arc<Binding>]| env(&injected(&pod, bindings)["spec"]["containers"][0])[0].1.to_owned();
    assert_eq!(client_id(&[resolved("a"), older.clone()]), "zebra-client");
    assert_eq!(client_id(&[older, resolved("a")]), "zebra-client");
    assert_eq!(client_id(&[resolved("b"), resolved("a")]), "a-client");
}

#[test]
fn of_two_token_lifetimes_the_shorter_one_is_used() {
    let long = binding("long", &json!({"spec": {"injection": {"clientIDEnv": "B", "tokenExpirationSeconds": 86400}}}));
    let short = binding("short", &json!({"spec": {"injection": {"tokenExpirationSeconds": 7200}}}));
    let pod = injected(&pod(&json!({})), &[long, short]);
    let token = &pod["spec"]["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"];
    assert_eq!(token["expirationSeconds"], 7200);
}

#[test]
fn a_superseded_binding_has_no_effect_and_is_not_in_the_annotation() {
    let older = json!({"metadata": {"creationTimestamp": "2025-01-01T00:00:00Z"},
                       "spec": {"injection": {"tokenExpirationSeconds": 86400}}});
    let pod = injected(&pod(&json!({})), &[resolved("late"), binding("orders", &older)]);
    assert_eq!(pod["metadata"]["annotations"][INJECTED_BY_ANNOTATION], "orders=ManagedIdentity/orders");
    let token = &pod["spec"]["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"];
    assert_eq!(token["expirationSeconds"], 86_400);
}

#[test]
fn two_bindings_to_the_same_identity_are_both_in_the_annotation() {
    let same = json!({"status": {"clientID": "orders-client"}});
    let pod = injected(&pod(&json!({})), &[resolved("orders"), binding("successor", &same)]);
    let by = "orders=ManagedIdentity/orders,successor=ManagedIdentity/successor";
    assert_eq!(pod["metadata"]["annotations"][INJECTED_BY_ANNOTATION], by);
}

#[test]
fn a_binding_for_another_tenant_is_skipped_with_a_warning_in_containers_of_an_older_one() {
    let containers = json!({"spec": {"containers": [{"name": "app"}, {"name": "other"}]}});
    let foreign = |containers: Value| {
        let injection = json!({"clientIDEnv": "PAY_CLIENT_ID", "containers": containers});
        let late = json!({"creationTimestamp": "2026-01-02T00:00:00Z"});
        binding("pay", &json!({"metadata": late, "spec": {"injection": injection}, "status": {"tenantID": "foreign"}}))
    };
    let bindings = [resolved("orders"), foreign(json!({}))];
    let after = injected(&pod(&containers), &bindings);
    assert!(!after.to_string().contains("PAY_CLIENT_ID"), "{after}");
    let warnings = warnings(&pod(&containers), &bindings);
    assert!(warnings.len() == 1 && warnings[0].contains("\"pay\"") && warnings[0].contains("foreign"), "{warnings:?}");
    // In different containers they do not conflict.
    let apart = json!({"spec": {"injection": {"containers": {"exclude": ["other"]}}}});
    let after = injected(&pod(&containers), &[binding("orders", &apart), foreign(json!({"include": ["other"]}))]);
    assert_eq!(
        env(&after["spec"]["containers"][1])[..2],
        [("PAY_CLIENT_ID", "pay-client"), ("AZURE_TENANT_ID", "foreign")]
    );
}

#[test]
fn a_binding_that_waits_for_its_identity_denies_the_pod_even_if_another_is_ready() {
    let waiting = unresolved("pay");
    let denial = denial(&pod(&json!({})), &[resolved("orders"), waiting]);
    assert_eq!(denial.code, DenialCode::IdentityUnknown);
}

#[test]
fn a_labelled_pod_is_denied_until_every_binding_was_evaluated() {
    let bindings = [resolved("orders"), pending("pay")];
    assert_eq!(denial(&labelled(&json!({})), &bindings).code, DenialCode::NotYetAccepted);
    injected(&pod(&json!({})), &bindings);
}

#[test]
fn a_binding_that_is_not_accepted_is_skipped_with_a_warning_if_another_one_injects() {
    let bindings = [resolved("orders"), not_accepted("pay")];
    injected(&labelled(&json!({})), &bindings);
    let warnings = warnings(&labelled(&json!({})), &bindings);
    assert!(warnings.len() == 1 && warnings[0].contains("\"pay\""), "{warnings:?}");
}

#[test]
fn only_the_selected_containers_are_injected() {
    let containers = json!({"spec": {"containers": [{"name": "app"}, {"name": "istio-proxy"}, {"name": "other"}]}});
    let touched = |filter: Value| {
        let binding = binding("orders", &json!({"spec": {"injection": {"containers": filter}}}));
        let pod = injected(&pod(&containers), &[binding]);
        let containers = pod["spec"]["containers"].as_array().unwrap();
        containers.iter().map(|container| container.get("env").is_some()).collect::<Vec<_>>()
    };
    assert_eq!(touched(json!({"exclude": ["istio-proxy"]})), [true, false, true]);
    assert_eq!(touched(json!({"include": ["app"]})), [true, false, false]);
    assert_eq!(touched(json!({"include": ["app", "other"], "exclude": ["other"]})), [true, false, false]);
}

#[test]
fn a_binding_that_selects_none_of_the_containers_changes_nothing_and_denies_a_labelled_pod() {
    let elsewhere = binding("orders", &json!({"spec": {"injection": {"containers": {"include": ["nobody"]}}}}));
    assert!(left_unchanged(&decide(&pod(&json!({})), std::slice::from_ref(&elsewhere))));
    let denial = denial(&labelled(&json!({})), &[elsewhere]);
    assert_eq!(denial.code, DenialCode::NoContainer);
    assert!(denial.message.contains("spec.injection.containers"), "{}", denial.message);
}

#[test]
fn an_existing_variable_is_kept_with_a_warning_if_it_differs() {
    let pod = pod(&json!({"spec": {"containers": [{
        "name": "app", "env": [{"name": "AZURE_CLIENT_ID", "value": "mine"}, {"name": "AZURE_TENANT_ID", "value": "tenant"}],
    }]}}));
    let bindings = [resolved("orders")];
    let after = injected(&pod, &bindings);
    assert_eq!(env(&after["spec"]["containers"][0])[..2], [("AZURE_CLIENT_ID", "mine"), ("AZURE_TENANT_ID", "tenant")]);
    assert_eq!(
        warnings(&pod, &bindings),
        [r#"container "app": AZURE_CLIENT_ID keeps its value "mine"; Ensign would have set "orders-client""#]
    );
    // A second pass has no patch, but the same warning.
    assert!(matches!(decide(&after, &bindings), Decision::Allow { warnings } if warnings.len() == 1));
}

#[test]
fn an_existing_variable_with_value_from_is_kept_with_a_warning() {
    let value_from = json!({"secretKeyRef": {"name": "s", "key": "k"}});
    let pod = pod(&json!({"spec": {"containers": [{
        "name": "app", "env": [{"name": "AZURE_CLIENT_ID", "valueFrom": value_from}],
    }]}}));
    let warnings = warnings(&pod, &[resolved("orders")]);
    assert!(warnings.len() == 1 && warnings[0].contains("valueFrom"), "{warnings:?}");
}

#[test]
fn warnings_are_limited_and_those_about_client_ids_come_first() {
    let containers: Vec<_> = (0..30)
        .map(|index| {
            let tenant = json!({"name": "AZURE_TENANT_ID", "value": "x".repeat(1_000)});
            json!({"name": format!("c{index}"), "env": [tenant, {"name": "AZURE_CLIENT_ID", "value": "mine"}]})
        })
        .collect();
    let warnings = warnings(&pod(&json!({"spec": {"containers": containers}})), &[resolved("orders")]);
    assert_eq!(warnings.len(), 11);
    assert!(warnings[..10].iter().all(|warning| warning.contains("AZURE_CLIENT_ID")));
    assert_eq!(warnings[10], "and 50 more");
    assert!(warnings.iter().all(|warning| warning.len() < 256));
}

#[test]
fn a_different_volume_with_the_name_of_the_token_volume_denies_the_pod() {
    let token = |change: &Value| {
        let mut volume = json!({"name": TOKEN_VOLUME, "projected": {"sources": [{"serviceAccountToken": {
            "path": TOKEN_PATH, "audience": AUDIENCE, "expirationSeconds": 3600,
        }}]}});
        ::json_patch::merge(&mut volume, change);
        volume
    };
    let own = token(&json!({}))["projected"]["sources"][0].clone();
    let foreign = [
        json!({"name": TOKEN_VOLUME, "emptyDir": {}}),
        json!({"name": TOKEN_VOLUME, "secret": {"secretName": "s"}}),
        token(&json!({"projected": {"sources": []}})),
        token(&json!({"projected": {"sources": [own, {"secret": {"name": "s"}}]}})),
        token(&json!({"projected": {"sources": [{"serviceAccountToken": {"path": TOKEN_PATH, "audience": "x"}}]}})),
        token(&json!({"projected": {"sources": [{"serviceAccountToken": {"path": "x", "audience": AUDIENCE}}]}})),
    ];
    for volume in foreign {
        let denial = denial(&pod(&json!({"spec": {"volumes": [volume]}})), &[resolved("orders")]);
        assert_eq!(denial.code, DenialCode::VolumeClash);
        assert!(denial.message.contains(TOKEN_VOLUME), "{}", denial.message);
    }
}

#[test]
fn the_token_volume_of_a_copied_pod_is_kept_with_its_lifetime() {
    let pod = pod(&json!({"spec": {"volumes": [{"name": TOKEN_VOLUME, "projected": {
        "defaultMode": 420,
        "sources": [{"serviceAccountToken": {"path": TOKEN_PATH, "audience": AUDIENCE, "expirationSeconds": 7200}}],
    }}]}}));
    let bindings = [resolved("orders")];
    assert_eq!(injected(&pod, &bindings)["spec"]["volumes"], pod["spec"]["volumes"]);
    let warnings = warnings(&pod, &bindings);
    assert!(warnings.len() == 1 && warnings[0].contains("7200"), "{warnings:?}");
}

#[test]
fn a_token_volume_that_azure_workload_identity_injected_is_kept_too() {
    let name = "azure-workload-identity-reserved-425c89ed5bb78a7623fae60fd8a6f6";
    let token = json!({"path": TOKEN_PATH, "audience": AUDIENCE, "expirationSeconds": 3600});
    let mount = json!({"name": name, "mountPath": TOKEN_MOUNT_PATH, "readOnly": true});
    let pod = pod(&json!({"spec": {
        "volumes": [{"name": name, "projected": {"sources": [{"serviceAccountToken": token}]}}],
        "containers": [{"name": "app", "volumeMounts": [mount]}, {"name": "late"}],
    }}));
    let after = injected(&pod, &[resolved("orders")]);
    assert_eq!(after["spec"]["volumes"], pod["spec"]["volumes"]);
    for container in after["spec"]["containers"].as_array().unwrap() {
        assert_eq!(container["volumeMounts"], json!([mount]));
    }
}

#[test]
fn a_mount_below_the_token_conflicts_even_if_the_token_is_mounted() {
    let pod = pod(&json!({"spec": {"containers": [{"name": "app", "volumeMounts": [
        {"name": TOKEN_VOLUME, "mountPath": TOKEN_MOUNT_PATH, "readOnly": true},
        {"name": "data", "mountPath": format!("{TOKEN_MOUNT_PATH}/token")},
    ]}]}}));
    assert_eq!(denial(&pod, &[resolved("orders")]).code, DenialCode::MountClash);
}

#[test]
fn a_mount_that_conflicts_with_the_token_denies_the_pod() {
    let mounts = [
        json!({"name": "data", "mountPath": "/var/run/x/../secrets/azure/wi"}),
        json!({"name": "data", "mountPath": TOKEN_MOUNT_PATH}),
        json!({"name": "data", "mountPath": format!("{TOKEN_MOUNT_PATH}/")}),
        json!({"name": "data", "mountPath": "/var//run/secrets/./azure/wi"}),
        json!({"name": "data", "mountPath": format!("{TOKEN_MOUNT_PATH}/token")}),
        json!({"name": TOKEN_VOLUME, "mountPath": TOKEN_MOUNT_PATH}),
        json!({"name": TOKEN_VOLUME, "mountPath": TOKEN_MOUNT_PATH, "readOnly": true, "subPath": "token"}),
    ];
    for mount in mounts {
        let pod = pod(&json!({"spec": {"containers": [{"name": "app", "volumeMounts": [mount]}]}}));
        let denial = denial(&pod, &[resolved("orders")]);
        assert_eq!(denial.code, DenialCode::MountClash, "{mount}");
        for part in ["\"app\"", mount["name"].as_str().unwrap(), mount["mountPath"].as_str().unwrap()] {
            assert!(denial.message.contains(part), "{part} is missing: {}", denial.message);
        }
    }
}

#[test]
fn mounts_next_to_and_above_the_token_are_allowed() {
    let beside = ["/var/run/secrets/azure", "/var/run/secrets/azure/wide", "/var/run/secrets/azure/wi/../other", "/"];
    for path in beside {
        let mount = json!({"name": "data", "mountPath": path});
        injected(
            &pod(&json!({"spec": {"containers": [{"name": "app", "volumeMounts": [mount]}]}})),
            &[resolved("orders")],
        );
    }
}

#[test]
fn clashes_do_not_matter_to_pods_that_are_not_injected() {
    let clash = json!({"spec": {"volumes": [{"name": TOKEN_VOLUME, "emptyDir": {}}]}});
    assert!(left_unchanged(&decide(&pod(&clash), &[not_accepted("orders")])));
}

#[test]
fn a_forged_annotation_is_overwritten() {
    let spoofed = json!({"metadata": {"annotations": {INJECTED_BY_ANNOTATION: "admin=ManagedIdentity/admin"}}});
    let pod = injected(&pod(&spoofed), &[resolved("orders")]);
    assert_eq!(pod["metadata"]["annotations"][INJECTED_BY_ANNOTATION], "orders=ManagedIdentity/orders");
}

/// Parses the annotation: sources with identities, and the number of further entries.
fn read_annotation(value: &str) -> (Vec<(&str, &str)>, usize) {
    let (more, entries): (Vec<_>, Vec<_>) = value.split(',').partition(|entry| entry.starts_with('+'));
    let more = more.iter().map(|entry| entry[1..].parse::<usize>().unwrap()).sum();
    (entries.into_iter().map(|entry| entry.split_once('=').unwrap()).collect(), more)
}

#[test]
fn the_annotation_is_limited_and_can_be_parsed() {
    let bindings: Vec<_> = (10..40)
        .map(|index| {
            let variable = json!({"clientIDEnv": format!("CLIENT_ID_{index}")});
            binding(&format!("b.{index}"), &json!({"spec": {"injection": variable}}))
        })
        .collect();
    let pod = injected(&pod(&json!({})), &bindings);
    let value = pod["metadata"]["annotations"][INJECTED_BY_ANNOTATION].as_str().unwrap();
    let (entries, more) = read_annotation(value);
    assert_eq!((entries.len(), more), (16, 14));
    assert_eq!((entries[0], entries[15]), (("b.10", "ManagedIdentity/b.10"), ("b.25", "ManagedIdentity/b.25")));
    assert_eq!(env(&pod["spec"]["containers"][0]).len(), 33, "every one is injected");
}

#[test]
fn env_from_is_kept_and_overridden_by_the_binding() {
    let env_from = json!([{"configMapRef": {"name": "settings"}}]);
    let pod = pod(&json!({"spec": {"containers": [{"name": "app", "envFrom": env_from}]}}));
    let after = injected(&pod, &[resolved("orders")]);
    assert_eq!(after["spec"]["containers"][0]["envFrom"], env_from);
    assert_eq!(env(&after["spec"]["containers"][0])[0], ("AZURE_CLIENT_ID", "orders-client"));
    assert!(warnings(&pod, &[resolved("orders")]).is_empty());
}

#[test]
fn native_sidecars_are_injected_and_ephemeral_containers_are_not() {
    let pod = pod(&json!({"spec": {
        "initContainers": [{"name": "sidecar", "restartPolicy": "Always"}],
        "ephemeralContainers": [{"name": "debug"}],
    }}));
    let after = injected(&pod, &[resolved("orders")]);
    assert_eq!(env(&after["spec"]["initContainers"][0]).len(), 4);
    assert_eq!(after["spec"]["ephemeralContainers"], json!([{"name": "debug"}]));
}

#[test]
fn a_pod_without_metadata_is_injected_too() {
    let mut bare = pod(&json!({}));
    bare.as_object_mut().unwrap().remove("metadata");
    let pod = injected(&bare, &[resolved("orders")]);
    assert_eq!(pod["metadata"]["annotations"][INJECTED_BY_ANNOTATION], "orders=ManagedIdentity/orders");
}

#[test]
fn unknown_fields_are_preserved() {
    let unknown = json!({
        "metadata": {"futureField": [1, 2]},
        "spec": {"futureSpec": {"deep": true}, "containers": [{"name": "app", "futureContainer": "x"}]},
        "future": 7,
    });
    let pod = injected(&pod(&unknown), &[resolved("orders")]);
    assert_eq!(pod["future"], 7);
    assert_eq!(pod["metadata"]["futureField"], json!([1, 2]));
    assert_eq!(pod["spec"]["futureSpec"]["deep"], true);
    assert_eq!(pod["spec"]["containers"][0]["futureContainer"], "x");
}
