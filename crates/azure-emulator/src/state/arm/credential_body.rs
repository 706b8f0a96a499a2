//! The body of a PUT of a federated identity credential.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::versions::ApiVersion;
use super::{ArmError, names};
use crate::state::text::read_object;

const MAX_CHARACTERS: usize = 600;

/// The body of a PUT.
#[derive(Clone, Debug)]
pub(super) struct CredentialBody {
    pub(super) issuer: String,
    pub(super) audience: String,
    pub(super) matching: Matching,
}

/// What a credential compares the subject of a token with.
#[derive(Clone, Debug)]
pub(super) enum Matching {
    /// This one.
    Subject(String),
    /// An expression about the claims, of a flexible credential.
    Expression(Expression),
}

#[derive(Deserialize)]
struct Wire {
    properties: Option<WireProperties>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireProperties {
    issuer: Option<String>,
    subject: Option<String>,
    audiences: Option<Vec<String>>,
    claims_matching_expression: Option<Value>,
}

/// An expression about the claims of a token.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Expression {
    value: String,
    language_version: i32,
}

impl WireProperties {
    fn is_empty(&self) -> bool {
        let Self { issuer, subject, audiences, claims_matching_expression } = self;
        issuer.is_none() && subject.is_none() && audiences.is_none() && claims_matching_expression.is_none()
    }
}

impl CredentialBody {
    pub(super) fn read(version: ApiVersion, name: &str, body: &[u8]) -> Result<Self, ArmError> {
        if !names::is_credential_name(name) {
            return Err(ArmError::bad_request(format!("Federated Identity Credential name '{name}' is invalid.")));
        }
        let wire: Wire = read_object(body).map_err(|error| ArmError::content(&error))?;
        let properties = wire.properties.unwrap_or_default();
        if properties.is_empty() {
            let message = "Federated Identity Credential from HTTP body has empty properties";
            return Err(ArmError::bad_request(message));
        }
        let incomplete = || {
            // As reported for an empty issuer: zioproto/istio-aks-example issue 6.
            let message = "The request format was unexpected. Federated Identity Credential must specify 'issuer', 'subject' and 'audience'.";
            ArmError::bad_request(message)
        };
        let given = |text: Option<String>| text.filter(|text| !text.trim().is_empty()).ok_or_else(incomplete);
        let issuer = given(properties.issuer)?;
        let expression = properties.claims_matching_expression.filter(|_| version.has_flexible_credentials());
        let expression = expression.map(serde_json::from_value::<Expression>).transpose();
        let matching = match expression.map_err(|error| ArmError::content(&error))? {
            None => Matching::Subject(given(properties.subject)?),
            Some(_) if properties.subject.is_some() => {
                let message = "Federated Identity Credential must specify either 'subject' or 'claimsMatchingExpression', not both.";
                return Err(ArmError::bad_request(message));
            }
            Some(Expression { value, .. }) if value.trim().is_empty() => return Err(incomplete()),
            Some(expression) => Matching::Expression(expression),
        };
        let Ok([audience]) = <[String; 1]>::try_from(properties.audiences.unwrap_or_default()) else {
            return Err(ArmError::bad_request("Federated identity credentials must have exactly one audience."));
        };
        let audience = given(Some(audience))?;
        let compared = match &matching {
            Matching::Subject(subject) => ("subject", subject),
            Matching::Expression(Expression { value, .. }) => ("claims matching expression", value),
        };
        for (property, value) in [("issuer", &issuer), compared, ("audience", &audience)] {
            let length = value.chars().count();
            if length > MAX_CHARACTERS {
                return Err(ArmError::bad_request(format!(
                    "The {property} of a Federated Identity Credential must not exceed {MAX_CHARACTERS} characters, it has {length}."
                )));
            }
        }
        Ok(Self { issuer, audience, matching })
    }

    /// The subject, unless the credential is a flexible one.
    pub(super) fn subject(&self) -> Option<&str> {
        match &self.matching {
            Matching::Subject(subject) => Some(subject),
            Matching::Expression(_) => None,
        }
    }
}
