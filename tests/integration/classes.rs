//! Dedicated identities of bindings to a class: created, used, and deleted with them.

use serde_json::{Value, json};

use ensign_testkit::objects::{Team, condition_of, kubectl, wait_for};
use ensign_testkit::pods::create;

/// The name of the object that was created for the binding.
fn made_for(binding: &Value) -> String {
    format!("mib-{}", binding["metadata"]["uid"].as_str().expect("a UID"))
}

fn message(object: &Value, condition: &str) -> String {
    condition_of(object, condition).map_or_else(String::new, |found| found["message"].to_string())
}

/// `ManagedIdentity` objects that are claimed from the namespace, as `kubectl get mi` shows them.
fn claimed(team: &Team) -> Vec<String> {
    let selector = format!("spec.claimRef.namespace={}", team.name);
    let arguments = ["get", "mi", "--field-selector", &selector, "--output", "name"];
    kubectl(team.ensign.control_plane, &arguments).lines().map(str::to_owned).collect()
}

#[test]
fn a_binding_to_a_class_gets_its_own_identity_which_is_deleted_with_it() {
    let team = Team::new("dedicated");
    let before = team.azure_identities();
    team.apply(&team.class(&json!({"provision": {"tags": {"cost-center": "7"}}})));
    team.apply(&team.asking("app", "app"));
    team.apply(&team.asking("other", "other"));
    let (app, other) = (team.wait_ready("app"), team.wait_ready("other"));
    assert_ne!(app["status"]["clientID"], other["status"]["clientID"], "each has its own");
    assert_eq!(app["status"]["managedIdentityName"], made_for(&app).as_str());
    let made = team.azure_identities();
    assert_eq!(made.len(), 2, "{:?}", made.keys());
    let own = made.values().find(|found| app["status"]["clientID"] == found.client_id.as_str()).expect("its identity");
    assert!(own.id.name.starts_with(&format!("{}-app-", team.name)), "{}", own.id.name);
    assert_eq!(own.tags["ensign.dev-binding"], format!("{}/app", team.name));
    assert_eq!(own.tags["cost-center"], "7");
    assert_eq!(own.credentials.len(), 1);
    let object = team.wait_condition("mi", &made_for(&app), "Claimed", "True", "Bound");
    assert_eq!(object["spec"]["className"], team.name.as_str());

    // Pods of it are injected like any other.
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "app", "namespace": team.name}});
    team.apply(&account);
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "app", "namespace": team.name, "labels": {"ensign.dev/inject": "true"}},
        "spec": {"serviceAccountName": "app", "automountServiceAccountToken": false, "containers": [{"name": "app", "image": "app:1"}]},
    });
    let pod =
        wait_for("the pod to be injected", || create(team.ensign.control_plane, &pod, &["--dry-run=server"]).ok());
    let env = pod["spec"]["containers"][0]["env"].as_array().cloned().unwrap_or_default();
    let client_id = env.iter().find(|variable| variable["name"] == "AZURE_CLIENT_ID").expect("the client ID");
    assert_eq!(client_id["value"], app["status"]["clientID"]);

    for (name, binding) in [("app", &app), ("other", &other)] {
        team.delete("mib", name);
        team.wait_deleted("mib", name);
        team.wait_deleted("mi", &made_for(binding));
    }
    assert_eq!(team.azure_identities(), before, "Azure is unchanged");
    kubectl(team.ensign.control_plane, &["delete", "mic", &team.name]);
}

