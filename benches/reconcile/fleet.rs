//! A fleet of bindings, twenty to an identity: in Azure, in Kubernetes, and both at once.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use ensign_api::{ManagedIdentity, ManagedIdentityBinding};
use ensign_azure_emulator::state::{IdentityId, ResourceGroup, Subscription, SubscriptionConditions};
use ensign_azure_emulator::{Emulator, LogEntry, LogFilter};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use ensign_testkit::control_plane::ControlPlane;
use ensign_testkit::objects::kubectl;
use ensign_testkit::paths::REPOSITORY;
use ensign_testkit::{azure, controller_process};

pub const PER_IDENTITY: usize = 20;
/// In how many namespaces the bindings of an identity are.
const SPREAD: usize = 5;
const IDENTITIES_PER_SUBSCRIPTION: usize = 100;
pub const GROUP: &str = "fleet";
/// Concurrent requests where only the speed of the API server matters.
pub const AT_ONCE: usize = 32;
const TIMEOUT: Duration = Duration::from_secs(900);

/// A fleet with its own names and identities.
#[derive(Clone)]
pub struct Fleet {
    pub client: Client,
    pub name: String,
    pub bindings: usize,
    /// How many namespaces the bindings are in.
    pub namespaces: usize,
}

/// One binding: namespace, name (which is its service account's too) and the number of its identity.
#[derive(Clone, Debug)]
pub struct BindingKey {
    pub namespace: String,
    pub name: String,
    pub identity: usize,
}

impl Fleet {
    pub fn identities(&self) -> usize {
        self.bindings.div_ceil(PER_IDENTITY)
    }

    pub fn subscriptions(&self) -> usize {
        self.identities().div_ceil(IDENTITIES_PER_SUBSCRIPTION)
    }

    pub fn subscription(number: usize) -> String {
        format!("5b000000-0000-4000-8000-{:012}", number / IDENTITIES_PER_SUBSCRIPTION)
    }

    pub fn identity(&self, number: usize) -> String {
        format!("{}-{number}", self.name)
    }

    pub fn namespace(&self, number: usize) -> String {
        format!("{}-ns-{}", self.name, number % self.namespaces)
    }

    /// The key of each binding.
    pub fn keys(&self) -> impl Iterator<Item = BindingKey> + '_ {
        (0..self.bindings).map(|number| {
            let (identity, which) = (number / PER_IDENTITY, number % PER_IDENTITY);
            BindingKey {
                namespace: self.namespace(identity + which % SPREAD),
                name: format!("app-{identity}-{which}"),
                identity,
            }
        })
    }

    pub fn arm_id(&self, number: usize) -> String {
        azure::arm_id(&self.id(number))
    }

    fn id(&self, number: usize) -> IdentityId {
        IdentityId {
            subscription: Self::subscription(number),
            resource_group: GROUP.to_owned(),
            name: self.identity(number),
        }
    }

    /// Creates the identities in Azure, and namespaces and `ManagedIdentity` objects in Kubernetes.
    pub async fn prepare(&self, emulator: &Emulator) {
        let identities = self.identities();
        for number in 0..identities {
            add_subscription(emulator, &Self::subscription(number));
            let identity = azure::identity(self.id(number), &emulator.info().location);
            emulator.with_state(|state| state.identities.insert(identity.id.key(), identity));
        }
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        each(0..self.namespaces, async |number| {
            let metadata = ObjectMeta { name: Some(self.namespace(number)), ..ObjectMeta::default() };
            let namespace = Namespace { metadata, ..Namespace::default() };
            namespaces.create(&PostParams::default(), &namespace).await.expect("create a namespace");
        })
        .await;
        let objects: Api<ManagedIdentity> = Api::all(self.client.clone());
        each(0..identities, async |number| {
            let grants: Vec<Value> = (0..SPREAD.min(self.namespaces))
                .map(|n| json!({"name": format!("n{n}"), "namespace": self.namespace(number + n), "serviceAccounts": ["*"]}))
                .collect();
            let identity: ManagedIdentity = object(json!({
                "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentity", "metadata": {"name": self.identity(number)},
                "spec": {"existing": {"resourceID": self.arm_id(number)}, "allowedSubjects": grants},
            }));
            objects.create(&PostParams::default(), &identity).await.expect("create an identity");
        })
        .await;
    }

    /// Creates every binding.
    pub async fn bind(&self) {
        each(self.keys(), async |key| self.create(&key).await).await;
    }

    pub async fn create(&self, key: &BindingKey) {
        let binding: ManagedIdentityBinding = object(json!({
            "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentityBinding", "metadata": {"name": key.name},
            "spec": {"identityRef": {"name": self.identity(key.identity)}, "serviceAccountName": key.name},
        }));
        self.api(key).create(&PostParams::default(), &binding).await.expect("create a binding");
    }

    pub fn api(&self, key: &BindingKey) -> Api<ManagedIdentityBinding> {
        Api::namespaced(self.client.clone(), &key.namespace)
    }

    /// Deletes every binding, which the running controller has to release, and then the rest of the fleet.
    pub async fn remove(&self, azure: &Emulator) {
        let everything = (DeleteParams::default(), ListParams::default());
        each(0..self.namespaces, async |number| {
            let api: Api<ManagedIdentityBinding> = Api::namespaced(self.client.clone(), &self.namespace(number));
            api.delete_collection(&everything.0, &everything.1).await.expect("delete the bindings");
        })
        .await;
        let identities: Api<ManagedIdentity> = Api::all(self.client.clone());
        each(0..self.identities(), async |number| {
            identities.delete(&self.identity(number), &everything.0).await.expect("delete an identity");
        })
        .await;
        let start = Instant::now();
        let ours = |found: &ManagedIdentity| found.name_any().starts_with(&format!("{}-", self.name));
        while identities.list(&everything.1).await.expect("list the identities").iter().any(ours) {
            assert!(start.elapsed() < TIMEOUT, "identities are not deleted");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert_eq!(self.trusted(azure), 0, "no credential outlives its binding");
    }

    /// How many credentials there are under the fleet's identities.
    pub fn trusted(&self, azure: &Emulator) -> usize {
        azure.with_state(|state| {
            let fleet =
                state.identities.values().filter(|identity| identity.id.name.starts_with(&format!("{}-", self.name)));
            fleet.map(|identity| identity.credentials.len()).sum()
        })
    }
}

