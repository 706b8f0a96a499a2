use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::super::DenialCode;
use super::*;
use crate::admission::tests::{binding, condition, env, patched};
use ensign_api::keys::{INJECT_LABEL, INJECTED_BY_ANNOTATION, TOKEN_FILE, TOKEN_MOUNT_PATH, TOKEN_PATH, TOKEN_VOLUME};

const VOLUME_OF_POD: &str = "azure-workload-identity-reserved-425c89ed5bb78a7623fae60fd8a6f6";

pub(in super::super) fn config() -> Config {
    Config {
        authority_host: "https://login.example/".to_owned(),
        audience: "api://AzureADTokenExchange".to_owned(),
        excluded: BTreeSet::from(["kube-system".to_owned()]),
        compatibility: Some(Compatibility { tenant_id: "configured-tenant".to_owned() }),
        gate_pods: true,
    }
}

pub(in super::super) fn account(annotations: &Value) -> Account {
    let annotations: BTreeMap<String, String> = serde_json::from_value(annotations.clone()).unwrap();
    Account::Present(Annotations::from(&annotations))
}

/// A service account `orders` with a client ID and further annotations.
fn annotated(more: &Value) -> Account {
    let mut annotations = json!({CLIENT_ID_ANNOTATION: "annotated-client"});
    json_patch::merge(&mut annotations, more);
    account(&annotations)
}

fn pod(change: &Value) -> Value {
    let mut pod = json!({
        "metadata": {"name": "pod", "labels": {USE_LABEL: "true"}},
        "spec": {"serviceAccountName": "orders", "containers": [{"name": "app"}]},
    });
    json_patch::merge(&mut pod, change);
    pod
}

pub(in super::super) fn decide(pod: &Value, bindings: &[Arc<Binding>], account: &Account) -> Decision {
    let text = pod.to_string();
    let pod: Pod<'_> = serde_json::from_str(&text).unwrap();
    if asks(&pod, "shop", &config()) {
        admit(&pod, "shop", bindings, account, &config())
    } else {
        super::super::admit(&pod, "shop", bindings, &config())
    }
}

fn injected(pod: &Value, bindings: &[Arc<Binding>], account: &Account) -> Value {
    let decision = decide(pod, bindings, account);
    assert!(matches!(decision, Decision::Patch { .. }), "{decision:?}");
    patched(pod, &decision)
}

fn denied(pod: &Value, account: &Account) -> Denial {
    match decide(pod, &[], account) {
        Decision::Deny(denial) => denial,
        other => panic!("not denied: {other:?}"),
    }
}

fn warnings(pod: &Value, bindings: &[Arc<Binding>], account: &Account) -> Vec<String> {
    match decide(pod, bindings, account) {
        Decision::Allow { warnings } | Decision::Patch { warnings, .. } => warnings,
        Decision::Deny(denial) => panic!("denied: {denial:?}"),
    }
}

fn by(pod: &Value) -> &str {
    pod["metadata"]["annotations"][INJECTED_BY_ANNOTATION].as_str().unwrap()
}

#[test]
fn a_labelled_pod_is_injected_from_the_annotations_of_its_service_account() {
    let pod = injected(&pod(&json!({})), &[], &annotated(&json!({})));
    assert_eq!(
        env(&pod["spec"]["containers"][0]),
        [
            ("AZURE_CLIENT_ID", "annotated-client"),
            ("AZURE_TENANT_ID", "configured-tenant"),
            ("AZURE_FEDERATED_TOKEN_FILE", TOKEN_FILE),
            ("AZURE_AUTHORITY_HOST", "https://login.example/"),
        ]
    );
    let mount = json!({"name": VOLUME_OF_POD, "mountPath": TOKEN_MOUNT_PATH, "readOnly": true});
    assert_eq!(pod["spec"]["containers"][0]["volumeMounts"], json!([mount]));
    let token = json!({"path": TOKEN_PATH, "audience": "api://AzureADTokenExchange", "expirationSeconds": 3600});
    let projected = json!({"sources": [{"serviceAccountToken": token}]});
    assert_eq!(pod["spec"]["volumes"], json!([{"name": VOLUME_OF_POD, "projected": projected}]));
    assert_eq!(by(&pod), "ServiceAccount/orders=Annotations");
}

