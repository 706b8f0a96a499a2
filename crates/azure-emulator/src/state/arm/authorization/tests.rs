use axum::http::Method;
use serde_json::{Value, json};

use super::super::{ArmAnswer, ArmError, Caller};
use crate::state::arm::fixtures::{GROUP, SUBSCRIPTION, ask_as, caller, identities, now, state};
use crate::state::{ArmRights, State};

const PRINCIPAL: &str = "11111111-0000-4000-8000-000000000001";
const BLOB_READER: &str = "2a2b9908-6ea1-4ae2-8e65-a410df84e7d1";
const READER: &str = "acdd72a7-3385-48ef-bd42-f606fba81ae7";
const CUSTOM: &str = "c0500000-0000-4000-8000-000000000001";
const ONE: &str = "a5500000-0000-4000-8000-000000000001";
const TWO: &str = "a5500000-0000-4000-8000-000000000002";

fn group() -> String {
    format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}")
}

fn account() -> String {
    format!("{}/providers/Microsoft.Storage/storageAccounts/data", group())
}

fn orders() -> State {
    state(json!({
        "identities": [{"name": "orders", "principalId": PRINCIPAL}],
        "roleDefinitions": [{
            "name": CUSTOM,
            "roleName": "Bob's role",
            "permissions": [{"actions": ["a/b/read"]}],
            "assignableScopes": [group()],
        }],
    }))
}

fn path(scope: &str, below: &str) -> String {
    format!("{}/providers/Microsoft.Authorization/{below}", scope.trim_end_matches('/'))
}

#[allow(clippy::needless_pass_by_value, reason = "tests pass literals")]
fn ask_by(state: &mut State, caller: &Caller, method: Method, path: &str, body: Value) -> Result<ArmAnswer, ArmError> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    ask_as(state, caller, &method, path, &format!("api-version=2022-04-01&{query}"), &body)
}

fn ask(state: &mut State, method: Method, path: &str, body: Value) -> Result<ArmAnswer, ArmError> {
    ask_by(state, &caller(ArmRights::All), method, path, body)
}

fn granting(role: &str) -> Value {
    json!({"properties": {
        "roleDefinitionId": format!("/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Authorization/roleDefinitions/{role}"),
        "principalId": PRINCIPAL,
        "principalType": "ServicePrincipal",
    }})
}

fn put(state: &mut State, scope: &str, name: &str, body: Value) -> Result<ArmAnswer, ArmError> {
    ask(state, Method::PUT, &path(scope, &format!("roleAssignments/{name}")), body)
}

fn names(state: &mut State, scope: &str, query: &str) -> Vec<String> {
    let answer = ask(state, Method::GET, &path(scope, &format!("roleAssignments?{query}")), Value::Null).unwrap();
    let list = answer.body.unwrap()["value"].as_array().unwrap().clone();
    list.iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
}

#[track_caller]
fn assert_error(result: Result<ArmAnswer, ArmError>, status: u16, code: &str, words: &str) {
    let error = result.unwrap_err();
    assert_eq!((error.status, error.code.as_str()), (status, code), "{}", error.message);
    assert!(error.message.contains(words), "{}", error.message);
}

#[test]
fn an_assignment_is_created_then_updated_then_deleted_then_absent() {
    let mut state = orders();
    let created = put(&mut state, &account(), ONE, granting(BLOB_READER)).unwrap();
    assert_eq!(created.status, 201);
    let body = created.body.unwrap();
    assert_eq!(body["id"], path(&account(), &format!("roleAssignments/{ONE}")));
    assert_eq!(body["properties"]["scope"], account());
    let mut described = granting(BLOB_READER);
    described["properties"]["description"] = json!("why");
    let updated = put(&mut state, &account().to_uppercase(), &ONE.to_uppercase(), described).unwrap();
    assert_eq!((updated.status, &updated.body.unwrap()["properties"]["description"]), (200, &json!("why")));
    let one = path(&account(), &format!("roleAssignments/{ONE}"));
    let deleted = ask(&mut state, Method::DELETE, &one, Value::Null).unwrap();
    assert_eq!((deleted.status, &deleted.body.unwrap()["name"]), (200, &json!(ONE)));
    assert_eq!(ask(&mut state, Method::DELETE, &one, Value::Null).unwrap(), ArmAnswer::deleted(false));
    assert_error(ask(&mut state, Method::GET, &one, Value::Null), 404, "RoleAssignmentNotFound", ONE);
}

