//! The informers' cache, indexed so that the cost of a change does not grow with the number of objects.

pub(crate) mod catch_up;
pub(crate) mod classes;
pub(crate) mod gated_pods;
pub(crate) mod informers;
pub(crate) mod snapshot;
pub(crate) mod status_expectations;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use self::classes::Classes;
use self::status_expectations::StatusExpectations;
use crate::engine::key::Key;
use crate::kube_names::BindingName;
use crate::metrics::{CountedObjects, ObjectCounts};
use crate::status_fingerprint::StatusFingerprint;
use ensign_api::keys::CREDENTIALS_FINALIZER;
use ensign_api::{
    ArmId, IssuerRecord, IssuerState, ManagedIdentity, ManagedIdentityBinding, ManagedIdentityClass, NamespacedName,
};
use ensign_core::acceptance::{grants, identities};
use ensign_core::scheduling::resync::Sharers;

/// What decisions read of a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NamespaceFacts {
    pub(crate) uid: Option<String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) terminating: bool,
}

impl From<ObjectMeta> for NamespaceFacts {
    fn from(metadata: ObjectMeta) -> Self {
        Self {
            terminating: metadata.deletion_timestamp.is_some(),
            uid: metadata.uid,
            labels: metadata.labels.unwrap_or_default(),
        }
    }
}

/// The objects that the informers have seen.
#[derive(Default)]
pub(crate) struct Cache(RwLock<Objects>);

#[derive(Default)]
pub(crate) struct Objects {
    identities: BTreeMap<String, Arc<ManagedIdentity>>,
    by_arm_id: HashMap<ArmId, BTreeSet<String>>,
    /// How many identities in Azure each subscription has, by its ID in lower case.
    per_subscription: HashMap<String, usize>,
    bindings: BTreeMap<BindingName, Arc<ManagedIdentityBinding>>,
    by_identity: HashMap<String, BTreeSet<BindingName>>,
    namespaces: BTreeMap<String, NamespaceFacts>,
    classes: Classes,
    expected: StatusExpectations,
}

impl Cache {
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Objects> {
        self.0.read()
    }

    /// Applies a change of a `ManagedIdentity`, `None` for a deletion; returns the keys that it concerns.
    pub(crate) fn identity_changed(&self, name: &str, now: Option<ManagedIdentity>) -> BTreeSet<Key> {
        self.write().identity_changed(name, now)
    }

    /// Applies a change of a binding, `None` for a deletion; returns the keys that it concerns.
    pub(crate) fn binding_changed(&self, name: &BindingName, now: Option<ManagedIdentityBinding>) -> BTreeSet<Key> {
        self.write().binding_changed(name, now)
    }

    /// Applies a change of a namespace, `None` for a deletion; returns the keys that it concerns.
    pub(crate) fn namespace_changed(&self, name: &str, now: Option<NamespaceFacts>) -> BTreeSet<Key> {
        self.write().namespace_changed(name, now)
    }

    /// Applies a change of a `ManagedIdentityClass`, `None` for a deletion; returns the keys that it concerns.
    pub(crate) fn class_changed(&self, name: &str, now: Option<ManagedIdentityClass>) -> BTreeSet<Key> {
        self.write().class_changed(name, now)
    }

    /// Records that a status was written to a binding or an identity, in the version that was decided about.
    pub(crate) fn status_written(&self, object: &ObjectMeta, status: StatusFingerprint) {
        let Objects { bindings, identities, expected, .. } = &mut *self.write();
        let name = object.name.clone().unwrap_or_default();
        let cached = match &object.namespace {
            Some(namespace) => {
                bindings.get(&NamespacedName::new(namespace.clone(), name)).map(|binding| &binding.metadata)
            }
            None => identities.get(&name).map(|identity| &identity.metadata),
        };
        expected.written(object, cached, status);
    }

    fn write(&self) -> RwLockWriteGuard<'_, Objects> {
        self.0.write()
    }
}

impl CountedObjects for Cache {
    fn count(&self) -> ObjectCounts {
        let mut counts = ObjectCounts::default();
        let objects = self.read();
        objects.identities().for_each(|identity| counts.identity(identity));
        objects.bindings().for_each(|binding| counts.binding(binding));
        counts
    }
}

impl Objects {
    pub(crate) fn identity(&self, name: &str) -> Option<&Arc<ManagedIdentity>> {
        self.identities.get(name)
    }

