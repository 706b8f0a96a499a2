//! Role assignments of identities.

use ensign_azure_emulator::LogFilter;
use ensign_azure_emulator::state::roles::RoleAssignment;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use ensign_testkit::objects::{Team, condition_of, kubectl, wait_for};
use ensign_testkit::replica::ReplicaOptions;
use ensign_testkit::testbed::Testbed;

const BLOB_READER: &str = "2a2b9908-6ea1-4ae2-8e65-a410df84e7d1";
const BY_HAND: &str = "b0000000-0000-4000-8000-000000000001";

fn group(team: &Team) -> String {
    let info = team.ensign.azure.info();
    format!("/subscriptions/{}/resourceGroups/{}", info.subscription_id, info.resource_group)
}

/// The team's storage account.
fn account(team: &Team) -> String {
    format!("{}/providers/Microsoft.Storage/storageAccounts/{}", group(team), team.name)
}

fn asking(team: &Team, roles: &[(&str, &str)]) -> Value {
    let mut identity = team.identity();
    let entries = roles.iter().map(|(role, scope)| json!({"roleDefinition": role, "scope": scope}));
    identity["spec"]["roleAssignments"] = entries.collect();
    identity
}

fn principal(team: &Team) -> String {
    team.ensign.azure.with_state(|state| {
        let found = state.identities.values().find(|identity| identity.id.name == team.name);
        found.expect("an identity in Azure").principal_id.clone()
    })
}

/// The role assignments of the team's identity, as `(name, role, scope)`.
fn assigned(team: &Team) -> Vec<(String, String, String)> {
    let principal = principal(team);
    team.ensign.azure.with_state(|state| {
        let own = state.role_assignments.values().filter(|one| one.principal_id == principal);
        own.map(|one| (one.name.clone(), one.role.clone(), one.scope.clone())).collect()
    })
}

/// Writes of role assignments whose path contains this text.
fn writes(team: &Team, part: &str) -> usize {
    let kind = Some("arm-write".to_owned());
    let entries =
        team.ensign.azure.log(&LogFilter { kind, path: Some("/roleAssignments/".to_owned()), ..LogFilter::default() });
    entries.iter().filter(|entry| entry.path.to_lowercase().contains(&part.to_lowercase())).count()
}

fn assign_by_hand(team: &Team, name: &str) {
    let assignment = RoleAssignment {
        name: name.to_owned(),
        scope: account(team),
        role: BLOB_READER.to_owned(),
        principal_id: principal(team),
        principal_type: "ServicePrincipal".to_owned(),
        description: None,
        condition: None,
        condition_version: None,
        created_on: Timestamp::UNIX_EPOCH,
        updated_on: Timestamp::UNIX_EPOCH,
        created_by: BY_HAND.to_owned(),
    };
    team.ensign.change_azure(|state| state.role_assignments.insert(name.to_owned(), assignment));
}

#[test]
fn a_requested_role_is_assigned_and_unassigned_with_the_object() {
    let team = Team::new("role");
    team.apply(&asking(&team, &[("Storage Blob Data Reader", &account(&team))]));
    team.apply(&team.binding("app", "app"));
    team.wait_ready("app");
    let identity = team.wait_condition("mi", &team.name, "PermissionsReady", "True", "Granted");
    let [(name, role, scope)] = &assigned(&team)[..] else { panic!("{:?}", assigned(&team)) };
    assert_eq!((role.as_str(), scope), (BLOB_READER, &account(&team)));
    let record = &identity["status"]["roleAssignments"][0];
    assert_eq!((&record["name"], &record["origin"]), (&json!(name), &json!("Created")));
    let uid = identity["metadata"]["uid"].as_str().expect("a UID");
    let described = team.ensign.azure.with_state(|state| state.role_assignments[name].description.clone());
    assert!(described.is_some_and(|text| text.contains(uid) && text.contains(name.as_str())));
    assert_eq!(writes(&team, &team.name), 1);
    team.delete("mib", "app");
    team.wait_deleted("mib", "app");
    team.delete("mi", &team.name);
    team.wait_deleted("mi", &team.name);
    assert_eq!(assigned(&team), [], "the object is deleted only after its role assignments");
}

#[test]
fn a_deleted_role_assignment_is_recreated_and_an_unwanted_one_deleted() {
    let team = Team::new("role-drift");
    let mut identity = asking(&team, &[("Storage Blob Data Reader", &account(&team)), ("Reader", &account(&team))]);
    team.apply(&identity);
    team.wait_condition("mi", &team.name, "PermissionsReady", "True", "Granted");
    let before = assigned(&team);
    assert_eq!(before.len(), 2);
    team.ensign.change_azure(|state| state.role_assignments.retain(|name, _| *name != before[0].0));
    identity["spec"]["maxTokenExpirationSeconds"] = json!(7200);
    team.apply(&identity);
    wait_for("the role assignment to be recreated", || (assigned(&team) == before).then_some(()));
    identity["spec"]["roleAssignments"] = json!([{"roleDefinition": "Reader", "scope": account(&team)}]);
    team.apply(&identity);
    wait_for("the other role assignment to be deleted", || (assigned(&team).len() == 1).then_some(()));
    assert_ne!(assigned(&team)[0].1, BLOB_READER);
}

