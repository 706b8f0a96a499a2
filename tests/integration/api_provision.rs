//! Validation of provisioned identities and of classes by the API server.

use serde_json::{Value, json};

use ensign_testkit::control_plane::ControlPlane;
use ensign_testkit::ensign::Ensign;
use ensign_testkit::objects::{apply, kubectl, unique};

fn control_plane() -> &'static ControlPlane {
    Ensign::shared().control_plane
}

/// Outside every grant and every emulator: no controller acts on these objects.
const SUBSCRIPTION: &str = "00000000-0000-0000-0000-0000000000aa";

fn provision() -> Value {
    json!({"subscriptionID": SUBSCRIPTION, "resourceGroup": "rg", "location": "westeurope", "name": unique("v")})
}

fn with(mut object: Value, field: &str, value: &Value) -> Value {
    object[field] = value.clone();
    object
}

fn identity(spec: &Value) -> Value {
    json!({"apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentity", "metadata": {"name": unique("v")}, "spec": spec})
}

fn class_provision() -> Value {
    json!({"subscriptionID": SUBSCRIPTION, "resourceGroup": "rg", "location": "westeurope"})
}

fn class(spec: &Value) -> Value {
    json!({"apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentityClass", "metadata": {"name": unique("v")}, "spec": spec})
}

fn claim(uid: &str) -> Value {
    json!({"namespace": "shop", "name": "orders", "uid": uid})
}

/// Checks that the object is rejected with an error that contains each of the words.
#[track_caller]
fn rejected(object: &Value, says: &[&str]) {
    let rejection = apply(control_plane(), object).expect_err("it has to be refused");
    for word in says {
        assert!(rejection.contains(word), "{word:?} is missing in: {rejection}");
    }
}

fn stored(kind: &str, object: &Value) -> Value {
    let name = object["metadata"]["name"].as_str().expect("a name");
    serde_json::from_str(&kubectl(control_plane(), &["get", kind, name, "--output", "json"])).expect("an object")
}

fn delete(kind: &str, object: &Value) {
    let name = object["metadata"]["name"].as_str().expect("a name");
    kubectl(control_plane(), &["delete", kind, name, "--wait=false"]);
}

#[test]
fn path_tricks_in_azure_names_are_rejected() {
    let tricks = [
        ("subscriptionID", "x"),
        ("subscriptionID", "00000000-0000-0000-0000-0000000000aa/resourceGroups/other"),
        ("subscriptionID", " 0000000-0000-0000-0000-0000000000aa"),
        ("resourceGroup", ".."),
        ("resourceGroup", "rg/providers/x"),
        ("resourceGroup", "rg."),
        ("resourceGroup", "r%2f"),
        ("resourceGroup", "rg?x=y"),
        ("name", "ab"),
        ("name", "-abc"),
        ("name", "a/b/c"),
        ("name", "a..c"),
        ("name", "abc#"),
        ("location", ""),
        ("location", "west europe/x"),
    ];
    for (field, value) in tricks {
        let object = identity(&json!({"provision": with(provision(), field, &json!(value))}));
        rejected(&object, &[&format!("spec.provision.{field}")]);
        if field != "name" {
            let object = class(&json!({"provision": with(class_provision(), field, &json!(value))}));
            rejected(&object, &[&format!("spec.provision.{field}")]);
        }
    }
}

#[test]
fn valid_objects_are_accepted_and_defaulted() {
    let object = identity(&json!({"provision": with(provision(), "tags", &json!({"cost-center": "7", "a:b c": ""}))}));
    apply(control_plane(), &object).expect("apply");
    let spec = &stored("mi", &object)["spec"];
    assert_eq!(spec["provision"]["reclaimPolicy"], "Retain");
    assert_eq!(spec["provision"]["ifExists"], "Refuse");
    assert_eq!(spec["provision"]["isolationScope"], "None");
    delete("mi", &object);

    let object = class(&json!({"provision": class_provision()}));
    apply(control_plane(), &object).expect("apply");
    let spec = &stored("mic", &object)["spec"];
    assert_eq!(spec["reclaimPolicy"], "Delete");
    assert_eq!(spec["maxPerNamespace"], 10);
    assert_eq!(spec["provision"]["nameTemplate"], "{cluster}-{namespace}-{binding}");
    delete("mic", &object);
}

#[test]
fn invalid_and_reserved_tags_are_rejected() {
    for name in ["a/b", "a?b", "a%b", "", "ensign.dev-cluster", "Ensign.Dev-object", &"x".repeat(513)] {
        let object = identity(&json!({"provision": with(provision(), "tags", &json!({name: "x"}))}));
        rejected(&object, &["spec.provision.tags", "names of tags"]);
    }
    let long = json!({"a": "x".repeat(257)});
    rejected(&identity(&json!({"provision": with(provision(), "tags", &long)})), &["spec.provision.tags"]);
    let object = class(&json!({"provision": with(class_provision(), "tags", &json!({"ensign.dev-cluster": "x"}))}));
    rejected(&object, &["spec.provision.tags", "reserved for Ensign"]);
}

