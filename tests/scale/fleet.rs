//! Fifty identities in five subscriptions, with twenty bindings each.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ensign_api::conditions::{ConditionType, is_true};
use ensign_api::{ManagedIdentity, ManagedIdentityBinding};
use ensign_azure_emulator::state::{Credential, IdentityId, ResourceGroup, Subscription, SubscriptionConditions};
use ensign_azure_emulator::{Emulator, EmulatorOptions, LogEntry, LogFilter};
use ensign_core::credentials::names::Subject;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use ensign_testkit::azure;
use ensign_testkit::control_plane::ControlPlane;
use ensign_testkit::controller_process::{ControllerProcess, Environment, USER, install};
use ensign_testkit::paths::empty_scratch;

pub const IDENTITIES: usize = 50;
const PER_IDENTITY: usize = 20;
pub const BINDINGS: usize = IDENTITIES * PER_IDENTITY;
const SUBSCRIPTIONS: usize = 5;
const NAMESPACES: usize = 20;
/// How long everything together may take on a busy machine before the test fails.
const TIMEOUT: Duration = Duration::from_secs(600);
const POLL: Duration = Duration::from_millis(100);
const GROUP: &str = "fleet";

/// The rate limits of a controller.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Azure's published rate limits.
    Published,
    /// No effective limits.
    Unbounded,
}

/// A fleet of bindings with its own emulator.
pub struct Fleet {
    pub control_plane: &'static ControlPlane,
    pub azure: Emulator,
    pub client: Client,
    pub name: String,
    /// The folder for files of this run.
    pub folder: PathBuf,
}

impl Fleet {
    pub async fn create() -> Self {
        let control_plane = ControlPlane::shared();
        let name = "fleet".to_owned();
        let folder = empty_scratch(&name);
        let options = EmulatorOptions { data_dir: Some(folder.join("azure")), ..EmulatorOptions::default() };
        let azure = azure::start_emulator(control_plane, options);
        let fleet = Self { control_plane, azure, client: control_plane.client().await, name, folder };
        install(control_plane, &fleet.azure, &Self::subscription(0), GROUP);
        fleet.fill_azure();
        fleet.fill_kubernetes().await;
        fleet
    }

