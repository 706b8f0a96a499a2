//! Common to all operations: the order of checks, rights, paths and versions.

use axum::http::Method;
use serde_json::{Value, json};

use super::super::ArmRights;
use super::fixtures::{SUBSCRIPTION, TENANT, ask, ask_as, caller, credential, identities, orders, trust};
use super::{ArmError, Caller};

const VERSION: &str = "api-version=2024-11-30";

fn code<T: std::fmt::Debug>(result: Result<T, ArmError>) -> (u16, String) {
    let error = result.unwrap_err();
    (error.status, error.code)
}

fn get(path: &str, query: &str, caller: &Caller) -> Result<super::ArmAnswer, ArmError> {
    ask_as(&mut orders(), caller, &Method::GET, path, query, b"")
}

fn error(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[test]
fn a_missing_or_unknown_api_version_is_rejected() {
    let all = caller(ArmRights::All);
    let path = identities("/orders");
    assert_eq!(code(get(&path, "", &all)), error(400, "MissingApiVersionParameter"));
    for version in ["2024-11-31", "latest", "2025-01-31", "2024-11-30x"] {
        let query = format!("api-version={version}");
        assert_eq!(code(get(&path, &query, &all)), error(400, "NoRegisteredProviderFound"), "{version}");
    }
    let below = identities("/absent/federatedIdentityCredentials");
    let message = get(&below, "api-version=2030-01-01", &all).unwrap_err().message;
    let start = "No registered resource provider found for location 'eastus' and API version '2030-01-01' for type 'userAssignedIdentities/federatedIdentityCredentials'. The supported api-versions are '2015-08-31-preview, 2018-11-30, ";
    assert!(message.starts_with(start), "{message}");
}

#[test]
fn credentials_are_rejected_in_versions_that_lack_them() {
    let all = caller(ArmRights::All);
    let path = identities("/orders/federatedIdentityCredentials");
    for version in ["2015-08-31-preview", "2018-11-30", "2021-09-30-preview"] {
        let query = format!("api-version={version}");
        assert_eq!(code(get(&path, &query, &all)), error(404, "InvalidResourceType"), "{version}");
    }
    assert!(get(&path, "api-version=2022-01-31-PREVIEW", &all).is_ok());
}

#[test]
fn a_malformed_or_unknown_subscription_or_one_of_another_tenant_is_rejected() {
    let all = caller(ArmRights::All);
    let path = identities("/orders");
    let ask = |id: &str, caller: &Caller| code(get(&path.replace(SUBSCRIPTION, id), VERSION, caller));
    assert_eq!(ask("mine", &all), error(400, "InvalidSubscriptionId"));
    assert_eq!(ask("00000000-0000-0000-0000-000000000000", &all), error(404, "SubscriptionNotFound"));
    let stranger = Caller { tenant_id: "another".to_owned(), ..all };
    assert_eq!(ask(SUBSCRIPTION, &stranger), error(401, "InvalidAuthenticationTokenTenant"));
    let shouting = Caller { tenant_id: TENANT.to_uppercase(), ..caller(ArmRights::All) };
    assert!(get(&path, VERSION, &shouting).is_ok());
}

#[test]
fn a_caller_without_rights_does_not_learn_what_exists() {
    let none = caller(ArmRights::None);
    for path in [identities(""), identities("/orders"), identities("/absent"), credential("trust")] {
        assert_eq!(code(get(&path, VERSION, &none)), error(403, "AuthorizationFailed"), "{path}");
        let elsewhere = path.replace("Shop-RG", "absent");
        assert_eq!(code(get(&elsewhere, VERSION, &none)), error(403, "AuthorizationFailed"), "{elsewhere}");
    }
}

#[test]
fn a_reader_is_denied_every_write() {
    let reader = caller(ArmRights::Read);
    assert!(get(&identities("/orders"), VERSION, &reader).is_ok());
    let writes = [
        (Method::PUT, identities("/orders"), "Microsoft.ManagedIdentity/userAssignedIdentities/write"),
        (Method::PATCH, identities("/orders"), "Microsoft.ManagedIdentity/userAssignedIdentities/write"),
        (Method::DELETE, identities("/orders"), "Microsoft.ManagedIdentity/userAssignedIdentities/delete"),
        (Method::PUT, credential("new"), "userAssignedIdentities/federatedIdentityCredentials/write"),
        (Method::DELETE, credential("new"), "userAssignedIdentities/federatedIdentityCredentials/delete"),
    ];
    for (method, path, action) in writes {
        let error = ask_as(&mut orders(), &reader, &method, &path, VERSION, b"").unwrap_err();
        assert_eq!(error.code, "AuthorizationFailed");
        assert!(error.message.contains(&format!("{action}' over scope '{path}'")), "{}", error.message);
    }
}

#[test]
fn an_unsupported_method_is_rejected() {
    let unknown = [
        (Method::POST, identities("/orders")),
        (Method::PUT, identities("")),
        (Method::PATCH, credential("trust")),
        (Method::DELETE, identities("/orders/federatedIdentityCredentials")),
        (Method::HEAD, identities("/orders")),
    ];
    for (method, path) in unknown {
        assert_eq!(code(ask(&mut orders(), method, &path, Value::Null)), error(405, "MethodNotAllowed"), "{path}");
    }
}

#[test]
fn an_unknown_path_is_rejected() {
    let below = identities("");
    let unknown = [
        format!("/subscriptions/{SUBSCRIPTION}/nothing"),
        format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/Shop-RG/nothing"),
        format!("{below}/orders/secrets"),
        format!("{below}/orders/federatedIdentityCredentials/a/b"),
        below.replace("Microsoft.ManagedIdentity", "Microsoft.Compute"),
        below.replace("userAssignedIdentities", "systemAssignedIdentities"),
        format!("/subscriptions/{SUBSCRIPTION}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/orders"),
    ];
    for path in unknown {
        assert_eq!(ask(&mut orders(), Method::GET, &path, Value::Null).unwrap_err().status, 404, "{path}");
    }
}

#[test]
fn an_encoded_slash_does_not_change_the_resource() {
    let path = identities("/orders%2ffederatedIdentityCredentials%2ftrust");
    assert_eq!(code(ask(&mut orders(), Method::GET, &path, Value::Null)), error(404, "ResourceNotFound"));
}

#[test]
fn paths_are_case_insensitive() {
    let path = identities("/orders").to_uppercase();
    let answer = ask(&mut orders(), Method::GET, &path, Value::Null).unwrap();
    assert_eq!(answer.body.unwrap()["name"], "orders");
}

#[test]
fn an_operation_in_a_missing_resource_group_is_rejected() {
    for (method, path) in [
        (Method::GET, identities("")),
        (Method::GET, identities("/orders")),
        (Method::PUT, credential("new")),
        (Method::DELETE, credential("new")),
    ] {
        let path = path.replace("Shop-RG", "absent");
        let error = ask(&mut orders(), method, &path, trust("https://i", "s")).unwrap_err();
        assert_eq!((error.status, error.message.as_str()), (404, "Resource group 'absent' could not be found."));
        assert_eq!(error.code, "ResourceGroupNotFound");
    }
}

#[test]
fn only_one_write_of_a_credential_at_a_time_is_allowed() {
    let mut state = orders();
    let identity = state.identities.values().next().unwrap().id.clone();
    assert!(state.begin_credential_write(&identity));
    assert!(!state.begin_credential_write(&identity));
    state.end_credential_write(&identity);
    assert!(state.begin_credential_write(&identity));
    let error = ArmError::concurrent_credential_writes(&identity);
    assert_eq!(error.status, 409);
    assert_eq!(error.envelope()["error"]["code"], json!(error.code));
}

proptest::proptest! {
    #[test]
    fn random_requests_succeed_or_get_a_4xx(
        method in proptest::sample::select(vec![Method::GET, Method::PUT, Method::PATCH, Method::DELETE, Method::POST]),
        below in "(/|%|[a-z]|orders|federatedIdentityCredentials|\\PC){0,40}",
        query in "(api-version=2024-11-30&?)?(\\$top=|\\$skiptoken=X'|'|[0-9a-f%&]){0,20}",
        body in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
    ) {
        for path in [below.clone(), identities(&below), format!("/subscriptions/{below}")] {
            let answer = ask_as(&mut orders(), &caller(ArmRights::All), &method, &path, &query, &body);
            let status = answer.map_or_else(|error| error.status, |answer| answer.status);
            proptest::prop_assert!((200..500).contains(&status), "{status}");
        }
    }
}
