//! How the directory (Entra and Microsoft Graph) treats identities.

use std::collections::{BTreeSet, VecDeque};

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::arm::ArmError;
use super::has_propagated;
use super::model::{Identity, State};

/// Deleted identities count for this long (kubernetes/test-infra PR 37325).
const DELETED_COUNT_FOR: SignedDuration = SignedDuration::from_hours(30 * 24);

/// How the directory behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectorySettings {
    /// Seconds after which Microsoft Graph knows a new identity, so that credentials of it can be created.
    pub graph_replication_seconds: u32,
    /// The status of the error until then: 404 or 400. Which of them Azure returns is unknown.
    pub graph_replication_status: u16,
    /// How many of a hundred exchanges with a matching credential fail with 700213, as kedacore/keda issue 8152 reports.
    pub spurious_mismatch_percent: u32,
    /// Resources that tokens can be requested for, besides ARM and Azure's services, for example `api://my-app`.
    pub resources: BTreeSet<String>,
    /// How many identities the directory has room for, including those deleted in the last 30 days.
    pub identity_quota: Option<usize>,
}

impl Default for DirectorySettings {
    fn default() -> Self {
        Self {
            graph_replication_seconds: 0,
            graph_replication_status: 404,
            spurious_mismatch_percent: 0,
            resources: BTreeSet::new(),
            identity_quota: None,
        }
    }
}

/// What Entra has of an identity, where that differs from ARM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdentityInEntra {
    /// Its service principal is disabled: no tokens.
    pub disabled: bool,
    /// Names, in lower case, of credentials that Entra never learns of until they are deleted and created again
    /// (azure-workload-identity issue 1200).
    pub unlearned: BTreeSet<String>,
}

/// When the identities of the last 30 days were deleted.
#[derive(Debug, Default)]
pub(in crate::state) struct DeletedIdentities(VecDeque<Timestamp>);

impl State {
    /// Rejects a credential of an identity that Microsoft Graph does not know yet.
    pub(in crate::state) fn check_graph_knows(&self, identity: &Identity, now: Timestamp) -> Result<(), ArmError> {
        let settings = &self.settings.directory;
        let seconds = settings.graph_replication_seconds;
        if seconds == 0 || has_propagated(identity.created_at, now, seconds) {
            return Ok(());
        }
        let code = if settings.graph_replication_status == 404 { "NotFound" } else { "BadRequest" };
        let message = "MS Graph resource not found during Federated Identity Credential creation.";
        Err(ArmError::new(settings.graph_replication_status, code, message))
    }

    /// Rejects a new identity that the directory has no room for.
    pub(in crate::state) fn check_directory_quota(&self, now: Timestamp) -> Result<(), ArmError> {
        let deleted = self.deleted_identities.0.iter().filter(|deleted| counts(**deleted, now)).count();
        match self.settings.directory.identity_quota {
            Some(quota) if self.identities.len() + deleted >= quota => {
                let message = "The directory object quota limit for the Tenant has been exceeded. Please ask your administrator to increase the quota limit or delete objects to reduce the used quota.";
                Err(ArmError::new(403, "Directory_QuotaExceeded", message))
            }
            _ => Ok(()),
        }
    }

    /// Counts the deletion of an identity.
    pub(in crate::state) fn identity_was_deleted(&mut self, now: Timestamp) {
        let deleted = &mut self.deleted_identities.0;
        deleted.push_back(now);
        while deleted.front().is_some_and(|first| !counts(*first, now)) {
            deleted.pop_front();
        }
    }
}

fn counts(deleted: Timestamp, now: Timestamp) -> bool {
    now.duration_since(deleted) < DELETED_COUNT_FOR
}