#[test]
fn the_same_assignment_with_another_name_is_rejected() {
    let mut state = orders();
    put(&mut state, &account(), ONE, granting(BLOB_READER)).unwrap();
    let words =
        "The role assignment already exists. The ID of the existing role assignment is a550000000004000800000000000";
    assert_error(put(&mut state, &account(), TWO, granting(BLOB_READER)), 409, "RoleAssignmentExists", words);
    assert!(
        put(&mut state, &group(), TWO, granting(BLOB_READER)).is_ok(),
        "at another scope it is a different assignment"
    );
}

#[test]
fn a_name_is_unique_in_the_tenant() {
    let mut state = orders();
    put(&mut state, &account(), ONE, granting(BLOB_READER)).unwrap();
    let words = "Tenant ID, application ID, principal ID, and scope are not allowed to be updated.";
    for (scope, role) in [(group(), BLOB_READER), (account(), READER)] {
        assert_error(put(&mut state, &scope, ONE, granting(role)), 400, "RoleAssignmentUpdateNotPermitted", words);
    }
}

#[test]
fn a_name_must_be_a_guid() {
    for name in ["mine", "a5500000000040008000000000000001"] {
        let words = format!("The role assignment ID '{name}' is not valid. The role assignment ID must be a GUID.");
        assert_error(put(&mut orders(), &group(), name, granting(READER)), 400, "InvalidRoleAssignmentId", &words);
    }
}

#[test]
fn a_role_that_is_missing_or_not_assignable_here_does_not_exist() {
    let words = "The specified role definition with ID '2a2b99086ea14ae28e65a410df84e7d2' does not exist.";
    let unknown = "2a2b9908-6ea1-4ae2-8e65-a410df84e7d2";
    assert_error(put(&mut orders(), &group(), ONE, granting(unknown)), 400, "RoleDefinitionDoesNotExist", words);
    assert!(put(&mut orders(), &account(), ONE, granting(CUSTOM)).is_ok());
    let subscription = format!("/subscriptions/{SUBSCRIPTION}");
    assert_error(put(&mut orders(), &subscription, ONE, granting(CUSTOM)), 400, "RoleDefinitionDoesNotExist", "");
}

#[test]
fn a_principal_that_the_directory_does_not_know_yet_is_rejected() {
    let identity = |created: &str| json!([{"name": "orders", "principalId": PRINCIPAL, "createdAt": created}]);
    let mut fresh = state(json!({"identities": identity(&now().to_string()), "principalReplicationSeconds": 30}));
    let words = "Principal 11111111000040008000000000000001 does not exist in the directory 7e000000-0000-4000-8000-000000000001.";
    assert_error(put(&mut fresh, &group(), ONE, granting(READER)), 400, "PrincipalNotFound", words);
    let mut known = state(json!({"identities": identity("2020-01-01T00:00:00Z"), "principalReplicationSeconds": 30}));
    assert!(put(&mut known, &group(), ONE, granting(READER)).is_ok());
    assert_error(put(&mut state(json!({})), &group(), ONE, granting(READER)), 400, "PrincipalNotFound", words);
}

#[test]
fn a_managed_identity_is_not_a_user() {
    let mut body = granting(READER);
    body["properties"]["principalType"] = json!("User");
    assert_error(put(&mut orders(), &group(), ONE, body), 400, "UnmatchedPrincipalType", "has type 'ServicePrincipal'");
}

#[test]
fn a_subscription_has_a_limit_on_assignments() {
    let mut state = state(json!({
        "identities": [{"name": "orders", "principalId": PRINCIPAL}],
        "roleAssignments": [{"role": "Reader", "identity": "orders"}],
        "roleAssignmentLimit": 1,
    }));
    assert_error(
        put(&mut state, &account(), ONE, granting(READER)),
        400,
        "RoleAssignmentLimitExceeded",
        "No more role assignments can be created",
    );
    assert!(put(&mut state, "/", ONE, granting(READER)).is_ok(), "the root is in no subscription");
}