#[test]
fn an_equal_assignment_created_by_hand_is_used_and_kept() {
    let team = Team::new("role-by-hand");
    let name = uuid::Uuid::new_v4().to_string();
    let identity =
        asking(&team, &[(BLOB_READER, &account(&team).to_uppercase().replace("/SUBSCRIPTIONS/", "/subscriptions/"))]);
    assign_by_hand(&team, &name);
    team.apply(&identity);
    let found = team.wait_condition("mi", &team.name, "PermissionsReady", "True", "Granted");
    let record = &found["status"]["roleAssignments"][0];
    assert_eq!((&record["name"], &record["origin"]), (&json!(name), &json!("Adopted")));
    team.delete("mi", &team.name);
    team.wait_deleted("mi", &team.name);
    assert_eq!(assigned(&team).len(), 1);
    assert_eq!(writes(&team, &team.name), 0);
}

#[test]
fn attempts_at_privilege_escalation_lead_to_no_write() {
    let team = Team::new("role-more");
    let subscription = group(&team).split("/resourceGroups").next().expect("a subscription").to_owned();
    let group = group(&team);
    for (role, scope) in [
        ("Owner", account(&team)),
        ("OWNER", account(&team).to_lowercase()),
        ("8E3AF657-a8ff-443c-a75c-2fe8c4bcb635", account(&team)),
        ("Contributor", account(&team)),
        ("User Access Administrator", account(&team)),
        ("Role Based Access Control Administrator", account(&team)),
        ("Managed Identity Contributor", account(&team)),
        ("Reader", subscription.clone()),
        ("Reader", format!("{subscription}/providers/Microsoft.Network/networkManagers/{}", team.name)),
        ("Reader", format!("{group}/providers/Microsoft.Storage/{}", team.name)),
        ("Reader", format!("{group}/providers/Microsoft.Authorization/roleAssignments/{}", team.name)),
        ("Reader", format!("{group}/resourceGroups/{}", team.name)),
    ] {
        team.apply(&asking(&team, &[(role, &scope)]));
        wait_for("a rejection", || {
            let identity = team.get("mi", &team.name)?;
            let condition = condition_of(&identity, "PermissionsReady")?.clone();
            let current = identity["status"]["observedGeneration"] == identity["metadata"]["generation"];
            let refused = ["RoleNotAllowed", "InvalidSpec"].iter().any(|reason| condition["reason"] == *reason);
            (current && condition["status"] == "False" && refused).then_some(())
        });
    }
    assert_eq!(assigned(&team), []);
    assert_eq!(writes(&team, &team.name), 0);
}

#[test]
fn pods_wait_while_a_role_is_missing() {
    let team = Team::new("role-hold");
    team.apply(&asking(&team, &[("Nobody has this role", &account(&team))]));
    team.apply(&team.binding("app", "app"));
    let binding = team.wait_condition("mib", "app", "CredentialReady", "False", "RoleNotFound");
    let message = condition_of(&binding, "CredentialReady").expect("a condition")["message"].clone();
    assert!(message.as_str().is_some_and(|text| text.contains("a cluster operator has to correct")), "{message}");
    team.apply(&asking(&team, &[("Storage Blob Data Reader", &account(&team))]));
    team.wait_ready("app");
}

#[test]
fn with_role_assignments_disabled_nothing_is_assigned_and_a_condition_reports_it() {
    let testbed = Testbed::acquire();
    let team = testbed.team("role-off");
    team.bind();
    let info = testbed.azure.info();
    let scope = format!("/subscriptions/{}/resourceGroups/{}", info.subscription_id, info.resource_group);
    let patch = json!({"spec": {"roleAssignments": [{"roleDefinition": "Reader", "scope": scope}]}}).to_string();
    kubectl(testbed.control_plane, &["patch", "mi", &team.name, "--type=merge", "--patch", &patch]);
    let replica = testbed.start("off", ReplicaOptions::default());
    wait_for("the rejection", || {
        let condition = condition_of(&team.get("mi", &team.name)?, "PermissionsReady")?.clone();
        (condition["reason"] == "RoleAssignmentsDisabled"
            && condition["message"].as_str()?.contains("--role-assignments"))
        .then_some(())
    });
    let of_roles = LogFilter { path: Some("Microsoft.Authorization".to_owned()), ..LogFilter::default() };
    let asked = testbed.azure.log(&of_roles);
    let own = |agent: &str| agent.contains("(off)");
    assert!(!asked.iter().any(|entry| entry.user_agent.as_deref().is_some_and(own)), "nothing is sent");
    replica.stop().expect("the controller stops");
    kubectl(testbed.control_plane, &["delete", "mi", &team.name, "--wait=false"]);
}
