//! Every request to ARM carries an ID by which both sides can find it again.

use ensign_api::conditions::Reason;
use ensign_azure_emulator::LogKind;
use serde_json::json;
use uuid::Uuid;

use super::{Azure, body, credential, error_response};

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

#[tokio::test]
async fn an_azure_with_older_api_versions_only_works_from_the_first_request_on() {
    let azure = Azure::start();
    let client = azure.client(&azure.connection());
    let message = "No registered resource provider found for location 'x' and API version '2024-11-30' for type 'userAssignedIdentities'. The supported api-versions are '2018-11-30, 2023-01-31'. The supported locations are 'x'.";
    azure.answer(LogKind::ArmRead, 1, error_response(400, "NoRegisteredProviderFound", message));
    client.list_credentials(&azure.orders()).await.expect("a list, with the older version");
    client.put_credential(&azure.orders(), &credential()).await.expect("written");
    assert_eq!(azure.statuses(LogKind::ArmRead), [400, 200], "sent once more");
    assert_eq!(azure.statuses(LogKind::ArmWrite), [201], "and known from then on");
    let set = ensign_core::api_versions::parse_all(&["Microsoft.ManagedIdentity=2019-01-01-preview".to_owned()]);
    assert!(set.is_err(), "too old");
}

#[tokio::test]
async fn a_wrapped_policy_refusal_is_reported_as_one() {
    let azure = Azure::start();
    let client = azure.client(&azure.connection());
    let inner = json!({"code": "RequestDisallowedByPolicy", "message": "Resource 'orders' was disallowed by policy."});
    let outer = json!({"error": {"code": "ResourceValidationFailed", "message": "see details", "details": [inner]}});
    azure.answer(LogKind::ArmWrite, 1, body(400, outer));
    let error = client.put_credential(&azure.orders(), &credential()).await.expect_err("an error");
    assert_eq!(error.failure(None).reason, Reason::PolicyDenied);
}
