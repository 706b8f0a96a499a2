//! Reads that lag behind writes.
#![allow(clippy::needless_pass_by_value, reason = "tests pass literals")]

use axum::http::Method;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::fixtures::{GROUP, SUBSCRIPTION, caller, credential, identities, now, orders, state, trust};
use super::{ArmAnswer, ArmError, ArmRequest};
use crate::state::{ArmRights, ReadSettings, Staleness, State};

const ROLE: &str = "c0500000-0000-4000-8000-000000000001";
const ASSIGNMENT: &str = "a5500000-0000-4000-8000-000000000001";
const PRINCIPAL: &str = "11111111-0000-4000-8000-000000000001";

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(now().as_second() + seconds).unwrap()
}

fn ask(
    state: &mut State,
    seconds: i64,
    staleness: Option<Staleness>,
    method: Method,
    path: &str,
    body: &Value,
) -> Result<ArmAnswer, ArmError> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let version = if path.contains("Authorization") { "2022-04-01" } else { "2024-11-30" };
    let query = format!("api-version={version}&{query}");
    let caller = caller(ArmRights::All);
    let body = body.to_string().into_bytes();
    let request = ArmRequest { method: &method, path, query: &query, body: &body, caller: &caller };
    let operation = super::plan(state, &request)?.with_staleness(staleness);
    super::apply(state, operation, "https://arm.test", at(seconds))
}

fn write(state: &mut State, seconds: i64, method: Method, path: &str, body: &Value) -> u16 {
    ask(state, seconds, None, method, path, body).map_or_else(|error| error.status, |answer| answer.status)
}

/// The status of a GET that lags by some seconds.
fn status(state: &mut State, seconds: i64, lag: u32, path: &str) -> u16 {
    let staleness = Some(Staleness::Seconds(lag));
    let answer = ask(state, seconds, staleness, Method::GET, path, &Value::Null);
    answer.map_or_else(|error| error.status, |answer| answer.status)
}

/// The names in a LIST that lags by some seconds.
fn names(state: &mut State, seconds: i64, lag: u32, path: &str) -> Vec<String> {
    let answer = ask(state, seconds, Some(Staleness::Seconds(lag)), Method::GET, path, &Value::Null);
    let list = answer.unwrap().body.unwrap()["value"].as_array().unwrap().clone();
    list.iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
}

fn group(below: &str) -> String {
    format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.Authorization/{below}")
}

#[test]
fn a_read_after_create_is_404_within_the_lag_and_found_after_it() {
    let mut state = orders();
    let (billing, new) = (identities("/billing"), credential("new"));
    assert_eq!(write(&mut state, 0, Method::PUT, &billing, &json!({"location": "eastus"})), 201);
    assert_eq!(write(&mut state, 0, Method::PUT, &new, &trust("https://i", "s")), 201);
    for path in [&billing, &new] {
        let found =
            [(0, 30), (29, 30), (30, 30), (29, 29), (0, 0)].map(|(time, lag)| status(&mut state, time, lag, path));
        assert_eq!(found, [404, 404, 200, 200, 200], "{path}");
    }
    let error = ask(&mut state, 5, Some(Staleness::Seconds(30)), Method::GET, &new, &Value::Null).unwrap_err();
    assert_eq!(error.code, "ResourceNotFound");
    let below = identities("/billing/federatedIdentityCredentials");
    let error = ask(&mut state, 5, Some(Staleness::Seconds(30)), Method::GET, &below, &Value::Null).unwrap_err();
    assert_eq!(error.message, "The parent user-assigned identity doesn't exist.");
}

#[test]
fn a_list_misses_what_is_new_and_shows_what_was_deleted_or_changed() {
    let mut state = orders();
    let list = identities("/orders/federatedIdentityCredentials");
    write(&mut state, -100, Method::PUT, &credential("old"), &trust("https://i", "old"));
    write(&mut state, -100, Method::PUT, &credential("changed"), &trust("https://i", "before"));
    write(&mut state, 0, Method::DELETE, &credential("old"), &Value::Null);
    write(&mut state, 1, Method::PUT, &credential("changed"), &trust("https://i", "after"));
    write(&mut state, 2, Method::PUT, &credential("new"), &trust("https://i", "new"));
    assert_eq!(names(&mut state, 3, 5, &list), ["changed", "old"]);
    assert_eq!(names(&mut state, 3, 3, &list), ["changed"]);
    assert_eq!(names(&mut state, 3, 1, &list), ["changed", "new"]);
    let subject = |lag, state: &mut State| {
        let answer = ask(state, 3, Some(Staleness::Seconds(lag)), Method::GET, &credential("changed"), &Value::Null);
        answer.unwrap().body.unwrap()["properties"]["subject"].clone()
    };
    assert_eq!((subject(3, &mut state), subject(2, &mut state)), (json!("before"), json!("after")));
}

