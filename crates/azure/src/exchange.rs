//! Exchanges a service account token at Entra, as a pod would, to see whether it works.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{Cloud, Connection};
use ensign_core::azure_failures::without_variable_parts;
use ensign_core::commands::entra_codes::number_in;
use ensign_core::commands::exchange::Exchanged;
use ensign_runtime::error_chain;
use ensign_runtime::redact::redact;

/// Deadline of one exchange.
const DEADLINE: Duration = Duration::from_secs(30);
/// Entra answers some exchanges as if it knew no credential, although it does.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_secs(2);
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A token of a service account. It is never shown.
pub struct ServiceAccountToken(String);

impl From<String> for ServiceAccountToken {
    fn from(token: String) -> Self {
        Self(token)
    }
}

impl fmt::Debug for ServiceAccountToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServiceAccountToken")
    }
}

/// Entra's answer. The token in it is not even kept in memory.
#[derive(Deserialize)]
struct Success {
    #[serde(rename = "access_token")]
    _token: IgnoredAny,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Problem {
    error: String,
    error_description: String,
    error_codes: Vec<u32>,
}

/// Exchanges the token for one of the identity, up to a few times if Entra knows no credential for it.
pub async fn exchange(
    connection: &Connection,
    cloud: &Cloud,
    tenant_id: &str,
    client_id: &str,
    token: &ServiceAccountToken,
) -> Exchanged {
    let client = match connection.http_client() {
        Ok(client) => client,
        Err(error) => return Exchanged::NoAnswer(error_chain::line(&error)),
    };
    let scope = format!("{}/.default", cloud.arm_audience);
    let form = [
        ("client_id", client_id),
        ("scope", &scope),
        ("grant_type", "client_credentials"),
        ("client_assertion_type", ASSERTION_TYPE),
        ("client_assertion", &token.0),
    ];
    let mut url = cloud.authority_host.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.clear().extend([tenant_id, "oauth2", "v2.0", "token"]);
    }
    let mut answer = Exchanged::NoAnswer(String::new());
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        answer = match tokio::time::timeout(DEADLINE, send(client.post(url.clone()).form(&form))).await {
            Ok(answer) => answer,
            Err(_) => Exchanged::NoAnswer(format!("no response within {} s", DEADLINE.as_secs())),
        };
        if !answer.is_no_trust() {
            break;
        }
    }
    answer
}

async fn send(request: reqwest::RequestBuilder) -> Exchanged {
    let line = |error: reqwest::Error| Exchanged::NoAnswer(redact(&error_chain::line(&error)));
    let response = match request.send().await {
        Ok(response) => response,
        Err(error) => return line(error),
    };
    let status = response.status();
    match response.bytes().await {
        Ok(body) => read(status.as_u16(), &body),
        Err(error) => line(error),
    }
}

fn read(status: u16, body: &[u8]) -> Exchanged {
    if (200..300).contains(&status) {
        return match serde_json::from_slice::<Success>(body) {
            Ok(_) => Exchanged::Token,
            Err(_) => Exchanged::NoAnswer(format!("HTTP {status} without a token, so not from Entra")),
        };
    }
    let Problem { error, error_description, error_codes } = serde_json::from_slice(body).unwrap_or_default();
    let code = error_codes.first().copied().or_else(|| number_in(&error_description));
    let text = match (error_description.as_str(), error.as_str()) {
        ("", "") => format!("HTTP {status}"),
        ("", error) => format!("HTTP {status} {error}"),
        (description, _) => description.to_owned(),
    };
    Exchanged::Refused { code, text: without_variable_parts(&redact(&text)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(status: u16, body: &str) -> (Option<u32>, String) {
        match read(status, body.as_bytes()) {
            Exchanged::Refused { code, text } => (code, text),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_error_is_read_without_what_changes_each_time() {
        let body = r#"{"error":"invalid_client","error_description":"AADSTS700213: No matching record. Trace ID: x","error_codes":[700213]}"#;
        assert_eq!(text(401, body), (Some(700_213), "AADSTS700213: No matching record.".to_owned()));
        let coded = r#"{"error":"invalid_request","error_description":"AADSTS90061: Request failed."}"#;
        assert_eq!(text(400, coded).0, Some(90061), "the code is in the text too");
        assert_eq!(text(429, "<html></html>"), (None, "HTTP 429".to_owned()));
        assert_eq!(text(503, r#"{"error":"temporarily_unavailable"}"#).1, "HTTP 503 temporarily_unavailable");
    }

    #[test]
    fn a_token_is_neither_kept_nor_shown() {
        let token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJl";
        assert_eq!(read(200, format!(r#"{{"access_token":"{token}"}}"#).as_bytes()), Exchanged::Token);
        assert!(!format!("{:?}", ServiceAccountToken::from(token.to_owned())).contains("eyJ"));
        let echoed = format!(r#"{{"error":"x","error_description":"AADSTS50027: bad {token}"}}"#);
        assert_eq!(text(400, &echoed).1, "AADSTS50027: bad [redacted]");
        assert!(matches!(read(200, b"<html>sign in</html>"), Exchanged::NoAnswer(_)), "a captive portal");
    }
}
