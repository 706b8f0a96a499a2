//! Keeps anything that looks like a token out of logs, errors and status.

const REDACTED: &str = "[redacted]";

/// The start of a JSON object in base64.
const TOKEN: &str = "eyJ";
const BEARER: &str = "bearer ";
/// Anything shorter is a word, as in "Bearer authentication".
const MIN_BEARER_LENGTH: usize = 20;

/// Replaces JSON Web Tokens, and long words after `Bearer`.
pub fn redact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_token = rest.starts_with(TOKEN);
        let is_bearer = rest.get(..BEARER.len()).is_some_and(|start| start.eq_ignore_ascii_case(BEARER));
        if !is_token && !is_bearer {
            out.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let (word, after) = rest.split_at(if is_bearer { BEARER.len() } else { 0 });
        let (token, after) = after.split_at(after.find(|c| !is_token_character(c)).unwrap_or(after.len()));
        let secret = if is_bearer { token.len() >= MIN_BEARER_LENGTH } else { token.contains('.') };
        out.push_str(word);
        if secret {
            out.push_str(REDACTED);
            rest = after;
        } else {
            // A token may follow a short word.
            let kept = if is_bearer { "" } else { token };
            out.push_str(kept);
            rest = &rest[word.len() + kept.len()..];
        }
    }
    out
}

fn is_token_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~' | '+' | '/' | '=')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn anything_that_looks_like_a_token_is_redacted() {
        assert_eq!(redact(r#"{"t":"eyJhbGciOi.eyJzdWI.c2ln-_"}"#), r#"{"t":"[redacted]"}"#);
        assert_eq!(redact("client_assertion=eyJh.eyJz.c2ln&scope=x"), "client_assertion=[redacted]&scope=x");
        assert_eq!(redact("Authorization: Bearer 0.AXoAopaque-secret~value="), "Authorization: Bearer [redacted]");
        assert_eq!(redact("bearer eyJhbGciOi.eyJzdWI.c2ln was not accepted"), "bearer [redacted] was not accepted");
    }

    #[test]
    fn ordinary_words_stay() {
        for text in ["eyJust a word", "Bearer authentication failed", "Bearer", "bearer ", "the bearer", "", "eyJ"] {
            assert_eq!(redact(text), text);
        }
    }

    proptest! {
        #[test]
        fn a_token_is_redacted_in_any_context(before in ".{0,20}", after in "([^A-Za-z0-9._~+/=-].{0,20})?", body in "[A-Za-z0-9_-]{20,60}") {
            let token = format!("eyJhbGciOiJSUzI1NiJ9.{body}.c2lnbmF0dXJl");
            let texts = [format!("{before}{token}{after}"), format!("{before} Bearer {body}{after}")];
            let left = texts.iter().any(|text| redact(text).contains(&body));
            prop_assert!(!left, "{:?}", texts);
        }

        #[test]
        fn redacting_twice_changes_nothing(text in "(eyJ|bearer |[a-z. ]|ü){0,30}") {
            prop_assert_eq!(redact(&redact(&text)), redact(&text));
        }
    }
}
