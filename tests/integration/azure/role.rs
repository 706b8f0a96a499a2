//! The role that `ensign azure-role` prints is sufficient for what the controller does, and minimal.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use ensign_api::conditions::Reason;
use ensign_api::{ArmId, IsolationScope};
use ensign_azure::error::Operation;
use ensign_azure::{ArmClient, ArmError};
use ensign_core::provisioning::Desired;
use ensign_core::roles::{Assignment, Lookup, RoleScope};
use serde_json::Value;

use super::{Azure, credential};

const READER: &str = "acdd72a7-3385-48ef-bd42-f606fba81ae7";

/// The actions of the role, as the command prints them.
fn printed(feature: &str) -> BTreeSet<String> {
    let scope = "/subscriptions/50b00000-0000-4000-8000-00000000050b";
    let assignable: &[&str] = if feature == "role-assignments" { &["--assignable-roles", READER] } else { &[] };
    let done = Command::new(env!("CARGO_BIN_EXE_ensign"))
        .args(["azure-role", "--feature", feature, "--scope", scope, "--output", "json"])
        .args(assignable)
        .output()
        .expect("run ensign azure-role");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let definition: Value = serde_json::from_slice(&done.stdout).expect("JSON and nothing else");
    serde_json::from_value(definition["Actions"].clone()).expect("a list of actions")
}

type Done = Vec<(Operation, Result<(), ArmError>)>;

/// Every operation of the controller on an existing identity, in an order in which each can succeed.
async fn bind(client: &ArmClient, azure: &Azure) -> Done {
    let (orders, written) = (azure.orders(), credential());
    vec![
        (Operation::ReadIdentity, client.get_identity(&orders).await.map(drop)),
        (Operation::ListCredentials, client.list_credentials(&orders).await.map(drop)),
        (Operation::PutCredential, client.put_credential(&orders, &written).await.map(drop)),
        (Operation::DeleteCredential, client.delete_credential(&orders, &written.name).await),
    ]
}

/// The additional operations to create and delete identities.
async fn provision(client: &ArmClient, azure: &Azure) -> Done {
    let made: ArmId = azure.orders().to_string().replace("/orders", "/made").parse().expect("an ID");
    let location = client.get_identity(&azure.orders()).await.map_or("westeurope".to_owned(), |found| found.location);
    let desired = Desired { location, tags: BTreeMap::new(), isolation_scope: IsolationScope::None };
    vec![
        (Operation::ReadIdentity, client.get_identity(&azure.orders()).await.map(drop)),
        (Operation::PutIdentity, client.put_identity(&made, &desired).await.map(drop)),
        (Operation::DeleteIdentity, client.delete_identity(&made).await),
    ]
}

/// The additional operations to assign a role and to unassign it, read by list and by name as the controller does.
async fn assign(client: &ArmClient, azure: &Azure) -> Done {
    let orders = azure.orders();
    let principal = azure.emulator.with_state(|state| {
        let found = state.identities.values().find(|found| found.id.name == "orders");
        found.expect("it exists").principal_id.clone()
    });
    let id = orders.to_string();
    let group: RoleScope = id.split("/providers/").next().expect("a group").parse().expect("a scope");
    let assignment = Assignment {
        name: "a5500000-0000-4000-8000-000000000001".to_owned(),
        scope: group.to_string(),
        role: READER.to_owned(),
        principal: principal.clone(),
        condition: None,
    };
    let read = async {
        client.role_assignments(&orders, &group, &principal).await?;
        client.role_assignment(&orders, &group, &assignment.name).await.map(drop)
    };
    let look_up = async {
        for role in ["reader", READER] {
            client.role_definition(&orders, &Lookup { root: group.clone(), role: role.to_owned() }).await?;
        }
        Ok(())
    };
    vec![
        (Operation::ReadRole, look_up.await),
        (Operation::PutRoleAssignment, client.put_role_assignment(&orders, &assignment, "").await.map(drop)),
        (Operation::ReadRoleAssignments, read.await),
        (Operation::DeleteRoleAssignment, client.delete_role_assignment(&orders, &assignment).await),
    ]
}

/// The role is sufficient for everything, and without any one of its actions an operation is denied with an error that names it.
async fn is_exactly_enough(azure: &Azure, actions: &BTreeSet<String>, everything: impl AsyncFn() -> Done) {
    azure.allow(actions.clone());
    for (operation, result) in everything().await {
        assert!(result.is_ok(), "{operation:?}: {result:?}");
    }
    for action in actions {
        azure.allow(actions.iter().filter(|other| *other != action).cloned());
        let done = everything().await.into_iter();
        let refused: Vec<_> =
            done.filter_map(|(operation, result)| Some((operation, result.err()?.failure(None)))).collect();
        assert_eq!(refused.len(), 1, "{action} serves one operation: {refused:?}");
        let (operation, failure) = &refused[0];
        assert_eq!((operation.action(), failure.reason), (action.as_str(), Reason::Forbidden));
        assert!(failure.message.contains(action), "{}", failure.message);
    }
}

#[tokio::test]
async fn the_role_for_bindings_is_sufficient_and_minimal() {
    let azure = Azure::start();
    let client = azure.client(&azure.connection());
    is_exactly_enough(&azure, &printed("bind"), async || bind(&client, &azure).await).await;
}

#[tokio::test]
async fn the_role_for_provisioning_is_sufficient_and_minimal() {
    let azure = Azure::start();
    let client = azure.client(&azure.connection());
    is_exactly_enough(&azure, &printed("provision"), async || provision(&client, &azure).await).await;
}

#[tokio::test]
async fn the_role_for_role_assignments_is_sufficient_and_minimal() {
    let azure = Azure::start();
    let client = azure.client(&azure.connection());
    is_exactly_enough(&azure, &printed("role-assignments"), async || assign(&client, &azure).await).await;
}

#[tokio::test]
async fn every_operation_is_covered_by_a_role() {
    let azure = Azure::start();
    let client = azure.client(&azure.connection());
    let (bound, made) = (bind(&client, &azure).await, provision(&client, &azure).await);
    let all = bound.into_iter().chain(made).chain(assign(&client, &azure).await);
    let tried: BTreeSet<&str> = all.map(|(operation, _)| operation.action()).collect();
    assert_eq!(tried, Operation::ALL.into_iter().chain(Operation::OF_ROLES).map(Operation::action).collect());
}

#[tokio::test]
async fn the_role_for_observe_is_read_only() {
    let azure = Azure::start();
    let client = azure.client(&azure.connection());
    azure.allow(printed("observe"));
    let done = bind(&client, &azure).await;
    let allowed: Vec<bool> = done.iter().map(|(_, result)| result.is_ok()).collect();
    assert_eq!(allowed, [true, true, false, false], "{done:?}");
}
