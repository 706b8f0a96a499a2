//! The part of the cache that is about classes and their dedicated identities.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use kube::ResourceExt;

use crate::kube_names::BindingName;
use ensign_api::{AllowedSubject, ManagedIdentity, ManagedIdentityClass};

/// Classes, the bindings that reference them, and the identities that were created from them.
#[derive(Default)]
pub(crate) struct Classes {
    known: BTreeMap<String, Arc<ManagedIdentityClass>>,
    bindings: HashMap<String, BTreeSet<BindingName>>,
    /// Names of identities, by the namespace that they are for and their class.
    identities: HashMap<String, BTreeMap<String, BTreeSet<String>>>,
}

/// The class that an identity was created from, and the namespace that it is for.
pub(crate) fn claim_of(object: &ManagedIdentity) -> Option<(String, String)> {
    Some((object.spec.class_name.clone()?, object.spec.claim_ref.as_ref()?.namespace.clone()))
}

impl Classes {
    pub(crate) fn get(&self, name: &str) -> Option<&Arc<ManagedIdentityClass>> {
        self.known.get(name)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &String> {
        self.known.keys()
    }

    pub(crate) fn grants(&self) -> impl Iterator<Item = &AllowedSubject> {
        self.known.values().flat_map(|class| &class.spec.allowed_subjects)
    }

    /// Applies a change; whether it is one of the spec.
    pub(crate) fn changed(&mut self, name: &str, now: Option<ManagedIdentityClass>) -> bool {
        let facts = |class: &ManagedIdentityClass| (class.metadata.uid.clone(), class.metadata.generation);
        let before = self.known.get(name).map(|class| facts(class));
        let after = now.as_ref().map(facts);
        match now {
            Some(now) => self.known.insert(name.to_owned(), Arc::new(now)),
            None => self.known.remove(name),
        };
        before != after
    }

    /// Adds a binding that references the class.
    pub(crate) fn index_binding(&mut self, class: &str, binding: &BindingName) {
        self.bindings.entry(class.to_owned()).or_default().insert(binding.clone());
    }

    /// Removes a binding that no longer references the class.
    pub(crate) fn unindex_binding(&mut self, class: &str, binding: &BindingName) {
        if let Some(bindings) = self.bindings.get_mut(class) {
            bindings.remove(binding);
            if bindings.is_empty() {
                self.bindings.remove(class);
            }
        }
    }

    /// Every binding that references the class.
    pub(crate) fn bindings(&self, class: &str) -> BTreeSet<BindingName> {
        self.bindings.get(class).cloned().unwrap_or_default()
    }

    /// Adds an identity; one that was not created from a class is ignored.
    pub(crate) fn index_identity(&mut self, object: &ManagedIdentity) {
        if let Some((class, namespace)) = claim_of(object) {
            self.identities.entry(namespace).or_default().entry(class).or_default().insert(object.name_any());
        }
    }

    /// Removes an identity that was deleted or is about to be replaced by a later version.
    pub(crate) fn unindex_identity(&mut self, object: &ManagedIdentity) {
        let Some((class, namespace)) = claim_of(object) else { return };
        let Some(classes) = self.identities.get_mut(&namespace) else { return };
        if let Some(names) = classes.get_mut(&class) {
            names.remove(&object.name_any());
            if names.is_empty() {
                classes.remove(&class);
            }
        }
        if classes.is_empty() {
            self.identities.remove(&namespace);
        }
    }

    /// How many identities there are for the namespace, by class.
    pub(crate) fn identity_counts(&self, namespace: &str) -> BTreeMap<String, u32> {
        let count = |names: &BTreeSet<String>| u32::try_from(names.len()).unwrap_or(u32::MAX);
        let classes = self.identities.get(namespace).into_iter().flatten();
        classes.map(|(class, names)| (class.clone(), count(names))).collect()
    }
}