/// Requests to ARM after a number of the log, by method and target, and those that failed by status.
pub fn arm_counts(azure: &Emulator, since: u64) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for entry in arm_log(azure, since) {
        let what = match entry.path.rsplit('/').next() {
            Some(last) if last.eq_ignore_ascii_case("federatedIdentityCredentials") => "LIST credentials",
            _ if entry.path.contains("/federatedIdentityCredentials/") => "credential",
            _ => "identity",
        };
        let kind = if what.starts_with("LIST") { what.to_owned() } else { format!("{} {what}", entry.method) };
        *counts.entry(kind).or_default() += 1;
        if let Some(status) = entry.status.filter(|status| *status >= 400) {
            *counts.entry(format!("answered {status}")).or_default() += 1;
        }
    }
    counts
}

/// Requests to ARM after a number of the log.
pub fn arm_log(azure: &Emulator, since: u64) -> Vec<LogEntry> {
    let mut log = azure.log(&LogFilter { since: Some(since), ..LogFilter::default() });
    log.retain(|entry| entry.path.contains("/providers/"));
    log
}

/// The number of the last request to Azure.
pub fn log_position(azure: &Emulator) -> u64 {
    azure.requests().0
}

/// Creates what an install in compatibility mode consists of, in the cluster and in Azure.
pub fn install(control_plane: &'static ControlPlane, azure: &Emulator) {
    add_subscription(azure, &Fleet::subscription(0));
    controller_process::install(control_plane, azure, &Fleet::subscription(0), GROUP);
    let manifests = Path::new(REPOSITORY).join("dev/manifests/compatibility");
    kubectl(control_plane, &["apply", "--filename", &manifests.to_string_lossy()]);
}

fn add_subscription(azure: &Emulator, subscription: &str) {
    let info = azure.info();
    azure.with_state(|state| {
        state.subscriptions.entry(subscription.to_owned()).or_insert_with(|| {
            let group = ResourceGroup { name: GROUP.to_owned(), location: info.location.clone(), tags: [].into() };
            Subscription {
                id: subscription.to_owned(),
                tenant_id: info.tenant_id.clone(),
                resource_groups: [(GROUP.to_owned(), group)].into(),
                conditions: SubscriptionConditions::default(),
            }
        });
    });
}

/// Does something to each, several at a time.
pub async fn each<T, F: Future<Output = ()>>(items: impl IntoIterator<Item = T>, act: impl FnMut(T) -> F) {
    futures::stream::iter(items).for_each_concurrent(AT_ONCE, act).await;
}

pub fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object")
}
