//! Reading role definitions.

use serde_json::{Value, json};

use super::super::ArmError;
use crate::state::arm::scope::Scope;
use crate::state::reads::View;
use crate::state::roles::RoleDefinition;

/// Times of the built-in role Reader. The emulator does not keep those of others.
const CREATED_ON: &str = "2015-02-02T21:55:09.8806423Z";
const UPDATED_ON: &str = "2021-11-11T20:13:47.8628684Z";

/// Which role definitions to list.
#[derive(Clone, Debug, Default)]
pub(super) struct DefinitionFilter {
    role_name: Option<String>,
    builtin: Option<bool>,
}

impl DefinitionFilter {
    /// Reads `$filter`: `roleName eq '…'`, `type eq 'BuiltInRole'` or `'CustomRole'`, joined with `and`.
    pub(super) fn read(text: &str) -> Result<Self, ArmError> {
        let mut filter = Self::default();
        for term in text.split(" and ").map(str::trim).filter(|term| !term.is_empty()) {
            match equals(term) {
                Some(("rolename", value)) => filter.role_name = Some(value),
                Some(("type", value)) => filter.builtin = Some(value.eq_ignore_ascii_case("BuiltInRole")),
                _ if term.eq_ignore_ascii_case("atScopeAndBelow()") => {}
                _ => return Err(unsupported(text)),
            }
        }
        Ok(filter)
    }

    fn matches(&self, role: &RoleDefinition) -> bool {
        self.role_name.as_ref().is_none_or(|name| role.role_name.eq_ignore_ascii_case(name))
            && self.builtin.is_none_or(|builtin| role.builtin == builtin)
    }
}

/// `property eq 'value'`, with the property in lower case. A quote within the value is doubled.
pub(super) fn equals(term: &str) -> Option<(&'static str, String)> {
    let (property, value) = term.split_once(" eq ")?;
    let known = ["rolename", "type", "principalid"];
    let property = known.into_iter().find(|known| property.trim().eq_ignore_ascii_case(known))?;
    Some((property, quoted(value.trim())?))
}

/// The text between quotes.
pub(super) fn quoted(text: &str) -> Option<String> {
    let inner = text.strip_prefix('\'')?.strip_suffix('\'')?;
    let undoubled = inner.replace("''", "\u{0}");
    (!undoubled.contains('\'')).then(|| undoubled.replace('\u{0}', "'"))
}

pub(super) fn unsupported(filter: &str) -> ArmError {
    ArmError::new(400, "UnsupportedQuery", format!("The filter '{filter}' is not supported."))
}

pub(super) fn get(view: View<'_>, scope: &Scope, name: &str) -> Result<Value, ArmError> {
    let role = view.role_definition(name).filter(|role| role.is_assignable(&scope.to_string()));
    role.map(|role| show(scope, role)).ok_or_else(|| does_not_exist(404, name))
}

pub(super) fn does_not_exist(status: u16, name: &str) -> ArmError {
    let message = format!("The specified role definition with ID '{name}' does not exist.");
    ArmError::new(status, "RoleDefinitionDoesNotExist", message)
}

pub(super) fn list(view: View<'_>, scope: &Scope, filter: &DefinitionFilter) -> Vec<Value> {
    let at = scope.to_string();
    let listed = view.role_definitions().filter(|role| role.is_assignable(&at) && filter.matches(role));
    listed.map(|role| show(scope, role)).collect()
}

/// The ID of a role definition as ARM returns it at a scope: that of the subscription, even below it.
pub(super) fn id(scope: &Scope, name: &str) -> String {
    let subscription = scope.subscription().map_or_else(String::new, |id| format!("/subscriptions/{id}"));
    format!("{subscription}/providers/Microsoft.Authorization/roleDefinitions/{name}")
}

pub(super) fn show(scope: &Scope, role: &RoleDefinition) -> Value {
    json!({
        "id": id(scope, &role.name),
        "name": role.name,
        "type": "Microsoft.Authorization/roleDefinitions",
        "properties": {
            "roleName": role.role_name,
            "type": if role.builtin { "BuiltInRole" } else { "CustomRole" },
            "description": role.description,
            "assignableScopes": role.assignable_scopes,
            "permissions": role.permissions,
            "createdOn": CREATED_ON,
            "updatedOn": UPDATED_ON,
            "createdBy": null,
            "updatedBy": null,
        },
    })
}
