//! Everything in the cache that concerns one key, as one reconcile uses it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::{NamespaceFacts, Objects};
use crate::engine::key::Key;
use ensign_api::conditions::Verdict;
use ensign_api::{ArmId, ManagedIdentity, ManagedIdentityBinding, ManagedIdentityClass};
use ensign_core::acceptance::IdentityFacts;
use ensign_core::acceptance::claims::Classes;
use ensign_core::acceptance::identities;
use ensign_core::assess::{NamespaceSnapshot, Settings, Snapshot};
use ensign_core::commands::teardown;

/// The objects that concern one key.
#[derive(Default)]
pub(crate) struct CacheView {
    /// The identity in Azure, if the key has one.
    pub(crate) id: Option<ArmId>,
    identities: Vec<Arc<ManagedIdentity>>,
    others: Vec<(Arc<ManagedIdentity>, Verdict)>,
    namespaces: BTreeMap<String, (NamespaceFacts, Vec<Arc<ManagedIdentityBinding>>)>,
    missing: Option<String>,
    classes: BTreeMap<String, Arc<ManagedIdentityClass>>,
    /// How many identities of each class exist, by namespace.
    identity_counts: BTreeMap<String, BTreeMap<String, u32>>,
}

impl CacheView {
    /// Reads what concerns `key` from the cache.
    pub(crate) fn new(objects: &Objects, key: &Key, settings: &Settings) -> Self {
        let (id, identities, missing) = match key {
            Key::Identity(id) => {
                (Some(ArmId::clone(id)), objects.siblings(id).into_iter().cloned().collect::<Vec<_>>(), None)
            }
            // The name belongs to an identity in Azure by now, which has a key of its own.
            Key::Name(name) if objects.key_of(name) != *key => return Self::default(),
            Key::Name(name) => {
                let found: Vec<_> = objects.identity(name).cloned().into_iter().collect();
                let missing = found.is_empty().then(|| name.to_string());
                (None, found, missing)
            }
            Key::Injection | Key::Pod(_) | Key::UnlabelledPods | Key::UninjectedPods(_) => return Self::default(),
        };
        let names: BTreeSet<String> =
            identities.iter().map(|object| object.name_any()).chain(missing.clone()).collect();
        let claims = identities.iter().filter_map(|object| object.spec.claim_ref.as_ref());
        let namespaces: BTreeMap<_, _> = names
            .iter()
            .flat_map(|name| objects.namespaces_of(name))
            .chain(claims.map(|claim| claim.namespace.as_str()))
            .map(|name| {
                (name.to_owned(), (objects.namespace(name), objects.bindings_in(name).cloned().collect::<Vec<_>>()))
            })
            .collect();
        let referenced: BTreeSet<_> = namespaces
            .values()
            .flat_map(|(_, bindings)| bindings)
            .map(|binding| binding.identity_name())
            .filter(|name| !names.contains(name.as_ref()))
            .collect();
        let others = referenced
            .into_iter()
            .filter_map(|name| objects.identity(&name))
            .map(|object| (object.clone(), accept(objects, object, settings)))
            .collect();
        let classes = namespaces
            .values()
            .flat_map(|(_, bindings)| bindings)
            .filter_map(|binding| objects.class(binding.class_name()?))
            .map(|class| (class.name_any(), class.clone()))
            .collect();
        let identity_counts =
            namespaces.keys().map(|namespace| (namespace.clone(), objects.identity_counts(namespace))).collect();
        Self { id, identities, others, namespaces, missing, classes, identity_counts }
    }

    /// The same, as if every object had been marked for deletion at this time.
    pub(crate) fn marked_for_deletion(mut self, now: Timestamp) -> Self {
        self.identities = self
            .identities
            .iter()
            .map(|object| Arc::new(teardown::marked_for_deletion(object.as_ref(), now)))
            .collect();
        for (_, bindings) in self.namespaces.values_mut() {
            *bindings =
                bindings.iter().map(|object| Arc::new(teardown::marked_for_deletion(object.as_ref(), now))).collect();
        }
        self
    }

    /// The objects as decisions take them.
    pub(crate) fn snapshot(&self) -> Snapshot<'_> {
        let namespaces = self.namespaces.iter().map(|(name, (facts, bindings))| {
            let snapshot = NamespaceSnapshot {
                labels: &facts.labels,
                terminating: facts.terminating,
                bindings: bindings.iter().map(AsRef::as_ref).collect(),
                classes: self.classes(name),
            };
            (name.as_str(), snapshot)
        });
        let others = self.others.iter().filter_map(|(object, accepted)| {
            let name = object.metadata.name.as_deref()?;
            Some((name, IdentityFacts { object, accepted: accepted.clone() }))
        });
        Snapshot {
            identities: self.identities.iter().map(AsRef::as_ref).collect(),
            namespaces: namespaces.collect(),
            others: others.collect(),
            missing: self.missing.as_deref(),
        }
    }

    fn classes(&self, namespace: &str) -> Classes<'_> {
        let counts = self.identity_counts.get(namespace).into_iter().flatten();
        Classes {
            known: self.classes.iter().map(|(name, class)| (name.as_str(), class.as_ref())).collect(),
            made: counts.map(|(class, count)| (class.as_str(), *count)).collect(),
        }
    }

    pub(crate) fn class(&self, name: &str) -> Option<&Arc<ManagedIdentityClass>> {
        self.classes.get(name)
    }

    /// How many identities of the class exist for the namespace.
    pub(crate) fn identity_count(&self, namespace: &str, class: &str) -> usize {
        let count = self.identity_counts.get(namespace).and_then(|counts| counts.get(class));
        count.copied().unwrap_or_default().try_into().unwrap_or(usize::MAX)
    }

    /// Whether nothing is left to decide about.
    pub(crate) fn is_empty(&self) -> bool {
        self.identities.is_empty() && self.namespaces.is_empty()
    }

    /// The object that owns the identity in Azure.
    pub(crate) fn owner(&self) -> Option<&ManagedIdentity> {
        let siblings: Vec<&ManagedIdentity> = self.identities.iter().map(AsRef::as_ref).collect();
        identities::owner(&siblings)
    }

    pub(crate) fn identity(&self, name: &str) -> Option<&Arc<ManagedIdentity>> {
        self.identities.iter().find(|object| object.name_any() == name)
    }

    pub(crate) fn binding(&self, namespace: &str, name: &str) -> Option<&Arc<ManagedIdentityBinding>> {
        let (_, bindings) = self.namespaces.get(namespace)?;
        bindings.iter().find(|binding| binding.name_any() == name)
    }

    pub(crate) fn namespace(&self, name: &str) -> Option<&NamespaceFacts> {
        self.namespaces.get(name).map(|(facts, _)| facts)
    }

    /// The name of an identity that bindings reference and that does not exist.
    pub(crate) fn missing(&self) -> Option<&str> {
        self.missing.as_deref()
    }
}

fn accept(objects: &Objects, object: &ManagedIdentity, settings: &Settings) -> Verdict {
    let siblings = identities::arm_id(object).map(|id| objects.siblings(&id)).unwrap_or_default();
    let siblings: Vec<&ManagedIdentity> = siblings.into_iter().map(AsRef::as_ref).collect();
    identities::accept(object, &siblings, settings.own_client_id.as_deref(), &settings.allowed_scopes)
}