#[test]
fn a_retained_identity_is_released_and_serves_no_binding_until_an_operator_decides() {
    let team = Team::new("retained");
    team.apply(&team.class(&json!({"reclaimPolicy": "Retain"})));
    team.apply(&team.asking("app", "app"));
    let first = team.wait_ready("app");
    team.delete("mib", "app");
    team.wait_deleted("mib", "app");
    let released = made_for(&first);
    team.wait_condition("mi", &released, "Ready", "False", "Released");
    let (kept, identity) = team.azure_identities().into_iter().next().expect("the identity stays");
    assert!(identity.credentials.is_empty(), "and trusts no subject");

    // A binding of the same name is another one.
    team.apply(&team.asking("app", "app"));
    let second = team.wait_ready("app");
    assert_ne!(first["status"]["clientID"], second["status"]["clientID"]);
    // Referring to the old object by name does not help.
    let mut by_name = team.binding("by-name", "app");
    by_name["spec"]["identityRef"] = json!({"name": released});
    by_name["spec"]["injection"] = json!({"clientIDEnv": "OTHER"});
    team.apply(&by_name);
    let refused = team.wait_condition("mib", "by-name", "Accepted", "False", "ClaimMismatch");
    assert!(message(&refused, "Accepted").contains("spec.claimRef"), "{refused:#}");
    let put = |name: &str| {
        team.writes_with(&format!("/{name}/federated")).iter().filter(|entry| entry.method == "PUT").count()
    };
    assert_eq!(put(&kept), 1, "only that of the first binding");

    let patch = r#"[{"op":"remove","path":"/spec/claimRef"}]"#;
    kubectl(team.ensign.control_plane, &["patch", "mi", &released, "--type=json", "--patch", patch]);
    let again = team.wait_ready("by-name");
    assert_eq!(again["status"]["clientID"], first["status"]["clientID"]);
    for name in ["app", "by-name"] {
        team.delete("mib", name);
        team.wait_deleted("mib", name);
    }
    for name in [released, made_for(&second)] {
        kubectl(team.ensign.control_plane, &["delete", "mi", &name]);
    }
    kubectl(team.ensign.control_plane, &["delete", "mic", &team.name]);
    assert_eq!(team.azure_identities().len(), 2, "both are kept: Retain");
}

#[test]
fn a_tenant_cannot_get_more_than_its_class_allows() {
    let (owner, thief) = (Team::new("owner"), Team::new("thief"));
    owner.apply(&owner.class(&json!({"maxPerNamespace": 1})));
    owner.apply(&owner.asking("app", "app"));
    let app = owner.wait_ready("app");
    let own = owner.azure_identities().into_keys().next().expect("the identity");
    let before = owner.writes_with(&own).len();

    // A class that allows only another namespace.
    let mut foreign = thief.asking("app", "app");
    foreign["spec"]["identityRef"]["name"] = json!(owner.name);
    thief.apply(&foreign);
    let refused = thief.wait_condition("mib", "app", "Ready", "False", "NotAllowed");
    assert!(message(&refused, "Ready").contains("ManagedIdentityClass"), "{refused:#}");
    // Another team's identity by name, from another namespace and from the same namespace for the same service account.
    for team in [&thief, &owner] {
        let mut stolen = team.binding("stolen", "app");
        stolen["spec"]["identityRef"] = json!({"name": made_for(&app)});
        stolen["spec"]["injection"] = json!({"clientIDEnv": "STOLEN"});
        team.apply(&stolen);
        team.wait_condition("mib", "stolen", "Ready", "False", "ClaimMismatch");
    }
    // A class that does not exist, and one referred to as the other kind.
    let mut nowhere = thief.asking("nowhere", "app");
    nowhere["spec"]["identityRef"]["name"] = json!("no-such-class");
    thief.apply(&nowhere);
    thief.wait_condition("mib", "nowhere", "Ready", "False", "ManagedIdentityClassNotFound");
    let mut by_kind = thief.binding("by-kind", "other");
    by_kind["spec"]["identityRef"] = json!({"kind": "ManagedIdentity", "name": owner.name});
    thief.apply(&by_kind);
    thief.wait_condition("mib", "by-kind", "Ready", "False", "ManagedIdentityNotFound");
    // More identities than the class allows one namespace.
    owner.apply(&owner.asking("more", "more"));
    let refused = owner.wait_condition("mib", "more", "Ready", "False", "NotAllowed");
    assert!(message(&refused, "Ready").contains("spec.maxPerNamespace"), "{refused:#}");

    assert_eq!(owner.writes_with(&own).len(), before, "nothing was written under the identity");
    assert!(thief.azure_identities().is_empty() && claimed(&thief).is_empty(), "nothing was created");
    assert_eq!((owner.azure_identities().len(), claimed(&owner).len()), (1, 1));
    assert!(thief.writes_with(&format!("/{}", thief.name)).is_empty());

    // The waiting binding gets its identity when there is room.
    owner.delete("mib", "app");
    owner.wait_deleted("mi", &made_for(&app));
    let more = owner.wait_ready("more");
    owner.delete("mib", "more");
    owner.wait_deleted("mi", &made_for(&more));
    assert!(owner.azure_identities().is_empty());
    kubectl(owner.ensign.control_plane, &["delete", "mic", &owner.name]);
}

