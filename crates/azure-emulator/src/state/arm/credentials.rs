//! Federated identity credentials.

use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::paging::Page;
use super::{ArmAnswer, ArmError, governance, names};
use crate::state::model::{Credential, Identity, IdentityId, State};
use crate::state::reads::View;
use crate::state::text::read_object;

const TYPE: &str = "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials";
const MAX_CREDENTIALS: usize = 20;
const MAX_CHARACTERS: usize = 600;

/// The body of a PUT.
#[derive(Clone, Debug)]
pub(super) struct CredentialBody {
    issuer: String,
    subject: String,
    audience: String,
}

#[derive(Deserialize)]
struct Wire {
    properties: Option<WireProperties>,
}

#[derive(Deserialize)]
struct WireProperties {
    issuer: Option<String>,
    subject: Option<String>,
    audiences: Option<Vec<String>>,
}

pub(super) fn read_body(name: &str, body: &[u8]) -> Result<CredentialBody, ArmError> {
    if !names::is_credential_name(name) {
        return Err(ArmError::bad_request(format!("Federated Identity Credential name '{name}' is invalid.")));
    }
    let wire: Wire = read_object(body).map_err(|error| ArmError::content(&error))?;
    let empty = || ArmError::bad_request("Federated Identity Credential from HTTP body has empty properties");
    let WireProperties { issuer, subject, audiences } = wire.properties.ok_or_else(empty)?;
    let given = |text: Option<String>| text.filter(|text| !text.trim().is_empty()).ok_or_else(empty);
    let (issuer, subject) = (given(issuer)?, given(subject)?);
    let Ok([audience]) = <[String; 1]>::try_from(audiences.unwrap_or_default()) else {
        return Err(ArmError::bad_request("Federated identity credentials must have exactly one audience."));
    };
    for (property, value) in [("issuer", &issuer), ("subject", &subject), ("audience", &audience)] {
        let length = value.chars().count();
        if length > MAX_CHARACTERS {
            return Err(ArmError::bad_request(format!(
                "The {property} of a Federated Identity Credential must not exceed {MAX_CHARACTERS} characters, it has {length}."
            )));
        }
    }
    Ok(CredentialBody { issuer, subject, audience: given(Some(audience))? })
}

pub(super) fn check_put(state: &State, id: &IdentityId, name: &str, body: &CredentialBody) -> Result<(), ArmError> {
    governance::allow_write(state, &resource(id, name), TYPE)?;
    let identity = parent(state, id)?;
    if state.settings.regions_without_credentials.contains(&identity.location) {
        return Err(ArmError::new(
            405,
            "MethodNotAllowed",
            "The request format was unexpected: Support for federated identity credentials not enabled.",
        ));
    }
    let others = || identity.credentials.iter().filter(|(key, _)| **key != name.to_lowercase());
    if others().any(|(_, other)| other.issuer == body.issuer && other.subject == body.subject) {
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
    let CredentialBody { issuer, subject, audience } = body;
    let credential = Credential { name, issuer, subject, audiences: vec![audience], written_at: now };
    let shown = show(identity, &credential);
    let replaced = identity.credentials.insert(key, credential).is_some();
    Ok(if replaced { ArmAnswer::ok(shown) } else { ArmAnswer::created(shown) })
}

pub(super) fn get(view: View<'_>, id: &IdentityId, name: &str) -> Result<Value, ArmError> {
    let identity = view.identity(&id.key()).ok_or_else(ArmError::parent_not_found)?;
    let credential = identity.credentials.get(&name.to_lowercase());
    credential.map(|credential| show(identity, credential)).ok_or_else(|| ArmError::credential_not_found(id, name))
}

pub(super) fn delete(state: &mut State, id: &IdentityId, name: &str) -> Result<ArmAnswer, ArmError> {
    let identity = state.identities.get_mut(&id.key()).ok_or_else(ArmError::parent_not_found)?;
    Ok(ArmAnswer::deleted(identity.credentials.remove(&name.to_lowercase()).is_some()))
}

pub(super) fn list(view: View<'_>, id: &IdentityId, page: &Page) -> Result<(Vec<Value>, Option<String>), ArmError> {
    let identity = view.identity(&id.key()).ok_or_else(ArmError::parent_not_found)?;
    let size = view.state.settings.credential_page_size;
    Ok(page.cut(identity.credentials.iter(), size, |credential| show(identity, credential)))
}

fn parent<'a>(state: &'a State, id: &IdentityId) -> Result<&'a Identity, ArmError> {
    state.identities.get(&id.key()).ok_or_else(ArmError::parent_not_found)
}

fn resource(id: &IdentityId, name: &str) -> String {
    format!("{}/federatedIdentityCredentials/{name}", id.in_answers())
}

fn show(identity: &Identity, credential: &Credential) -> Value {
    json!({
        "id": resource(&identity.id, &credential.name),
        "name": credential.name,
        "type": TYPE,
        "properties": {
            "issuer": credential.issuer,
            "subject": credential.subject,
            "audiences": credential.audiences,
        },
    })
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
        assert_eq!(delete(), ArmAnswer { status: 200, body: None });
        assert_eq!(delete(), ArmAnswer { status: 204, body: None });
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
        for property in ["issuer", "subject"] {
            refused(with(property, Value::Null), empty);
            refused(with(property, json!("")), empty);
        }
        refused(with("audiences", json!([" "])), empty);
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
