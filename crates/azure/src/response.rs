//! Reads ARM's responses.

use azure_core::http::RawResponse;
use serde::Deserialize;

use super::error::ArmErrorCause;
use ensign_runtime::redact::redact;

/// A response that can't be read. The parser's message repeats parts of it.
pub(super) fn unreadable(problem: &str) -> ArmErrorCause {
    ArmErrorCause::Unreadable(redact(problem))
}

pub(super) fn decode<'de, T: Deserialize<'de>>(response: &'de RawResponse) -> Result<T, ArmErrorCause> {
    serde_json::from_slice(response.body().as_ref()).map_err(|error| unreadable(&error.to_string()))
}
