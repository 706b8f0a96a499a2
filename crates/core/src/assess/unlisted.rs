//! Credentials that may exist in Azure although no LIST shows them, because reads lag behind writes.
//!
//! Where trust ends, absence from a LIST proves nothing. So the names under which Ensign may have written are deleted, and only
//! a confirmed deletion counts.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt;

use super::inputs::{Observed, Settings, Snapshot, bindings};
use super::resolution::writes;
use crate::acceptance::Acceptance;
use crate::credentials::names::{Subject, credential_name};
use crate::credentials::ownership::Credential;
use ensign_api::conditions::{ConditionType, Reason, is_true};
use ensign_api::keys::CREDENTIALS_FINALIZER;
use ensign_api::{CredentialOrigin, CredentialStatus, ManagedIdentity, ManagedIdentityBinding};

/// What a decision about unlisted credentials depends on.
pub(super) struct Ending<'a> {
    pub(super) snapshot: &'a Snapshot<'a>,
    pub(super) owner: &'a ManagedIdentity,
    pub(super) acceptances: &'a BTreeMap<&'a str, BTreeMap<String, Acceptance>>,
    pub(super) observed: &'a Observed,
    pub(super) settings: &'a Settings,
    /// The subjects that should be trusted.
    pub(super) wanted: &'a BTreeSet<Subject>,
    /// Whether the owner determines which bindings are accepted.
    pub(super) decides: bool,
    /// Why the identity can't be used, if so.
    pub(super) resolution: Reason,
}

impl Ending<'_> {
    /// By subject whose trust ends: credentials that Ensign may have written for it, that are in no LIST, and whose deletion Azure
    /// has not confirmed. Empty if Azure did not respond: then nothing is certain, and nothing is deleted.
    pub(super) fn unlisted(&self) -> BTreeMap<Subject, Vec<Credential>> {
        let listed = match &self.observed.credentials {
            Some(Ok(listed)) => listed.as_slice(),
            _ if self.observed.identity_missing() => &[],
            _ => return BTreeMap::new(),
        };
        // Nothing in another tenant is written, and nothing is left under an identity that this process deleted.
        let never = self.resolution == Reason::TenantMismatch || self.observed.confirmed.identity_deleted;
        if never || !writes(self.owner) {
            return BTreeMap::new();
        }
        let mut unlisted: BTreeMap<Subject, Vec<Credential>> = BTreeMap::new();
        for (namespace, _, binding) in bindings(self.snapshot) {
            let subject = Subject::new(namespace, &binding.spec.service_account_name);
            if self.wanted.contains(&subject) || !self.ends(namespace, binding) {
                continue;
            }
            let found = unlisted.entry(subject.clone()).or_default();
            for credential in self.may_exist(&subject, binding) {
                let is_listed = listed.iter().any(|one| one.name.eq_ignore_ascii_case(&credential.name));
                let is_deleted = self.observed.confirmed.deleted_credentials.contains(&credential.name);
                if !is_listed && !is_deleted && !found.contains(&credential) {
                    found.push(credential);
                }
            }
        }
        unlisted.retain(|_, found| !found.is_empty());
        unlisted
    }

    /// Whether something was written for the binding and its trust ends now: it or its identity is being deleted, or it has just
    /// lost its grant.
    fn ends(&self, namespace: &str, binding: &ManagedIdentityBinding) -> bool {
        let held = binding.finalizers().iter().any(|name| name == CREDENTIALS_FINALIZER);
        if !held && recorded(binding).is_none() {
            return false;
        }
        if binding.metadata.deletion_timestamp.is_some() || self.owner.metadata.deletion_timestamp.is_some() {
            return true;
        }
        let acceptance = self.acceptances.get(namespace).and_then(|all| all.get(&binding.name_any()));
        let refused = acceptance.is_some_and(|acceptance| !acceptance.verdict.holds());
        let was_accepted =
            binding.status.as_ref().is_some_and(|status| is_true(&status.conditions, ConditionType::Accepted));
        self.decides && refused && (recorded(binding).is_some() || was_accepted)
    }

    /// The credentials that Ensign may have written for the binding: the one in its status, and one for each other recorded issuer,
    /// because an issuer is recorded before anything is written for it. Where somebody else's credential was adopted, there is
    /// none of ours: Azure refuses a second one for the same issuer and subject.
    fn may_exist(&self, subject: &Subject, binding: &ManagedIdentityBinding) -> Vec<Credential> {
        let audience = &self.settings.cluster.audience;
        let credential = |name: String, issuer: &str| Credential {
            name,
            issuer: issuer.to_owned(),
            subject: subject.to_string(),
            audiences: vec![audience.clone()],
        };
        let known = recorded(binding).map(|known| credential(known.name.clone(), &known.issuer));
        let on_record = binding.status.as_ref().and_then(|status| status.credential.as_ref());
        let issuers = self.owner.status.iter().flat_map(|status| status.issuers.iter().map(|record| &record.url));
        let computed = issuers
            .filter(|issuer| on_record.is_none_or(|credential| credential.issuer != **issuer))
            .map(|issuer| credential(credential_name(&self.settings.cluster.id, issuer, subject), issuer));
        let computed: Vec<Credential> = computed.collect();
        known.into_iter().chain(computed).collect()
    }
}

/// The credential that Ensign wrote for the binding, according to its status.
pub(super) fn recorded(binding: &ManagedIdentityBinding) -> Option<&CredentialStatus> {
    let credential = binding.status.as_ref()?.credential.as_ref()?;
    (credential.origin == CredentialOrigin::Created).then_some(credential)
}