#[test]
fn a_list_has_the_assignments_that_apply_at_the_scope_and_those_below() {
    let mut state = state(json!({
        "identities": [{"name": "orders", "principalId": PRINCIPAL}, {"name": "billing"}],
        "roleAssignments": [
            {"role": "Reader", "identity": "orders", "name": "a0000000-0000-4000-8000-000000000001", "scope": "/"},
            {"role": "Reader", "identity": "orders", "name": "a0000000-0000-4000-8000-000000000002", "scope": group()},
            {"role": "Reader", "identity": "orders", "name": "a0000000-0000-4000-8000-000000000003", "scope": account()},
            {"role": "Reader", "identity": "billing", "name": "a0000000-0000-4000-8000-000000000004", "scope": account()},
            {"role": "Reader", "identity": "orders", "name": "a0000000-0000-4000-8000-000000000005",
             "scope": "/providers/Microsoft.Management/managementGroups/top"},
        ],
    }));
    let mut last = |scope: &str, filter: &str| {
        let names = names(&mut state, scope, &format!("$filter={filter}"));
        names.iter().map(|name| name[35..].to_owned()).collect::<String>()
    };
    assert_eq!(last(&group(), ""), "1234");
    assert_eq!(last(&group(), "atScope()"), "12");
    assert_eq!(last(&group(), &format!("principalId+eq+'{PRINCIPAL}'")), "123");
    assert_eq!(last(&group(), &format!("atScope()+and+assignedTo('{}')", PRINCIPAL.to_uppercase())), "12");
    assert_eq!(last(&account(), ""), "1234");
    assert_eq!(last("/", ""), "12345");
}

#[test]
fn an_invalid_filter_is_rejected() {
    for filter in ["x", "principalId", "principalId+eq+1", "roleName+eq+'Reader'", "assignedTo(1)", "assignedTo('1"] {
        let at = path(&group(), &format!("roleAssignments?$filter={filter}"));
        assert_error(ask(&mut orders(), Method::GET, &at, Value::Null), 400, "UnsupportedQuery", "");
    }
}

#[test]
fn pages_of_assignments_keep_the_filter() {
    let mut state = state(json!({
        "identities": [{"name": "orders", "principalId": PRINCIPAL}, {"name": "billing"}],
        "roleAssignments": [
            {"role": "Reader", "identity": "orders"},
            {"role": "AcrPull", "identity": "orders"},
            {"role": "Reader", "identity": "billing"},
            {"role": "Owner", "identity": "orders"},
        ],
        "roleAssignmentPageSize": 2,
    }));
    let mut at = path(&group(), &format!("roleAssignments?$filter=principalId+eq+'{PRINCIPAL}'"));
    let mut seen = 0;
    loop {
        let page = ask(&mut state, Method::GET, &at, Value::Null).unwrap().body.unwrap();
        seen += page["value"].as_array().unwrap().len();
        let Some(next) = page["nextLink"].as_str() else { break };
        at = next.strip_prefix("https://arm.test").unwrap().to_owned();
    }
    assert_eq!(seen, 3);
}

#[test]
fn a_role_is_found_by_name_and_by_guid() {
    let found = |at: &str| {
        let body = ask(&mut orders(), Method::GET, &path(&account(), at), Value::Null).unwrap().body.unwrap();
        body["value"].as_array().cloned().unwrap_or_else(|| vec![body])
    };
    for at in
        ["roleDefinitions?$filter=roleName+eq+'storage blob data reader'", &format!("roleDefinitions/{BLOB_READER}")]
    {
        let [role] = &found(at)[..] else { panic!("{at}") };
        assert_eq!(role["name"], BLOB_READER);
        let id =
            format!("/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Authorization/roleDefinitions/{BLOB_READER}");
        assert_eq!(role["id"], id);
        assert!(role["properties"]["permissions"][0]["dataActions"][0].as_str().unwrap().ends_with("/blobs/read"));
    }
    assert_eq!(found("roleDefinitions?$filter=roleName+eq+'Bob''s+role'")[0]["name"], CUSTOM);
    assert!(found("roleDefinitions?$filter=roleName+eq+'nobody'").is_empty());
    assert_eq!(found("roleDefinitions?$filter=type+eq+'CustomRole'").len(), 1);
}

