//! What subscriptions, the directory, policies and deny assignments refuse.

use axum::http::Method;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::fixtures::{GROUP, SUBSCRIPTION, ask, caller, credential, identities, now, state, trust};
use super::{ArmError, ArmRequest};
use crate::state::{ArmRights, State};

fn put_credential(state: &mut State, now: Timestamp) -> Result<u16, ArmError> {
    let (caller, body) = (caller(ArmRights::All), trust("https://i", "s").to_string());
    let path = credential("new");
    let query = "api-version=2024-11-30";
    let request = ArmRequest { method: &Method::PUT, path: &path, query, body: body.as_bytes(), caller: &caller };
    let operation = super::plan(state, &request)?;
    super::apply(state, operation, "https://arm.test", now).map(|answer| answer.status)
}

#[test]
fn credentials_of_an_identity_that_graph_does_not_know_yet_are_rejected() {
    for (status, code) in [(404, "NotFound"), (400, "BadRequest")] {
        let mut state = state(json!({
            "identities": [{"name": "orders"}], "graphReplicationSeconds": 120, "graphReplicationStatus": status,
        }));
        let error = put_credential(&mut state, now() + SignedDuration::from_secs(119)).unwrap_err();
        assert_eq!((error.status, error.code.as_str()), (status, code));
        assert_eq!(error.message, "MS Graph resource not found during Federated Identity Credential creation.");
        assert_eq!(put_credential(&mut state, now() + SignedDuration::from_secs(120)), Ok(201));
    }
}

#[test]
fn a_full_directory_takes_no_identity_for_30_days_after_a_deletion() {
    let mut state = state(json!({"identities": [{"name": "orders"}], "identityQuota": 2}));
    let put = |state: &mut State, name: &str| {
        ask(state, Method::PUT, &identities(name), json!({"location": "eastus"})).map(|answer| answer.status)
    };
    assert_eq!(put(&mut state, "/second"), Ok(201));
    assert_eq!(put(&mut state, "/second"), Ok(200));
    let error = put(&mut state, "/third").unwrap_err();
    assert_eq!((error.status, error.code.as_str()), (403, "Directory_QuotaExceeded"));
    ask(&mut state, Method::DELETE, &identities("/second"), Value::Null).unwrap();
    assert!(put(&mut state, "/third").is_err(), "a deleted identity still counts");
    assert!(state.check_directory_quota(now() + SignedDuration::from_hours(30 * 24)).is_ok());
}

#[test]
fn a_subscription_that_is_not_registered_or_disabled_refuses_writes() {
    let group = json!([{"name": GROUP}]);
    let subscription = |more: Value| {
        let mut one = json!({"id": SUBSCRIPTION, "resourceGroups": group});
        one.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        state(json!({"subscriptions": [one], "identities": [{"name": "orders"}]}))
    };
    let put = |state: &mut State| ask(state, Method::PUT, &identities("/new"), json!({"location": "eastus"}));
    let mut unregistered = subscription(json!({"unregisteredProviders": ["microsoft.managedidentity"]}));
    let error = put(&mut unregistered).unwrap_err().envelope()["error"].clone();
    let message = "The subscription is not registered to use namespace 'Microsoft.ManagedIdentity'. See https://aka.ms/rps-not-found for how to register subscriptions.";
    assert_eq!((&error["code"], &error["message"]), (&json!("MissingSubscriptionRegistration"), &json!(message)));
    let detail = json!({"code": error["code"], "message": message, "target": "Microsoft.ManagedIdentity"});
    assert_eq!(error["details"], json!([detail]));
    let mut disabled = subscription(json!({"disabled": true}));
    let delete = ask(&mut disabled, Method::DELETE, &identities("/orders"), Value::Null);
    for error in [put(&mut disabled).unwrap_err(), delete.unwrap_err()] {
        assert_eq!((error.status, error.code.as_str()), (409, "ReadOnlyDisabledSubscription"));
    }
    assert!(ask(&mut disabled, Method::GET, &identities("/orders"), Value::Null).is_ok());
}

#[test]
fn a_deny_assignment_forbids_what_roles_allow() {
    let denied = json!({"name": "managed by an application", "id": "d1", "scope": identities("/orders")});
    let mut state = state(json!({"identities": [{"name": "orders"}], "denyAssignments": [denied]}));
    assert!(ask(&mut state, Method::GET, &identities("/orders"), Value::Null).is_ok());
    let error = ask(&mut state, Method::PUT, &credential("new"), trust("https://i", "s")).unwrap_err();
    assert_eq!((error.status, error.code.as_str()), (403, "DenyAssignmentAuthorizationFailed"));
    let end = format!(
        "however, the access is denied because of the deny assignment with name 'managed by an application' and Id 'd1' at scope '{}'.",
        identities("/orders")
    );
    assert!(error.message.ends_with(&end), "{}", error.message);
}

#[test]
fn a_policy_names_its_assignment_and_definition_and_can_be_wrapped() {
    let refused = |wrapped: bool| {
        let policy = json!({"name": "no", "scope": "/subscriptions/s/", "wrapped": wrapped});
        let policy = serde_json::from_value::<crate::state::DenyPolicy>(policy).unwrap();
        let mut state = state(json!({"identities": [{"name": "orders"}]}));
        state
            .deny_policies
            .push(crate::state::DenyPolicy { scope: format!("/subscriptions/{SUBSCRIPTION}"), ..policy });
        ask(&mut state, Method::PUT, &credential("new"), trust("https://i", "s")).unwrap_err()
    };
    let plain = refused(false);
    assert_eq!((plain.status, plain.code.as_str()), (403, "RequestDisallowedByPolicy"));
    let at = format!("/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Authorization");
    let message = format!(
        r#"Resource 'new' was disallowed by policy. Policy identifiers: '[{{"policyAssignment":{{"name":"no","id":"{at}/policyAssignments/no"}},"policyDefinition":{{"name":"no","id":"{at}/policyDefinitions/no"}}}}]'."#
    );
    assert_eq!(plain.message, message);
    let error = &plain.envelope()["error"];
    assert_eq!((&error["target"], &error["additionalInfo"][0]["type"]), (&json!("new"), &json!("PolicyViolation")));
    assert_eq!(error["additionalInfo"][0]["info"]["policyDefinitionEffect"], "deny");
    let wrapped = refused(true);
    assert_eq!((wrapped.status, wrapped.code.as_str()), (400, "ResourceValidationFailed"));
    assert_eq!(wrapped.envelope()["error"]["details"], json!([plain.as_detail()]));
}

#[test]
fn the_front_end_says_what_it_rejects_itself() {
    let mut state = state(json!({"identities": [{"name": "orders"}]}));
    let absent = ask(&mut state, Method::GET, &identities("/absent"), Value::Null).unwrap_err();
    let audience =
        ask(&mut state, Method::PUT, &credential("new"), json!({"properties": {"issuer": "i"}})).unwrap_err();
    assert_eq!((absent.front, audience.front), (true, false));
}
