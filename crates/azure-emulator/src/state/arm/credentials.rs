//! Federated identity credentials.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::credential_body::{CredentialBody, Matching};
use super::paging::Page;
use super::{ArmAnswer, ArmError, governance};
use crate::state::model::{Credential, Identity, IdentityId, State};
use crate::state::reads::View;

const TYPE: &str = "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials";
const MAX_CREDENTIALS: usize = 20;
pub(super) fn check_put(
    state: &State,
    id: &IdentityId,
    name: &str,
    body: &CredentialBody,
    now: Timestamp,
) -> Result<(), ArmError> {
    governance::allow_write(state, &resource(id, name), TYPE)?;
    let identity = parent(state, id)?;
    if state.settings.regions_without_credentials.contains(&identity.location) {
        return Err(ArmError::new(
            405,
            "MethodNotAllowed",
            "The request format was unexpected: Support for federated identity credentials not enabled.",
        ));
    }
    state.check_graph_knows(identity, now)?;
    let key = name.to_lowercase();
    let others = || entries(identity).into_iter().filter(|(other, _)| **other != key);
    if body.subject().is_some_and(|subject| others().any(|(_, entry)| entry.trusts(&body.issuer, subject))) {
        let message = "Issuer and subject combination already exists for this Managed Identity.";
        return Err(ArmError::new(409, "Conflict", message));
    }
    if others().count() >= MAX_CREDENTIALS {
        return Err(ArmError::bad_request(format!(
            "Too many Federated Identity Credentials: a managed identity can have at most {MAX_CREDENTIALS} Federated Identity Credentials."
        )));
    }
    Ok(())
}

pub(super) fn check_delete(state: &State, id: &IdentityId, name: &str) -> Result<(), ArmError> {
    governance::allow_delete(state, &resource(id, name))?;
    parent(state, id).map(|_| ())
}

pub(super) fn put(
    state: &mut State,
    id: &IdentityId,
    name: &str,
    body: CredentialBody,
    now: Timestamp,
) -> Result<ArmAnswer, ArmError> {
    let identity = state.identities.get_mut(&id.key()).ok_or_else(ArmError::parent_not_found)?;
    let key = name.to_lowercase();
    // The name keeps its first spelling.
    let name = identity.credentials.get(&key).map_or_else(|| name.to_owned(), |there| there.name.clone());
    let replaced = take_entry(identity, &key);
    let CredentialBody { issuer, audience, matching } = body;
    let audiences = vec![audience];
    let shown_name = name.clone();
    let shown = match matching {
        Matching::Subject(subject) => {
            let credential = Credential { name, issuer, subject, audiences, written_at: now };
            let shown = show(&identity.id, &credential);
            identity.credentials.insert(key, credential);
            shown
        }
        Matching::Expression(expression) => {
            let properties = json!({"issuer": issuer, "audiences": audiences, "claimsMatchingExpression": expression});
            let shown = entry(&identity.id, &name, properties);
            identity.raw_credentials.insert(key, shown.clone());
            shown
        }
    };
    Ok(if replaced { ArmAnswer::ok(shown) } else { ArmAnswer::created_at(resource(id, &shown_name), shown) })
}

pub(super) fn get(view: View<'_>, id: &IdentityId, name: &str) -> Result<Value, ArmError> {
    let identity = view.identity(&id.key()).ok_or_else(ArmError::parent_not_found)?;
    let found = entries(identity).remove(&name.to_lowercase());
    found.map(|entry| entry.show(&identity.id)).ok_or_else(|| ArmError::credential_not_found(id, name))
}

pub(super) fn delete(state: &mut State, id: &IdentityId, name: &str) -> Result<ArmAnswer, ArmError> {
    let identity = state.identities.get_mut(&id.key()).ok_or_else(ArmError::parent_not_found)?;
    let key = name.to_lowercase();
    // If it is created again, Entra learns of it.
    identity.entra.unlearned.remove(&key);
    Ok(ArmAnswer::deleted(take_entry(identity, &key)))
}

pub(super) fn list(view: View<'_>, id: &IdentityId, page: &Page) -> Result<(Vec<Value>, Option<String>), ArmError> {
    let identity = view.identity(&id.key()).ok_or_else(ArmError::parent_not_found)?;
    let size = view.state.settings.credential_page_size;
    Ok(page.cut(entries(identity).into_iter(), size, |entry| entry.show(&identity.id)))
}

fn parent<'a>(state: &'a State, id: &IdentityId) -> Result<&'a Identity, ArmError> {
    state.identities.get(&id.key()).ok_or_else(ArmError::parent_not_found)
}

fn resource(id: &IdentityId, name: &str) -> String {
    format!("{}/federatedIdentityCredentials/{name}", id.in_answers())
}

