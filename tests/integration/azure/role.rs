//! The role that `ensign azure-role` prints is enough for what the controller does, and none of it is too much.

use std::collections::BTreeSet;
use std::process::Command;

use ensign::api::conditions::Reason;
use ensign::azure::error::Operation;
use ensign::azure::{ArmClient, ArmError};
use serde_json::Value;

use super::{Azure, credential};

/// The actions of the role, as the command prints them.
fn printed(feature: &str) -> BTreeSet<String> {
    let scope = "/subscriptions/50b00000-0000-4000-8000-00000000050b";
    let done = Command::new(env!("CARGO_BIN_EXE_ensign"))
        .args(["azure-role", "--feature", feature, "--scope", scope, "--output", "json"])
        .output()
        .expect("run ensign azure-role");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let definition: Value = serde_json::from_slice(&done.stdout).expect("JSON and nothing else");
    serde_json::from_value(definition["Actions"].clone()).expect("a list of actions")
}

/// Everything that the controller ever asks ARM for, in an order in which each can succeed.
async fn everything(client: &ArmClient, azure: &Azure) -> Vec<(Operation, Result<(), ArmError>)> {
    let (orders, written) = (azure.orders(), credential());
    vec![
        (Operation::ReadIdentity, client.get_identity(&orders).await.map(drop)),
        (Operation::ListCredentials, client.list_credentials(&orders).await.map(drop)),
        (Operation::PutCredential, client.put_credential(&orders, &written).await.map(drop)),
        (Operation::DeleteCredential, client.delete_credential(&orders, &written.name).await),
    ]
}

#[tokio::test]
async fn the_role_to_bind_is_enough_and_each_of_its_actions_is_needed() {
    let azure = Azure::start();
    let client = azure.client(&azure.connection());
    let actions = printed("bind");
    azure.allow(actions.clone());
    let done = everything(&client, &azure).await;
    assert_eq!(done.len(), Operation::ALL.len(), "every operation is tried");
    for (operation, result) in done {
        assert!(result.is_ok(), "{operation:?}: {result:?}");
    }
    for action in &actions {
        azure.allow(actions.iter().filter(|other| *other != action).cloned());
        let refused: Vec<_> = everything(&client, &azure)
            .await
            .into_iter()
            .filter_map(|(operation, result)| Some((operation, result.err()?.failure(None))))
            .collect();
        assert_eq!(refused.len(), 1, "{action} serves one operation: {refused:?}");
        let (operation, failure) = &refused[0];
        assert_eq!((operation.action(), failure.reason), (action.as_str(), Reason::Forbidden));
        assert!(failure.message.contains(action), "{}", failure.message);
    }
}

#[tokio::test]
async fn the_role_to_observe_reads_and_writes_nothing() {
    let azure = Azure::start();
    let client = azure.client(&azure.connection());
    azure.allow(printed("observe"));
    let done = everything(&client, &azure).await;
    let allowed: Vec<bool> = done.iter().map(|(_, result)| result.is_ok()).collect();
    assert_eq!(allowed, [true, true, false, false], "{done:?}");
}