    pub(crate) fn identities(&self) -> impl Iterator<Item = &Arc<ManagedIdentity>> {
        self.identities.values()
    }

    pub(crate) fn bindings(&self) -> impl Iterator<Item = &Arc<ManagedIdentityBinding>> {
        self.bindings.values()
    }

    pub(crate) fn identity_names(&self) -> impl Iterator<Item = &String> {
        self.identities.keys()
    }

    pub(crate) fn binding_names(&self) -> impl Iterator<Item = &BindingName> {
        self.bindings.keys()
    }

    pub(crate) fn namespace_names(&self) -> impl Iterator<Item = &String> {
        self.namespaces.keys()
    }

    /// The status that was written to the object, if the watch has not delivered it yet.
    pub(crate) fn expected_status(&self, object: &ObjectMeta) -> Option<StatusFingerprint> {
        self.expected.get(object)
    }

    /// How many identities in Azure share rate limits with this one.
    pub(crate) fn sharers(&self, id: &ArmId) -> Sharers {
        let subscription = self.per_subscription.get(&id.subscription().to_lowercase());
        Sharers { subscription: subscription.copied().unwrap_or_default(), tenant: self.by_arm_id.len() }
    }

    fn count(&mut self, id: &ArmId, change: impl Fn(usize) -> usize) {
        let subscription = id.subscription().to_lowercase();
        let count = change(self.per_subscription.get(&subscription).copied().unwrap_or_default());
        match count {
            0 => self.per_subscription.remove(&subscription),
            count => self.per_subscription.insert(subscription, count),
        };
    }

    /// Every `ManagedIdentity` that names the identity in Azure.
    pub(crate) fn siblings(&self, id: &ArmId) -> Vec<&Arc<ManagedIdentity>> {
        let names = self.by_arm_id.get(id).into_iter().flatten();
        names.filter_map(|name| self.identities.get(name)).collect()
    }

    /// Namespaces with a binding to the identity of this name.
    pub(crate) fn namespaces_of(&self, identity: &str) -> BTreeSet<&str> {
        self.by_identity.get(identity).into_iter().flatten().map(|name| name.namespace.as_str()).collect()
    }

    pub(crate) fn binding(&self, namespace: &str, name: &str) -> Option<&Arc<ManagedIdentityBinding>> {
        self.bindings.get(&NamespacedName::new(namespace, name))
    }

    /// The name as the cache holds it, so that copies share its memory.
    pub(crate) fn binding_name(&self, name: &BindingName) -> BindingName {
        self.bindings.get_key_value(name).map_or(name, |(known, _)| known).clone()
    }