fn show(id: &IdentityId, credential: &Credential) -> Value {
    let Credential { name, issuer, subject, audiences, .. } = credential;
    entry(id, name, json!({"issuer": issuer, "subject": subject, "audiences": audiences}))
}

#[expect(clippy::needless_pass_by_value, reason = "the value becomes a part of the entry")]
fn entry(id: &IdentityId, name: &str, properties: Value) -> Value {
    json!({"id": resource(id, name), "name": name, "type": TYPE, "properties": properties})
}

/// A credential of either kind.
enum Entry<'a> {
    Credential(&'a Credential),
    Raw(&'a Value),
}

impl Entry<'_> {
    fn show(&self, id: &IdentityId) -> Value {
        match self {
            Self::Credential(credential) => show(id, credential),
            Self::Raw(value) => (*value).clone(),
        }
    }

    fn trusts(&self, issuer: &str, subject: &str) -> bool {
        match self {
            Self::Credential(credential) => credential.issuer == issuer && credential.subject == subject,
            Self::Raw(value) => {
                let properties = &value["properties"];
                properties["issuer"] == issuer && properties["subject"] == subject
            }
        }
    }
}

/// All credentials by name.
fn entries(identity: &Identity) -> BTreeMap<&String, Entry<'_>> {
    let credentials = identity.credentials.iter().map(|(key, credential)| (key, Entry::Credential(credential)));
    let raw = identity.raw_credentials.iter().map(|(key, value)| (key, Entry::Raw(value)));
    credentials.chain(raw).collect()
}

/// Removes the credential with this name in lower case; whether there was one.
fn take_entry(identity: &mut Identity, key: &str) -> bool {
    let (credential, raw) = (identity.credentials.remove(key), identity.raw_credentials.remove(key));
    credential.is_some() || raw.is_some()
}

#[cfg(test)]
mod tests {
    use axum::http::Method;

    use super::*;
    use crate::state::arm::fixtures::{ask, credential, identities, orders, state, trust};

    fn put(state: &mut State, name: &str, body: Value) -> Result<ArmAnswer, ArmError> {
        ask(state, Method::PUT, &credential(name), body)
    }

    fn refused(body: Value, message: &str) {
        let error = put(&mut orders(), "new", body).unwrap_err();
        assert_eq!((error.status, error.code.as_str()), (400, "BadRequest"));
        assert!(error.message.contains(message), "{}", error.message);
    }

    fn with(property: &str, value: Value) -> Value {
        let mut body = trust("https://i", "s");
        body["properties"][property] = value;
        body
    }

    #[test]
    fn a_credential_is_created_then_updated_then_deleted_then_absent() {
        let mut state = orders();
        assert_eq!(put(&mut state, "New", trust("https://i", "s")).unwrap().status, 201);
        let updated = put(&mut state, "new", trust("https://i", "t")).unwrap();
        assert_eq!(
            (updated.status, &updated.body.unwrap()["name"]),
            (200, &json!("New")),
            "the name keeps its spelling"
        );
        let mut delete = || ask(&mut state, Method::DELETE, &credential("NEW"), Value::Null).unwrap();
        assert_eq!(delete(), ArmAnswer::deleted(true));
        assert_eq!(delete(), ArmAnswer::deleted(false));
        let error = ask(&mut state, Method::GET, &credential("new"), Value::Null).unwrap_err();
        assert_eq!((error.status, error.code.as_str()), (404, "ResourceNotFound"));
    }

    #[test]
    fn a_write_is_recorded_with_its_time() {
        let mut state = orders();
        put(&mut state, "new", trust("https://i", "s")).unwrap();
        let identity = state.identities.values().next().unwrap();
        assert_eq!(identity.credentials["new"].written_at, crate::state::arm::fixtures::now());
    }

    #[test]
    fn anything_but_one_audience_is_rejected() {
        for audiences in [json!([]), json!(["a", "b"]), Value::Null] {
            refused(with("audiences", audiences), "Federated identity credentials must have exactly one audience.");
        }
    }

    #[test]
    fn empty_properties_are_rejected() {
        let empty = "Federated Identity Credential from HTTP body has empty properties";
        refused(json!({}), empty);
        refused(json!({"properties": null}), empty);
        refused(json!({"properties": {"other": 1}}), empty);
        let incomplete = "The request format was unexpected. Federated Identity Credential must specify 'issuer', 'subject' and 'audience'.";
        for property in ["issuer", "subject"] {
            refused(with(property, Value::Null), incomplete);
            refused(with(property, json!("")), incomplete);
        }
        refused(with("audiences", json!([" "])), incomplete);
    }

    #[test]
    fn more_than_600_characters_are_rejected() {
        let [fits, long] = [600, 601].map(|length| "ü".repeat(length));
        for property in ["issuer", "subject"] {
            assert!(put(&mut orders(), "new", with(property, json!(fits))).is_ok());
            refused(with(property, json!(long)), property);
        }
        refused(with("audiences", json!([long])), "audience");
    }