#[test]
fn a_list_of_identities_shows_the_state_of_its_time_in_order_and_in_pages() {
    let mut state = state(json!({"identities": [{"name": "aaa"}, {"name": "ccc"}], "identityPageSize": 1}));
    write(&mut state, 0, Method::DELETE, &identities("/aaa"), &Value::Null);
    write(&mut state, 0, Method::PUT, &identities("/bbb"), &json!({"location": "eastus"}));
    let mut pages = |lag| {
        let mut path = identities("");
        let mut seen = Vec::new();
        loop {
            let staleness = Some(Staleness::Seconds(lag));
            let page = ask(&mut state, 0, staleness, Method::GET, &path, &Value::Null).unwrap().body.unwrap();
            seen.push(page["value"][0]["name"].as_str().unwrap().to_owned());
            let Some(next) = page["nextLink"].as_str() else { return seen };
            path = next.strip_prefix("https://arm.test").unwrap().replace("api-version=2024-11-30&", "");
        }
    };
    assert_eq!(pages(10), ["aaa", "ccc"]);
    assert_eq!(pages(0), ["bbb", "ccc"]);
}

#[test]
fn writes_and_their_checks_use_the_present_state() {
    let mut state = state(json!({"identities": [{"name": "orders"}], "readLagSeconds": 300, "readReplicas": 1}));
    assert_eq!(write(&mut state, 0, Method::PUT, &credential("one"), &trust("https://i", "s")), 201);
    assert_eq!(write(&mut state, 0, Method::PUT, &credential("one"), &trust("https://i", "s")), 200);
    assert_eq!(write(&mut state, 0, Method::PUT, &credential("two"), &trust("https://i", "s")), 409, "a twin");
    assert_eq!(write(&mut state, 0, Method::GET, &credential("one"), &Value::Null), 404, "a read lags");
    assert_eq!(write(&mut state, 0, Method::DELETE, &credential("one"), &Value::Null), 200);
    let earlier = Some(Staleness::Seconds(60));
    let again = ask(&mut state, 0, earlier, Method::DELETE, &credential("one"), &Value::Null).unwrap();
    assert_eq!(again.status, 204, "a rule about reads does not change a write");
    assert!(state.identities.values().all(|identity| identity.credentials.is_empty()));
}

#[test]
fn successive_reads_go_back_and_forth_and_the_same_seed_repeats_them() {
    let seen = |seed: u64| {
        let mut state = state(json!({"identities": [{"name": "orders"}], "readLagSeconds": 30, "readSeed": seed}));
        write(&mut state, 0, Method::PUT, &credential("new"), &trust("https://i", "s"));
        let found: Vec<bool> =
            (0..40).map(|_| write(&mut state, 15, Method::GET, &credential("new"), &Value::Null) == 200).collect();
        assert_eq!(write(&mut state, 30, Method::GET, &credential("new"), &Value::Null), 200, "after the lag");
        found
    };
    let found = seen(1);
    assert!(found.windows(2).any(|pair| pair == [true, false]), "{found:?}");
    assert!(found.windows(2).any(|pair| pair == [false, true]), "{found:?}");
    assert_eq!(found, seen(1));
    assert_ne!(found, seen(2));
}

#[test]
fn roles_and_assignments_flap() {
    let role = json!({"name": ROLE, "roleName": "Mine", "permissions": [{"actions": ["*"]}]});
    let mut state = state(json!({"identities": [{"name": "orders", "principalId": PRINCIPAL}]}));
    let documents = serde_json::from_value(json!([role])).unwrap();
    for (name, role) in crate::state::roles::read_definitions(documents).unwrap() {
        state.role_definitions.insert(name, role);
    }
    let (by_id, assignment) =
        (group(&format!("roleDefinitions/{ROLE}")), group(&format!("roleAssignments/{ASSIGNMENT}")));
    let definition = format!("/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Authorization/roleDefinitions/{ROLE}");
    let body = json!({"properties": {"roleDefinitionId": definition, "principalId": PRINCIPAL}});
    assert_eq!(write(&mut state, 0, Method::PUT, &assignment, &body), 201, "a write knows the role at once");
    let by_name = group("roleDefinitions?$filter=roleName+eq+'Mine'");
    for (lag, found) in [(60, false), (0, true), (45, false), (5, true)] {
        let status = [&by_id, &assignment].map(|path| status(&mut state, 30, lag, path));
        assert_eq!(status, if found { [200, 200] } else { [404, 404] }, "{lag}");
        let listed =
            names(&mut state, 30, lag, &by_name).len() + names(&mut state, 30, lag, &group("roleAssignments")).len();
        assert_eq!(listed, if found { 2 } else { 0 }, "{lag}");
    }
}

#[test]
fn what_a_document_or_a_test_sets_up_is_old() {
    let lagging = ReadSettings { lag_seconds: 600, replicas: 1, seed: 0 };
    let mut state = state(json!({"identities": [{"name": "orders"}]}));
    state.settings.reads = lagging;
    assert_eq!(write(&mut state, 0, Method::GET, &identities("/orders"), &Value::Null), 200);
    let orders = state.identities.values().next().unwrap().clone();
    let copy = crate::state::Identity {
        id: crate::state::IdentityId { name: "copy".to_owned(), ..orders.id.clone() },
        ..orders
    };
    state.identities.insert(copy.id.key(), copy);
    assert_eq!(write(&mut state, 0, Method::GET, &identities("/copy"), &Value::Null), 404);
    state.forget_the_past();
    assert_eq!(write(&mut state, 0, Method::GET, &identities("/copy"), &Value::Null), 200);
}
