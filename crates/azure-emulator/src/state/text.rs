//! Helpers for texts on the wire.

use k8s_openapi::jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use ensign_runtime::redact::redact;

/// Decodes percent-encoding in a path segment. Invalid UTF-8 becomes U+FFFD, which no name allows.
pub fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = bytes.get(at + 1..at + 3).and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            // from_str_radix accepts a sign, which an escape must not have.
            (byte == b'%' && digits.bytes().all(|digit| digit.is_ascii_hexdigit())).then_some(digits)
        });
        if let Some(value) = escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            out.push(value);
            at += 3;
        } else {
            out.push(byte);
            at += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The last value of a query parameter, whose name is case-insensitive.
pub fn query_parameter(query: &str, name: &str) -> Option<String> {
    url::form_urlencoded::parse(query.as_bytes())
        .filter(|(key, _)| key.eq_ignore_ascii_case(name))
        .last()
        .map(|(_, value)| value.into_owned())
}

/// Reads a JSON object. Serde alone would also accept an array of the fields' values.
pub fn read_object<T: DeserializeOwned>(body: &[u8]) -> Result<T, serde_json::Error> {
    let object: serde_json::Map<String, Value> = serde_json::from_slice(body)?;
    serde_json::from_value(Value::Object(object))
}

/// A region's name in the form that ARM compares: `East US` is `eastus`.
pub fn normalize_location(location: &str) -> String {
    location.chars().filter(|c| !c.is_whitespace()).collect::<String>().to_lowercase()
}

/// A time in the format of Entra's errors: `2026-01-18 00:16:16Z`.
pub fn entra_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// A time in the format of Entra's messages: `2026-01-18T00:16:16.0000000Z`.
pub fn entra_precise_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%7fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_decoding_accepts_any_text() {
        assert_eq!(percent_decode("a%2Fb%20c"), "a/b c");
        assert_eq!(percent_decode("100%"), "100%");
        assert_eq!(percent_decode("%zz%+1%4"), "%zz%+1%4");
        assert_eq!(percent_decode("%ff"), "\u{fffd}");
        assert_eq!(percent_decode("ü%"), "ü%");
    }

    #[test]
    fn query_names_are_case_insensitive() {
        assert_eq!(query_parameter("Api-Version=1&$skipToken=X%271%27", "$skiptoken").as_deref(), Some("X'1'"));
        assert_eq!(query_parameter("%24top=2", "$TOP").as_deref(), Some("2"));
        assert_eq!(query_parameter("a=1", "b"), None);
    }

    #[test]
    fn times_are_in_entras_format() {
        let time = Timestamp::from_second(1_768_695_376).unwrap();
        assert_eq!(entra_time(time), "2026-01-18 00:16:16Z");
        assert_eq!(entra_precise_time(time), "2026-01-18T00:16:16.0000000Z");
    }
}
