//! What Azure confirmed to this process's own writes, against what its reads return.
//!
//! Azure's reads lag behind its writes: after a 201, GET of an identity or a credential can answer 404 for a while
//! (hashicorp/terraform-provider-azurerm pull requests 32865 and 32935), and nothing says that LIST is better. So for
//! [`READ_LAG`] the response to a write counts for more than a read, and the absence of something counts only when it lasts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::credentials::ownership::Credential;
use crate::failure::Failure;
use crate::provisioning::AzureIdentity;
use crate::roles::Assignment;
use crate::scheduling::monotonic::Moment;
use ensign_api::ArmId;
use ensign_api::conditions::Reason;

/// How long a read may lag behind a write, unless it is set (`--azure-read-lag`). No bound is published; reports speak of
/// seconds to two minutes.
pub const READ_LAG: Duration = Duration::from_secs(120);

/// The recent writes for one identity in Azure.
#[derive(Clone, Debug)]
pub struct OwnWrites {
    /// How long a read may lag.
    lag: Duration,
    identity: Option<Recent<WrittenIdentity>>,
    /// The identity as it was when a credential was last written under it.
    parent: Option<Recent<AzureIdentity>>,
    /// By name; `None` if it was deleted.
    credentials: BTreeMap<String, Recent<Option<Credential>>>,
    /// By name in lower case; `None` if it was deleted.
    assignments: BTreeMap<String, Recent<Option<Assignment>>>,
    /// When GET last found the identity.
    found: Option<Moment>,
    /// Since when GET reports that the identity does not exist, without a recent write that says otherwise.
    missing_since: Option<Moment>,
    /// When a LIST last contained a credential of a former issuer, or did not for the first time.
    former_issuers: BTreeMap<String, Moment>,
    /// A read contradicted a recent write, which is to be settled then.
    look_again: Option<Moment>,
    /// The last GET returned another identity than was written.
    identity_differs: bool,
}

#[derive(Clone, Debug)]
struct Recent<T> {
    at: Moment,
    what: T,
}

#[derive(Clone, Debug)]
enum WrittenIdentity {
    Created(AzureIdentity),
    Updated(AzureIdentity),
    Deleted,
}

/// What is certain although reads may lag.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confirmed {
    /// The identity does not exist: it was deleted by this process, or has been missing for long enough.
    pub identity_gone: bool,
    /// The identity was deleted by this process, and so was everything under it.
    pub identity_deleted: bool,
    /// GET returned something other than what was written: it may lag, or somebody else may have changed the identity since.
    pub identity_uncertain: bool,
    /// Names of credentials that this process deleted.
    pub deleted_credentials: BTreeSet<String>,
    /// Names, in lower case, of role assignments that this process deleted.
    pub deleted_assignments: BTreeSet<String>,
    /// Former issuers without a credential in any LIST for long enough.
    pub absent_issuers: BTreeSet<String>,
    /// The time until reads can settle what is uncertain now.
    pub look_again_in: Option<Duration>,
}

impl OwnWrites {
    /// Nothing was written yet. Reads may lag this long behind a write.
    pub fn new(lag: Duration) -> Self {
        Self {
            lag,
            identity: None,
            parent: None,
            credentials: BTreeMap::new(),
            assignments: BTreeMap::new(),
            found: None,
            missing_since: None,
            former_issuers: BTreeMap::new(),
            look_again: None,
            identity_differs: false,
        }
    }

    /// Azure confirmed a PUT of the identity; `created` if it answered 201.
    pub fn identity_put(&mut self, stored: &AzureIdentity, created: bool, now: Moment) {
        let what = if created {
            // A new identity has nothing under it, whatever an earlier one of its name had.
            self.credentials.clear();
            WrittenIdentity::Created(stored.clone())
        } else {
            WrittenIdentity::Updated(stored.clone())
        };
        self.identity = Some(Recent { at: now, what });
        self.missing_since = None;
    }

    /// Azure confirmed a DELETE of the identity.
    pub fn identity_deleted(&mut self, now: Moment) {
        self.identity = Some(Recent { at: now, what: WrittenIdentity::Deleted });
        self.parent = None;
        self.credentials.clear();
    }

    /// Azure confirmed a PUT of a credential under the identity, which had last been read as `parent`.
    pub fn credential_put(&mut self, stored: &Credential, parent: Option<&AzureIdentity>, now: Moment) {
        if let Some(parent) = parent {
            self.parent = Some(Recent { at: now, what: parent.clone() });
        }
        self.credentials.insert(stored.name.clone(), Recent { at: now, what: Some(stored.clone()) });
    }

    /// Azure confirmed a DELETE of a credential.
    pub fn credential_deleted(&mut self, name: &str, now: Moment) {
        self.credentials.insert(name.to_owned(), Recent { at: now, what: None });
    }