#[test]
fn the_location_of_an_identity_is_immutable() {
    let object = identity(&json!({"provision": provision()}));
    apply(control_plane(), &object).expect("apply");
    let others = [
        ("subscriptionID", json!("00000000-0000-0000-0000-0000000000bb")),
        ("resourceGroup", json!("rg2")),
        ("location", json!("eastus")),
        ("name", json!("another")),
        ("isolationScope", json!("Regional")),
    ];
    for (field, value) in others {
        let mut changed = object.clone();
        changed["spec"]["provision"][field] = value;
        rejected(&changed, &[&format!("spec.provision.{field}"), "immutable"]);
    }
    for (field, value) in
        [("tags", json!({"a": "b"})), ("reclaimPolicy", json!("Delete")), ("ifExists", json!("Adopt"))]
    {
        let mut changed = object.clone();
        changed["spec"]["provision"][field] = value;
        apply(control_plane(), &changed).expect("what can be changed");
    }
    let mut elsewhere = object.clone();
    elsewhere["spec"] = json!({"existing": {"resourceID": format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/rg/providers/Microsoft.ManagedIdentity/userAssignedIdentities/x12")}});
    rejected(&elsewhere, &["can't be changed to spec.provision"]);
    delete("mi", &object);
}

#[test]
fn a_claim_can_be_removed_but_not_given_to_another() {
    let object = identity(&json!({"provision": provision(), "claimRef": claim("1"), "className": "c"}));
    apply(control_plane(), &object).expect("apply");
    let mut stolen = object.clone();
    stolen["spec"]["claimRef"] = claim("2");
    rejected(&stolen, &["spec.claimRef", "not changed to another binding"]);
    let mut renamed = object.clone();
    renamed["spec"]["className"] = json!("d");
    rejected(&renamed, &["spec.className", "immutable"]);
    let name = object["metadata"]["name"].as_str().expect("a name");
    kubectl(
        control_plane(),
        &["patch", "mi", name, "--type=json", "--patch", r#"[{"op":"remove","path":"/spec/claimRef"}]"#],
    );
    delete("mi", &object);
}

#[test]
fn only_the_grants_of_a_class_are_mutable() {
    let object = class(&json!({"provision": class_provision(), "roleAssignments": [
        {"roleDefinition": "Reader", "scope": format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/rg")}]}));
    apply(control_plane(), &object).expect("apply");
    let refusals = [
        ("/spec/provision/nameTemplate", json!("x-{binding}"), "spec.provision"),
        ("/spec/reclaimPolicy", json!("Retain"), "spec.reclaimPolicy"),
        ("/spec/roleAssignments", json!([]), "spec.roleAssignments"),
    ];
    for (path, value, field) in refusals {
        let mut changed = object.clone();
        *changed.pointer_mut("/spec").expect("a spec") = {
            let mut whole = json!({"spec": stored("mic", &object)["spec"]});
            *whole.pointer_mut(path).expect("a field") = value;
            whole["spec"].clone()
        };
        rejected(&changed, &[field, "immutable"]);
    }
    let mut changed = object.clone();
    changed["spec"]["maxPerNamespace"] = json!(3);
    changed["spec"]["allowedSubjects"] = json!([{"name": "a", "namespace": "shop", "serviceAccounts": ["*"]}]);
    apply(control_plane(), &changed).expect("who may use it");
    delete("mic", &object);
}

#[test]
fn names_from_a_class_are_valid_in_azure() {
    for template in ["", "-x", "{pod}", "a{b", "a.b", "{namespace}/{binding}", "a b", &"x".repeat(101)] {
        let object = class(&json!({"provision": with(class_provision(), "nameTemplate", &json!(template))}));
        rejected(&object, &["spec.provision.nameTemplate"]);
    }
}

#[test]
fn grants_of_a_class_are_validated_like_those_of_an_identity() {
    let object = class(&json!({"provision": class_provision(), "allowedSubjects": [
        {"name": "a", "namespaceSelector": {}, "serviceAccounts": ["*"]}]}));
    rejected(&object, &["namespaceSelector must not be empty"]);
    rejected(&class(&json!({"provision": class_provision(), "maxPerNamespace": 0})), &["spec.maxPerNamespace"]);
}

#[test]
fn scopes_of_roles_are_arm_ids_without_tricks() {
    let group = format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/rg");
    let assignment = |role: &str, scope: &str| json!([{"roleDefinition": role, "scope": scope}]);
    for scope in [
        "/",
        "/providers/Microsoft.Management/managementGroups/all",
        "rg",
        &format!("{group}/"),
        &format!("{group}/../other"),
        &format!("{group}/."),
        &format!("{group}?x=y"),
        &format!("{group}//x"),
        &format!("{group}/%2e%2e"),
        &format!("{group} "),
    ] {
        let object = identity(&json!({"provision": provision(), "roleAssignments": assignment("Reader", scope)}));
        rejected(&object, &["spec.roleAssignments[0].scope"]);
    }
    for role in ["", "it's", "a ", "x\n"] {
        let object = identity(&json!({"provision": provision(), "roleAssignments": assignment(role, &group)}));
        rejected(&object, &["spec.roleAssignments[0].roleDefinition"]);
    }
    let twice = json!([assignment("Reader", &group)[0], assignment("Reader", &group)[0]]);
    rejected(&identity(&json!({"provision": provision(), "roleAssignments": twice})), &["Duplicate value"]);
    for role in ["Storage Blob Data Reader", "acdd72a7-3385-48ef-bd42-f606fba81ae7", "R"] {
        let vault = format!("{group}/providers/Microsoft.KeyVault/vaults/v");
        let object = identity(&json!({"provision": provision(), "roleAssignments": assignment(role, &vault)}));
        apply(control_plane(), &object).expect("apply");
        delete("mi", &object);
    }
}

#[test]
fn a_class_prints_where_its_identities_are_created() {
    let object = class(&json!({"provision": class_provision()}));
    apply(control_plane(), &object).expect("apply");
    let printed = kubectl(control_plane(), &["get", "mic", "--output", "wide"]);
    for column in ["RESOURCE GROUP", "LOCATION", "RECLAIM POLICY", "MAX PER NAMESPACE", "AGE", "SUBSCRIPTION"] {
        assert!(printed.lines().next().unwrap_or_default().contains(column), "{column}: {printed}");
    }
    delete("mic", &object);
}