    /// Every binding of the namespace.
    pub(crate) fn bindings_in<'a>(
        &'a self,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a Arc<ManagedIdentityBinding>> {
        self.bindings
            .range(NamespacedName::new(namespace, "")..)
            .take_while(move |(name, _)| name.namespace == namespace)
            .map(|(_, binding)| binding)
    }

    pub(crate) fn namespace(&self, name: &str) -> NamespaceFacts {
        self.namespaces.get(name).cloned().unwrap_or_default()
    }

    /// Namespaces that some grant names or selects.
    pub(crate) fn granted_namespaces(&self) -> BTreeSet<String> {
        let of_identities = || self.identities.values().flat_map(|identity| &identity.spec.allowed_subjects);
        let allowed = || of_identities().chain(self.classes.grants());
        let granted = |name: &str, facts: &NamespaceFacts| {
            allowed().any(|grant| grants::covers_namespace(grant, name, &facts.labels))
        };
        self.namespaces.iter().filter(|(name, facts)| granted(name, facts)).map(|(name, _)| name.clone()).collect()
    }

    /// The key under which bindings to the identity of this name are reconciled.
    pub(crate) fn key_of(&self, identity: &str) -> Key {
        let id = self.identities.get(identity).and_then(|object| identities::arm_id(object).ok());
        id.map_or_else(|| Key::Name(identity.into()), |id| Key::Identity(id.into()))
    }

    /// The issuers that objects record as current.
    pub(crate) fn recorded_issuers(&self) -> Vec<IssuerRecord> {
        let statuses = self.identities.values().filter_map(|identity| identity.status.as_ref());
        let records = statuses.flat_map(|status| &status.issuers);
        records.filter(|record| record.state == IssuerState::Current).cloned().collect()
    }

    /// The keys of all identities, and of all names that bindings reference.
    pub(crate) fn keys(&self) -> BTreeSet<Key> {
        self.identities.keys().chain(self.by_identity.keys()).map(|name| self.key_of(name)).collect()
    }

    fn identity_changed(&mut self, name: &str, now: Option<ManagedIdentity>) -> BTreeSet<Key> {
        let before = self.identities.get(name).cloned();
        if let Some(before) = &before {
            self.expected.seen(&before.metadata);
        }
        let significant = match (&before, &now) {
            (Some(before), Some(now)) => is_significant(before.as_ref(), now),
            _ => true,
        };
        let mut keys = BTreeSet::from([self.key_of(name)]);
        let claim = |object: Option<&ManagedIdentity>| object.and_then(classes::claim_of);
        let (had, has) = (claim(before.as_deref()), claim(now.as_ref()));
        // Bindings that wait for an identity of the class may get one now, or may have to wait longer.
        let claims: Vec<_> = if had == has { Vec::new() } else { had.into_iter().chain(has).collect() };
        if let Some(before) = before.as_deref() {
            self.classes.unindex_identity(before);
        }
        if let Some(id) = before.as_deref().and_then(|object| identities::arm_id(object).ok())
            && let Some(names) = self.by_arm_id.get_mut(&id)
        {
            names.remove(name);
            if names.is_empty() {
                self.by_arm_id.remove(&id);
                self.count(&id, |count| count.saturating_sub(1));
            }
        }
        match now {
            Some(now) => {
                if let Ok(id) = identities::arm_id(&now) {
                    if !self.by_arm_id.contains_key(&id) {
                        self.count(&id, |count| count + 1);
                    }
                    self.by_arm_id.entry(id).or_default().insert(name.to_owned());
                }
                self.classes.index_identity(&now);
                self.identities.insert(name.to_owned(), Arc::new(now));
            }
            None => {
                self.identities.remove(name);
            }
        }
        if !significant {
            return BTreeSet::new();
        }
        keys.insert(self.key_of(name));
        for binding in self.by_identity.get(name).into_iter().flatten() {
            keys.extend(self.conflicting_keys(binding));
        }
        for (class, namespace) in &claims {
            keys.extend(self.keys_of_class(class, namespace));
        }
        keys.insert(Key::Injection);
        keys
    }

    fn class_changed(&mut self, name: &str, now: Option<ManagedIdentityClass>) -> BTreeSet<Key> {
        if !self.classes.changed(name, now) {
            return BTreeSet::new();
        }
        let bindings = self.classes.bindings(name);
        let mut keys: BTreeSet<Key> = bindings.iter().flat_map(|binding| self.conflicting_keys(binding)).collect();
        keys.insert(Key::Injection);
        keys
    }

    /// Keys of the namespace's bindings on the class.
    fn keys_of_class(&self, class: &str, namespace: &str) -> BTreeSet<Key> {
        let bindings = self.bindings_in(namespace).filter(|binding| binding.class_name() == Some(class));
        bindings.map(|binding| self.key_of(&binding.identity_name())).collect()
    }

    pub(crate) fn class(&self, name: &str) -> Option<&Arc<ManagedIdentityClass>> {
        self.classes.get(name)
    }

    pub(crate) fn class_names(&self) -> impl Iterator<Item = &String> {
        self.classes.names()
    }

    /// How many identities there are for the namespace, by class.
    pub(crate) fn identity_counts(&self, namespace: &str) -> BTreeMap<String, u32> {
        self.classes.identity_counts(namespace)
    }

    fn binding_changed(&mut self, name: &BindingName, now: Option<ManagedIdentityBinding>) -> BTreeSet<Key> {
        let name = &self.binding_name(name);
        let before = self.bindings.get(name).cloned();
        if let Some(before) = &before {
            self.expected.seen(&before.metadata);
        }
        if let (Some(before), Some(now)) = (&before, &now)
            && !is_significant(before.as_ref(), now)
        {
            self.bindings.insert(name.clone(), Arc::new(now.clone()));
            return BTreeSet::new();
        }
        let mut keys = self.conflicting_keys(name);
        let changed_classes: BTreeSet<String> = before
            .as_deref()
            .into_iter()
            .chain(&now)
            .filter_map(|binding| binding.class_name().map(str::to_owned))
            .collect();
        if let Some(before) = before {
            if let Some(class) = before.class_name() {
                self.classes.unindex_binding(class, name);
            }
            let identity = before.identity_name();
            keys.insert(self.key_of(&identity));
            if let Some(names) = self.by_identity.get_mut(identity.as_ref()) {
                names.remove(name);
                if names.is_empty() {
                    self.by_identity.remove(identity.as_ref());
                }
            }
        }
        match now {
            Some(now) => {
                let identity = now.identity_name().into_owned();
                keys.insert(self.key_of(&identity));
                self.by_identity.entry(identity).or_default().insert(name.clone());
                if let Some(class) = now.class_name() {
                    self.classes.index_binding(class, name);
                }
                self.bindings.insert(name.clone(), Arc::new(now));
            }
            None => {
                self.bindings.remove(name);
            }
        }
        for class in changed_classes {
            keys.extend(self.keys_of_class(&class, &name.namespace));
        }
        keys.extend(self.conflicting_keys(name));
        keys
    }

    fn namespace_changed(&mut self, name: &str, now: Option<NamespaceFacts>) -> BTreeSet<Key> {
        if self.namespaces.get(name) == now.as_ref() {
            return BTreeSet::new();
        }
        match now {
            Some(now) => self.namespaces.insert(name.to_owned(), now),
            None => self.namespaces.remove(name),
        };
        let identities = self.bindings_in(name).map(|binding| self.key_of(&binding.identity_name()));
        identities.chain([Key::Injection]).collect()
    }

    /// Keys of the bindings for the same service account: one of them may win or lose a conflict.
    fn conflicting_keys(&self, binding: &BindingName) -> BTreeSet<Key> {
        let Some(changed) = self.bindings.get(binding) else { return BTreeSet::new() };
        self.bindings_in(&binding.namespace)
            .filter(|other| other.spec.service_account_name == changed.spec.service_account_name)
            .map(|other| self.key_of(&other.identity_name()))
            .collect()
    }
}

