//! Rollover of the issuer: after a change, credentials of the former issuer stay in place beside the new ones until its last
//! token has expired. If there are too few slots for both, former credentials are deleted earlier, each only once a
//! credential of the current issuer is in place for its subject.

use std::collections::VecDeque;

use super::ownership::Credential;
use super::write::CredentialWrite;

/// A credential of a former issuer that may be deleted early, and the credential that has to be in place first.
pub(crate) struct Covered<'a> {
    pub(crate) former: &'a Credential,
    pub(crate) successor: String,
}

impl Covered<'_> {
    /// The write that deletes the former credential.
    pub(crate) fn delete(self) -> CredentialWrite {
        CredentialWrite::Delete { credential: self.former.clone(), after: Some(self.successor) }
    }
}

/// Replaces former credentials with new ones, one by one.
pub(crate) struct Rollover<'a> {
    /// Former credentials whose subject has no current credential yet.
    uncovered: Vec<&'a Credential>,
    /// Former credentials whose subject has a current credential.
    covered: VecDeque<Covered<'a>>,
    /// Slots that are free in Azure.
    free: usize,
    /// The last write without which a subject has no trust at all.
    last_gap: Option<String>,
}

impl<'a> Rollover<'a> {
    pub(crate) fn new(former: Vec<&'a Credential>, free: usize) -> Self {
        Self { uncovered: former, covered: VecDeque::new(), free, last_gap: None }
    }

    /// Records that a credential of the current issuer is in place for the subject, or that an earlier write writes it.
    pub(crate) fn cover(&mut self, subject: &str, successor: &str) {
        let (covered, uncovered) = self.uncovered.drain(..).partition(|former| former.subject == subject);
        self.uncovered = uncovered;
        let with_successor = |former| Covered { former, successor: successor.to_owned() };
        self.covered.extend(Vec::into_iter(covered).map(with_successor));
    }

    pub(crate) fn has_former(&self, subject: &str) -> bool {
        self.uncovered.iter().any(|former| former.subject == subject)
    }

    /// Takes a former credential whose subject no longer depends on it.
    pub(crate) fn next_covered(&mut self) -> Option<Covered<'a>> {
        self.covered.pop_front()
    }

    /// The writes that put a credential without using an additional slot in the end; `None` if nothing can be deleted for it.
    pub(crate) fn swap(&mut self, subject: &str, name: &str, put: CredentialWrite) -> Option<Vec<CredentialWrite>> {
        let own = self.uncovered.iter().position(|former| former.subject == subject);
        if self.free > 0
            && let Some(at) = own
        {
            let own = Covered { former: self.uncovered.swap_remove(at), successor: name.to_owned() };
            self.cover(subject, name);
            return Some(vec![put, own.delete()]);
        }
        if let Some(other) = self.next_covered() {
            self.cover(subject, name);
            return Some(vec![other.delete(), put]);
        }
        // All slots are in use and needed. Between the two writes this subject has no trust; if the second one fails, no
        // other subject's credential is deleted.
        let credential = self.uncovered.swap_remove(own?).clone();
        self.cover(subject, name);
        let after = self.last_gap.replace(name.to_owned());
        Some(vec![CredentialWrite::Delete { credential, after }, put])
    }
}
