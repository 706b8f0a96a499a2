//! A control plane and an emulator where no controller runs, for tests that start their own.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use ensign_azure_emulator::state::{Credential, IdentityId};
use ensign_azure_emulator::{Emulator, EmulatorOptions, LogEntry, LogFilter};
use ensign_runtime::clock::{Clock, SystemClock};
use serde_json::{Value, json};

use super::azure;
use super::control_plane::ControlPlane;
use super::objects::{apply, apply_crds, condition_of, kubectl, unique, wait_for};
use super::replica::{Replica, ReplicaOptions};

/// Held by one test at a time, because each controller acts on all objects.
pub struct Testbed {
    pub control_plane: &'static ControlPlane,
    pub azure: &'static Emulator,
    _lock: MutexGuard<'static, ()>,
}

impl Testbed {
    pub fn acquire() -> Self {
        static AZURE: OnceLock<Emulator> = OnceLock::new();
        static LOCK: Mutex<()> = Mutex::new(());
        // A failed test leaves nothing that disturbs the next one.
        let lock = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
        let control_plane = ControlPlane::separate();
        let azure = AZURE.get_or_init(|| {
            apply_crds(control_plane);
            azure::start_emulator(control_plane, EmulatorOptions::default())
        });
        Self { control_plane, azure, _lock: lock }
    }

    /// A namespace and an identity in Azure with the same unique name, and the objects that bind its service account.
    pub fn team(&self, prefix: &str) -> TestbedTeam<'_> {
        let name = unique(prefix);
        let id = self.azure_id(&name);
        let identity = azure::identity(id, &self.azure.info().location);
        self.azure.with_state(|state| state.identities.insert(identity.id.key(), identity));
        kubectl(self.control_plane, &["create", "namespace", &name]);
        TestbedTeam { testbed: self, name }
    }

    fn azure_id(&self, name: &str) -> IdentityId {
        let info = self.azure.info();
        IdentityId {
            subscription: info.subscription_id.clone(),
            resource_group: info.resource_group.clone(),
            name: name.to_owned(),
        }
    }

    /// A lease that no other test uses.
    pub fn lease(&self, duration_seconds: u64) -> TestbedLease<'_> {
        TestbedLease { testbed: self, name: unique("lease"), duration_seconds }
    }

    /// Starts a controller whose requests carry its name, which no other controller of the testbed may have.
    pub fn start(&self, name: &str, options: ReplicaOptions) -> Replica {
        Replica::start(self, name, options)
    }

    /// How often a controller read the issuer.
    pub fn issuer_reads(&self, replica: &str) -> usize {
        let is_read = |event: &Value| event["requestURI"] == "/.well-known/openid-configuration";
        self.requests(replica).iter().filter(|event| is_read(event)).count()
    }

    /// How often a controller successfully updated a webhook configuration.
    pub fn registrations(&self, replica: &str) -> usize {
        let is_write = |event: &Value| {
            event["verb"] == "update"
                && event["objectRef"]["resource"] == "mutatingwebhookconfigurations"
                && event["responseStatus"]["code"] == 200
        };
        self.requests(replica).iter().filter(|event| is_write(event)).count()
    }

    /// How often a controller read a webhook configuration.
    pub fn registration_reads(&self, replica: &str) -> usize {
        let is_read =
            |event: &Value| event["verb"] == "get" && event["objectRef"]["resource"] == "mutatingwebhookconfigurations";
        self.requests(replica).iter().filter(|event| is_read(event)).count()
    }

    /// How often a controller read the lease.
    pub fn lease_reads(&self, replica: &str) -> usize {
        let is_read = |event: &Value| event["verb"] == "get" && event["objectRef"]["resource"] == "leases";
        self.requests(replica).iter().filter(|event| is_read(event)).count()
    }

    /// The writes of a controller to Kubernetes, except for the lease.
    pub fn kubernetes_writes(&self, replica: &str) -> Vec<String> {
        let writes = |event: &Value| !["get", "list", "watch"].iter().any(|verb| event["verb"] == *verb);
        let events = self.requests(replica).into_iter();
        events
            .filter(|event| writes(event) && event["objectRef"]["resource"] != "leases")
            .map(|event| format!("{} {}", event["verb"], event["requestURI"]))
            .collect()
    }

    fn requests(&self, replica: &str) -> Vec<Value> {
        self.control_plane.audit_events_with(&format!("\"userAgent\":\"{replica}\""))
    }
}

/// A namespace and an identity on the testbed.
pub struct TestbedTeam<'a> {
    testbed: &'a Testbed,
    pub name: String,
}