/// Whether a change is more than a write of this controller: of status, or of an added finalizer.
fn is_significant<K: ResourceExt>(before: &K, now: &K) -> bool {
    let facts = |object: &K| {
        let meta = object.meta();
        (meta.uid.clone(), meta.generation, meta.deletion_timestamp.clone())
    };
    let has_finalizer = |object: &K| object.finalizers().iter().any(|name| name == CREDENTIALS_FINALIZER);
    facts(before) != facts(now)
        || before.annotations() != now.annotations()
        || (has_finalizer(before) && !has_finalizer(now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn id(name: &str) -> String {
        format!(
            "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}"
        )
    }

    fn identity(name: &str, arm_name: &str) -> ManagedIdentity {
        serde_json::from_value(json!({
            "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentity", "metadata": {"name": name, "generation": 1},
            "spec": {"existing": {"resourceID": id(arm_name)},
                     "allowedSubjects": [{"name": "s", "namespace": "shop", "serviceAccounts": ["*"]}]},
        }))
        .unwrap()
    }

    fn binding(name: &str, identity: &str) -> ManagedIdentityBinding {
        serde_json::from_value(json!({
            "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentityBinding",
            "metadata": {"name": name, "namespace": "shop", "generation": 1},
            "spec": {"identityRef": {"name": identity}, "serviceAccountName": "app"},
        }))
        .unwrap()
    }

    fn called(name: &str) -> BindingName {
        Arc::new(NamespacedName::new("shop", name))
    }

    fn add_binding(cache: &Cache, name: &str, identity: &str) -> BTreeSet<Key> {
        cache.binding_changed(&called(name), Some(binding(name, identity)))
    }

    fn arm_key(name: &str) -> Key {
        Key::Identity(id(name).parse::<ArmId>().unwrap().into())
    }

    #[test]
    fn a_binding_is_queued_by_name_until_its_identity_exists() {
        let cache = Cache::default();
        assert_eq!(add_binding(&cache, "b", "orders"), [Key::Name("orders".into())].into());
        let keys = cache.identity_changed("orders", Some(identity("orders", "orders")));
        assert_eq!(keys, [arm_key("orders"), Key::Name("orders".into()), Key::Injection].into());
        assert_eq!(cache.read().keys(), [arm_key("orders")].into());
    }

    #[test]
    fn a_deletion_queues_the_identity() {
        let cache = Cache::default();
        cache.identity_changed("orders", Some(identity("orders", "orders")));
        add_binding(&cache, "b", "orders");
        let keys = cache.binding_changed(&called("b"), None);
        assert_eq!(keys, [arm_key("orders")].into());
        assert!(cache.read().namespaces_of("orders").is_empty());
    }

    #[test]
    fn all_indexes_share_one_name_of_a_binding() {
        let cache = Cache::default();
        add_binding(&cache, "b", "orders");
        let first = cache.read().binding_name(&called("b"));
        let mut moved = binding("b", "billing");
        moved.metadata.generation = Some(2);
        cache.binding_changed(&called("b"), Some(moved));
        let objects = cache.read();
        let indexed = objects.by_identity["billing"].first().unwrap();
        assert!(Arc::ptr_eq(indexed, &first) && Arc::ptr_eq(&objects.binding_name(&called("b")), &first));
    }

    #[test]
    fn our_own_status_write_queues_nothing() {
        let cache = Cache::default();
        cache.identity_changed("orders", Some(identity("orders", "orders")));
        add_binding(&cache, "b", "orders");
        let mut with_status = binding("b", "orders");
        with_status.status = Some(ensign_api::ManagedIdentityBindingStatus::default());
        let name = called("b");
        assert!(cache.binding_changed(&name, Some(with_status)).is_empty());
        assert!(cache.read().bindings[&name].status.is_some(), "but it is cached");
    }

    #[test]
    fn our_own_finalizer_queues_nothing() {
        let cache = Cache::default();
        cache.identity_changed("orders", Some(identity("orders", "orders")));
        add_binding(&cache, "b", "orders");
        let mut with_finalizer = binding("b", "orders");
        with_finalizer.metadata.finalizers = Some(vec![CREDENTIALS_FINALIZER.into()]);
        assert!(cache.binding_changed(&called("b"), Some(with_finalizer)).is_empty());
    }

    #[test]
    fn a_finalizer_that_was_removed_queues_the_identity() {
        let cache = Cache::default();
        cache.identity_changed("orders", Some(identity("orders", "orders")));
        let mut with_finalizer = binding("b", "orders");
        with_finalizer.metadata.finalizers = Some(vec!["ensign.dev/credentials".into()]);
        cache.binding_changed(&called("b"), Some(with_finalizer));
        assert_eq!(add_binding(&cache, "b", "orders"), [arm_key("orders")].into());
    }

    #[test]
    fn a_change_queues_the_identities_of_conflicting_bindings() {
        let cache = Cache::default();
        cache.identity_changed("orders", Some(identity("orders", "orders")));
        cache.identity_changed("audit", Some(identity("audit", "audit")));
        add_binding(&cache, "older", "orders");
        assert_eq!(add_binding(&cache, "younger", "audit"), [arm_key("orders"), arm_key("audit")].into());
        let keys = cache.binding_changed(&called("older"), None);
        assert_eq!(keys, [arm_key("orders"), arm_key("audit")].into());
    }

    #[test]
    fn two_objects_on_one_identity_share_a_key() {
        let cache = Cache::default();
        cache.identity_changed("a", Some(identity("a", "orders")));
        cache.identity_changed("b", Some(identity("b", "ORDERS")));
        let objects = cache.read();
        assert_eq!(objects.keys().len(), 1);
        assert_eq!(objects.siblings(&id("orders").parse().unwrap()).len(), 2);
    }

    #[test]
    fn identities_of_a_subscription_are_counted_by_what_is_in_azure() {
        let cache = Cache::default();
        let sharers = |cache: &Cache| cache.read().sharers(&id("any").parse().unwrap());
        cache.identity_changed("a", Some(identity("a", "orders")));
        cache.identity_changed("b", Some(identity("b", "ORDERS")));
        cache.identity_changed("c", Some(identity("c", "audit")));
        cache.identity_changed("c", Some(identity("c", "audit")));
        assert_eq!(sharers(&cache), Sharers { subscription: 2, tenant: 2 });
        cache.identity_changed("a", None);
        assert_eq!(sharers(&cache), Sharers { subscription: 2, tenant: 2 });
        cache.identity_changed("b", None);
        cache.identity_changed("c", None);
        assert_eq!(sharers(&cache), Sharers::default());
    }

    #[test]
    fn granted_namespaces_follow_grants_and_namespaces() {
        let cache = Cache::default();
        cache.namespace_changed("shop", Some(NamespaceFacts::default()));
        cache.namespace_changed("other", Some(NamespaceFacts::default()));
        assert!(cache.read().granted_namespaces().is_empty());
        cache.identity_changed("orders", Some(identity("orders", "orders")));
        assert_eq!(cache.read().granted_namespaces(), ["shop".to_owned()].into());
    }

    #[test]
    fn a_label_on_a_namespace_queues_the_identities_of_its_bindings() {
        let cache = Cache::default();
        cache.identity_changed("orders", Some(identity("orders", "orders")));
        add_binding(&cache, "b", "orders");
        cache.namespace_changed("shop", Some(NamespaceFacts::default()));
        let labels = [("team".to_owned(), "orders".to_owned())].into();
        let keys = cache.namespace_changed("shop", Some(NamespaceFacts { labels, ..NamespaceFacts::default() }));
        assert_eq!(keys, [arm_key("orders"), Key::Injection].into());
    }

    fn class(name: &str, generation: i64) -> ManagedIdentityClass {
        serde_json::from_value(json!({
            "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentityClass",
            "metadata": {"name": name, "generation": generation},
            "spec": {
                "provision": {"subscriptionID": "x", "resourceGroup": "rg", "location": "eastus"},
                "allowedSubjects": [{"name": "s", "namespace": "shop", "serviceAccounts": ["*"]}],
            },
        }))
        .unwrap()
    }

    /// A binding on a class, with its name as its UID.
    fn add_class_binding(cache: &Cache, name: &str, account: &str) -> BTreeSet<Key> {
        let mut added = binding(name, "dedicated");
        added.spec.identity_ref.kind = ensign_api::IdentityKind::ManagedIdentityClass;
        added.spec.service_account_name = account.to_owned();
        added.metadata.uid = Some(name.to_owned());
        cache.binding_changed(&called(name), Some(added))
    }

    fn dedicated(binding: &str) -> ManagedIdentity {
        let name = format!("mib-{binding}");
        let mut object = identity(&name, &name);
        object.spec.class_name = Some("dedicated".into());
        let claim = json!({"namespace": "shop", "name": binding, "uid": binding});
        object.spec.claim_ref = serde_json::from_value(claim).unwrap();
        object
    }

    fn name_key(binding: &str) -> Key {
        Key::Name(format!("mib-{binding}").into())
    }

    #[test]
    fn a_binding_on_a_class_is_queued_by_the_name_of_its_future_identity_when_the_class_changes() {
        let cache = Cache::default();
        cache.namespace_changed("shop", Some(NamespaceFacts::default()));
        assert_eq!(add_class_binding(&cache, "a", "one"), [name_key("a")].into());
        assert!(cache.read().granted_namespaces().is_empty());
        assert_eq!(
            cache.class_changed("dedicated", Some(class("dedicated", 1))),
            [name_key("a"), Key::Injection].into()
        );
        assert_eq!(cache.read().granted_namespaces(), ["shop".to_owned()].into(), "its pods are to be reviewed");
        assert!(cache.class_changed("dedicated", Some(class("dedicated", 1))).is_empty(), "nothing changed");
        assert_eq!(cache.class_changed("dedicated", None), [name_key("a"), Key::Injection].into());
    }

    #[test]
    fn bindings_that_wait_for_an_identity_are_queued_only_when_one_is_created_or_deleted() {
        let cache = Cache::default();
        add_class_binding(&cache, "a", "one");
        add_class_binding(&cache, "b", "two");
        let keys = cache.identity_changed("mib-a", Some(dedicated("a")));
        assert!(keys.contains(&name_key("b")) && keys.contains(&arm_key("mib-a")), "{keys:?}");
        assert_eq!(cache.read().identity_counts("shop"), [("dedicated".to_owned(), 1)].into());
        let mut changed = dedicated("a");
        changed.metadata.generation = Some(2);
        assert!(!cache.identity_changed("mib-a", Some(changed)).contains(&name_key("b")));
        assert!(cache.identity_changed("mib-a", None).contains(&name_key("b")));
        assert!(cache.read().identity_counts("shop").is_empty());
    }

    #[test]
    fn a_deleted_binding_queues_those_that_wait() {
        let cache = Cache::default();
        add_class_binding(&cache, "a", "one");
        add_class_binding(&cache, "b", "two");
        let keys = cache.binding_changed(&called("a"), None);
        assert_eq!(keys, [name_key("a"), name_key("b")].into());
    }
}
