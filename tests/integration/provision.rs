//! Identities that Ensign creates, repairs and deletes, on the real API server and the emulator.

use serde_json::{Value, json};

use ensign_testkit::objects::{Team, condition_of, kubectl, wait_for};

fn message(object: &Value, condition: &str) -> String {
    condition_of(object, condition).map_or_else(String::new, |found| found["message"].to_string())
}

/// A binding to the object of this name.
fn bind(team: &Team, identity: &str) {
    let mut binding = team.binding("app", "app");
    binding["spec"]["identityRef"] = json!({"name": identity});
    team.apply(&binding);
}

#[test]
fn an_identity_is_created_repaired_and_deleted_with_its_object() {
    let team = Team::new("provision");
    let before = team.azure_identities();
    let name = format!("{}-own", team.name);
    team.apply(&team.provisioned(&name, &json!({"tags": {"cost-center": "7"}, "reclaimPolicy": "Delete"})));
    bind(&team, &name);
    let binding = team.wait_ready("app");
    let made = team.azure_identities().remove(&name).expect("the identity");
    assert_eq!(binding["status"]["clientID"], made.client_id.as_str());
    assert_eq!(made.tags["cost-center"], "7");
    let object = team.wait_condition("mi", &name, "Ready", "True", "Ready");
    assert_eq!(made.tags["ensign.dev-object"], object["metadata"]["uid"].as_str().expect("a UID"));
    assert!(made.tags.contains_key("ensign.dev-cluster"));

    // A user changes tags, and another program adds one.
    team.change_in_azure(&name, |identity| {
        identity.tags.insert("cost-center".to_owned(), "8".to_owned());
        identity.tags.remove("ensign.dev-object");
        identity.tags.insert("audited".to_owned(), "yes".to_owned());
    });
    team.touch(&name);
    wait_for("the tags to be repaired", || {
        let tags = team.azure_identities().remove(&name)?.tags;
        let right = tags["cost-center"] == "7" && tags.contains_key("ensign.dev-object");
        (right && tags["audited"] == "yes").then_some(())
    });

    team.delete("mi", &name);
    team.wait_deleted("mi", &name);
    assert_eq!(team.azure_identities(), before, "Azure is unchanged");
    team.delete("mib", "app");
    team.wait_deleted("mib", "app");
}

#[test]
fn an_existing_identity_is_unchanged_until_adopted_and_kept_unless_reclaimed() {
    let team = Team::new("take-over");
    let name = format!("{}-there", team.name);
    team.ensign.azure_identity(&name, None, &[]);
    let before = team.azure_identities();
    let mut object = team.provisioned(&name, &json!({}));
    team.apply(&object);
    bind(&team, &name);
    let refused = team.wait_condition("mi", &name, "IdentityResolved", "False", "IdentityExists");
    assert!(message(&refused, "IdentityResolved").contains("spec.provision.ifExists to Adopt"), "{refused:#}");
    team.wait_condition("mib", "app", "Ready", "False", "IdentityExists");
    assert_eq!(team.azure_identities(), before);
    assert!(team.writes_with(&format!("/{name}")).is_empty(), "nothing was written");

    object["spec"]["provision"]["ifExists"] = json!("Adopt");
    team.apply(&object);
    let binding = team.wait_ready("app");
    assert_eq!(binding["status"]["clientID"], before[&name].client_id.as_str(), "it is the same identity");
    assert!(team.azure_identities()[&name].tags.contains_key("ensign.dev-object"));

    team.delete("mi", &name);
    team.wait_deleted("mi", &name);
    let left = team.azure_identities().remove(&name).expect("it is kept: Retain is the default");
    assert!(left.credentials.is_empty(), "and no subject is trusted any more");
    team.delete("mib", "app");
}