#[test]
fn without_the_label_or_the_mode_annotations_have_no_effect() {
    for value in [json!(null), json!("false"), json!("True"), json!("")] {
        let pod = pod(&json!({"metadata": {"labels": {USE_LABEL: value}}}));
        assert_eq!(decide(&pod, &[], &annotated(&json!({}))), Decision::leave_unchanged(), "{value}");
    }
    let text = pod(&json!({})).to_string();
    let pod: Pod<'_> = serde_json::from_str(&text).unwrap();
    assert!(asks(&pod, "shop", &config()));
    assert!(!asks(&pod, "shop", &Config { compatibility: None, ..config() }));
    assert!(!asks(&pod, "kube-system", &config()));
}

#[test]
fn ensigns_label_opts_out_in_compatibility_mode_too() {
    let pod = pod(&json!({"metadata": {"labels": {INJECT_LABEL: "false"}}}));
    assert_eq!(decide(&pod, &[], &annotated(&json!({}))), Decision::leave_unchanged());
}

#[test]
fn without_a_client_id_the_other_variables_are_injected_with_a_warning_and_env_from_is_not_hidden() {
    let pod = pod(&json!({"spec": {"containers": [
        {"name": "app", "envFrom": [{"configMapRef": {"name": "identity"}}]},
    ]}}));
    for account in [account(&json!({})), annotated(&json!({CLIENT_ID_ANNOTATION: ""}))] {
        let after = injected(&pod, &[], &account);
        let names: Vec<_> = env(&after["spec"]["containers"][0]).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_AUTHORITY_HOST"]);
        let warnings = warnings(&pod, &[], &account);
        assert!(warnings.len() == 1 && warnings[0].contains(CLIENT_ID_ANNOTATION), "{warnings:?}");
    }
}

#[test]
fn a_pod_with_both_labels_requires_a_client_id() {
    let pod = pod(&json!({"metadata": {"labels": {INJECT_LABEL: "true"}}}));
    assert_eq!(denied(&pod, &account(&json!({}))).code, DenialCode::NoBinding);
    injected(&pod, &[], &annotated(&json!({})));
}

#[test]
fn the_tenant_is_the_service_accounts_or_the_configured_one_and_never_empty() {
    let tenant = |account: &Account| {
        let pod = injected(&pod(&json!({})), &[], account);
        let env = pod["spec"]["containers"][0]["env"].as_array().unwrap().clone();
        env.iter().find(|one| one["name"] == "AZURE_TENANT_ID").map(|one| one["value"].clone())
    };
    assert_eq!(tenant(&annotated(&json!({}))), Some(json!("configured-tenant")));
    assert_eq!(tenant(&annotated(&json!({TENANT_ID_ANNOTATION: "own"}))), Some(json!("own")));
    assert_eq!(tenant(&annotated(&json!({TENANT_ID_ANNOTATION: ""}))), None);
}

#[test]
fn the_lifetime_is_the_pods_or_the_service_accounts_or_an_hour() {
    let lifetime = |of_pod: Option<&str>, of_account: Option<&str>| {
        let pod = pod(&json!({"metadata": {"annotations": {EXPIRATION_ANNOTATION: of_pod}}}));
        let pod = injected(&pod, &[], &annotated(&json!({EXPIRATION_ANNOTATION: of_account})));
        pod["spec"]["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"].clone()
    };
    assert_eq!(lifetime(None, None), 3600);
    assert_eq!(lifetime(None, Some("86400")), 86_400);
    assert_eq!(lifetime(Some("7200"), Some("86400")), 7_200);
    assert_eq!(lifetime(Some(""), Some("86400")), 86_400);
    assert_eq!(lifetime(Some(""), Some("")), 3600);
    assert_eq!(lifetime(Some("7200"), Some("none that counts")), 7_200);
}

#[test]
fn an_invalid_lifetime_denies_the_pod_and_the_message_names_the_object_that_has_it() {
    for value in ["3599", "86401", "1h", "3600.0", " 3600", "-3600", "99999999999999999999"] {
        let of_pod = pod(&json!({"metadata": {"annotations": {EXPIRATION_ANNOTATION: value}}}));
        let of_account = annotated(&json!({EXPIRATION_ANNOTATION: value}));
        for (denial, object) in [
            (denied(&of_pod, &annotated(&json!({}))), "the pod"),
            (denied(&pod(&json!({})), &of_account), "the service account"),
        ] {
            assert_eq!(denial.code, DenialCode::TokenExpiration);
            for part in [object, value, EXPIRATION_ANNOTATION, "3600", "86400"] {
                assert!(denial.message.contains(part), "{part} is missing: {}", denial.message);
            }
        }
    }
}

