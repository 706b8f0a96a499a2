//! What one plan runs in: its own names, its own emulator, and its controllers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ensign_azure_emulator::state::roles::RoleAssignment;
use ensign_azure_emulator::state::{Credential, Identity, IdentityId, State, Subscription};
use ensign_azure_emulator::{Emulator, EmulatorOptions, FaultRule, LogEntry, LogFilter};
use ensign_core::credentials::names::Subject;
use ensign_core::credentials::ownership::Cluster as AzureCluster;
use ensign_mutants::Mutant;
use k8s_openapi::jiff::fmt::strtime;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::lock::lock;
use ensign_testkit::azure::{self, AUDIENCE};
use ensign_testkit::clock::FakeClock;

use super::cluster::Cluster;
use super::dedicated::{name_in_azure, references};
use super::gate::{Gate, LABEL};
use super::history::History;
use super::probe::FaultProbe;
use super::replica::Replica;
use super::tcp_proxy::TcpProxy;
use super::token_credential::CountedCredential;

pub const ISSUER: &str = "https://issuer.faults.test/one";
pub const CLUSTER_ID: &str = "faults";
/// A second subscription.
pub const FAR_SUBSCRIPTION: &str = "fa500000-0000-4000-8000-0000000000fa";
/// Placeholder in scripts for Azure: the date in two minutes.
pub const IN_TWO_MINUTES: &str = "in two minutes";
/// How far reads of Azure lag in every plan, at most, on the plan's clock.
const READ_LAG_SECONDS: u32 = 60;
pub const RESYNC: Duration = Duration::from_secs(900);
/// After so long, everything in flight waits for the plan's clock.
pub const REAL_TIME_LIMIT: Duration = Duration::from_secs(10);
/// The result of a step; an error says what is wrong.
pub type Checked = Result<(), String>;

/// What one plan runs in.
pub struct Harness {
    pub plan: String,
    pub cluster: &'static Cluster,
    pub cluster_id: String,
    pub azure: Arc<Emulator>,
    /// The first controller's clock, gate and probe.
    pub clock: Arc<FakeClock>,
    pub gate: Arc<Gate>,
    pub probe: Arc<FaultProbe>,
    pub history: Arc<History>,
    pub tokens: Arc<CountedCredential>,
    pub mutant: Option<Mutant>,
    pub issuer: Mutex<String>,
    /// How often controllers check the issuer, if they do.
    pub issuer_check: Mutex<Option<Duration>>,
    /// The lease duration, if controllers elect a leader.
    pub lease_seconds: Mutex<Option<u64>>,
    /// The longest that a condition may take after the last fault, on the plan's clock.
    pub patience: Mutex<Duration>,
    /// After so long in real time, nothing more is expected to happen.
    pub real_time_limit: Mutex<Duration>,
    replicas: Mutex<Vec<Arc<Replica>>>,
    /// The number of requests to Azure at moments of the plan's clock.
    pub moments: Mutex<Vec<(u64, Duration)>>,
    /// Changes in Azure out of band: when, under which identity, to which credential.
    pub out_of_band: Mutex<Vec<OutOfBandChange>>,
    /// Identities of another owner, and since when.
    pub foreign_identities: Mutex<Vec<(Timestamp, String)>>,
    /// Role assignments created by hand, by their GUIDs.
    pub by_hand: Mutex<BTreeMap<String, RoleAssignment>>,
}

/// Time, identity, the credential from then on, and its name.
type OutOfBandChange = (Timestamp, String, Option<Credential>, String);

impl Harness {
    pub fn new(plan: &str, mutant: Option<Mutant>) -> Arc<Self> {
        let options = EmulatorOptions {
            write_latency_ms: 2,
            token_lifetime_seconds: 30 * 86_400,
            read_lag_seconds: READ_LAG_SECONDS,
            ..EmulatorOptions::default()
        };
        let azure = Arc::new(Emulator::start(options).expect("start the Azure emulator"));
        let harness = Self::sharing(plan, mutant, azure, CLUSTER_ID);
        harness.azure.lag_by(harness.clock.clone());
        harness
    }

    /// A harness that shares its emulator with another. Each has a clock of its own, so that reads can't lag.
    pub fn beside(plan: &str, mutant: Option<Mutant>, azure: Arc<Emulator>, cluster_id: &str) -> Arc<Self> {
        azure.with_state(|state| state.settings.reads.lag_seconds = 0);
        Self::sharing(plan, mutant, azure, cluster_id)
    }

