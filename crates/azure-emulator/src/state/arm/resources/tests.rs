use axum::http::Method;
use serde_json::{Value, json};

use super::*;
use crate::state::ArmRights;
use crate::state::arm::fixtures::{GROUP, SUBSCRIPTION, TENANT, ask_as, caller, identities, orders, state};

fn ask(state: &mut State, rights: ArmRights, method: &Method, path: &str, body: &Value) -> Result<ArmAnswer, ArmError> {
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    ask_as(state, &caller(rights), method, path, "api-version=2022-09-01", &body)
}

fn get(state: &mut State, path: &str) -> Value {
    ask(state, ArmRights::All, &Method::GET, path, &Value::Null).unwrap().body.unwrap()
}

fn group(name: &str) -> String {
    format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/{name}")
}

#[track_caller]
fn refused(result: Result<ArmAnswer, ArmError>, status: u16, code: &str) -> ArmError {
    let error = result.unwrap_err();
    assert_eq!((error.status, error.code.as_str()), (status, code), "{}", error.message);
    error
}

#[test]
fn paths_of_other_types_are_left_to_them() {
    for path in [identities(""), identities("/orders"), "/providers/Microsoft.Management/managementGroups".to_owned()] {
        let segments: Vec<String> = path.trim_matches('/').split('/').map(str::to_owned).collect();
        assert_eq!(target(&segments), None, "{path}");
    }
}

#[test]
fn a_group_is_created_once_and_keeps_its_location() {
    let mut state = orders();
    let mut put =
        |location: &str| ask(&mut state, ArmRights::All, &Method::PUT, &group("new"), &json!({"location": location}));
    let created = put("West US").unwrap();
    assert_eq!((created.status, &created.body.unwrap()["location"]), (201, &json!("westus")));
    assert_eq!(put("westus").unwrap().status, 200);
    refused(put("eastus"), 409, "InvalidResourceGroupLocation");
    refused(put(""), 400, "LocationRequired");
    refused(put("mars"), 400, "LocationNotAvailableForResourceGroup");
    let listed = get(&mut state, &format!("/subscriptions/{SUBSCRIPTION}/resourcegroups"));
    let names: Vec<_> = listed["value"].as_array().unwrap().iter().map(|group| group["name"].clone()).collect();
    assert_eq!(names, ["new", GROUP]);
    assert_eq!(get(&mut state, &group("NEW"))["name"], "new");
}

#[test]
fn whether_a_group_exists_is_said_without_a_body() {
    let mut state = orders();
    let mut head = |name: &str| ask(&mut state, ArmRights::Read, &Method::HEAD, &group(name), &Value::Null);
    assert_eq!(head(GROUP).unwrap(), ArmAnswer { status: 204, ..ArmAnswer::default() });
    refused(head("absent"), 404, "ResourceGroupNotFound");
}

#[test]
fn a_deleted_group_takes_with_it_what_is_in_it() {
    let mut state = state(json!({
        "subscriptions": [{"id": SUBSCRIPTION, "resourceGroups": [{"name": GROUP}, {"name": "other"}]}],
        "identities": [{"name": "orders"}, {"id": identities("/kept").replace(GROUP, "other")}],
        "roleAssignments": [
            {"identity": "orders", "role": "Reader"},
            {"identity": "orders", "role": "Reader", "scope": group("other")},
        ],
    }));
    let answer = ask(&mut state, ArmRights::All, &Method::DELETE, &group(GROUP), &Value::Null).unwrap();
    assert_eq!((answer.status, answer.body), (202, None));
    let result = answer.location.unwrap();
    let path = result.strip_prefix("https://arm.test").unwrap().split('?').next().unwrap();
    assert_eq!(ask(&mut state, ArmRights::All, &Method::GET, path, &Value::Null).unwrap().status, 200);
    assert_eq!((state.identities.len(), state.role_assignments.len()), (1, 1));
    let again = ask(&mut state, ArmRights::All, &Method::DELETE, &group(GROUP), &Value::Null);
    refused(again, 404, "ResourceGroupNotFound");
}

#[test]
fn a_group_with_something_locked_in_it_is_not_deleted() {
    let mut state = state(json!({
        "identities": [{"name": "orders"}], "locks": [{"scope": identities("/orders")}],
    }));
    let answer = ask(&mut state, ArmRights::All, &Method::DELETE, &group(GROUP), &Value::Null);
    refused(answer, 409, "ScopeLocked");
    assert_eq!(state.identities.len(), 1);
    let path = format!("{}/providers/Microsoft.Authorization/locks", group(GROUP));
    let locks = ask_as(&mut state, &caller(ArmRights::Read), &Method::GET, &path, "api-version=2016-09-01", &[]);
    let locks = locks.unwrap().body.unwrap();
    assert_eq!(locks["value"][0]["properties"]["level"], "CanNotDelete");
}

#[test]
fn deny_assignments_are_listed_where_they_apply() {
    let denied = json!({"name": "managed", "scope": group(GROUP), "actions": ["*/delete"]});
    let mut state = state(json!({"denyAssignments": [denied]}));
    let mut count = |scope: &str| {
        let path = format!("{scope}/providers/Microsoft.Authorization/denyAssignments");
        let reader = caller(ArmRights::Read);
        let listed = ask_as(&mut state, &reader, &Method::GET, &path, "api-version=2022-04-01", &[]);
        listed.unwrap().body.unwrap()["value"].as_array().unwrap().len()
    };
    assert_eq!((count(&group(GROUP)), count(&format!("/subscriptions/{SUBSCRIPTION}"))), (1, 1));
}