#[test]
fn skipped_containers_are_not_injected_by_annotations_or_bindings() {
    let pod = pod(&json!({
        "metadata": {"annotations": {SKIP_CONTAINERS_ANNOTATION: " one; two ;;"}},
        "spec": {
            "initContainers": [{"name": "one"}],
            "containers": [{"name": "app"}, {"name": "two"}, {"name": "one; two"}],
        },
    }));
    for bindings in [vec![], vec![binding("orders", &json!({}))]] {
        let after = injected(&pod, &bindings, &annotated(&json!({})));
        let touched = |container: &Value| container.get("env").is_some();
        assert!(!touched(&after["spec"]["initContainers"][0]));
        let containers: Vec<_> = after["spec"]["containers"].as_array().unwrap().iter().map(touched).collect();
        assert_eq!(containers, [true, false, true]);
    }
}

#[test]
fn a_pod_with_the_proxy_sidecar_annotation_is_denied_whatever_the_value() {
    for value in ["true", "false", ""] {
        let denial =
            denied(&pod(&json!({"metadata": {"annotations": {PROXY_ANNOTATION: value}}})), &annotated(&json!({})));
        assert_eq!(denial.code, DenialCode::ProxySidecar);
        assert!(denial.message.contains(PROXY_ANNOTATION), "{}", denial.message);
    }
    injected(
        &pod(&json!({"metadata": {"annotations": {"azure.workload.identity/proxy-sidecar-port": "8080"}}})),
        &[],
        &annotated(&json!({})),
    );
}

#[test]
fn a_pod_whose_service_account_does_not_exist_is_denied_with_the_api_servers_wording() {
    let denial = denied(&pod(&json!({})), &Account::Missing);
    assert_eq!(denial.code, DenialCode::NoServiceAccount);
    assert!(denial.message.starts_with("serviceaccounts \"orders\" not found"), "{}", denial.message);
    let default = pod(&json!({"spec": {"serviceAccountName": ""}}));
    assert!(denied(&default, &Account::Missing).message.starts_with("serviceaccounts \"default\" not found"));
}

#[test]
fn the_name_of_the_volume_comes_from_the_pods_name_or_its_prefix() {
    let named = |change: &Value| {
        let pod = injected(&pod(change), &[], &annotated(&json!({})));
        pod["spec"]["volumes"][0]["name"].as_str().unwrap().to_owned()
    };
    assert_eq!(named(&json!({})), VOLUME_OF_POD);
    let prefix = named(&json!({"metadata": {"name": null, "generateName": "pod"}}));
    assert_eq!(prefix, "azure-workload-identity-reserved-0b7c047a53bb701e33004c84022914");
    assert_eq!(named(&json!({"metadata": {"generateName": "other"}})), VOLUME_OF_POD);
    assert_eq!(prefix.len(), 63, "the longest name that a volume may have");
}

#[test]
fn a_binding_overrides_the_annotations_and_the_pods_annotation_records_it() {
    let pod = pod(&json!({}));
    let after = injected(&pod, &[binding("orders", &json!({}))], &annotated(&json!({})));
    assert_eq!(
        env(&after["spec"]["containers"][0])[..2],
        [("AZURE_CLIENT_ID", "orders-client"), ("AZURE_TENANT_ID", "tenant")]
    );
    assert_eq!(by(&after), "orders=ManagedIdentity/orders,ServiceAccount/orders=Overridden");
    assert_eq!(after["spec"]["volumes"][0]["name"], VOLUME_OF_POD, "policies match on it");
    // Without a client ID in the annotations, nothing is overridden.
    let after = injected(&pod, &[binding("orders", &json!({}))], &account(&json!({})));
    assert_eq!(by(&after), "orders=ManagedIdentity/orders");
    assert!(warnings(&pod, &[binding("orders", &json!({}))], &account(&json!({}))).is_empty());
}

#[test]
fn a_binding_wins_whatever_its_age_with_its_own_token_lifetime() {
    let longer = binding(
        "orders",
        &json!({
            "metadata": {"creationTimestamp": null},
            "spec": {"injection": {"tokenExpirationSeconds": 86400}},
        }),
    );
    let after = injected(&pod(&json!({})), &[longer], &annotated(&json!({})));
    let token = &after["spec"]["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"];
    assert_eq!(token["expirationSeconds"], 86_400);
    assert_eq!(env(&after["spec"]["containers"][0])[0].1, "orders-client");
}

#[test]
fn a_binding_to_the_annotated_identity_wins_with_its_token_lifetime() {
    let longer = binding("orders", &json!({"spec": {"injection": {"tokenExpirationSeconds": 86400}}}));
    let same = annotated(&json!({CLIENT_ID_ANNOTATION: "orders-client"}));
    let after = injected(&pod(&json!({})), &[longer], &same);
    let token = &after["spec"]["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"];
    assert_eq!(token["expirationSeconds"], 86_400);
    assert_eq!(by(&after), "orders=ManagedIdentity/orders,ServiceAccount/orders=Overridden");
}