#[test]
fn a_custom_role_is_found_only_where_it_is_assignable() {
    let subscription = format!("/subscriptions/{SUBSCRIPTION}");
    let at = path(&subscription, &format!("roleDefinitions/{CUSTOM}"));
    assert_error(ask(&mut orders(), Method::GET, &at, Value::Null), 404, "RoleDefinitionDoesNotExist", CUSTOM);
}

#[test]
fn assignments_of_a_deleted_identity_remain() {
    let mut state = orders();
    put(&mut state, &account(), ONE, granting(BLOB_READER)).unwrap();
    put(&mut state, &identities("/orders"), TWO, granting(READER)).unwrap();
    crate::state::arm::fixtures::ask(&mut state, Method::DELETE, &identities("/orders"), Value::Null).unwrap();
    assert_eq!(names(&mut state, &group(), ""), [ONE], "assignments at the identity itself are deleted with it");
}

#[test]
fn missing_scopes_are_rejected() {
    for (scope, code) in [
        (group().replace(GROUP, "absent"), "ResourceGroupNotFound"),
        (identities("/absent"), "ResourceNotFound"),
        (format!("{}/..", group()), "InvalidScope"),
        (format!("{}/providers/Microsoft.Storage/storageAccounts", group()), "InvalidScope"),
        (group().replace(SUBSCRIPTION, "50b00000-0000-4000-8000-000000000002"), "SubscriptionNotFound"),
    ] {
        assert_eq!(put(&mut orders(), &scope, ONE, granting(READER)).unwrap_err().code, code, "{scope}");
    }
}

#[test]
fn rights_are_required() {
    let nobody = caller(ArmRights::None);
    let at = path(&group(), &format!("roleAssignments/{ONE}"));
    let words = "does not have authorization or an ABAC condition not fulfilled to perform action 'Microsoft.Authorization/roleAssignments/write' over scope";
    assert_error(ask_by(&mut orders(), &nobody, Method::PUT, &at, granting(READER)), 403, "AuthorizationFailed", words);
    let reads = caller(ArmRights::Read);
    assert!(ask_by(&mut orders(), &reads, Method::GET, &path(&group(), "roleAssignments"), Value::Null).is_ok());
    assert_error(ask_by(&mut orders(), &reads, Method::DELETE, &at, Value::Null), 403, "AuthorizationFailed", "");
}

#[test]
fn a_role_assignment_grants_rights_in_arm_too() {
    let mut state = orders();
    put(&mut state, &group(), ONE, granting(READER)).unwrap();
    let reader = Caller { grants: state.grants(PRINCIPAL, now()), ..caller(ArmRights::None) };
    let query = "api-version=2024-11-30";
    let mut get = |path: &str, method: &Method| ask_as(&mut state, &reader, method, path, query, b"").map(|_| ());
    assert_eq!(get(&identities("/orders"), &Method::GET), Ok(()));
    assert_eq!(get(&identities("/orders"), &Method::DELETE).unwrap_err().code, "AuthorizationFailed");
    let elsewhere = identities("").split("/resourceGroups").next().unwrap().to_owned();
    let list = format!("{elsewhere}/providers/Microsoft.ManagedIdentity/userAssignedIdentities");
    assert_eq!(get(&list, &Method::GET).unwrap_err().code, "AuthorizationFailed");
}

#[test]
fn other_types_and_versions_are_rejected() {
    let at = path(&group(), "policyAssignments");
    assert_error(ask(&mut orders(), Method::GET, &at, Value::Null), 404, "InvalidResourceType", "'policyAssignments'");
    let query = "api-version=2024-11-30";
    let result =
        ask_as(&mut orders(), &caller(ArmRights::All), &Method::GET, &path(&group(), "roleAssignments"), query, b"");
    assert_error(result, 400, "InvalidApiVersionParameter", "2022-04-01");
}
