//! Reads ARM's responses.

use std::time::Duration;

use azure_core::http::RawResponse;
use azure_core::http::headers::{HeaderName, Headers};
use serde::Deserialize;
use serde_json::Value;

use super::error::{ArmErrorCause, ErrorDetail};
use ensign_runtime::redact::redact;

/// A longer `Retry-After` of ARM counts as a mistake.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);
/// Errors within errors are read up to this depth, and this many of them.
const MAX_DEPTH: u32 = 5;
const MAX_DETAILS: usize = 20;

/// A response that can't be read. The parser's message repeats parts of it.
pub(super) fn unreadable(problem: &str) -> ArmErrorCause {
    ArmErrorCause::Unreadable(redact(problem))
}

pub(super) fn decode<'de, T: Deserialize<'de>>(response: &'de RawResponse) -> Result<T, ArmErrorCause> {
    serde_json::from_slice(response.body().as_ref()).map_err(|error| unreadable(&error.to_string()))
}

/// An error response: its status, ARM's envelope if it has one, and what ARM asks for.
pub(super) fn refused(response: &RawResponse) -> ArmErrorCause {
    let body: Value = serde_json::from_slice(response.body().as_ref()).unwrap_or_default();
    let error = &body["error"];
    let ErrorDetail { code, message } = detail(error);
    let mut details = Vec::new();
    collect(error, 0, &mut details);
    let (status, retry_after) = (response.status().into(), retry_after(response.headers()));
    ArmErrorCause::Refused { status, code, message, details, retry_after }
}

fn detail(error: &Value) -> ErrorDetail {
    let text = |name: &str| redact(error[name].as_str().unwrap_or_default());
    ErrorDetail { code: text("code"), message: text("message") }
}

/// The errors within an error, each before those within it.
fn collect(error: &Value, depth: u32, found: &mut Vec<ErrorDetail>) {
    if depth == MAX_DEPTH {
        return;
    }
    let details = error["details"].as_array().into_iter().flatten();
    for inner in details.chain(["innererror", "innerError"].into_iter().filter_map(|name| error.get(name))) {
        if found.len() == MAX_DETAILS {
            return;
        }
        found.push(detail(inner));
        collect(inner, depth + 1, found);
    }
}

/// `Retry-After` in seconds or as a date, up to a limit.
fn retry_after(headers: &Headers) -> Option<Duration> {
    let text = headers.get_optional_str(&HeaderName::from_static("retry-after"))?.trim();
    let seconds = if let Ok(seconds) = text.parse::<u64>() {
        seconds
    } else {
        let until = azure_core::time::parse_rfc7231(text).ok()?;
        u64::try_from((until - azure_core::time::OffsetDateTime::now_utc()).whole_seconds()).unwrap_or(0)
    };
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use azure_core::http::StatusCode;
    use serde_json::json;

    use super::*;

    fn details(body: &Value) -> Vec<(String, String)> {
        let response = RawResponse::from_bytes(StatusCode::BadRequest, Headers::new(), body.to_string());
        let ArmErrorCause::Refused { details, .. } = refused(&response) else { panic!("it is refused") };
        details.into_iter().map(|detail| (detail.code, detail.message)).collect()
    }

    #[test]
    fn errors_within_an_error_are_read_in_order() {
        let policy = json!({"code": "RequestDisallowedByPolicy", "message": "by policy", "details": null});
        let body = json!({"error": {"code": "Outer", "message": "see details", "details": [
            {"code": "Middle", "details": [policy]}, "not an object", {"message": "without a code"},
        ], "innererror": {"code": "Inner"}}});
        let expected = [
            ("Middle", ""),
            ("RequestDisallowedByPolicy", "by policy"),
            ("", ""),
            ("", "without a code"),
            ("Inner", ""),
        ];
        assert_eq!(details(&body), expected.map(|(code, message)| (code.to_owned(), message.to_owned())));
    }

    #[test]
    fn errors_within_errors_are_bounded() {
        let mut error = json!({"code": "innermost"});
        for _ in 0..50 {
            error = json!({"code": "x", "details": [error]});
        }
        assert_eq!(details(&json!({"error": error})).len(), 5);
        let many: Vec<Value> = (0..1000).map(|number| json!({"code": number.to_string()})).collect();
        assert_eq!(details(&json!({"error": {"details": many}})).len(), MAX_DETAILS);
    }

    #[test]
    fn a_response_that_is_not_an_envelope_has_no_code_and_no_details() {
        for body in
            ["", "<html>429</html>", "[]", "17", r#"{"error": "text"}"#, r#"{"error": {"code": 5, "details": {}}}"#]
        {
            let response = RawResponse::from_bytes(StatusCode::TooManyRequests, Headers::new(), body.to_owned());
            let ArmErrorCause::Refused { status, code, details, .. } = refused(&response) else { panic!("{body}") };
            assert_eq!((status, code.as_str(), details.len()), (429, "", 0), "{body}");
        }
    }
}