#[test]
fn a_claim_copied_to_another_binding_is_rejected_by_its_uid() {
    let team = Team::new("copied");
    team.apply(&team.binding("app", "app"));
    let uid = team.get("mib", "app").expect("the binding")["metadata"]["uid"].clone();
    let name = format!("{}-claimed", team.name);
    let mut object = team.provisioned(&name, &json!({}));
    object["spec"]["claimRef"] =
        json!({"namespace": team.name, "name": "app", "uid": "6e0b1b5e-0000-4000-8000-000000000000"});
    team.apply(&object);
    team.wait_condition("mi", &name, "Ready", "False", "Released");
    let mut binding = team.binding("wants-it", "app");
    binding["spec"]["identityRef"] = json!({"name": name});
    team.apply(&binding);
    team.wait_condition("mib", "wants-it", "Ready", "False", "ClaimMismatch");
    assert_ne!(uid, Value::Null);
    assert!(team.writes_with(&format!("/{name}")).is_empty(), "nothing is created for a binding that does not exist");
    kubectl(team.ensign.control_plane, &["delete", "mi", &name]);
}

#[test]
fn deleting_a_class_keeps_its_identities_and_creating_one_serves_waiting_bindings() {
    let team = Team::new("class-goes");
    let class = team.class(&json!({}));
    team.apply(&class);
    team.apply(&team.asking("app", "app"));
    let app = team.wait_ready("app");
    kubectl(team.ensign.control_plane, &["delete", "mic", &team.name]);
    team.apply(&team.asking("late", "late"));
    let waits = team.wait_condition("mib", "late", "Ready", "False", "ManagedIdentityClassNotFound");
    assert!(message(&waits, "Ready").contains("a cluster operator has to create it"), "{waits:#}");
    let still = team.wait_ready("app");
    assert_eq!(still["status"]["clientID"], app["status"]["clientID"]);
    assert_eq!(team.azure_identities().len(), 1);

    team.apply(&class);
    let late = team.wait_ready("late");
    // The grants of the class are checked again, also for bindings that have their identity.
    let mut nobody = class;
    nobody["spec"]["allowedSubjects"] = json!([]);
    team.apply(&nobody);
    team.wait_condition("mib", "app", "Ready", "False", "NotAllowed");
    team.wait_condition("mib", "late", "Ready", "False", "NotAllowed");
    wait_for("the trust to be revoked", || {
        team.azure_identities().values().all(|identity| identity.credentials.is_empty()).then_some(())
    });
    for (name, binding) in [("app", &app), ("late", &late)] {
        team.delete("mib", name);
        team.wait_deleted("mi", &made_for(binding));
    }
    assert!(team.azure_identities().is_empty());
    kubectl(team.ensign.control_plane, &["delete", "mic", &team.name]);
}

#[test]
fn a_denied_object_is_reported_with_who_has_to_act() {
    let team = Team::new("not-made");
    let (control_plane, name) = (team.ensign.control_plane, format!("{}.example.com", team.name));
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name},
        "spec": {
            "matchConstraints": {"resourceRules": [{
                "apiGroups": ["ensign.dev"], "apiVersions": ["*"], "operations": ["CREATE"],
                "resources": ["managedidentities"],
            }]},
            "matchConditions": [{
                "name": "ours",
                "expression": format!("has(object.spec.claimRef) && object.spec.claimRef.namespace == '{}'", team.name),
            }],
            "validations": [{"expression": "false", "message": "none for this team"}],
        },
    });
    let bound = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]},
    });
    team.apply(&policy);
    team.apply(&bound);
    let mut probe = team.provisioned(&format!("{}-probe", team.name), &json!({}));
    let claim = json!({"namespace": team.name, "name": "app", "uid": "6e0b1b5e-0000-4000-8000-000000000000"});
    probe["spec"]["claimRef"] = claim;
    wait_for("the policy to be live", || create(control_plane, &probe, &["--dry-run=server"]).err());

    team.apply(&team.class(&json!({})));
    team.apply(&team.asking("app", "app"));
    let refused = team.wait_condition("mib", "app", "Ready", "False", "ProvisioningFailed");
    let told = message(&refused, "Ready");
    assert!(told.contains("none for this team") && told.contains("identityClasses"), "{told}");
    assert!(claimed(&team).is_empty() && team.azure_identities().is_empty());

    for kind in ["validatingadmissionpolicybinding", "validatingadmissionpolicy"] {
        kubectl(control_plane, &["delete", kind, &name]);
    }
    let app = team.wait_ready("app");
    team.delete("mib", "app");
    team.wait_deleted("mi", &made_for(&app));
    kubectl(control_plane, &["delete", "mic", &team.name]);
}
