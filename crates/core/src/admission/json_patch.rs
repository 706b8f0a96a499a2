//! The patch of a pod: a JSON patch that only adds, in types that are cheap to build and to serialize.
//!
//! Most of it is variables and mounts, several for each container. Building them as JSON values would dominate the cost of
//! an admission. The patch is serialized with the response, where an error fails the request.

use serde::Serialize;
use serde_json::Value;

use ensign_api::keys::{TOKEN_MOUNT_PATH, TOKEN_PATH};

/// An operation of the patch.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "op", rename = "add")]
pub struct Addition {
    path: String,
    value: Content,
}

/// What is added.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(super) enum Content {
    /// An environment variable.
    Variable {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
    },
    /// A mount of the token volume.
    Mount(TokenMount),
    /// The token volume.
    Volume(Volume),
    /// Anything else.
    Other(Value),
    /// A list that did not exist.
    List(Vec<Content>),
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TokenMount {
    name: String,
    mount_path: &'static str,
    read_only: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Volume {
    name: String,
    projected: Projected,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Projected {
    sources: [Source; 1],
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Source {
    service_account_token: TokenSource,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct TokenSource {
    path: &'static str,
    audience: String,
    expiration_seconds: u32,
}

impl Addition {
    /// Adds the content at a path, given as unescaped field names and indices.
    pub(super) fn new(path: &[&str], content: Content) -> Self {
        let mut pointer = String::with_capacity(path.iter().map(|token| token.len() + 1).sum::<usize>() + 4);
        for token in path {
            pointer.push('/');
            for character in token.chars() {
                match character {
                    '~' => pointer.push_str("~0"),
                    '/' => pointer.push_str("~1"),
                    other => pointer.push(other),
                }
            }
        }
        Self { path: pointer, value: content }
    }
}

impl Content {
    pub(super) fn variable(name: &str, value: &str) -> Self {
        Self::Variable { name: name.to_owned(), value: value.to_owned() }
    }

    /// A mount of the token volume of this name.
    pub(super) fn mount(volume: &str) -> Self {
        Self::Mount(TokenMount { name: volume.to_owned(), mount_path: TOKEN_MOUNT_PATH, read_only: true })
    }

    /// The token volume.
    pub(super) fn volume(name: &str, audience: &str, expiration_seconds: u32) -> Self {
        let service_account_token = TokenSource { path: TOKEN_PATH, audience: audience.to_owned(), expiration_seconds };
        let sources = [Source { service_account_token }];
        Self::Volume(Volume { name: name.to_owned(), projected: Projected { sources } })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_operation_is_serialized_as_a_json_patch() {
        let written = |path: &[&str], content| serde_json::to_value(Addition::new(path, content)).unwrap();
        assert_eq!(
            written(&["spec", "containers", "0", "env", "-"], Content::variable("A", "b")),
            json!({"op": "add", "path": "/spec/containers/0/env/-", "value": {"name": "A", "value": "b"}})
        );
        assert_eq!(
            written(&["spec", "volumes"], Content::List(vec![Content::volume("token", "aud", 3600)])),
            json!({"op": "add", "path": "/spec/volumes", "value": [{"name": "token", "projected": {"sources": [
                {"serviceAccountToken": {"path": TOKEN_PATH, "audience": "aud", "expirationSeconds": 3600}},
            ]}}]})
        );
        assert_eq!(
            written(&["volumeMounts", "-"], Content::mount("token"))["value"],
            json!({"name": "token", "mountPath": TOKEN_MOUNT_PATH, "readOnly": true})
        );
    }

    #[test]
    fn field_names_in_a_path_are_escaped() {
        let added = Addition::new(&["annotations", "a~b/c~1"], Content::Other(json!("x")));
        assert_eq!(added.path, "/annotations/a~0b~1c~01");
    }
}
