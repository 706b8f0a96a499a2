//! After a change of the issuer, credentials of the former one stay for a while beside the new ones. Where there are too
//! few slots for both, former ones give way: each only after a credential of the present issuer stands for its subject.

use std::collections::VecDeque;

use super::ownership::Credential;
use super::plan::CredentialWrite;

/// A credential of a former issuer that may give way, and the credential that has to stand before.
pub(crate) struct Covered<'a> {
    pub(crate) former: &'a Credential,
    pub(crate) successor: String,
}

impl Covered<'_> {
    /// The deletion of the former one.
    pub(crate) fn give_way(self) -> CredentialWrite {
        CredentialWrite::Delete { credential: self.former.clone(), after: Some(self.successor) }
    }
}

/// Rollover former credentials for new ones, one by one.
pub(crate) struct Rollover<'a> {
    /// Former credentials that nothing covers yet.
    uncovered: Vec<&'a Credential>,
    covered: VecDeque<Covered<'a>>,
    /// Slots that are free in Azure.
    free: usize,
    /// The last write on which a subject's whole trust depended.
    last_gap: Option<String>,
}

impl<'a> Rollover<'a> {
    pub(crate) fn new(former: Vec<&'a Credential>, free: usize) -> Self {
        Self { uncovered: former, covered: VecDeque::new(), free, last_gap: None }
    }

    /// Says that a credential of the present issuer stands or will have been put for the subject.
    pub(crate) fn cover(&mut self, subject: &str, successor: &str) {
        let (covered, uncovered) = self.uncovered.drain(..).partition(|former| former.subject == subject);
        self.uncovered = uncovered;
        let with_successor = |former| Covered { former, successor: successor.to_owned() };
        self.covered.extend(Vec::into_iter(covered).map(with_successor));
    }

    pub(crate) fn has_former(&self, subject: &str) -> bool {
        self.uncovered.iter().any(|former| former.subject == subject)
    }

    /// A former credential that nobody needs for trust any more.
    pub(crate) fn next_covered(&mut self) -> Option<Covered<'a>> {
        self.covered.pop_front()
    }

    /// The steps that put a credential without taking one slot more in the end; `None` when nothing can give way.
    pub(crate) fn swap(&mut self, subject: &str, name: &str, put: CredentialWrite) -> Option<Vec<CredentialWrite>> {
        let own = self.uncovered.iter().position(|former| former.subject == subject);
        if self.free > 0
            && let Some(at) = own
        {
            let own = Covered { former: self.uncovered.swap_remove(at), successor: name.to_owned() };
            self.cover(subject, name);
            return Some(vec![put, own.give_way()]);
        }
        if let Some(other) = self.next_covered() {
            self.cover(subject, name);
            return Some(vec![other.give_way(), put]);
        }
        // Every slot is taken by trust that is needed. For the time between two writes this subject has none; should the
        // second fail, no other subject follows.
        let credential = self.uncovered.swap_remove(own?).clone();
        self.cover(subject, name);
        let after = self.last_gap.replace(name.to_owned());
        Some(vec![CredentialWrite::Delete { credential, after }, put])
    }
}