    fn sharing(plan: &str, mutant: Option<Mutant>, azure: Arc<Emulator>, cluster_id: &str) -> Arc<Self> {
        let cluster = Cluster::shared();
        let history = cluster.history(plan);
        let first = Arc::new(replica(cluster, plan, plan, &history, &azure, FakeClock::new()));
        Arc::new(Self {
            plan: plan.to_owned(),
            cluster,
            cluster_id: cluster_id.to_owned(),
            tokens: Arc::new(CountedCredential::new(azure.arm_token().expect("a token for ARM"))),
            azure,
            clock: first.clock.clone(),
            gate: first.gate.clone(),
            probe: first.probe.clone(),
            history,
            mutant,
            issuer: Mutex::new(ISSUER.to_owned()),
            issuer_check: Mutex::default(),
            lease_seconds: Mutex::default(),
            patience: Mutex::new(Duration::from_secs(45 * 60)),
            real_time_limit: Mutex::new(REAL_TIME_LIMIT),
            replicas: Mutex::new(vec![first]),
            moments: Mutex::default(),
            out_of_band: Mutex::default(),
            foreign_identities: Mutex::default(),
            by_hand: Mutex::default(),
        })
    }

    // Names and objects

    pub fn named(&self, name: &str) -> String {
        format!("{}-{name}", self.plan)
    }