#[test]
fn a_binding_for_another_variable_is_injected_in_addition_to_the_annotations() {
    let change = json!({"spec": {"injection": {"clientIDEnv": "AUDIT_CLIENT_ID"}}});
    let same_tenant = annotated(&json!({TENANT_ID_ANNOTATION: "TENANT"}));
    let after = injected(&pod(&json!({})), &[binding("audit", &change)], &same_tenant);
    let names: Vec<_> = env(&after["spec"]["containers"][0]).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names[..3], ["AUDIT_CLIENT_ID", "AZURE_CLIENT_ID", "AZURE_TENANT_ID"]);
    assert_eq!(by(&after), "audit=ManagedIdentity/audit,ServiceAccount/orders=Annotations");
    // A container has one tenant: the binding's.
    let after = injected(&pod(&json!({})), &[binding("audit", &change)], &annotated(&json!({})));
    assert_eq!(by(&after), "audit=ManagedIdentity/audit,ServiceAccount/orders=Overridden");
}

#[test]
fn with_a_binding_that_is_not_accepted_the_annotations_are_used_with_a_warning() {
    let not_allowed = json!({"status": {"conditions": [condition("Accepted", "False", "NotAllowed", "ask")]}});
    let (pod, bindings) = (pod(&json!({})), [binding("pay", &not_allowed)]);
    assert_eq!(by(&injected(&pod, &bindings, &annotated(&json!({})))), "ServiceAccount/orders=Annotations");
    let warnings = warnings(&pod, &bindings, &annotated(&json!({})));
    assert!(warnings.len() == 1 && warnings[0].contains("NotAllowed"), "{warnings:?}");
}

#[test]
fn a_binding_that_waits_for_its_identity_denies_the_pod_like_any_other() {
    let waiting = binding("orders", &json!({"status": {"clientID": null}}));
    let decision = decide(&pod(&json!({})), &[waiting], &annotated(&json!({})));
    assert!(matches!(&decision, Decision::Deny(denial) if denial.code == DenialCode::IdentityUnknown), "{decision:?}");
}

#[test]
fn a_copy_of_an_injected_pod_keeps_its_token_volume() {
    let original = injected(&pod(&json!({})), &[], &annotated(&json!({})));
    let mut copy = original.clone();
    copy["metadata"]["name"] = json!("copy");
    assert_eq!(decide(&copy, &[], &annotated(&json!({}))), Decision::leave_unchanged());
    // Also one without the upstream label.
    copy["metadata"]["labels"] = json!({});
    let after = injected(&copy, &[binding("orders", &json!({}))], &annotated(&json!({})));
    assert_eq!(after["spec"]["volumes"], original["spec"]["volumes"]);
    assert_eq!(after["spec"]["containers"][0]["volumeMounts"], original["spec"]["containers"][0]["volumeMounts"]);
}

#[test]
fn a_denial_names_the_conflicting_volume_or_mount() {
    let volume =
        denied(&pod(&json!({"spec": {"volumes": [{"name": VOLUME_OF_POD, "emptyDir": {}}]}})), &annotated(&json!({})));
    assert_eq!(volume.code, DenialCode::VolumeClash);
    assert!(volume.message.contains(VOLUME_OF_POD), "{}", volume.message);
    let mount = json!({"name": TOKEN_VOLUME, "mountPath": TOKEN_MOUNT_PATH, "readOnly": true});
    let mount = denied(
        &pod(&json!({"spec": {"containers": [{"name": "app", "volumeMounts": [mount]}]}})),
        &annotated(&json!({})),
    );
    assert_eq!(mount.code, DenialCode::MountClash);
    assert!(mount.message.contains(VOLUME_OF_POD), "{}", mount.message);
}

#[test]
fn long_annotations_are_truncated_in_messages() {
    let long = "x".repeat(10_000);
    let denial =
        denied(&pod(&json!({"metadata": {"annotations": {EXPIRATION_ANNOTATION: long}}})), &annotated(&json!({})));
    assert!(denial.message.len() < 512, "{}", denial.message.len());
    let kept =
        pod(&json!({"spec": {"containers": [{"name": "app", "env": [{"name": "AZURE_CLIENT_ID", "value": "mine"}]}]}}));
    let warned = warnings(&kept, &[], &annotated(&json!({CLIENT_ID_ANNOTATION: long})));
    assert!(warned.len() == 1 && warned[0].len() < 512, "{warned:?}");
}
