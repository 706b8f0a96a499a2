//! The intermediate results of one assessment.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::inputs::{self, NamespaceSnapshot, Observed, Settings, Snapshot};
use super::resolution::Resolution;
use super::trust::Trust;
use crate::acceptance::{Acceptance, IdentityFacts};
use crate::roles::Permissions;
use ensign_api::keys::ABANDON_ANNOTATION;
use ensign_api::{ManagedIdentity, ManagedIdentityBinding};

/// Intermediate results that the outcomes are built from.
pub(super) struct Context<'a> {
    pub(super) snapshot: &'a Snapshot<'a>,
    pub(super) observed: &'a Observed,
    pub(super) settings: &'a Settings,
    pub(super) now: Timestamp,
    pub(super) owner: Option<&'a ManagedIdentity>,
    pub(super) resolution: Resolution,
    pub(super) accepted: BTreeMap<&'a str, IdentityFacts<'a>>,
    pub(super) acceptances: BTreeMap<&'a str, BTreeMap<String, Acceptance>>,
    pub(super) trust: Trust,
    /// Whether the identity itself exists in Azure because of its owner, or is about to be created.
    pub(super) keeps_identity: bool,
    pub(super) permissions: Permissions,
}

impl<'a> Context<'a> {
    /// The bindings that reference one of the snapshot's identities, with their namespaces.
    pub(super) fn bindings(
        &self,
    ) -> impl Iterator<Item = (&'a str, &'a NamespaceSnapshot<'a>, &'a ManagedIdentityBinding)> {
        inputs::bindings(self.snapshot)
    }

    pub(super) fn acceptance(&self, namespace: &str, binding: &ManagedIdentityBinding) -> Option<&Acceptance> {
        self.acceptances.get(namespace)?.get(&binding.name_any())
    }

    /// Whether a cluster operator abandoned the credentials in Azure. The annotation counts on the `ManagedIdentity` only,
    /// which app teams can't write.
    pub(super) fn is_abandoned(&self) -> bool {
        self.owner.is_some_and(|owner| owner.annotations().get(ABANDON_ANNOTATION).is_some_and(|value| value == "true"))
    }

    pub(super) fn is_owner(&self, object: &ManagedIdentity) -> bool {
        self.owner.is_some_and(|owner| owner.name_any() == object.name_any())
    }
}