    pub fn namespace(&self, name: &str, labels: &Value) {
        let mut labels = labels.clone();
        labels[LABEL] = json!(self.plan);
        let metadata = json!({"name": self.named(name), "labels": labels});
        self.create(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}));
    }

    /// Creates an identity in Azure, and a `ManagedIdentity` that lets every service account of namespace `shop` use it.
    pub fn identity(&self, name: &str) {
        self.azure_identity(name, &[]);
        self.managed_identity(name, name, &json!([self.grant("shop")]), &json!({}));
    }

    pub fn grant(&self, namespace: &str) -> Value {
        json!({"name": namespace, "namespace": self.named(namespace), "serviceAccounts": ["*"]})
    }

    pub fn managed_identity(&self, name: &str, azure: &str, grants: &Value, more: &Value) {
        let mut existing = more.clone();
        existing["resourceID"] = json!(self.arm_id(azure).in_answers());
        self.create(&json!({
            "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentity",
            "metadata": {"name": self.named(name), "labels": {LABEL: self.plan}},
            "spec": {"existing": existing, "allowedSubjects": grants},
        }));
    }

    pub fn binding(&self, namespace: &str, name: &str, identity: &str, account: &str) {
        self.binding_with(namespace, name, identity, account, &json!({}));
    }

    pub fn binding_with(&self, namespace: &str, name: &str, identity: &str, account: &str, injection: &Value) {
        self.create(&json!({
            "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentityBinding",
            "metadata": {"name": name, "namespace": self.named(namespace), "labels": {LABEL: self.plan}},
            "spec": {"identityRef": {"name": self.named(identity)}, "serviceAccountName": account, "injection": injection},
        }));
    }

    /// A binding to an object whose name lacks the plan's prefix.
    pub fn binding_named(&self, namespace: &str, name: &str, identity: &str, account: &str) {
        self.create(&json!({
            "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentityBinding",
            "metadata": {"name": name, "namespace": self.named(namespace), "labels": {LABEL: self.plan}},
            "spec": {"identityRef": {"name": identity}, "serviceAccountName": account},
        }));
    }

    pub fn create(&self, object: &Value) {
        let mut made = self.cluster.create(object);
        made["kind"] = object["kind"].clone();
        self.history.record(&made, false);
    }

    /// Changes an object of the plan, whose name is given without the plan's prefix (a binding's has none).
    pub fn patch(&self, kind: &str, namespace: &str, name: &str, patch: &Value) {
        let (namespace, name) = self.place(kind, namespace, name);
        let mut made = self.cluster.patch(kind, &namespace, &name, patch);
        made["kind"] = json!(kind);
        self.history.record(&made, false);
    }

    /// Tries to change a cluster-scoped object; returns whether the API server accepts it.
    pub fn try_patch(&self, kind: &str, name: &str, patch: &Value) -> bool {
        let answer = self.cluster.try_patch(kind, "", &self.named(name), patch);
        let Some(mut made) = answer else { return false };
        made["kind"] = json!(kind);
        self.history.record(&made, false);
        true
    }

    pub fn delete(&self, kind: &str, namespace: &str, name: &str) {
        let (namespace, name) = self.place(kind, namespace, name);
        if let Some(mut left) = self.cluster.delete(kind, &namespace, &name) {
            left["kind"] = json!(kind);
            self.history.record(&left, false);
        }
    }

    pub fn live(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        let (namespace, name) = self.place(kind, namespace, name);
        self.history.live(kind, &namespace, &name)
    }

    fn place(&self, kind: &str, namespace: &str, name: &str) -> (String, String) {
        match kind {
            "ManagedIdentityBinding" => (self.named(namespace), name.to_owned()),
            // One that was created for a binding is addressed by the binding's name.
            "ManagedIdentity" if !namespace.is_empty() => (String::new(), self.object_created_for(namespace, name)),
            _ => (String::new(), self.named(name)),
        }
    }

    /// The client ID, in Azure, of the identity that a binding refers to, if both exist.
    pub fn client_id_of(&self, binding: &Value) -> Option<String> {
        let all = self.history.all("ManagedIdentity");
        let living = all.iter().filter_map(|versions| versions.last()).filter(|last| !last.is_deleted);
        let managed = living.map(|last| &last.object).find(|managed| references(binding, managed))?;
        let name = name_in_azure(managed);
        let found = |identity: &&Identity| identity.id.name.eq_ignore_ascii_case(&name);
        self.azure.with_state(|state| state.identities.values().find(found).map(|found| found.client_id.clone()))
    }

    // Azure

    /// The ARM ID of an identity; those whose names begin with `far` are in another subscription.
    pub fn arm_id(&self, name: &str) -> IdentityId {
        let info = self.azure.info();
        let far = name.starts_with("far");
        IdentityId {
            subscription: if far { FAR_SUBSCRIPTION.to_owned() } else { info.subscription_id.clone() },
            resource_group: info.resource_group.clone(),
            name: name.to_owned(),
        }
    }

    pub fn azure_identity(&self, name: &str, credentials: &[Credential]) {
        let id = self.arm_id(name);
        let guid = |what: &str| uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, format!("{what}/{name}").as_bytes());
        let identity = Identity {
            client_id: guid("client").to_string(),
            principal_id: guid("principal").to_string(),
            credentials: credentials.iter().map(|one| (one.name.to_lowercase(), one.clone())).collect(),
            ..azure::identity(id, &self.azure.info().location)
        };
        for one in credentials {
            self.note(name, Some(one), &one.name);
        }
        self.meddle(|state| {
            let own = state.subscriptions.values().next().cloned();
            let far = own.map(|own| Subscription { id: FAR_SUBSCRIPTION.to_owned(), ..own });
            state.subscriptions.extend(far.map(|far| (FAR_SUBSCRIPTION.to_owned(), far)));
            state.identities.insert(identity.id.key(), identity);
        });
    }

    pub fn remove_azure_identity(&self, name: &str) {
        let key = self.arm_id(name).key();
        let gone = self.azure.with_state(|state| state.identities.remove(&key));
        for one in gone.iter().flat_map(|identity| identity.credentials.values()) {
            self.note(name, None, &one.name);
        }
    }

    /// Sets or removes a credential out of band.
    pub fn change_out_of_band(&self, identity: &str, name: &str, credential: Option<Credential>) {
        let key = self.arm_id(identity).key();
        self.note(identity, credential.as_ref(), name);
        self.meddle(|state| {
            let identity = state.identities.get_mut(&key).expect("the identity");
            match credential {
                Some(credential) => identity.credentials.insert(name.to_lowercase(), credential),
                None => identity.credentials.remove(&name.to_lowercase()),
            }
        });
    }

    /// Changes Azure's state as somebody else does. Every read shows it at once: nothing is learned from reads that lag behind
    /// what this test did.
    pub fn meddle<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        self.azure.with_state(|state| {
            let result = act(state);
            state.forget_the_past();
            result
        })
    }

    fn note(&self, identity: &str, credential: Option<&Credential>, name: &str) {
        lock(&self.out_of_band).push((Timestamp::now(), identity.to_owned(), credential.cloned(), name.to_owned()));
    }

    pub fn subject(&self, namespace: &str, account: &str) -> Subject {
        Subject::new(self.named(namespace), account)
    }

    pub fn azure_cluster(&self) -> AzureCluster {
        AzureCluster {
            id: self.cluster_id.clone(),
            previous_id: None,
            issuer: lock(&self.issuer).clone(),
            audience: AUDIENCE.to_owned(),
        }
    }

    /// The name of the controller's credential for a service account.
    pub fn credential_name(&self, namespace: &str, account: &str) -> String {
        self.azure_cluster().credential_name(&self.subject(namespace, account))
    }

    /// A credential for a service account of the plan's cluster, as another program may have created it.
    pub fn credential(&self, name: &str, namespace: &str, account: &str) -> Credential {
        Credential {
            name: name.to_owned(),
            issuer: lock(&self.issuer).clone(),
            subject: self.subject(namespace, account).to_string(),
            audiences: vec![AUDIENCE.to_owned()],
            written_at: Timestamp::UNIX_EPOCH,
        }
    }

    pub fn credentials(&self, identity: &str) -> Vec<Credential> {
        let key = self.arm_id(identity).key();
        self.azure.with_state(|state| {
            let found = state.identities.get(&key);
            found.into_iter().flat_map(|identity| identity.credentials.values()).cloned().collect()
        })
    }

    pub fn azure_fails(&self, rules: &Value) {
        let soon = Timestamp::now() + SignedDuration::from_secs(120);
        let date = strtime::format("%a, %d %b %Y %H:%M:%S GMT", soon).expect("a date");
        let rules = rules.to_string().replace(IN_TWO_MINUTES, &date);
        let rules: Vec<FaultRule> = serde_json::from_str(&rules).expect("rules");
        self.azure.set_faults(rules);
    }

    pub fn azure_log(&self) -> Vec<LogEntry> {
        self.azure.log(&LogFilter::default())
    }

    /// Every write to ARM.
    pub fn azure_writes(&self) -> Vec<LogEntry> {
        self.azure.log(&LogFilter { kind: Some("arm-write".to_owned()), ..LogFilter::default() })
    }

    // Controllers

    /// Starts the controller.
    pub fn start(self: &Arc<Self>) {
        self.first().start(self);
    }

    /// The first controller, which every plan has.
    pub fn first(&self) -> Arc<Replica> {
        lock(&self.replicas)[0].clone()
    }

    pub fn replicas(&self) -> Vec<Arc<Replica>> {
        lock(&self.replicas).clone()
    }

    /// Makes controllers elect a leader, and creates their lease as an install does: empty.
    pub fn elect(&self, lease_seconds: u64) {
        *lock(&self.lease_seconds) = Some(lease_seconds);
        let metadata = json!({"name": self.named("lease"), "namespace": "default"});
        self.cluster.create(&json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata}));
    }

    /// Starts a second controller on another machine.
    pub fn start_second(self: &Arc<Self>) -> Arc<Replica> {
        let name = format!("{}-second", self.plan);
        let second = Arc::new(replica(
            self.cluster,
            &name,
            &self.plan,
            &self.history,
            &self.azure,
            self.clock.on_another_machine(),
        ));
        lock(&self.replicas).push(second.clone());
        second.start(self);
        second
    }

    /// The name of the controller that holds the lease.
    pub fn leader(&self) -> Option<String> {
        let lease = self.cluster.get("Lease", "default", &self.named("lease"))?;
        let holder = lease["spec"]["holderIdentity"].as_str()?;
        holder.rsplit_once('_').map(|(name, _)| name.to_owned())
    }

    /// Makes controllers check the issuer in intervals, and the API server report it.
    pub fn watch_issuer(&self, every: Duration) {
        *lock(&self.issuer_check) = Some(every);
        self.gate.set_issuer(&lock(&self.issuer));
    }

    pub fn stop(&self) -> Checked {
        self.replicas().iter().try_for_each(|replica| replica.stop())
    }

    /// The writes of controllers to Kubernetes, including failed ones.
    pub fn kube_writes(&self) -> Vec<String> {
        self.replicas().iter().flat_map(|replica| replica.gate.writes()).collect()
    }
}

fn replica(
    cluster: &Cluster,
    name: &str,
    plan: &str,
    history: &Arc<History>,
    azure: &Emulator,
    clock: Arc<FakeClock>,
) -> Replica {
    let gate = Arc::new(Gate::new(plan.to_owned(), history.clone()));
    let probe = Arc::new(FaultProbe::new(format!("{plan}-")));
    let proxy = TcpProxy::start(cluster, &azure.info().arm_endpoint);
    Replica::new(name, clock, gate, probe, proxy)
}

impl Drop for Harness {
    fn drop(&mut self) {
        self.cluster.forget(&self.plan);
    }
}
