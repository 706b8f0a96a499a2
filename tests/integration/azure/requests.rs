//! Every request to ARM carries an ID by which both sides can find it again.

use ensign_azure_emulator::LogKind;
use uuid::Uuid;

use super::{Azure, credential, error_response};

#[tokio::test]
async fn errors_and_audit_records_contain_the_request_id_that_arm_received() {
    let azure = Azure::start();
    let client = azure.client(&azure.connection());
    let id = Uuid::new_v4();
    client.identified(id).put_credential(&azure.orders(), &credential()).await.expect("written");
    azure.answer(LogKind::ArmRead, 1, error_response(403, "AuthorizationFailed", "no"));
    let error = client.list_credentials(&azure.orders()).await.expect_err("an error");
    let seen = |kind| azure.requests(kind).last().and_then(|entry| entry.client_request_id.clone());
    assert_eq!(seen(LogKind::ArmWrite), Some(id.to_string()));
    assert_eq!(seen(LogKind::ArmRead), Some(error.request_id.to_string()));
    assert_ne!(error.request_id, id);
}