#[test]
fn a_caller_sees_the_subscriptions_in_which_it_may_do_something() {
    let mut state = orders();
    let mut count = |rights| {
        let answer = ask(&mut state, rights, &Method::GET, "/subscriptions", &Value::Null).unwrap();
        answer.body.unwrap()["value"].as_array().unwrap().len()
    };
    assert_eq!((count(ArmRights::Read), count(ArmRights::None)), (1, 0));
    let granted = crate::state::arm::Caller {
        grants: state_with_reader().grants(PRINCIPAL, crate::state::arm::fixtures::now()),
        ..caller(ArmRights::None)
    };
    let listed = ask_as(&mut state, &granted, &Method::GET, "/subscriptions", "api-version=2022-12-01", &[]);
    assert_eq!(listed.unwrap().body.unwrap()["value"][0]["tenantId"], TENANT);
}

const PRINCIPAL: &str = "11111111-0000-4000-8000-000000000001";

fn state_with_reader() -> State {
    state(json!({
        "identities": [{"name": "orders", "principalId": PRINCIPAL}],
        "roleAssignments": [{"identity": "orders", "role": "Reader"}],
    }))
}

#[test]
fn tenants_and_a_single_subscription_are_shown() {
    let mut state = orders();
    assert_eq!(get(&mut state, "/tenants")["value"][0]["tenantId"], TENANT);
    let subscription = format!("/subscriptions/{SUBSCRIPTION}");
    assert_eq!(get(&mut state, &subscription)["state"], "Enabled");
    let none = ask(&mut state, ArmRights::None, &Method::GET, &subscription, &Value::Null);
    refused(none, 403, "AuthorizationFailed");
}

#[test]
fn a_registered_provider_accepts_identities() {
    let mut state = state(json!({
        "subscriptions": [{
            "id": SUBSCRIPTION,
            "resourceGroups": [{"name": GROUP}],
            "unregisteredProviders": ["Microsoft.ManagedIdentity"],
        }],
    }));
    let provider = format!("/subscriptions/{SUBSCRIPTION}/providers/microsoft.managedidentity");
    assert_eq!(get(&mut state, &provider)["registrationState"], "NotRegistered");
    let body = json!({"location": "eastus"}).to_string().into_bytes();
    let create = |state: &mut State| {
        let caller = caller(ArmRights::All);
        ask_as(state, &caller, &Method::PUT, &identities("/new"), "api-version=2024-11-30", &body)
    };
    refused(create(&mut state), 409, "MissingSubscriptionRegistration");
    let register = format!("{provider}/register");
    let registered = ask(&mut state, ArmRights::All, &Method::POST, &register, &Value::Null).unwrap();
    assert_eq!(registered.body.unwrap()["registrationState"], "Registering");
    assert_eq!(get(&mut state, &provider)["registrationState"], "Registered");
    assert_eq!(create(&mut state).unwrap().status, 201);
    let unknown = format!("/subscriptions/{SUBSCRIPTION}/providers/Contoso.Nothing");
    refused(ask(&mut state, ArmRights::All, &Method::GET, &unknown, &Value::Null), 404, "InvalidResourceNamespace");
}

#[test]
fn tags_of_an_identity_are_merged_replaced_and_deleted_by_name_or_by_value() {
    let mut state = state(json!({"identities": [{"name": "orders", "tags": {"a": "1", "b": "2", "c": "3"}}]}));
    let resource_tags = identities("/orders/providers/Microsoft.Resources/tags/default");
    let mut patch = |operation: &str, tags: Value| {
        let body = json!({"operation": operation, "properties": {"tags": tags}});
        let answer = ask(&mut state, ArmRights::All, &Method::PATCH, &resource_tags, &body).unwrap();
        answer.body.unwrap()["properties"]["tags"].clone()
    };
    assert_eq!(patch("Delete", json!({"A": "", "b": "other"})), json!({"b": "2", "c": "3"}));
    assert_eq!(patch("Merge", json!({"d": "4"})), json!({"b": "2", "c": "3", "d": "4"}));
    assert_eq!(patch("Replace", json!({"e": "5"})), json!({"e": "5"}));
    assert_eq!(get(&mut state, &resource_tags)["properties"]["tags"], json!({"e": "5"}));
    let group = format!("{}/providers/Microsoft.Resources/tags/default", group(GROUP));
    refused(ask(&mut state, ArmRights::All, &Method::GET, &group, &Value::Null), 400, "NotSupportedByEmulator");
}

#[test]
fn an_unknown_version_is_refused_with_those_that_there_are() {
    let mut state = orders();
    let answer =
        ask_as(&mut state, &caller(ArmRights::All), &Method::GET, &group(GROUP), "api-version=2023-01-31", &[]);
    let error = refused(answer, 400, "InvalidApiVersionParameter");
    assert!(error.front && error.message.starts_with("The api-version '2023-01-31' is invalid."), "{}", error.message);
}
