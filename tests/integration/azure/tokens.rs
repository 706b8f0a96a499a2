//! Tokens that ARM rejects before they expire.

use ensign_api::conditions::Reason;
use ensign_azure_emulator::LogKind;
use ensign_core::acceptance::scopes::AllowedScopes;

use super::{Azure, credential, error_response};

#[tokio::test]
async fn a_token_that_arm_rejects_is_refreshed_and_the_request_retried_once() {
    let azure = Azure::start();
    let client = azure.client(&azure.connection());
    client.get_identity(&azure.orders()).await.expect("a first token");
    azure.answer(LogKind::ArmRead, 1, error_response(401, "ExpiredAuthenticationToken", "no"));
    client.get_identity(&azure.orders()).await.expect("a second token");
    assert_eq!(azure.statuses(LogKind::ArmRead), [200, 401, 200]);
    assert_eq!(azure.statuses(LogKind::Token), [200, 200], "the first one was reused until it was rejected");
    client.get_identity(&azure.orders()).await.expect("the second token is reused");
    assert_eq!(azure.requests(LogKind::Token).len(), 2);
}

#[tokio::test]
async fn a_write_with_a_rejected_token_is_retried_once_with_its_body() {
    let azure = Azure::start();
    let client = azure.client(&azure.connection());
    azure.answer(LogKind::ArmWrite, 1, error_response(401, "InvalidAuthenticationToken", "no"));
    let stored = client.put_credential(&azure.orders(), &credential()).await.expect("written");
    assert_eq!(stored, credential());
    assert_eq!(azure.statuses(LogKind::ArmWrite), [401, 201]);
}

#[tokio::test]
async fn a_second_rejected_token_fails_the_call() {
    let azure = Azure::start();
    let client = azure.client(&azure.connection());
    azure.answer(LogKind::ArmRead, 2, error_response(401, "InvalidAuthenticationToken", "no"));
    let error = client.list_credentials(&azure.orders()).await.unwrap_err();
    let failure = error.failure(None);
    assert_eq!((failure.reason, failure.is_gone()), (Reason::CredentialUnavailable, false));
    assert_eq!(azure.statuses(LogKind::ArmRead), [401, 401], "one retry");
    assert!(client.list_credentials(&azure.orders()).await.is_ok(), "and the next call starts over");
}

#[tokio::test]
async fn forbidden_and_missing_are_not_retried() {
    let azure = Azure::start();
    let client = azure.client(&azure.connection());
    for (status, code) in [(403, "AuthorizationFailed"), (404, "ResourceNotFound")] {
        azure.emulator.clear_log();
        azure.answer(LogKind::ArmRead, 1, error_response(status, code, "no"));
        assert!(client.list_credentials(&azure.orders()).await.is_err());
        assert_eq!(azure.statuses(LogKind::ArmRead), [status]);
    }
}

#[tokio::test]
async fn outside_its_scopes_a_client_sends_nothing() {
    let azure = Azure::start();
    let scope = "/subscriptions/00000000-0000-0000-0000-000000000001".parse().expect("a scope");
    let client = azure.client(&azure.connection()).bounded(AllowedScopes::new([scope]));
    let (orders, written) = (azure.orders(), credential());
    let errors = [
        client.get_identity(&orders).await.unwrap_err(),
        client.list_credentials(&orders).await.unwrap_err(),
        client.put_credential(&orders, &written).await.unwrap_err(),
        client.delete_credential(&orders, &written.name).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.failure(None).reason, Reason::ScopeNotAllowed, "{error}");
    }
    assert_eq!(azure.emulator.log(&ensign_azure_emulator::LogFilter::default()), [], "not even a token was requested");
}
