//! Conditions that a plan waits for.

use std::collections::BTreeSet;

use serde_json::Value;

use super::harness::{Checked, Harness};

const BINDING: &str = "ManagedIdentityBinding";

impl Harness {
    /// Waits until the binding is ready at its current generation.
    pub fn ready(&self, namespace: &str, name: &str) -> Checked {
        self.condition(BINDING, namespace, name, "Ready", "True", "Ready")
    }

    pub fn identity_ready(&self, name: &str) -> Checked {
        self.condition("ManagedIdentity", "", name, "Ready", "True", "Ready")
    }

    pub fn not_ready(&self, namespace: &str, name: &str, reason: &str) -> Checked {
        self.condition(BINDING, namespace, name, "Ready", "False", reason)
    }

    pub fn condition(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
        condition: &str,
        status: &str,
        reason: &str,
    ) -> Checked {
        let what = format!("{kind} {namespace}/{name} with {condition}={status}/{reason}");
        self.eventually(&what, |harness| {
            let object = harness.live(kind, namespace, name).ok_or("there is no such object")?;
            let found = condition_of(&object, condition);
            let observed = object["status"]["observedGeneration"] == object["metadata"]["generation"];
            let holds = found.is_some_and(|found| found["status"] == status && found["reason"] == reason);
            let found = found.map(|found| {
                format!("{}/{}: {}", text(&found["status"]), text(&found["reason"]), text(&found["message"]))
            });
            if holds && observed { Ok(()) } else { Err(format!("it is {found:?}, observed: {observed}")) }
        })
    }

    pub fn deleted(&self, kind: &str, namespace: &str, name: &str) -> Checked {
        self.eventually(&format!("{kind} {namespace}/{name} to be deleted"), |harness| {
            let left = harness.live(kind, namespace, name);
            left.map_or(Ok(()), |left| Err(format!("it exists: {}", left["metadata"])))
        })
    }

    pub fn binding_deleted(&self, namespace: &str, name: &str) -> Checked {
        self.deleted(BINDING, namespace, name)
    }

    /// Waits until the identity has credentials for exactly these service accounts.
    pub fn trusts(&self, identity: &str, accounts: &[(&str, &str)]) -> Checked {
        let wanted: BTreeSet<String> =
            accounts.iter().map(|(namespace, account)| self.subject(namespace, account).to_string()).collect();
        self.eventually(&format!("{identity} to trust exactly {wanted:?}"), |harness| {
            let found: BTreeSet<String> = harness.credentials(identity).into_iter().map(|one| one.subject).collect();
            if found == wanted { Ok(()) } else { Err(format!("it trusts {found:?}")) }
        })
    }
}

pub use ensign_testkit::objects::condition_of;

pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
