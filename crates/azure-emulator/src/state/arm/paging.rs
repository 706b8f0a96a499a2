//! Paging with `$top` and an opaque `$skiptoken`, which stays valid when the list changes between two pages.

use serde_json::Value;

use super::ArmError;
use super::versions::ApiVersion;
use crate::state::text::query_parameter;

/// The requested page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Page {
    /// At most this many, from `$top` or from the token.
    top: Option<usize>,
    /// Only entries after this key.
    after: Option<String>,
}

impl Page {
    /// Reads `$top` (if the operation supports it) and `$skiptoken`.
    pub(super) fn from_query(query: &str, takes_top: bool) -> Result<Self, ArmError> {
        let mut page = match query_parameter(query, "$skiptoken") {
            Some(token) => Self::from_token(&token)
                .ok_or_else(|| ArmError::bad_request(format!("The value '{token}' of '$skiptoken' is invalid.")))?,
            None => Self::default(),
        };
        if let (true, Some(top)) = (takes_top, query_parameter(query, "$top")) {
            let number = top.parse::<i32>().ok().and_then(|top| usize::try_from(top).ok()).filter(|top| *top > 0);
            page.top = Some(number.ok_or_else(|| {
                let largest = i32::MAX;
                ArmError::bad_request(format!(
                    "The value '{top}' of '$top' is invalid: it must be a number from 1 to {largest}."
                ))
            })?);
        }
        Ok(page)
    }

    /// The entries of the page, in order of their keys, and the token for the next page, if any.
    pub(super) fn cut<'a, T>(
        &self,
        entries: impl Iterator<Item = (&'a String, T)>,
        default_size: usize,
        show: impl Fn(T) -> Value,
    ) -> (Vec<Value>, Option<String>) {
        let size = self.top.unwrap_or(default_size);
        let mut entries =
            entries.skip_while(|(key, _)| self.after.as_ref().is_some_and(|after| *key <= after)).peekable();
        let mut values = Vec::new();
        let mut last = None;
        while let Some((key, entry)) = entries.next_if(|_| values.len() < size) {
            values.push(show(entry));
            last = Some(key);
        }
        let more = entries.peek().is_some();
        (values, last.filter(|_| more).map(|key| self.token(key)))
    }

    fn token(&self, last: &str) -> String {
        let text = format!("{}|{last}", self.top.unwrap_or(0));
        // X'…' holds hexadecimal digits, two to a byte.
        let digits = text.bytes().fold(String::new(), |mut digits, byte| {
            for half in [byte >> 4, byte & 0xf] {
                digits.extend(char::from_digit(u32::from(half), 16));
            }
            digits
        });
        format!("X'{}'", digits.to_uppercase())
    }

    fn from_token(token: &str) -> Option<Self> {
        // Some clients escape the token twice.
        let token = crate::state::text::percent_decode(token);
        let digits = token.strip_prefix("X'")?.strip_suffix('\'')?;
        if digits.len() % 2 != 0 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        let bytes: Option<Vec<u8>> = (0..digits.len() / 2)
            .map(|at| digits.get(2 * at..2 * at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()))
            .collect();
        let text = String::from_utf8(bytes?).ok()?;
        let (top, last) = text.split_once('|')?;
        let top = top.parse::<usize>().ok()?;
        Some(Self { top: (top > 0).then_some(top), after: Some(last.to_owned()) })
    }
}

/// The link to the next page of a list with a filter.
pub(super) fn filtered_link(base_url: &str, path: &str, version: ApiVersion, token: &str, filter: &str) -> String {
    let link = link(base_url, path, version, token);
    if filter.is_empty() {
        return link;
    }
    let filter: String = url::form_urlencoded::byte_serialize(filter.as_bytes()).collect();
    format!("{link}&$filter={filter}")
}

/// The link to the next page.
pub(super) fn link(base_url: &str, path: &str, version: ApiVersion, token: &str) -> String {
    format!("{base_url}{path}?api-version={}&$skipToken={token}", version.name())
}