    /// Azure confirmed a PUT of a role assignment.
    pub fn assignment_put(&mut self, stored: &Assignment, now: Moment) {
        self.assignments.insert(stored.name.to_lowercase(), Recent { at: now, what: Some(stored.clone()) });
    }

    /// Azure confirmed a DELETE of a role assignment.
    pub fn assignment_deleted(&mut self, name: &str, now: Moment) {
        self.assignments.insert(name.to_lowercase(), Recent { at: now, what: None });
    }

    /// A write of the identity failed, or its response was lost: it may have been applied or not.
    pub fn identity_unknown(&mut self) {
        self.identity = None;
    }

    /// A write of a credential failed, or its response was lost.
    pub fn credential_unknown(&mut self, name: &str) {
        self.credentials.remove(name);
    }

    /// A write of a role assignment failed, or its response was lost.
    pub fn assignment_unknown(&mut self, name: &str) {
        self.assignments.remove(&name.to_lowercase());
    }

    /// Whether a PUT of the identity, or of a credential under it, was confirmed recently: then a 404 proves nothing.
    pub fn contradicts_absence(&self, now: Moment) -> bool {
        let put = |written: &WrittenIdentity| !matches!(written, WrittenIdentity::Deleted);
        self.recent(self.identity.as_ref(), now).is_some_and(put) || self.recent(self.parent.as_ref(), now).is_some()
    }

    /// What a GET of the identity means, given the recent writes.
    pub fn identity(
        &mut self,
        id: &ArmId,
        read: Result<AzureIdentity, Failure>,
        now: Moment,
    ) -> Result<AzureIdentity, Failure> {
        let is_answer = read.as_ref().err().is_none_or(Failure::is_gone);
        if !is_answer {
            return read;
        }
        self.found = read.is_ok().then_some(now);
        let written = self.recent(self.identity.as_ref(), now).cloned();
        let parent = self.recent(self.parent.as_ref(), now).cloned();
        // A PUT that found an identity proves that it exists: then no GET has to settle it.
        let proven = matches!(written, Some(WrittenIdentity::Updated(_)));
        let expected = match (written, &read) {
            (Some(WrittenIdentity::Created(stored) | WrittenIdentity::Updated(stored)), _) => Ok(stored),
            (Some(WrittenIdentity::Deleted), _) => Err(deleted(id)),
            (None, Err(_)) => match parent {
                Some(parent) => Ok(parent),
                None => read.clone(),
            },
            (None, Ok(_)) => read.clone(),
        };
        self.identity_differs = read.is_ok() && expected.is_ok() && expected.as_ref().ok() != read.as_ref().ok();
        if (!proven || self.identity_differs) && expected.as_ref().ok() != read.as_ref().ok() {
            self.settle_later(now);
        }
        match &expected {
            Ok(_) => self.missing_since = None,
            Err(_) => {
                self.missing_since.get_or_insert(now);
            }
        }
        expected
    }

    /// What a LIST of the credentials means, given the recent writes. `former_issuers` are the recorded ones but the current.
    pub fn credentials(
        &mut self,
        id: &ArmId,
        read: Result<Vec<Credential>, Failure>,
        former_issuers: &[&str],
        now: Moment,
    ) -> Result<Vec<Credential>, Failure> {
        let list = match read {
            Ok(list) => list,
            Err(failure) if failure.is_gone() => match self.recent(self.identity.as_ref(), now) {
                Some(WrittenIdentity::Created(_)) => Vec::new(),
                // GET and LIST are answered by different replicas.
                _ if self.contradicts_absence(now) || self.found.is_some_and(|at| is_recent(at, now, self.lag)) => {
                    self.settle_later(now);
                    return Err(self.not_shown_yet(id));
                }
                _ => return Err(failure),
            },
            failure => return failure,
        };
        if matches!(self.recent(self.identity.as_ref(), now), Some(WrittenIdentity::Deleted)) {
            return Err(deleted(id));
        }
        let mut all = list.clone();
        for (name, written) in self.credentials.iter().filter(|(_, written)| is_recent(written.at, now, self.lag)) {
            all.retain(|credential| credential.name != *name);
            all.extend(written.what.clone());
        }
        let sorted = |mut list: Vec<Credential>| {
            list.sort_by(|one, other| one.name.cmp(&other.name));
            list
        };
        if sorted(all.clone()) != sorted(list) {
            self.settle_later(now);
        }
        self.note_issuers(&all, former_issuers, now);
        Ok(all)
    }

