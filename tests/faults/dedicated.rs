//! Provisioned identities: objects of plans, and what must be true of every write of an identity itself.

use ensign_azure_emulator::LogEntry;
use ensign_core::provisioning::OBJECT_TAG;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::eventually::text;
use super::gate::LABEL;
use super::harness::{Checked, Harness};
use super::history::Version;
use super::lock::lock;

const CLASS: &str = "dedicated";

impl Harness {
    fn place_in_azure(&self) -> Value {
        let info = self.azure.info();
        json!({"subscriptionID": info.subscription_id, "resourceGroup": info.resource_group, "location": info.location})
    }

    /// A `ManagedIdentity` that creates an identity of the same name, for every service account of namespace `shop`.
    pub fn provisioned(&self, name: &str, more: &Value) {
        let mut provision = self.place_in_azure();
        provision["name"] = json!(name);
        json_patch::merge(&mut provision, more);
        self.create(&json!({
            "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentity",
            "metadata": {"name": self.named(name), "labels": {LABEL: self.plan}},
            "spec": {"provision": provision, "allowedSubjects": [self.grant("shop")]},
        }));
    }

    /// The plan's class, for every service account of namespace `shop`.
    pub fn class(&self, more: &Value) {
        let mut provision = self.place_in_azure();
        // Snapshots omit the hash of names of this form.
        provision["nameTemplate"] = json!("ensign-{binding}");
        let mut spec = json!({"provision": provision, "allowedSubjects": [self.grant("shop")]});
        json_patch::merge(&mut spec, more);
        self.create(&json!({
            "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentityClass",
            "metadata": {"name": self.named(CLASS), "labels": {LABEL: self.plan}}, "spec": spec,
        }));
    }

    /// A binding in namespace `shop` to the plan's class.
    pub fn asking(&self, name: &str, account: &str) {
        self.create(&json!({
            "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentityBinding",
            "metadata": {"name": name, "namespace": self.named("shop"), "labels": {LABEL: self.plan}},
            "spec": {
                "identityRef": {"kind": "ManagedIdentityClass", "name": self.named(CLASS)}, "serviceAccountName": account,
            },
        }));
    }

    /// The name of the object that was created for the binding; the existing one, if there were several.
    pub fn object_created_for(&self, namespace: &str, name: &str) -> String {
        let wanted = (self.named(namespace), name.to_owned());
        let claim = |object: &Value| {
            let claim = &object["spec"]["claimRef"];
            (text(&claim["namespace"]).to_owned(), text(&claim["name"]).to_owned())
        };
        let all = self.history.all("ManagedIdentity");
        let of_binding = all.iter().filter_map(|versions| versions.last()).filter(|last| claim(&last.object) == wanted);
        let found: Vec<&Version> = of_binding.collect();
        let living = found.iter().find(|last| !last.is_deleted).or(found.last());
        living.map_or_else(|| "mib-none".to_owned(), |last| last.name.clone())
    }

    /// Names of identities in Azure.
    pub fn identities_in_azure(&self) -> Vec<String> {
        self.azure.with_state(|state| state.identities.values().map(|found| found.id.name.clone()).collect())
    }

    /// Waits until Azure has none of the plan's identities.
    pub fn azure_is_empty(&self) -> Checked {
        self.eventually("Azure to have no identity", |harness| {
            let left = harness.identities_in_azure();
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?} still exist")) }
        })
    }

    /// Gives the identity other tags. From now on it belongs to another owner, and Ensign must not write it.
    pub fn give_to_another_owner(&self, name: &str, tags: &[(&str, &str)]) {
        lock(&self.foreign_identities).push((Timestamp::now(), name.to_lowercase()));
        let tags = tags.iter().map(|(tag, value)| ((*tag).to_owned(), (*value).to_owned())).collect();
        let key = self.arm_id(name).key();
        self.meddle(|state| state.identities.get_mut(&key).expect("the identity").tags = tags);
    }
}

/// The name in Azure of an object's identity, in lower case.
pub fn name_in_azure(managed: &Value) -> String {
    let existing = text(&managed["spec"]["existing"]["resourceID"]).to_lowercase();
    let made = text(&managed["spec"]["provision"]["name"]).to_lowercase();
    existing.rsplit('/').next().filter(|name| !name.is_empty()).map_or(made, str::to_owned)
}

/// Whether the binding refers to this object, by name or because the object was created for it.
pub fn references(binding: &Value, managed: &Value) -> bool {
    let reference = &binding["spec"]["identityRef"];
    let claim = &managed["spec"]["claimRef"]["uid"];
    let claimed = claim.is_null() || *claim == binding["metadata"]["uid"];
    let by_class = reference["kind"] == "ManagedIdentityClass";
    let named = if by_class {
        managed["metadata"]["name"] == format!("mib-{}", text(&binding["metadata"]["uid"])) && !claim.is_null()
    } else {
        managed["metadata"]["name"] == reference["name"]
    };
    claimed && named
}

/// The name of the written identity, in lower case; none if the write is of something under it.
fn written(entry: &LogEntry) -> Option<String> {
    let lower = entry.path.to_lowercase();
    let mut segments = lower.split('/').rev();
    let name = segments.next()?.to_owned();
    (segments.next()? == "userassignedidentities").then_some(name)
}

/// O3 of identities: each is created for a live object with its finalizer, and deleted only for one that is being deleted and reclaims it;
/// those of others are not touched.
pub fn judge(harness: &Harness, own: &[LogEntry], broken: &mut Vec<String>) {
    for entry in own {
        let given_away = lock(&harness.foreign_identities).iter().any(|(since, name)| {
            *since < entry.time && entry.path.to_lowercase().contains(&format!("/userassignedidentities/{name}"))
        });
        let mut problem = |why: &str| broken.push(format!("O3: {} {}: {why}", entry.method, entry.path));
        if given_away {
            problem("it is not provably ours");
        }
        let Some(name) = written(entry) else { continue };
        let managed = harness.history.at("ManagedIdentity", entry.time).into_iter();
        let objects: Vec<Version> =
            managed.filter(|found| !found.is_deleted && name_in_azure(&found.object) == name).collect();
        if entry.method == "PUT" {
            let bindings = harness.history.at("ManagedIdentityBinding", entry.time);
            let claimed = |object: &Value| {
                let uid = &object["spec"]["claimRef"]["uid"];
                uid.is_null() || bindings.iter().any(|binding| !binding.is_deleted && *uid == binding.uid.as_str())
            };
            if !objects.iter().any(|found| !found.is_deleting() && found.has_finalizer() && claimed(&found.object)) {
                problem("no live object with its finalizer wants it");
            }
            let body = entry.body.clone().unwrap_or_default();
            if !objects.iter().any(|found| body["tags"][OBJECT_TAG] == found.uid.as_str()) {
                problem("its tags do not name its owner");
            }
        } else {
            let takes_along = |found: &&Version| {
                found.is_deleting()
                    && found.has_finalizer()
                    && found.object["spec"]["provision"]["reclaimPolicy"] == "Delete"
            };
            if !objects.iter().any(|found| takes_along(&found)) {
                problem("no object that is being deleted reclaims it");
            }
        }
    }
}
