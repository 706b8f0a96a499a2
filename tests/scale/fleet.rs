//! Fifty identities in five subscriptions, with twenty bindings each.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ensign_api::conditions::{ConditionType, is_true};
use ensign_api::{ManagedIdentity, ManagedIdentityBinding};
use ensign_azure_emulator::state::{ArmRights, Credential, Identity, IdentityId, ResourceGroup, Subscription};
use ensign_azure_emulator::{Emulator, EmulatorOptions, LogEntry, LogFilter};
use ensign_core::credentials::names::Subject;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use ensign_testkit::control_plane::ControlPlane;
use ensign_testkit::process::{Controller, USER, World};

pub const IDENTITIES: usize = 50;
const PER_IDENTITY: usize = 20;
pub const BINDINGS: usize = IDENTITIES * PER_IDENTITY;
const SUBSCRIPTIONS: usize = 5;
const NAMESPACES: usize = 20;
/// How long everything together may take on a busy machine before the test gives up.
const PATIENCE: Duration = Duration::from_secs(600);
const GLANCE: Duration = Duration::from_millis(100);
const GROUP: &str = "fleet";

/// How fast a controller asks Azure.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// As Azure's published limits allow.
    Published,
    /// As fast as it can.
    Unbounded,
}

/// A fleet of its own: names, identities and Azure are no other fleet's.
pub struct Fleet {
    pub control_plane: &'static ControlPlane,
    pub azure: Emulator,
    pub client: Client,
    pub name: String,
    /// Files of this run.
    pub folder: PathBuf,
}

impl Fleet {
    pub async fn create() -> Self {
        let control_plane = ControlPlane::shared();
        let ca = std::fs::read_to_string(&control_plane.ca_file).expect("read the cluster's CA");
        let name = "fleet".to_owned();
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&name);
        // What an earlier run left speaks of another cluster.
        let _ = std::fs::remove_dir_all(&folder);
        let data_dir = Some(folder.join("azure"));
        let options = EmulatorOptions { issuer_ca_pems: vec![ca], data_dir, ..EmulatorOptions::default() };
        let azure = Emulator::start(options).expect("start the stand-in for Azure");
        let fleet = Self { control_plane, azure, client: control_plane.client().await, name, folder };
        fleet.world().install(&Self::subscription(0), GROUP);
        fleet.fill_azure();
        fleet.fill_kubernetes().await;
        fleet
    }

    fn world(&self) -> World<'_> {
        World { control_plane: self.control_plane, azure: &self.azure, folder: self.folder.join("controller") }
    }

    /// Starts a controller.
    pub fn controller(&self, resync_seconds: u64, lease_seconds: u64, pace: Pace) -> Controller {
        let [interval, lease] = [resync_seconds, lease_seconds].map(|seconds| format!("{seconds}s"));
        let mut flags = vec!["--drift-check-interval", interval.as_str(), "--lease-duration", lease.as_str()];
        let limits: Vec<String> = ["identity", "subscription", "tenant"]
            .iter()
            .flat_map(|scope| ["writes", "lists", "gets"].map(|kind| format!("--azure-{scope}-{kind}=100000+10000")))
            .collect();
        if pace == Pace::Unbounded {
            flags.extend(limits.iter().map(String::as_str));
        }
        Controller::start(&self.world(), &flags)
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
                let group = ResourceGroup { name: GROUP.to_owned(), location: info.location.clone() };
                let resource_groups = [(GROUP.to_owned(), group)].into();
                let tenant_id = info.tenant_id.clone();
                state.subscriptions.insert(id.clone(), Subscription { id, tenant_id, resource_groups });
            }
            let plain = |id: IdentityId, client_id: String| Identity {
                id,
                location: info.location.clone(),
                tags: BTreeMap::new(),
                isolation_scope: "None".to_owned(),
                client_id,
                principal_id: uuid::Uuid::new_v4().to_string(),
                arm_rights: ArmRights::None,
                created_at: Timestamp::UNIX_EPOCH,
                credentials: BTreeMap::new(),
            };
            for number in 0..IDENTITIES {
                let identity = plain(self.id(number), uuid::Uuid::new_v4().to_string());
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
            let id = format!(
                "/subscriptions/{}/resourceGroups/{GROUP}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{}",
                Self::subscription(number),
                self.identity(number)
            );
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
            assert!(start.elapsed() < PATIENCE, "bindings go once their credentials are gone");
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// Identity and subject of everything that should be trusted.
    pub fn expected(&self) -> BTreeSet<(String, String)> {
        let of = |number: usize| self.subjects(number).map(move |subject| (self.identity(number), subject.to_string()));
        (0..IDENTITIES).flat_map(of).collect()
    }

    /// Identity and subject of everything that is trusted.
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
                start.elapsed() < PATIENCE,
                "{} of {BINDINGS} are ready; one that is not: {:#?}",
                ready.len(),
                waiting.first().map(|binding| &binding.status)
            );
            tokio::time::sleep(GLANCE).await;
        }
    }

    fn log(&self, kind: &str) -> Vec<LogEntry> {
        let path = Some(format!("/{}-", self.name));
        self.azure.log(&LogFilter { kind: Some(kind.to_owned()), path, ..LogFilter::default() })
    }

    /// Every write that ARM saw.
    pub fn azure_writes(&self) -> Vec<LogEntry> {
        self.log("arm-write")
    }

    /// Waits until ARM has seen so many more writes, and at least one request.
    pub async fn wait_for_more_writes(&self, more: usize) {
        let (start, writes, seen) = (Instant::now(), self.azure_writes().len(), self.log_position());
        while self.azure_writes().len() < writes + more || self.log_position() == seen {
            assert!(start.elapsed() < PATIENCE, "the controller writes on");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Requests that were refused because there were too many.
    pub fn refused_for_limits(&self) -> Vec<LogEntry> {
        let mut log = self.azure.log(&LogFilter::default());
        log.retain(|entry| entry.status == Some(429));
        log
    }

    /// Every LIST of credentials that ARM saw.
    pub fn azure_lists(&self) -> Vec<LogEntry> {
        let mut reads = self.log("arm-read");
        reads.retain(|read| read.path.ends_with("/federatedIdentityCredentials"));
        reads
    }

    /// The number of the last request that Azure saw.
    pub fn log_position(&self) -> u64 {
        self.azure.log(&LogFilter::default()).last().map_or(0, |entry| entry.seq)
    }

    /// Waits until nothing has been written to Kubernetes for a moment.
    pub async fn wait_for_rest(&self) {
        let start = Instant::now();
        let mut last = self.kubernetes_writes();
        let mut since = Instant::now();
        while since.elapsed() < Duration::from_secs(3) {
            assert!(start.elapsed() < PATIENCE, "it never comes to rest");
            tokio::time::sleep(GLANCE).await;
            let now = self.kubernetes_writes();
            if now != last {
                (last, since) = (now, Instant::now());
            }
        }
    }

    /// How many writes but those of its Lease the API server has seen from the controller.
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

    /// Waits until every identity was listed after `seen`; answers the identity of each LIST since.
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
            assert!(start.elapsed() < PATIENCE, "a resync looks at every identity: {}", lists.len());
            std::thread::sleep(GLANCE);
        }
    }
}

/// The control plane with the definitions and the controller's rights.
fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object")
}