impl TestbedTeam<'_> {
    pub fn bind(&self) {
        self.grant_namespace();
        self.bind_account("app");
    }

    /// Lets every service account of the namespace use the identity.
    pub fn grant_namespace(&self) {
        self.grant(&self.whole_namespace());
    }

    /// The same with the policy `Observe`: nothing is written to Azure.
    pub fn bind_observed(&self) {
        self.managed_identity("Observe", &self.whole_namespace());
        self.bind_account("app");
    }

    fn whole_namespace(&self) -> Value {
        json!([{"name": "team", "namespace": self.name, "serviceAccounts": ["*"]}])
    }

    /// Sets who may use the identity.
    pub fn grant(&self, allowed: &Value) {
        self.managed_identity("Manage", allowed);
    }

    fn managed_identity(&self, policy: &str, allowed: &Value) {
        let id = azure::arm_id(&self.testbed.azure_id(&self.name));
        self.apply(&json!({
            "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentity", "metadata": {"name": self.name},
            "spec": {"existing": {"resourceID": id, "credentialPolicy": policy}, "allowedSubjects": allowed},
        }));
    }

    pub fn bind_account(&self, account: &str) {
        self.apply(&json!({
            "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentityBinding",
            "metadata": {"name": account, "namespace": self.name},
            "spec": {"identityRef": {"name": self.name}, "serviceAccountName": account},
        }));
    }

    pub fn apply(&self, object: &Value) {
        apply(self.testbed.control_plane, object).expect("apply");
    }

    pub fn get(&self, kind: &str, name: &str) -> Option<Value> {
        let arguments = ["get", kind, name, "--namespace", &self.name, "--ignore-not-found", "--output", "json"];
        let text = kubectl(self.testbed.control_plane, &arguments);
        (!text.trim().is_empty()).then(|| serde_json::from_str(&text).expect("an object"))
    }

    pub fn wait_ready(&self, account: &str) -> Value {
        wait_for(&format!("binding {account} of {} to be ready", self.name), || {
            let binding = self.get("mib", account)?;
            (condition_of(&binding, "Ready")?["status"] == "True").then_some(binding)
        })
    }

    pub fn unbind(&self, account: &str) {
        kubectl(self.testbed.control_plane, &["delete", "mib", account, "--namespace", &self.name, "--timeout=60s"]);
    }

    /// Issuers and names of the credentials under the identity.
    pub fn credentials(&self) -> Vec<(String, String)> {
        self.testbed.azure.with_state(|state| {
            let named = state.identities.values().find(|found| found.id.name == self.name);
            let credentials = named.into_iter().flat_map(|found| found.credentials.values());
            credentials.map(|credential| (credential.issuer.clone(), credential.name.clone())).collect()
        })
    }

    /// Adds a credential to the identity, as another program would.
    pub fn add_credential(&self, name: &str, issuer: &Value, subject: &str) {
        let issuer = issuer.as_str().expect("an issuer");
        let written_at = SystemClock.now();
        let credential = Credential { written_at, ..azure::credential(name, issuer, subject) };
        self.testbed.azure.with_state(|state| {
            let found = state.identities.values_mut().find(|found| found.id.name == self.name).expect("an identity");
            found.credentials.insert(name.to_owned(), credential);
        });
    }

    /// Creates a gated pod.
    pub fn create_gated_pod(&self, name: &str) {
        wait_for("the default service account", || {
            let arguments = ["get", "serviceaccount", "default", "--namespace", &self.name, "--ignore-not-found"];
            (!kubectl(self.testbed.control_plane, &arguments).trim().is_empty()).then_some(())
        });
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": self.name, "labels": {"ensign.dev/gated": "true"}},
            "spec": {
                "schedulingGates": [{"name": "ensign.dev/identity"}],
                "containers": [{"name": "app", "image": "app:1"}],
            },
        }));
    }

    /// How many scheduling gates a pod has.
    pub fn gates(&self, name: &str) -> usize {
        let pod = self.get("pod", name).expect("a pod");
        pod["spec"]["schedulingGates"].as_array().map_or(0, Vec::len)
    }

    /// Writes to ARM under the identity by the controller of this name.
    pub fn arm_writes(&self, replica: &str) -> Vec<LogEntry> {
        self.arm_requests("arm-write", replica)
    }

    /// How often the controller of this name listed the identity's credentials.
    pub fn arm_lists(&self, replica: &str) -> usize {
        self.arm_requests("arm-read", replica).len()
    }

    fn arm_requests(&self, kind: &str, replica: &str) -> Vec<LogEntry> {
        let filter = LogFilter {
            kind: Some(kind.to_owned()),
            path: Some(format!("/{}/federatedIdentityCredentials", self.name)),
            ..LogFilter::default()
        };
        let by_this_replica =
            |entry: &LogEntry| entry.user_agent.as_deref().is_some_and(|agent| agent.contains(&format!("({replica})")));
        self.testbed.azure.log(&filter).into_iter().filter(by_this_replica).collect()
    }
}

/// A lease in the namespace `default`.
pub struct TestbedLease<'a> {
    testbed: &'a Testbed,
    pub name: String,
    pub duration_seconds: u64,
}

impl TestbedLease<'_> {
    /// Creates the object as an install does: empty.
    pub fn create(&self) {
        self.write(&json!({}));
    }

    pub fn write(&self, spec: &Value) {
        let object = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": self.name, "namespace": "default", "labels": {"kept": "yes"}}, "spec": spec,
        });
        apply(self.testbed.control_plane, &object).expect("apply the lease");
    }

    pub fn delete(&self) {
        kubectl(self.testbed.control_plane, &["delete", "lease", &self.name, "--namespace", "default"]);
    }

    pub fn get(&self) -> Option<Value> {
        let arguments =
            ["get", "lease", &self.name, "--namespace", "default", "--ignore-not-found", "--output", "json"];
        let text = kubectl(self.testbed.control_plane, &arguments);
        (!text.trim().is_empty()).then(|| serde_json::from_str(&text).expect("a lease"))
    }

    /// Which controller holds the lease.
    pub fn holder(&self) -> Option<String> {
        let lease = self.get()?;
        let identity = lease["spec"]["holderIdentity"].as_str()?;
        Some(identity.split('_').next().unwrap_or_default().to_owned())
    }

    pub fn wait_holder(&self, name: &str) {
        wait_for(&format!("{name} to hold the lease"), || (self.holder().as_deref() == Some(name)).then_some(()));
    }
}
