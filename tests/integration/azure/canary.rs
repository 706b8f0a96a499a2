//! Tokens as canaries: whichever response repeats them, they appear in no error, no condition and no log.

use std::io;
use std::sync::{Arc, Mutex};

use ensign_azure::ArmError;
use ensign_azure_emulator::{FaultAnswer, LogKind};
use serde_json::json;
use tracing_subscriber::fmt::MakeWriter;

use super::{Azure, body, credential, error_response, rule};

const ASSERTION: &str = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhc3NlcnRpb24tY2FuYXJ5In0.YXNzZXJ0aW9uLXNpZ25hdHVyZQ";
const BEARER: &str = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJiZWFyZXItY2FuYXJ5In0.YmVhcmVyLXNpZ25hdHVyZQ";

/// Every log line of this thread, at the finest level.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no writer panicked").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Every text that is made from an error: for logs, for a condition, and for debugging.
fn told(error: &ArmError) -> String {
    let chain = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    let chain: Vec<String> = chain.map(|error| format!("{error} {error:?} {error:#?}")).collect();
    format!("{} {}", chain.join(" "), error.failure(Some("client")).message)
}

fn assert_silent(text: &str, what: &str) {
    for token in [ASSERTION, BEARER] {
        for part in token.split('.').skip(1) {
            assert!(!text.contains(part), "{what} contains a token: {text}");
        }
    }
}

/// Responses of Entra, of ARM, or of something between that repeat a token.
fn repeating(token: &str) -> Vec<FaultAnswer> {
    let long = format!("{}{token}", "x".repeat(390));
    vec![
        error_response(401, "InvalidAuthenticationToken", &format!("The access token {token} is invalid.")),
        error_response(400, "BadRequest", &format!("Authorization: Bearer {token}")),
        error_response(403, "AuthorizationFailed", token),
        error_response(409, token, "the code repeats it"),
        error_response(500, "InternalServerError", &format!("{{\"client_assertion\":\"{token}\"}}")),
        error_response(400, "BadRequest", &long),
        body(
            400,
            json!({"error": "invalid_client", "error_codes": [50027], "error_description":
            format!("AADSTS50027: JWT token {token} is invalid or malformed. Trace ID: x")}),
        ),
        body(400, json!({"error": {"code": "BadRequest", "message": [token]}})),
        body(400, json!([token])),
        body(200, json!({"unexpected": token})),
        body(200, json!(token)),
    ]
}

#[tokio::test]
async fn no_token_reaches_a_log_an_error_or_a_condition() {
    let azure = Azure::start();
    azure.give_token(ASSERTION);
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(lines.clone())
        .with_ansi(false)
        .finish();
    let logging = tracing::subscriber::set_default(subscriber);
    let mut redacted = 0;
    let mut check = |error: &ArmError| {
        tracing::warn!(error = error as &dyn std::error::Error, "Azure request failed");
        let told = told(error);
        assert_silent(&told, "an error");
        redacted += usize::from(told.contains("[redacted]"));
    };

    for answer in repeating(ASSERTION) {
        azure.answer(LogKind::Token, 10, answer);
        check(&azure.client(&azure.connection()).get_identity(&azure.orders()).await.unwrap_err());
    }

    let token = || body(200, json!({"token_type": "Bearer", "expires_in": 3600, "access_token": BEARER}));
    for answer in repeating(BEARER) {
        let faults = [(LogKind::Token, token()), (LogKind::ArmRead, answer.clone()), (LogKind::ArmWrite, answer)];
        azure.emulator.set_faults(faults.map(|(kind, answer)| rule(kind, 10, answer)).into());
        let client = azure.client(&azure.connection());
        let (orders, written) = (azure.orders(), credential());
        check(&client.get_identity(&orders).await.unwrap_err());
        check(&client.list_credentials(&orders).await.unwrap_err());
        check(&client.put_credential(&orders, &written).await.unwrap_err());
    }
    drop(logging);

    let logged = String::from_utf8(lines.0.lock().expect("no writer panicked").clone()).expect("text");
    assert_silent(&logged, "the log");
    assert!(redacted > 10, "the responses did repeat tokens: {redacted}");
    assert!(logged.contains("[redacted]") && logged.contains("TRACE"), "the log contains the responses");
}