    #[test]
    fn an_invalid_name_is_rejected() {
        for name in ["ab", "-abc", "a.b"] {
            let error = put(&mut orders(), name, trust("https://i", "s")).unwrap_err();
            assert_eq!(error.message, format!("Federated Identity Credential name '{name}' is invalid."));
        }
    }

    #[test]
    fn a_second_credential_with_the_same_issuer_and_subject_is_rejected() {
        let mut state = orders();
        put(&mut state, "one", trust("https://i", "s")).unwrap();
        let error = put(&mut state, "two", trust("https://i", "s")).unwrap_err();
        assert_eq!((error.status, error.code.as_str()), (409, "Conflict"));
        assert!(put(&mut state, "one", trust("https://i", "s")).is_ok(), "the same one again");
        assert!(put(&mut state, "two", trust("https://I", "s")).is_ok(), "compared exactly");
    }

    #[test]
    fn a_21st_credential_is_rejected_but_an_update_of_the_20th_is_not() {
        let mut state = orders();
        for number in 0..20 {
            put(&mut state, &format!("fic-{number}"), trust("https://i", &number.to_string())).unwrap();
        }
        let error = put(&mut state, "one-more", trust("https://i", "one-more")).unwrap_err();
        assert_eq!(error.status, 400);
        assert!(error.message.contains("at most 20"));
        assert!(put(&mut state, "fic-19", trust("https://i", "another")).is_ok());
    }

    const PREVIEWS: [&str; 2] = ["2025-01-31-preview", "2025-05-31-preview"];

    fn flexible() -> Value {
        let expression = json!({"value": "claims['sub'] matches 'a:*'", "languageVersion": 1});
        json!({"issuer": "https://i", "audiences": ["a"], "claimsMatchingExpression": expression})
    }

    fn put_in(state: &mut State, version: &str, properties: &Value) -> Result<ArmAnswer, ArmError> {
        let body = json!({"properties": properties}).to_string().into_bytes();
        let query = format!("api-version={version}");
        let caller = crate::state::arm::fixtures::caller(crate::state::ArmRights::All);
        crate::state::arm::fixtures::ask_as(state, &caller, &Method::PUT, &credential("flex"), &query, &body)
    }

    #[test]
    fn a_flexible_credential_is_returned_without_a_subject_in_every_version() {
        for version in PREVIEWS {
            let mut state = orders();
            let created = put_in(&mut state, version, &flexible()).unwrap();
            assert_eq!((created.status, &created.body.unwrap()["properties"]), (201, &flexible()));
            let read = ask(&mut state, Method::GET, &credential("FLEX"), Value::Null).unwrap();
            assert_eq!(read.body.unwrap()["properties"], flexible());
            assert_eq!(put(&mut state, "flex", trust("https://i", "s")).unwrap().status, 200, "it can be replaced");
            let read = ask(&mut state, Method::GET, &credential("flex"), Value::Null).unwrap();
            assert_eq!(read.body.unwrap()["properties"]["subject"], "s");
            assert_eq!(put_in(&mut state, version, &flexible()).unwrap().status, 200, "in both directions");
            assert_eq!(ask(&mut state, Method::DELETE, &credential("flex"), Value::Null).unwrap().status, 200);
            assert_eq!(ask(&mut state, Method::DELETE, &credential("flex"), Value::Null).unwrap().status, 204);
        }
    }

    #[test]
    fn a_flexible_credential_needs_a_version_that_has_it_and_no_subject() {
        for version in ["2024-11-30", "2026-05-31", "2023-07-31-preview"] {
            let error = put_in(&mut orders(), version, &flexible()).unwrap_err();
            assert!(error.message.contains("must specify 'issuer', 'subject' and 'audience'"), "{version}");
        }
        let both = with("claimsMatchingExpression", flexible()["claimsMatchingExpression"].clone());
        let error = put_in(&mut orders(), PREVIEWS[0], &both["properties"]).unwrap_err();
        assert!(error.message.contains("not both"), "{}", error.message);
        let mut blank = flexible();
        blank["claimsMatchingExpression"]["value"] = json!(" ");
        assert_eq!(put_in(&mut orders(), PREVIEWS[0], &blank).unwrap_err().status, 400);
    }

