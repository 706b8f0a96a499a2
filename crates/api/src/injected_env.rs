//! The environment variables that injected containers get: one row for each.
//!
//! Admission, the CEL policies, and the rule that keeps `clientIDEnv` from naming another one are derived from this table.

use super::keys::{ENV_AUTHORITY_HOST, ENV_CLIENT_ID, ENV_TENANT_ID, ENV_TOKEN_FILE};

/// An environment variable of injected containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InjectedVariable {
    /// Its name, unless a binding renames it.
    pub key: &'static str,
    /// What it contains.
    pub value: InjectedValue,
    /// Whether `spec.injection.clientIDEnv` of a binding replaces its name. A container then has one for each binding.
    pub renamable: bool,
    /// Where its value comes from.
    pub source: ValueSource,
}

/// What an injected variable contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InjectedValue {
    /// The client ID of the identity.
    ClientId,
    /// The Entra tenant of the identity.
    TenantId,
    /// The path of the projected token.
    TokenFile,
    /// The Entra authority, with its trailing slash.
    AuthorityHost,
}

/// Where the value of an injected variable comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueSource {
    /// The status of the binding.
    Binding,
    /// The configuration of this install, which is the same for every pod.
    Install,
}

/// Every injected variable, in the order in which they are appended to `env`.
pub const INJECTED_ENV: [InjectedVariable; 4] = [
    InjectedVariable {
        key: ENV_CLIENT_ID,
        value: InjectedValue::ClientId,
        renamable: true,
        source: ValueSource::Binding,
    },
    InjectedVariable {
        key: ENV_TENANT_ID,
        value: InjectedValue::TenantId,
        renamable: false,
        source: ValueSource::Binding,
    },
    InjectedVariable {
        key: ENV_TOKEN_FILE,
        value: InjectedValue::TokenFile,
        renamable: false,
        source: ValueSource::Install,
    },
    InjectedVariable {
        key: ENV_AUTHORITY_HOST,
        value: InjectedValue::AuthorityHost,
        renamable: false,
        source: ValueSource::Install,
    },
];

/// Names that `clientIDEnv` must not take, because they are those of other injected variables.
pub fn reserved_names() -> impl Iterator<Item = &'static str> {
    INJECTED_ENV.into_iter().filter(|variable| !variable.renamable).map(|variable| variable.key)
}

/// The CEL rule of `clientIDEnv`.
pub(crate) fn reserved_name_rule() -> String {
    let quoted: Vec<String> = reserved_names().map(|name| format!("'{name}'")).collect();
    format!("!(self in [{}])", quoted.join(", "))
}

/// The message of [`reserved_name_rule`].
pub(crate) fn reserved_name_message() -> String {
    let names: Vec<&str> = reserved_names().collect();
    format!("clientIDEnv must not be one of the other variables that are injected: {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use kube::CustomResourceExt;
    use serde_json::{Value, json};

    use super::*;
    use crate::{Injection, ManagedIdentityBinding};

    #[test]
    fn the_schema_of_client_id_env_rejects_exactly_the_other_variables() {
        let crd = serde_json::to_value(ManagedIdentityBinding::crd()).unwrap();
        let schema =
            "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/injection/properties/clientIDEnv";
        let rules = crd.pointer(schema).and_then(|field| field.get("x-kubernetes-validations"));
        let names = "AZURE_TENANT_ID, AZURE_FEDERATED_TOKEN_FILE, AZURE_AUTHORITY_HOST";
        let expected = json!([{
            "rule": format!("!(self in ['{}'])", names.replace(", ", "', '")),
            "message": format!("clientIDEnv must not be one of the other variables that are injected: {names}"),
        }]);
        assert_eq!(rules, Some(&expected));
        assert_eq!(expected[0]["rule"], Value::String(reserved_name_rule()));
        assert_eq!(expected[0]["message"], Value::String(reserved_name_message()));
    }

    #[test]
    fn keys_are_unique_and_the_one_that_can_be_renamed_is_the_default_of_client_id_env() {
        let keys: BTreeSet<_> = INJECTED_ENV.iter().map(|variable| variable.key).collect();
        assert_eq!(keys.len(), INJECTED_ENV.len());
        let renamable: Vec<_> = INJECTED_ENV.iter().filter(|variable| variable.renamable).collect();
        assert_eq!(renamable.len(), 1, "clientIDEnv is one field");
        assert_eq!(renamable[0].key, Injection::default().client_id_env);
    }

    #[test]
    fn what_can_be_renamed_comes_from_the_binding() {
        assert!(INJECTED_ENV.iter().all(|variable| !variable.renamable || variable.source == ValueSource::Binding));
    }
}
