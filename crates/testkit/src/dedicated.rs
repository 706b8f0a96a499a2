//! Dedicated identities of a team: objects, and what exists for them in Azure.

use std::collections::BTreeMap;

use ensign_azure_emulator::state::Identity;
use ensign_azure_emulator::{LogEntry, LogFilter};
use serde_json::{Value, json};

use super::objects::{Team, kubectl, wait_for};

impl Team {
    fn place(&self) -> Value {
        let info = self.ensign.azure.info();
        json!({"subscriptionID": info.subscription_id, "resourceGroup": info.resource_group, "location": info.location})
    }

    /// A `ManagedIdentity` that creates the identity of this name in Azure, for every service account of the namespace.
    pub fn provisioned(&self, name: &str, provision: &Value) -> Value {
        let mut place = self.place();
        place["name"] = json!(name);
        json_patch::merge(&mut place, provision);
        json!({
            "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentity", "metadata": {"name": name},
            "spec": {
                "provision": place,
                "allowedSubjects": [{"name": "team", "namespace": self.name, "serviceAccounts": ["*"]}],
            },
        })
    }

    /// The team's class, whose identities contain the team's name.
    pub fn class(&self, change: &Value) -> Value {
        let mut place = self.place();
        place["nameTemplate"] = json!("{namespace}-{binding}");
        let mut class = json!({
            "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentityClass", "metadata": {"name": self.name},
            "spec": {
                "provision": place,
                "allowedSubjects": [{"name": "team", "namespace": self.name, "serviceAccounts": ["*"]}],
            },
        });
        json_patch::merge(&mut class["spec"], change);
        class
    }

    /// A binding to the team's class.
    pub fn asking(&self, name: &str, service_account: &str) -> Value {
        let mut binding = self.binding(name, service_account);
        binding["spec"]["identityRef"] = json!({"kind": "ManagedIdentityClass", "name": self.name});
        binding
    }

    /// Identities in Azure whose names begin with the team's, by name, without the one that every team has.
    pub fn azure_identities(&self) -> BTreeMap<String, Identity> {
        let prefix = format!("{}-", self.name);
        self.ensign.azure.with_state(|state| {
            let found = state.identities.values().filter(|found| found.id.name.starts_with(&prefix));
            found.map(|found| (found.id.name.clone(), found.clone())).collect()
        })
    }

    /// Changes an identity in Azure out of band.
    pub fn change_in_azure(&self, name: &str, change: impl FnOnce(&mut Identity)) {
        self.ensign.change_azure(|state| {
            change(state.identities.values_mut().find(|found| found.id.name == name).expect("an identity"));
        });
    }

    pub fn delete_in_azure(&self, name: &str) {
        self.ensign.change_azure(|state| state.identities.retain(|_, found| found.id.name != name));
    }

    /// Every write to ARM whose path contains this text.
    pub fn writes_with(&self, text: &str) -> Vec<LogEntry> {
        let filter =
            LogFilter { kind: Some("arm-write".to_owned()), path: Some(text.to_owned()), ..LogFilter::default() };
        self.ensign.azure.log(&filter)
    }

    /// Makes the controller check the object again.
    pub fn touch(&self, name: &str) {
        use std::sync::atomic::{AtomicU32, Ordering};
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let annotation = format!("test/touched={}", COUNTER.fetch_add(1, Ordering::Relaxed));
        kubectl(self.ensign.control_plane, &["annotate", "mi", name, "--overwrite", &annotation]);
    }

    /// Events on a cluster-scoped object, as (type, reason, message).
    pub fn cluster_events(&self, name: &str) -> Vec<(String, String, String)> {
        let arguments = ["get", "events", "--all-namespaces", "--output", "json"];
        let list: Value = serde_json::from_str(&kubectl(self.ensign.control_plane, &arguments)).expect("events");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let events = list["items"].as_array().cloned().unwrap_or_default();
        let about = events.iter().filter(|event| event["involvedObject"]["name"] == name);
        about.map(|event| (text(&event["type"]), text(&event["reason"]), text(&event["message"]))).collect()
    }

    pub fn wait_event(&self, name: &str, reason: &str) -> String {
        wait_for(&format!("an event {reason} on {name}"), || {
            self.cluster_events(name).into_iter().find(|(_, found, _)| found == reason).map(|(_, _, message)| message)
        })
    }
}
