//! Every version of a plan's objects with its time: what the oracles judge by.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::lock::lock;

pub const FINALIZER: &str = "ensign.dev/credentials";

/// One version of one object.
#[derive(Clone, Debug)]
pub struct Version {
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub revision: u64,
    /// The version existed by this time at the latest.
    pub known: Timestamp,
    pub object: Value,
    /// The object was deleted.
    pub is_deleted: bool,
}

impl Version {
    pub fn is_deleting(&self) -> bool {
        self.is_deleted || self.object["metadata"]["deletionTimestamp"].is_string()
    }

    pub fn has_finalizer(&self) -> bool {
        let finalizers = self.object["metadata"]["finalizers"].as_array();
        !self.is_deleted && finalizers.is_some_and(|list| list.iter().any(|name| name == FINALIZER))
    }
}

/// Versions by object (kind, namespace, name), in the order of their revisions.
#[derive(Default)]
pub struct History {
    versions: Mutex<BTreeMap<(String, String, String), Vec<Version>>>,
    recorded: Mutex<u64>,
}

impl History {
    /// Records a version of an object; the earliest time counts.
    pub fn record(&self, object: &Value, is_deleted: bool) {
        let known = Timestamp::now();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let meta = &object["metadata"];
        let (kind, name) = (text(&object["kind"]), text(&meta["name"]));
        let Ok(revision) = text(&meta["resourceVersion"]).parse() else { return };
        if !matches!(kind.as_str(), "ManagedIdentity" | "ManagedIdentityBinding" | "ManagedIdentityClass" | "Namespace")
        {
            return;
        }
        let deleting = meta["deletionTimestamp"].is_string();
        let free = meta["finalizers"].as_array().is_none_or(Vec::is_empty);
        let version = Version {
            namespace: text(&meta["namespace"]),
            uid: text(&meta["uid"]),
            is_deleted: is_deleted || (deleting && free && kind != "Namespace"),
            object: object.clone(),
            revision,
            known,
            kind,
            name,
        };
        *lock(&self.recorded) += 1;
        let mut all = lock(&self.versions);
        let key = (version.kind.clone(), version.namespace.clone(), version.name.clone());
        let versions = all.entry(key).or_default();
        // The response to the write that removes an object has the revision of the version before.
        if let Err(at) =
            versions.binary_search_by_key(&(revision, version.is_deleted), |one| (one.revision, one.is_deleted))
        {
            versions.insert(at, version);
        }
    }

    /// Records a list that was requested at a time: only these objects of a kind, by namespace and name, existed.
    pub fn listed(&self, kind: &str, asked: Timestamp, there: &BTreeSet<(String, String)>) {
        let mut all = lock(&self.versions);
        for ((of, namespace, name), versions) in all.iter_mut() {
            let Some(last) = versions.last().filter(|last| !last.is_deleted && last.known < asked) else { continue };
            if of == kind && !there.contains(&(namespace.clone(), name.clone())) {
                let gone = Version { is_deleted: true, known: Timestamp::now(), ..last.clone() };
                versions.push(gone);
                *lock(&self.recorded) += 1;
            }
        }
    }

    /// How many versions were recorded: unchanged while nothing happens.
    pub fn recorded(&self) -> u64 {
        *lock(&self.recorded)
    }

    /// The latest revision of any existing object of a kind.
    pub fn latest(&self, kind: &str) -> u64 {
        let all = lock(&self.versions);
        let last = all.iter().filter(|((found, _, _), _)| found == kind).filter_map(|(_, versions)| versions.last());
        last.filter(|last| !last.is_deleted).map(|last| last.revision).max().unwrap_or_default()
    }

    /// The last version of an object, if it exists.
    pub fn live(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        let all = lock(&self.versions);
        let last = all.get(&(kind.to_owned(), namespace.to_owned(), name.to_owned()))?.last()?;
        (!last.is_deleted).then(|| last.object.clone())
    }

    /// Every object of a kind as it was at a time.
    pub fn at(&self, kind: &str, time: Timestamp) -> Vec<Version> {
        let all = lock(&self.versions);
        let of_kind = all.iter().filter(|((found, _, _), _)| found == kind);
        of_kind.filter_map(|(_, versions)| versions.iter().rfind(|version| version.known <= time)).cloned().collect()
    }

    /// Every version of every object of a kind.
    pub fn all(&self, kind: &str) -> Vec<Vec<Version>> {
        let all = lock(&self.versions);
        all.iter().filter(|((found, _, _), _)| found == kind).map(|(_, versions)| versions.clone()).collect()
    }
}
