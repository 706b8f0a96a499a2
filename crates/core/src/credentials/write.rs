//! Writes of federated identity credentials.

use super::ownership::Credential;

/// One write to Azure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialWrite {
    /// Create or repair the credential.
    Put {
        /// The desired credential.
        credential: Credential,
        /// The existing credential of that name, if any; precondition: it is unchanged when the write is sent.
        replaces: Option<Credential>,
    },
    /// Delete the credential.
    Delete {
        /// The existing credential; precondition: it is unchanged when the write is sent.
        credential: Credential,
        /// The name of the credential that has to be in place first, because it replaces this one.
        after: Option<String>,
    },
}

impl CredentialWrite {
    /// The name of the credential to write.
    pub fn name(&self) -> &str {
        let (Self::Put { credential, .. } | Self::Delete { credential, .. }) = self;
        &credential.name
    }

    /// Whether the credential that has to be in place first exists. If it does not, no later step may be sent either.
    pub fn may_go(&self, existing: &[Credential]) -> bool {
        match self {
            Self::Delete { after: Some(name), .. } => existing.iter().any(|credential| credential.name == *name),
            Self::Delete { after: None, .. } | Self::Put { .. } => true,
        }
    }
}