    fn environment(&self) -> Environment<'_> {
        Environment { control_plane: self.control_plane, azure: &self.azure, folder: self.folder.join("controller") }
    }

    /// Starts a controller.
    pub fn controller(&self, resync_seconds: u64, lease_seconds: u64, pace: Pace) -> ControllerProcess {
        let [interval, lease] = [resync_seconds, lease_seconds].map(|seconds| format!("{seconds}s"));
        let mut flags = vec!["--drift-check-interval", interval.as_str(), "--lease-duration", lease.as_str()];
        let limits: Vec<String> = ["identity", "subscription", "tenant"]
            .iter()
            .flat_map(|scope| ["writes", "lists", "gets"].map(|kind| format!("--azure-{scope}-{kind}=100000+10000")))
            .collect();
        if pace == Pace::Unbounded {
            flags.extend(limits.iter().map(String::as_str));
        }
        ControllerProcess::start(&self.environment(), &flags)
    }

    fn subscription(number: usize) -> String {
        format!("5b000000-0000-4000-8000-{:012}", number % SUBSCRIPTIONS)
    }

    fn identity(&self, number: usize) -> String {
        format!("{}-{number}", self.name)
    }

    fn namespace(&self, number: usize) -> String {
        format!("{}-ns-{}", self.name, number % NAMESPACES)
    }

    fn id(&self, number: usize) -> IdentityId {
        IdentityId {
            subscription: Self::subscription(number),
            resource_group: GROUP.to_owned(),
            name: self.identity(number),
        }
    }

    /// Namespace and service account of each binding to an identity.
    fn subjects(&self, identity: usize) -> impl Iterator<Item = Subject> + '_ {
        (0..PER_IDENTITY)
            .map(move |number| Subject::new(self.namespace(identity + number), format!("app-{identity}-{number}")))
    }

    fn fill_azure(&self) {
        let info = self.azure.info();
        self.azure.with_state(|state| {
            for number in 0..SUBSCRIPTIONS {
                let id = Self::subscription(number);
                let group = ResourceGroup { name: GROUP.to_owned(), location: info.location.clone(), tags: [].into() };
                let resource_groups = [(GROUP.to_owned(), group)].into();
                let tenant_id = info.tenant_id.clone();
                let conditions = SubscriptionConditions::default();
                state.subscriptions.insert(id.clone(), Subscription { id, tenant_id, resource_groups, conditions });
            }
            for number in 0..IDENTITIES {
                let identity = azure::identity(self.id(number), &info.location);
                state.identities.insert(identity.id.key(), identity);
            }
        });
    }

    async fn fill_kubernetes(&self) {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        for number in 0..NAMESPACES {
            let metadata = ObjectMeta { name: Some(self.namespace(number)), ..ObjectMeta::default() };
            let namespace = Namespace { metadata, ..Namespace::default() };
            namespaces.create(&PostParams::default(), &namespace).await.expect("create a namespace");
        }
        let identities: Api<ManagedIdentity> = Api::all(self.client.clone());
        for number in 0..IDENTITIES {
            let grants: Vec<Value> = (0..NAMESPACES)
                .map(|n| json!({"name": format!("n{n}"), "namespace": self.namespace(n), "serviceAccounts": ["*"]}))
                .collect();
            let id = azure::arm_id(&self.id(number));
            let identity: ManagedIdentity = object(json!({
                "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentity", "metadata": {"name": self.identity(number)},
                "spec": {"existing": {"resourceID": id}, "allowedSubjects": grants},
            }));
            identities.create(&PostParams::default(), &identity).await.expect("create an identity");
        }
    }

    /// Creates every binding.
    pub async fn bind(&self) {
        let bindings = (0..IDENTITIES).flat_map(|number| self.subjects(number).map(move |subject| (number, subject)));
        futures::stream::iter(bindings)
            .for_each_concurrent(16, async |(number, subject)| {
                let binding: ManagedIdentityBinding = object(json!({
                    "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentityBinding",
                    "metadata": {"name": subject.service_account},
                    "spec": {"identityRef": {"name": self.identity(number)}, "serviceAccountName": subject.service_account},
                }));
                let api: Api<ManagedIdentityBinding> = Api::namespaced(self.client.clone(), &subject.namespace);
                api.create(&PostParams::default(), &binding).await.expect("create a binding");
            })
            .await;
    }

    /// Deletes every binding and waits until all of them are gone.
    pub async fn unbind(&self) {
        for number in 0..NAMESPACES {
            let api: Api<ManagedIdentityBinding> = Api::namespaced(self.client.clone(), &self.namespace(number));
            let everything = (DeleteParams::default(), ListParams::default());
            api.delete_collection(&everything.0, &everything.1).await.expect("delete the bindings");
        }
        let api: Api<ManagedIdentityBinding> = Api::all(self.client.clone());
        let start = Instant::now();
        while !api.list(&ListParams::default()).await.expect("list the bindings").items.is_empty() {
            assert!(start.elapsed() < TIMEOUT, "bindings are deleted once their credentials are");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Identity and subject of every credential that should exist.
    pub fn expected(&self) -> BTreeSet<(String, String)> {
        let of = |number: usize| self.subjects(number).map(move |subject| (self.identity(number), subject.to_string()));
        (0..IDENTITIES).flat_map(of).collect()
    }

    /// Identity and subject of every credential that exists.
    pub fn trusted(&self) -> BTreeSet<(String, String)> {
        self.azure.with_state(|state| {
            let fleet = state.identities.values().filter(|identity| identity.id.name.starts_with(&self.name));
            fleet
                .flat_map(|identity| {
                    let of = move |credential: &Credential| (identity.id.name.clone(), credential.subject.clone());
                    identity.credentials.values().map(of)
                })
                .collect()
        })
    }

    pub async fn wait_all_ready(&self) {
        let api: Api<ManagedIdentityBinding> = Api::all(self.client.clone());
        let start = Instant::now();
        loop {
            let list = api.list(&ListParams::default()).await.expect("list the bindings");
            let ours = list
                .items
                .iter()
                .filter(|binding| binding.namespace().is_some_and(|found| found.starts_with(&self.name)));
            let ready = |binding: &&ManagedIdentityBinding| {
                binding.status.as_ref().is_some_and(|status| is_true(&status.conditions, ConditionType::Ready))
            };
            let (ready, waiting): (Vec<_>, Vec<_>) = ours.partition(ready);
            if ready.len() == BINDINGS {
                return;
            }
            assert!(
                start.elapsed() < TIMEOUT,
                "{} of {BINDINGS} are ready; one that is not: {:#?}",
                ready.len(),
                waiting.first().map(|binding| &binding.status)
            );
            tokio::time::sleep(POLL).await;
        }
    }

    fn log(&self, kind: &str) -> Vec<LogEntry> {
        let path = Some(format!("/{}-", self.name));
        self.azure.log(&LogFilter { kind: Some(kind.to_owned()), path, ..LogFilter::default() })
    }

    /// Every write to ARM.
    pub fn azure_writes(&self) -> Vec<LogEntry> {
        self.log("arm-write")
    }

    /// Waits until ARM has received this many more writes, and at least one request.
    pub async fn wait_for_more_writes(&self, more: usize) {
        let (start, writes, seen) = (Instant::now(), self.azure_writes().len(), self.log_position());
        while self.azure_writes().len() < writes + more || self.log_position() == seen {
            assert!(start.elapsed() < TIMEOUT, "the controller continues to write");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Requests that were throttled with 429.
    pub fn refused_for_limits(&self) -> Vec<LogEntry> {
        let mut log = self.azure.log(&LogFilter::default());
        log.retain(|entry| entry.status == Some(429));
        log
    }

    /// Every LIST of credentials.
    pub fn azure_lists(&self) -> Vec<LogEntry> {
        let mut reads = self.log("arm-read");
        reads.retain(|read| read.path.ends_with("/federatedIdentityCredentials"));
        reads
    }

    /// The number of the last request to Azure.
    pub fn log_position(&self) -> u64 {
        self.azure.log(&LogFilter::default()).last().map_or(0, |entry| entry.seq)
    }

    /// Waits until nothing has been written to Kubernetes for three seconds.
    pub async fn wait_for_rest(&self) {
        let start = Instant::now();
        let mut last = self.kubernetes_writes();
        let mut since = Instant::now();
        while since.elapsed() < Duration::from_secs(3) {
            assert!(start.elapsed() < TIMEOUT, "the writes do not stop");
            tokio::time::sleep(POLL).await;
            let now = self.kubernetes_writes();
            if now != last {
                (last, since) = (now, Instant::now());
            }
        }
    }

    /// How many writes the controller has sent to the API server, without those of its Lease.
    pub fn kubernetes_writes(&self) -> usize {
        let is_write = |event: &Value| {
            let verb = event["verb"].as_str().unwrap_or_default();
            matches!(verb, "create" | "update" | "patch" | "delete") && event["objectRef"]["resource"] != "leases"
        };
        self.control_plane
            .audit_events_with(&format!("\"username\":\"{USER}\""))
            .iter()
            .filter(|event| is_write(event))
            .count()
    }

    /// Waits until every identity was listed after `seen`; returns the identity of each LIST since.
    pub fn wait_for_lists_of_every_identity(&self, seen: u64) -> Vec<String> {
        let start = Instant::now();
        loop {
            let lists: Vec<String> = self
                .azure_lists()
                .into_iter()
                .filter(|list| list.seq > seen)
                .filter_map(|list| list.path.rsplit('/').nth(1).map(str::to_owned))
                .collect();
            if lists.iter().collect::<BTreeSet<_>>().len() == IDENTITIES {
                return lists;
            }
            assert!(start.elapsed() < TIMEOUT, "every identity is checked in an interval: {}", lists.len());
            std::thread::sleep(POLL);
        }
    }
}

fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object")
}
