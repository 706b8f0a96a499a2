//! The form of a token request.

use std::fmt;

use super::{Assertion, EntraError};

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The form's known fields; others are ignored.
#[derive(Clone, Default)]
pub struct TokenRequest {
    grant_type: Option<String>,
    client_id: Option<String>,
    scope: Option<String>,
    assertion_type: Option<String>,
    assertion: Option<String>,
    has_secret: bool,
}

impl fmt::Debug for TokenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenRequest")
            .field("grant_type", &self.grant_type)
            .field("client_id", &self.client_id)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

impl TokenRequest {
    /// Reads a form. Empty fields count as absent.
    pub fn from_form(body: &[u8]) -> Self {
        let mut request = Self::default();
        for (name, value) in url::form_urlencoded::parse(body).filter(|(_, value)| !value.is_empty()) {
            let field = match &*name {
                "grant_type" => &mut request.grant_type,
                "client_id" => &mut request.client_id,
                "scope" => &mut request.scope,
                "client_assertion_type" => &mut request.assertion_type,
                "client_assertion" => &mut request.assertion,
                "client_secret" => {
                    request.has_secret = true;
                    continue;
                }
                _ => continue,
            };
            *field = Some(value.into_owned());
        }
        request
    }

    /// The fields that may be shown.
    pub fn shown(&self) -> serde_json::Value {
        serde_json::json!({
            "grant_type": self.grant_type,
            "client_id": self.client_id,
            "scope": self.scope,
            "client_assertion_type": self.assertion_type,
        })
    }

    /// The assertion, if it is present and readable.
    pub fn presented(&self) -> Option<Assertion> {
        Assertion::read(self.assertion().ok()?).ok()
    }

    pub(super) fn check_grant_type(&self) -> Result<(), EntraError> {
        match self.grant_type.as_deref() {
            Some("client_credentials") => Ok(()),
            Some(other) => Err(EntraError::grant_type(other)),
            None => Err(EntraError::missing_parameter("grant_type")),
        }
    }

    pub(super) fn client_id(&self) -> Result<&str, EntraError> {
        self.client_id.as_deref().ok_or_else(|| EntraError::missing_parameter("client_id"))
    }

    /// The resource of the only scope: what precedes `/.default`.
    pub(super) fn resource(&self) -> Result<String, EntraError> {
        let scope = self.scope.as_deref().ok_or_else(|| EntraError::missing_parameter("scope"))?;
        let mut scopes = scope.split_whitespace().filter(|s| !matches!(*s, "openid" | "profile" | "offline_access"));
        match (scopes.next().and_then(|scope| scope.strip_suffix("/.default")), scopes.next()) {
            (Some(resource), None) if !resource.is_empty() => Ok(resource.to_owned()),
            _ => Err(EntraError::scope(scope)),
        }
    }

    /// The assertion. Clients send the token file as it is, with a trailing newline.
    pub(super) fn assertion(&self) -> Result<&str, EntraError> {
        match (&self.assertion, self.assertion_type.as_deref()) {
            (Some(assertion), Some(ASSERTION_TYPE)) => Ok(assertion.trim_end()),
            _ if self.has_secret => Err(EntraError::secret_invalid()),
            _ => Err(EntraError::assertion_missing()),
        }
    }
}
