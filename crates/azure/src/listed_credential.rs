//! Entries of a LIST of federated identity credentials.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use ensign_core::credentials::ownership::Credential;

/// An entry that anybody's tool may have written. One without an issuer, a subject or audiences that can be read, such as a
/// flexible credential (`claimsMatchingExpression` instead of `subject`), is somebody else's: it takes a slot, and is never
/// written. So whatever is missing or of another type is empty, and no entry makes the others unreadable.
pub(super) struct ListedCredential(pub(super) Credential);

impl<'de> Deserialize<'de> for ListedCredential {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let entry = Value::deserialize(deserializer)?;
        let properties = &entry["properties"];
        let audiences = properties["audiences"].as_array().map(Vec::as_slice).unwrap_or_default();
        let audiences: Option<Vec<String>> = audiences.iter().map(|one| one.as_str().map(str::to_owned)).collect();
        Ok(Self(Credential {
            name: name(&entry).to_owned(),
            issuer: text(&properties["issuer"]),
            subject: text(&properties["subject"]),
            audiences: audiences.unwrap_or_default(),
        }))
    }
}

/// The entry's name, or else the last segment of its ID.
fn name(entry: &Value) -> &str {
    let from_id = || entry["id"].as_str().and_then(|id| id.rsplit('/').next());
    entry["name"].as_str().or_else(from_id).unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(entry: &Value) -> Credential {
        serde_json::from_str::<ListedCredential>(&entry.to_string()).unwrap().0
    }

    #[test]
    fn a_usual_entry_is_read_whole() {
        let properties = json!({"issuer": "https://i", "subject": "s", "audiences": ["a"], "more": 1});
        let expected = Credential {
            name: "n".into(),
            issuer: "https://i".into(),
            subject: "s".into(),
            audiences: vec!["a".into()],
        };
        assert_eq!(read(&json!({"name": "n", "properties": properties})), expected);
    }

    #[test]
    fn a_flexible_credential_has_no_subject() {
        let expression = json!({"value": "claims['sub'] matches 'x*'", "languageVersion": 1});
        let properties = json!({"issuer": "https://i", "audiences": ["a"], "claimsMatchingExpression": expression});
        let read = read(&json!({"name": "flexible", "properties": properties}));
        assert_eq!((read.name.as_str(), read.subject.as_str(), read.issuer.as_str()), ("flexible", "", "https://i"));
    }

    #[test]
    fn no_shape_is_an_error() {
        let odd = [json!(null), json!(3), json!("text"), json!([]), json!({}), json!(true)];
        for value in &odd {
            read(value);
            assert_eq!(read(&json!({"name": "n", "properties": value})).subject, "", "{value}");
            for field in ["issuer", "subject", "audiences"] {
                let found = read(&json!({"name": "n", "properties": {field: value}}));
                let text = value.as_str().filter(|_| field != "audiences").unwrap_or_default();
                assert_eq!([found.issuer, found.subject].concat(), text);
                assert_eq!(found.audiences, Vec::<String>::new());
            }
        }
        let mixed = json!({"name": "n", "properties": {"audiences": ["a", 1]}});
        assert_eq!(read(&mixed).audiences, Vec::<String>::new());
    }

    #[test]
    fn an_entry_without_a_name_has_that_of_its_id() {
        assert_eq!(read(&json!({"id": "/x/federatedIdentityCredentials/n", "name": null})).name, "n");
    }
}
