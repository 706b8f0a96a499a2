//! What the API server rejects, with the name of the field.

use serde_json::{Value, json};

use ensign_testkit::control_plane::ControlPlane;
use ensign_testkit::ensign::Ensign;
use ensign_testkit::objects::{apply, kubectl, unique};

fn control_plane() -> &'static ControlPlane {
    Ensign::shared().control_plane
}

fn identity(spec: &Value) -> Value {
    json!({"apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentity", "metadata": {"name": unique("v")}, "spec": spec})
}

fn existing() -> Value {
    json!({"resourceID": "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg/providers/Microsoft.ManagedIdentity/userAssignedIdentities/validation"})
}

fn allowed(entry: &Value) -> Value {
    identity(&json!({"existing": existing(), "allowedSubjects": [entry]}))
}

fn binding(spec: &Value) -> Value {
    json!({
        "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentityBinding",
        "metadata": {"name": unique("v"), "namespace": "default"}, "spec": spec,
    })
}

fn with_injection(injection: &Value) -> Value {
    binding(&json!({"identityRef": {"name": "nobody"}, "serviceAccountName": "app", "injection": injection}))
}

/// Checks that the object is rejected with an error that contains each of the words.
fn rejected(object: &Value, says: &[&str]) {
    let rejection = apply(control_plane(), object).expect_err("it has to be refused");
    for word in says {
        assert!(rejection.contains(word), "{word:?} is missing in: {rejection}");
    }
}

#[test]
fn a_malformed_resource_id_is_rejected() {
    for id in [
        "orders",
        "/subscriptions/x",
        "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/../providers/Microsoft.ManagedIdentity/userAssignedIdentities/orders",
    ] {
        let object = identity(&json!({"existing": {"resourceID": id}}));
        rejected(&object, &["spec.existing.resourceID", "must be the ARM resource ID"]);
    }
}

#[test]
fn the_schema_and_the_code_agree_on_resource_ids() {
    let good = existing()["resourceID"].as_str().expect("an ID").to_owned();
    let ids = [
        good.clone(),
        good.to_lowercase(),
        good.replace("/rg/", "/rg.(1)_ü-x/"),
        good.replace("/rg/", "/rg./"),
        good.replace("/rg/", "/r%67/"),
        good.replace("validation", "x"),
        good.replace("validation", "_x1"),
        good.replace("validation", &"x".repeat(129)),
        format!("{good}/"),
        format!("{good}?a=b"),
        good.replace("userAssigned", "systemAssigned"),
    ];
    for id in ids {
        let object = identity(&json!({"existing": {"resourceID": id}}));
        let schema = apply(control_plane(), &object);
        let code = id.parse::<ensign_api::ArmId>();
        assert_eq!(schema.is_ok(), code.is_ok(), "{id}: {schema:?} {code:?}");
        if schema.is_ok() {
            let name = object["metadata"]["name"].as_str().expect("a name");
            kubectl(control_plane(), &["delete", "mi", name, "--wait=false"]);
        }
    }
}

#[test]
fn neither_existing_nor_provision_is_rejected() {
    rejected(&identity(&json!({})), &["spec.existing", "exactly one of spec.existing and spec.provision"]);
}

#[test]
fn both_existing_and_provision_are_rejected() {
    let provision = json!({
        "subscriptionID": "00000000-0000-0000-0000-000000000001", "resourceGroup": "rg", "location": "westeurope",
        "name": "validation",
    });
    let object = identity(&json!({"existing": existing(), "provision": provision}));
    rejected(&object, &["spec.provision", "mutually exclusive"]);
}

#[test]
fn an_empty_namespace_selector_is_rejected() {
    let object = allowed(&json!({"name": "a", "namespaceSelector": {}, "serviceAccounts": ["*"]}));
    rejected(&object, &["namespaceSelector must not be empty"]);
}

#[test]
fn both_or_neither_of_namespace_and_selector_are_rejected() {
    let selector = json!({"matchLabels": {"a": "b"}});
    let both = json!({"name": "a", "namespace": "shop", "namespaceSelector": selector, "serviceAccounts": ["*"]});
    let neither = json!({"name": "a", "serviceAccounts": ["*"]});
    for entry in [both, neither] {
        rejected(&allowed(&entry), &["exactly one of namespace and namespaceSelector"]);
    }
}

#[test]
fn a_star_beside_names_is_rejected() {
    let object = allowed(&json!({"name": "a", "namespace": "shop", "serviceAccounts": ["*", "orders"]}));
    rejected(&object, &["serviceAccounts", "single entry"]);
}