    /// What the read role assignments mean, given the recent writes.
    pub fn assignments(&mut self, read: &[Assignment], now: Moment) -> Vec<Assignment> {
        let mut all = read.to_vec();
        for (name, written) in self.assignments.iter().filter(|(_, written)| is_recent(written.at, now, self.lag)) {
            all.retain(|one| !one.name.eq_ignore_ascii_case(name));
            all.extend(written.what.clone());
        }
        let names = |list: &[Assignment]| list.iter().map(|one| one.name.to_lowercase()).collect::<BTreeSet<_>>();
        if names(&all) != names(read) {
            self.settle_later(now);
        }
        all
    }

    /// What is certain at this time.
    pub fn confirmed(&self, now: Moment) -> Confirmed {
        let identity_deleted = matches!(self.recent(self.identity.as_ref(), now), Some(WrittenIdentity::Deleted));
        let lasts = |since: Moment| now.saturating_sub(since) >= self.lag;
        let absent = self.former_issuers.iter().filter(|(_, since)| lasts(**since)).map(|(issuer, _)| issuer.clone());
        let missing = self.missing_since.filter(|since| !lasts(*since)).map(|since| since + self.lag);
        let issuers = self.former_issuers.values().filter(|since| !lasts(**since)).map(|since| *since + self.lag);
        let doubts = self.look_again.into_iter().chain(missing).chain(issuers);
        Confirmed {
            identity_gone: identity_deleted || self.missing_since.is_some_and(lasts),
            identity_deleted,
            identity_uncertain: self.identity_differs && self.recent(self.identity.as_ref(), now).is_some(),
            deleted_credentials: deleted_names(&self.credentials, now, self.lag),
            deleted_assignments: deleted_names(&self.assignments, now, self.lag),
            absent_issuers: absent.collect(),
            look_again_in: doubts.map(|until| until.saturating_sub(now)).filter(|wait| !wait.is_zero()).min(),
        }
    }

    /// Forgets what no longer matters; whether nothing is left.
    pub fn forget(&mut self, now: Moment) -> bool {
        let lag = self.lag;
        self.identity.take_if(|written| !is_recent(written.at, now, lag));
        self.parent.take_if(|written| !is_recent(written.at, now, lag));
        self.credentials.retain(|_, written| is_recent(written.at, now, lag));
        self.assignments.retain(|_, written| is_recent(written.at, now, lag));
        self.found.take_if(|at| !is_recent(*at, now, lag));
        self.look_again.take_if(|until| *until <= now);
        self.identity.is_none()
            && self.parent.is_none()
            && self.credentials.is_empty()
            && self.assignments.is_empty()
            && self.found.is_none()
            && self.missing_since.is_none()
            && self.former_issuers.is_empty()
    }

    fn note_issuers(&mut self, list: &[Credential], former_issuers: &[&str], now: Moment) {
        self.former_issuers.retain(|issuer, _| former_issuers.contains(&issuer.as_str()));
        for issuer in former_issuers {
            let is_used = list.iter().any(|credential| credential.issuer == *issuer);
            let seen = self.former_issuers.entry((*issuer).to_owned()).or_insert(now);
            if is_used {
                *seen = now;
            }
        }
    }

    fn recent<'a, T>(&self, written: Option<&'a Recent<T>>, now: Moment) -> Option<&'a T> {
        written.filter(|written| is_recent(written.at, now, self.lag)).map(|written| &written.what)
    }

    fn not_shown_yet(&self, id: &ArmId) -> Failure {
        let message = format!(
            "listing the federated identity credentials of {id}: Azure does not find the identity, although it found or wrote it at most {} s ago; retrying",
            self.lag.as_secs()
        );
        Failure { reason: Reason::AzureUnavailable, message, retry_after: None }
    }

    fn settle_later(&mut self, now: Moment) {
        let identity = self.identity.as_ref().map(|written| written.at);
        let parent = self.parent.as_ref().map(|written| written.at);
        let credentials = self.credentials.values().map(|written| written.at);
        let assignments = self.assignments.values().map(|written| written.at);
        let last = identity.into_iter().chain(parent).chain(credentials).chain(assignments).max().unwrap_or(now);
        self.look_again = Some(last + self.lag);
    }
}

fn is_recent(at: Moment, now: Moment, lag: Duration) -> bool {
    now.saturating_sub(at) < lag
}

fn deleted_names<T>(written: &BTreeMap<String, Recent<Option<T>>>, now: Moment, lag: Duration) -> BTreeSet<String> {
    let is_deleted = |one: &Recent<Option<T>>| is_recent(one.at, now, lag) && one.what.is_none();
    written.iter().filter(|(_, one)| is_deleted(one)).map(|(name, _)| name.clone()).collect()
}

/// What a GET would return if it did not lag.
fn deleted(id: &ArmId) -> Failure {
    Failure { reason: Reason::IdentityNotFound, message: format!("{id} was deleted"), retry_after: None }
}

#[cfg(test)]
#[path = "own_writes_tests.rs"]
mod tests;