#[test]
fn an_identity_deleted_in_azure_is_recreated_and_status_follows() {
    let team = Team::new("recreate");
    let name = format!("{}-own", team.name);
    team.apply(&team.provisioned(&name, &json!({"reclaimPolicy": "Delete"})));
    bind(&team, &name);
    let before = team.wait_ready("app")["status"]["clientID"].clone();
    team.delete_in_azure(&name);
    team.touch(&name);
    let after = wait_for("another client ID", || {
        let binding = team.get("mib", "app")?;
        let ready = condition_of(&binding, "Ready")?["status"] == "True";
        (ready && binding["status"]["clientID"] != before).then(|| binding["status"]["clientID"].clone())
    });
    let made = team.azure_identities().remove(&name).expect("the identity");
    assert_eq!(after, made.client_id.as_str());
    assert_eq!(made.credentials.len(), 1);
    let told = team.wait_event(&name, "IdentityRecreated");
    assert!(told.contains("restart them"), "{told}");
    team.delete("mib", "app");
    team.delete("mi", &name);
    team.wait_deleted("mi", &name);
}

#[test]
fn errors_from_azure_are_reported_with_a_remedy_and_a_lock_blocks_a_deletion() {
    let team = Team::new("refusals");
    let nowhere = format!("{}-nowhere", team.name);
    team.apply(&team.provisioned(&nowhere, &json!({"resourceGroup": "nowhere"})));
    let refused = team.wait_condition("mi", &nowhere, "IdentityResolved", "False", "ResourceGroupNotFound");
    assert!(message(&refused, "IdentityResolved").contains("az group create"), "{refused:#}");
    team.delete("mi", &nowhere);
    team.wait_deleted("mi", &nowhere);

    let name = format!("{}-locked", team.name);
    team.apply(&team.provisioned(&name, &json!({"reclaimPolicy": "Delete"})));
    team.wait_condition("mi", &name, "Ready", "True", "Ready");
    let lock = ensign_azure_emulator::state::Lock {
        scope: team.ensign.arm_id(&name),
        level: ensign_azure_emulator::state::LockLevel::CanNotDelete,
    };
    team.ensign.azure.with_state(|state| state.locks.push(lock.clone()));
    team.delete("mi", &name);
    let blocked = team.wait_condition("mi", &name, "Ready", "False", "DeletionBlocked");
    assert!(message(&blocked, "Ready").contains("remove the lock"), "{blocked:#}");
    team.ensign.azure.with_state(|state| state.locks.retain(|found| *found != lock));
    team.touch(&name);
    team.wait_deleted("mi", &name);
    assert!(team.azure_identities().is_empty());
}

#[test]
fn an_identity_that_is_not_provably_owned_outlives_its_object() {
    let team = Team::new("not-ours");
    let name = format!("{}-own", team.name);
    team.apply(&team.provisioned(&name, &json!({"reclaimPolicy": "Delete"})));
    team.wait_condition("mi", &name, "Ready", "True", "Ready");
    team.change_in_azure(&name, |identity| {
        identity.tags.insert("ensign.dev-cluster".to_owned(), "another".to_owned());
    });
    // A check that began before would delete what the object owned then.
    team.touch(&name);
    team.wait_condition("mi", &name, "IdentityResolved", "False", "IdentityExists");
    team.delete("mi", &name);
    team.wait_deleted("mi", &name);
    assert!(team.azure_identities().contains_key(&name));
    let left = |(_, reason, message): &(String, String, String)| {
        reason == "IdentityExists" && message.contains("az identity delete")
    };
    wait_for("the event", || team.cluster_events(&name).iter().any(left).then_some(()));
    assert!(team.writes_with(&format!("/{name}")).iter().all(|entry| entry.method != "DELETE"));
}

#[test]
fn an_identity_in_another_region_is_reported_and_unchanged() {
    let team = Team::new("region");
    let name = format!("{}-own", team.name);
    team.ensign.azure_identity(&name, None, &[]);
    let change = json!({"ifExists": "Adopt", "location": "Japan East"});
    team.apply(&team.provisioned(&name, &change));
    team.wait_condition("mi", &name, "IdentityResolved", "False", "LocationMismatch");
    assert!(team.writes_with(&format!("/{name}")).is_empty());
    kubectl(team.ensign.control_plane, &["delete", "mi", &name]);
}