#[test]
fn two_grants_with_the_same_name_are_rejected() {
    let grant = json!({"name": "a", "namespace": "shop", "serviceAccounts": ["*"]});
    let object = identity(&json!({"existing": existing(), "allowedSubjects": [grant, grant]}));
    rejected(&object, &["spec.allowedSubjects", "Duplicate value"]);
}

#[test]
fn an_operator_without_values_is_rejected() {
    let selector = json!({"matchExpressions": [{"key": "team", "operator": "In"}]});
    let object = allowed(&json!({"name": "a", "namespaceSelector": selector, "serviceAccounts": ["*"]}));
    rejected(&object, &["values must be set for In and NotIn"]);
}

#[test]
fn an_empty_service_account_name_is_rejected() {
    let object = binding(&json!({"identityRef": {"name": "nobody"}, "serviceAccountName": ""}));
    rejected(&object, &["spec.serviceAccountName"]);
}

#[test]
fn an_unknown_kind_of_reference_is_rejected() {
    let object = binding(&json!({"identityRef": {"kind": "Secret", "name": "x"}, "serviceAccountName": "app"}));
    rejected(&object, &["spec.identityRef.kind", "Unsupported value"]);
}

#[test]
fn a_token_lifetime_out_of_range_is_rejected() {
    for seconds in [3599, 86401] {
        rejected(
            &with_injection(&json!({"tokenExpirationSeconds": seconds})),
            &["spec.injection.tokenExpirationSeconds"],
        );
    }
}

#[test]
fn an_invalid_or_reserved_client_id_variable_is_rejected() {
    rejected(&with_injection(&json!({"clientIDEnv": "1X"})), &["spec.injection.clientIDEnv"]);
    rejected(&with_injection(&json!({"clientIDEnv": "AZURE_TENANT_ID"})), &["spec.injection.clientIDEnv"]);
}

#[test]
fn references_are_immutable_and_the_error_names_the_remedy() {
    let mut object = binding(&json!({"identityRef": {"name": "nobody"}, "serviceAccountName": "app"}));
    apply(control_plane(), &object).expect("apply");
    object["spec"]["identityRef"]["name"] = json!("somebody");
    rejected(&object, &["spec.identityRef", "immutable", "create a new binding"]);
    object["spec"]["identityRef"]["name"] = json!("nobody");
    object["spec"]["serviceAccountName"] = json!("other");
    rejected(&object, &["spec.serviceAccountName", "immutable"]);

    let mut object = identity(&json!({"existing": existing()}));
    apply(control_plane(), &object).expect("apply");
    let id = existing()["resourceID"].as_str().expect("an ID").replace("validation", "another");
    object["spec"]["existing"]["resourceID"] = json!(id);
    rejected(&object, &["spec.existing.resourceID", "immutable"]);
}

#[test]
fn defaults_are_filled_in() {
    let object = binding(&json!({"identityRef": {"name": "nobody"}, "serviceAccountName": "app"}));
    apply(control_plane(), &object).expect("apply");
    let name = object["metadata"]["name"].as_str().expect("a name");
    let stored: Value = serde_json::from_str(&kubectl(
        control_plane(),
        &["get", "mib", name, "--namespace", "default", "--output", "json"],
    ))
    .expect("an object");
    assert_eq!(stored["spec"]["identityRef"]["kind"], "ManagedIdentity");
    let injection = json!({
        "mode": "Pods", "clientIDEnv": "AZURE_CLIENT_ID", "containers": {}, "tokenExpirationSeconds": 3600,
        "startPolicy": "WaitForIdentity", "annotateServiceAccount": false,
    });
    assert_eq!(stored["spec"]["injection"], injection);
}

#[test]
fn the_printed_columns_show_the_essentials() {
    let columns = |kind: &str| {
        let arguments = ["get", kind, "--all-namespaces", "--output", "wide"];
        kubectl(control_plane(), &arguments).lines().next().unwrap_or_default().to_owned()
    };
    apply(control_plane(), &binding(&json!({"identityRef": {"name": "nobody"}, "serviceAccountName": "app"})))
        .expect("apply");
    apply(control_plane(), &identity(&json!({"existing": existing()}))).expect("apply");
    for column in ["IDENTITY", "SERVICE ACCOUNT", "CLIENT ID", "READY", "REASON", "AGE", "MESSAGE"] {
        assert!(columns("mib").contains(column), "{column}");
    }
    for column in ["CLIENT ID", "BINDINGS", "READY", "REASON", "AGE", "RESOURCE ID", "MESSAGE"] {
        assert!(columns("mi").contains(column), "{column}");
    }
}