    #[test]
    fn entries_of_any_shape_are_returned_as_they_are_counted_and_deletable() {
        let raw = json!({
            "bare": {"name": "Bare"},
            "Null-Properties": {"name": "null-properties", "properties": null},
            "number": {"properties": {"issuer": 1, "subject": null, "audiences": "text"}},
            "twin": {"properties": {"issuer": "https://i", "subject": "s"}},
            "zero": null,
        });
        let mut state = state(json!({"identities": [{"name": "orders", "rawCredentials": raw}]}));
        put(&mut state, "middle", trust("https://i", "middle")).unwrap();
        let list = identities("/orders/federatedIdentityCredentials");
        let listed = ask(&mut state, Method::GET, &list, Value::Null).unwrap().body.unwrap()["value"].clone();
        assert_eq!(listed.as_array().unwrap().len(), 6);
        assert_eq!((&listed[0], &listed[2]), (&raw["bare"], &raw["Null-Properties"]), "in order of their names");
        for name in ["bare", "null-properties", "number", "zero"] {
            assert!(ask(&mut state, Method::GET, &credential(name), Value::Null).is_ok(), "{name}");
        }
        assert_eq!(put(&mut state, "new", trust("https://i", "s")).unwrap_err().code, "Conflict");
        for number in 0..14 {
            put(&mut state, &format!("fic-{number}"), trust("https://i", &number.to_string())).unwrap();
        }
        assert_eq!(put(&mut state, "one-more", trust("https://i", "x")).unwrap_err().status, 400, "there are 20");
        assert_eq!(ask(&mut state, Method::DELETE, &credential("zero"), Value::Null).unwrap().status, 200);
        assert_eq!(put(&mut state, "one-more", trust("https://i", "x")).unwrap().status, 201);
    }

    #[test]
    fn credentials_of_a_missing_identity_are_rejected() {
        for (method, below) in
            [(Method::PUT, "/trust"), (Method::GET, "/trust"), (Method::DELETE, "/trust"), (Method::GET, "")]
        {
            let path = identities(&format!("/absent/federatedIdentityCredentials{below}"));
            let error = ask(&mut orders(), method, &path, trust("https://i", "s")).unwrap_err();
            assert_eq!((error.status, error.code.as_str()), (404, "NotFound"));
            assert_eq!(error.message, "The parent user-assigned identity doesn't exist.");
        }
    }

    #[test]
    fn an_identity_in_a_region_without_support_is_rejected() {
        let mut state = state(json!({"identities": [{"name": "orders", "location": "Malaysia South"}]}));
        let error = put(&mut state, "new", trust("https://i", "s")).unwrap_err();
        assert_eq!(error.status, 405);
        assert_eq!(
            error.message,
            "The request format was unexpected: Support for federated identity credentials not enabled."
        );
    }

    #[test]
    fn a_lock_on_the_identity_is_inherited() {
        let locks = json!([{"scope": identities("/orders")}]);
        let mut state = state(json!({"identities": [{"name": "orders"}], "locks": locks}));
        assert!(put(&mut state, "new", trust("https://i", "s")).is_ok());
        let error = ask(&mut state, Method::DELETE, &credential("new"), Value::Null).unwrap_err();
        assert_eq!((error.status, error.code.as_str()), (409, "ScopeLocked"));
    }

    #[test]
    fn a_policy_denies_the_write() {
        let policy = json!({"name": "no-federation", "scope": identities("/orders")});
        let mut state = state(json!({"identities": [{"name": "orders"}], "denyPolicies": [policy]}));
        let error = put(&mut state, "new", trust("https://i", "s")).unwrap_err();
        assert_eq!((error.status, error.code.as_str()), (403, "RequestDisallowedByPolicy"));
        assert!(error.message.contains("Resource 'new' was disallowed by policy."), "{}", error.message);
    }

    #[test]
    fn invalid_paging_parameters_are_rejected() {
        for query in
            ["$top=0", "$top=-1", "$top=x", "$top=99999999999", "$skiptoken=x", "$skiptoken=X'1'", "$skiptoken=X'zz'"]
        {
            let path = identities(&format!("/orders/federatedIdentityCredentials?{query}"));
            let error = ask(&mut orders(), Method::GET, &path, Value::Null).unwrap_err();
            assert_eq!((error.status, error.code.as_str()), (400, "BadRequest"), "{query}");
        }
    }

    #[test]
    fn pages_of_any_size_cover_everything_once() {
        let mut state = orders();
        for number in 0..7 {
            put(&mut state, &format!("fic-{number}"), trust("https://i", &number.to_string())).unwrap();
        }
        for top in 1..9 {
            let mut path = identities(&format!("/orders/federatedIdentityCredentials?$top={top}"));
            let mut seen = Vec::new();
            loop {
                let page = ask(&mut state, Method::GET, &path, Value::Null).unwrap().body.unwrap();
                let names = page["value"].as_array().unwrap().iter().map(|value| value["name"].clone());
                seen.extend(names);
                let Some(next) = page["nextLink"].as_str() else { break };
                path = next.strip_prefix("https://arm.test").unwrap().to_owned();
            }
            assert_eq!(seen, (0..7).map(|number| json!(format!("fic-{number}"))).collect::<Vec<_>>(), "$top={top}");
        }
    }
}
