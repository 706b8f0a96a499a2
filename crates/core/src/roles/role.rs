//! Roles and their assignments, as Azure returns them.

/// A role definition: the fields that decisions need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleDefinition {
    /// Its GUID, in lower case.
    pub id: String,
    /// Its display name.
    pub name: String,
    /// The control-plane actions that it allows.
    pub blocks: Vec<ActionBlock>,
}

/// Allowed actions without the excluded ones. An exclusion applies to its own block only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActionBlock {
    /// Patterns of allowed actions.
    pub actions: Vec<String>,
    /// Patterns of excluded actions.
    pub not_actions: Vec<String>,
}

/// A role assignment as Azure returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Its GUID.
    pub name: String,
    /// Its scope.
    pub scope: String,
    /// GUID of the role definition.
    pub role: String,
    /// Object ID of the principal.
    pub principal: String,
    /// A condition that limits it.
    pub condition: Option<String>,
}
