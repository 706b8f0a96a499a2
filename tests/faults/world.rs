//! One plan's world: names of its own, an Azure of its own, a clock, and controllers one after the other.

use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ensign::azure::cloud::{CloudArgs, CloudName};
use ensign::azure::{ArmClient, Connection};
use ensign::controller::{self, Config, Effects};
use ensign::decide::assess::Settings;
use ensign::decide::names::{Subject, cluster_tag};
use ensign::decide::ownership::Cluster as AzureCluster;
use ensign::emulator::state::{ArmRights, Credential, Identity, IdentityId, Subscription};
use ensign::emulator::{Emulator, EmulatorOptions, FaultRule, LogEntry, LogFilter};
use ensign::mutants::{self, Mutant};
use ensign::runtime::health::Readiness;
use k8s_openapi::jiff::fmt::strtime;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::client::ClientBuilder;
use kube::client::retry::RetryPolicy;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::buffer::BufferLayer;
use tower::retry::RetryLayer;

use super::clock::{FakeClock, lock};
use super::cluster::Cluster;
use super::gate::{Gate, GateLayer, LABEL};
use super::history::History;
use super::probe::FaultProbe;
use super::token::FixedToken;

pub const ISSUER: &str = "https://issuer.faults.test/one";
pub const AUDIENCE: &str = "api://AzureADTokenExchange";
pub const CLUSTER_ID: &str = "faults";
/// Another subscription than the stand-in's own.
pub const FAR_SUBSCRIPTION: &str = "fa500000-0000-4000-8000-0000000000fa";
/// In scripts for Azure: the date in two minutes.
pub const IN_TWO_MINUTES: &str = "in two minutes";
pub const RESYNC: Duration = Duration::from_secs(900);
/// No fact takes longer on the real clock, however busy the machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// After so long nothing is on its way any more that does not wait for the plan's clock.
pub const SETTLED: Duration = Duration::from_secs(10);
/// The controller does nothing when nothing happened for this long.
const QUIET: Duration = Duration::from_millis(60);
const GLANCE: Duration = Duration::from_millis(4);

/// How far a plan got, as an error says it.
pub type Checked = Result<(), String>;

/// One plan's world.
pub struct World {
    pub plan: String,
    pub cluster: &'static Cluster,
    pub azure: Arc<Emulator>,
    pub clock: Arc<FakeClock>,
    pub gate: Arc<Gate>,
    pub probe: Arc<FaultProbe>,
    pub history: Arc<History>,
    pub mutant: Option<Mutant>,
    pub issuer: Mutex<String>,
    /// Whether the controller of now has seen everything.
    readiness: Mutex<Readiness>,
    /// The longest that a goal may take after the last fault, on the plan's clock.
    pub patience: Mutex<Duration>,
    /// After so long on the real clock, nothing comes any more.
    pub settled: Mutex<Duration>,
    running: Mutex<Option<Running>>,
    /// What Azure's log had counted at moments of the plan's clock.
    pub moments: Mutex<Vec<(u64, Duration)>>,
    /// Things done to Azure behind the controller's back: when, under which identity, to which credential.
    pub meddled: Mutex<Vec<Meddling>>,
}

/// When, under which identity, what stands from then on, and under which name.
type Meddling = (Timestamp, String, Option<Credential>, String);

struct Running {
    stop: CancellationToken,
    thread: JoinHandle<()>,
}

impl World {
    pub fn new(plan: &str, mutant: Option<Mutant>) -> Arc<Self> {
        let options =
            EmulatorOptions { write_latency_ms: 2, token_lifetime_seconds: 30 * 86_400, ..EmulatorOptions::default() };
        let azure = Arc::new(Emulator::start(options).expect("start the stand-in for Azure"));
        Self::beside(plan, mutant, azure)
    }

    /// A world that shares its Azure with another.
    pub fn beside(plan: &str, mutant: Option<Mutant>, azure: Arc<Emulator>) -> Arc<Self> {
        let cluster = Cluster::shared();
        let history = cluster.history(plan);
        Arc::new(Self {
            plan: plan.to_owned(),
            cluster,
            azure,
            clock: Arc::new(FakeClock::new()),
            gate: Arc::new(Gate::new(plan.to_owned(), history.clone())),
            probe: Arc::new(FaultProbe::new(format!("{plan}-"))),
            history,
            mutant,
            issuer: Mutex::new(ISSUER.to_owned()),
            readiness: Mutex::default(),
            patience: Mutex::new(Duration::from_secs(45 * 60)),
            settled: Mutex::new(SETTLED),
            running: Mutex::default(),
            moments: Mutex::default(),
            meddled: Mutex::default(),
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

    /// Makes an identity in Azure and a `ManagedIdentity` that lets every service account of namespace `shop` use it.
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
        self.create(&json!({
            "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentityBinding",
            "metadata": {"name": name, "namespace": self.named(namespace), "labels": {LABEL: self.plan}},
            "spec": {"identityRef": {"name": self.named(identity)}, "serviceAccountName": account},
        }));
    }

    pub fn create(&self, object: &Value) {
        let mut made = self.cluster.create(object);
        made["kind"] = object["kind"].clone();
        self.history.take(&made, false);
    }

    /// Changes an object of the plan, whose name is given without the plan's prefix (a binding's has none).
    pub fn patch(&self, kind: &str, namespace: &str, name: &str, patch: &Value) {
        let (namespace, name) = self.place(kind, namespace, name);
        let mut made = self.cluster.patch(kind, &namespace, &name, patch);
        made["kind"] = json!(kind);
        self.history.take(&made, false);
    }

    pub fn delete(&self, kind: &str, namespace: &str, name: &str) {
        let (namespace, name) = self.place(kind, namespace, name);
        if let Some(mut left) = self.cluster.delete(kind, &namespace, &name) {
            left["kind"] = json!(kind);
            self.history.take(&left, false);
        }
    }

    pub fn live(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        let (namespace, name) = self.place(kind, namespace, name);
        self.history.live(kind, &namespace, &name)
    }

    fn place(&self, kind: &str, namespace: &str, name: &str) -> (String, String) {
        match kind {
            "ManagedIdentityBinding" => (self.named(namespace), name.to_owned()),
            _ => (String::new(), self.named(name)),
        }
    }

    // Azure

    /// Where an identity is in ARM; those whose names begin with `far` are in a subscription of their own.
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
            location: self.azure.info().location.clone(),
            tags: std::collections::BTreeMap::new(),
            isolation_scope: "None".to_owned(),
            client_id: guid("client").to_string(),
            principal_id: guid("principal").to_string(),
            arm_rights: ArmRights::None,
            credentials: credentials.iter().map(|one| (one.name.to_lowercase(), one.clone())).collect(),
            id,
        };
        for one in credentials {
            self.note(name, Some(one), &one.name);
        }
        self.azure.with_state(|state| {
            let own = state.subscriptions.values().next().cloned();
            let far = own.map(|own| Subscription { id: FAR_SUBSCRIPTION.to_owned(), ..own });
            state.subscriptions.extend(far.map(|far| (FAR_SUBSCRIPTION.to_owned(), far)));
            state.identities.insert(identity.id.key(), identity)
        });
    }

    pub fn remove_azure_identity(&self, name: &str) {
        let key = self.arm_id(name).key();
        let gone = self.azure.with_state(|state| state.identities.remove(&key));
        for one in gone.iter().flat_map(|identity| identity.credentials.values()) {
            self.note(name, None, &one.name);
        }
    }

    /// Sets or removes a credential behind the controller's back.
    pub fn meddle(&self, identity: &str, name: &str, credential: Option<Credential>) {
        let key = self.arm_id(identity).key();
        self.note(identity, credential.as_ref(), name);
        self.azure.with_state(|state| {
            let identity = state.identities.get_mut(&key).expect("the identity");
            match credential {
                Some(credential) => identity.credentials.insert(name.to_lowercase(), credential),
                None => identity.credentials.remove(&name.to_lowercase()),
            }
        });
    }

    fn note(&self, identity: &str, credential: Option<&Credential>, name: &str) {
        lock(&self.meddled).push((Timestamp::now(), identity.to_owned(), credential.cloned(), name.to_owned()));
    }

    pub fn subject(&self, namespace: &str, account: &str) -> Subject {
        Subject::new(self.named(namespace), account)
    }

    pub fn azure_cluster(&self) -> AzureCluster {
        AzureCluster {
            id: CLUSTER_ID.to_owned(),
            previous_id: None,
            issuer: lock(&self.issuer).clone(),
            audience: AUDIENCE.to_owned(),
        }
    }

    /// The name that the controller gives to the credential of a service account.
    pub fn credential_name(&self, namespace: &str, account: &str) -> String {
        self.azure_cluster().credential_name(&self.subject(namespace, account))
    }

    /// A credential for a service account of the plan's cluster, as somebody else may have made it.
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

    /// Writes that ARM saw, with the number of those before.
    pub fn azure_writes(&self) -> Vec<LogEntry> {
        self.azure.log(&LogFilter { kind: Some("arm-write".to_owned()), ..LogFilter::default() })
    }

    // The controller

    /// Starts a controller, which starts again whenever it crashes.
    pub fn start(self: &Arc<Self>) {
        let stop = CancellationToken::new();
        let (world, stopped) = (self.clone(), stop.clone());
        let thread = std::thread::Builder::new()
            .name(self.plan.clone())
            .spawn(move || {
                mutants::activate(world.mutant);
                while !stopped.is_cancelled() {
                    world.probe.begin();
                    let runtime =
                        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                    runtime.block_on(async {
                        tokio::select! {
                            ended = world.run(stopped.clone()) => ended.expect("the controller ran"),
                            () = world.probe.crash() => {}
                        }
                    });
                    // Everything that the controller held in memory goes with its runtime.
                    runtime.shutdown_background();
                }
            })
            .expect("a thread");
        *lock(&self.running) = Some(Running { stop, thread });
    }

    pub fn stop(&self) -> Checked {
        let Some(running) = lock(&self.running).take() else { return Ok(()) };
        running.stop.cancel();
        self.gate.release();
        // What waits for the plan's clock would wait for ever.
        self.clock.pass(Duration::from_secs(3600));
        self.probe.crash_now();
        running.thread.join().map_err(|_| "the controller panicked".to_owned())
    }

    async fn run(&self, stop: CancellationToken) -> Result<(), controller::ControllerError> {
        let readiness = Readiness::default();
        *lock(&self.readiness) = readiness.clone();
        let info = self.azure.info();
        let cloud = CloudArgs {
            azure_cloud: CloudName::Custom,
            azure_arm_endpoint: Some(info.arm_endpoint.clone()),
            azure_authority_host: Some(info.authority_host.clone()),
            azure_token_audience: None,
        };
        let cloud = cloud.resolve().expect("a cloud");
        let connection = Connection { extra_ca: Some(info.ca_file.clone()) };
        let token = self.azure.arm_token().expect("a token for ARM");
        let credential = Arc::new(FixedToken(token));
        let arm = ArmClient::new(&cloud, &connection, credential, &cluster_tag(CLUSTER_ID)).expect("a client of ARM");
        let config = Config {
            client: self.client().await,
            arm,
            settings: Settings {
                cluster: self.azure_cluster(),
                issuer_refusal: None,
                tenant_id: Some(info.tenant_id.clone()),
                own_client_id: None,
            },
            resync: RESYNC,
            concurrency: 4,
            webhook: None,
            injection: None,
            clock: self.clock.clone(),
            instance: None,
            readiness,
            leadership: None,
            issuer_watch: None,
            effects: Effects::watched_by(self.probe.clone()),
        };
        controller::run(config, stop).await
    }

    /// The client that a controller has by default, with the gate under its retries.
    async fn client(&self) -> kube::Client {
        ensign::runtime::tls::install_provider();
        let kubeconfig = Kubeconfig::read_from(&self.cluster.control_plane.kubeconfig).expect("read the kubeconfig");
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .expect("understand the kubeconfig");
        config.default_retry = false;
        let builder = ClientBuilder::try_from(config).expect("make a client");
        builder
            .with_layer(&BufferLayer::new(1024))
            .with_layer(&GateLayer(self.gate.clone()))
            .with_layer(&RetryLayer::new(RetryPolicy::server_retry()))
            .build()
    }

    // Waiting

    /// Waits until the controller does nothing, then lets time pass until `goal` holds.
    pub fn until(&self, what: &str, goal: impl Fn(&Self) -> Checked) -> Checked {
        let (begun, from) = (Instant::now(), self.clock.passed());
        let patience = *lock(&self.patience);
        loop {
            self.quiet(begun)?;
            let Err(missing) = goal(self) else { return Ok(()) };
            let used = self.clock.passed().saturating_sub(from);
            match self.clock.next_wake().filter(|wake| used + *wake <= patience) {
                Some(wake) => self.pass(wake),
                // What still comes comes on the real clock: an answer, a watch.
                None if begun.elapsed() < *lock(&self.settled) => std::thread::sleep(GLANCE),
                None => {
                    let (used, most) = (used.as_secs(), patience.as_secs());
                    return Err(format!("{what}: not after {used} of {most} s of the plan's clock: {missing}"));
                }
            }
        }
    }

    /// Waits for something that others than the controller do: the plan's clock stands.
    pub fn happens(&self, what: &str, fact: impl Fn(&Self) -> bool) -> Checked {
        let begun = Instant::now();
        while !fact(self) {
            if begun.elapsed() > PATIENCE {
                return Err(format!("waited {} s in vain for {what}", PATIENCE.as_secs()));
            }
            std::thread::sleep(GLANCE);
        }
        Ok(())
    }

    /// Lets time pass.
    pub fn pass(&self, time: Duration) {
        let seen = self.azure_log().last().map_or(0, |entry| entry.seq);
        lock(&self.moments).push((seen, self.clock.passed()));
        self.clock.pass(time);
    }

    /// Lets this much time pass, stopping wherever somebody waits for a moment in it.
    pub fn pass_slowly(&self, time: Duration) -> Checked {
        let end = self.clock.passed() + time;
        loop {
            self.quiet(Instant::now())?;
            let left = end.saturating_sub(self.clock.passed());
            if left.is_zero() {
                return Ok(());
            }
            self.pass(self.clock.next_wake().map_or(left, |wake| wake.max(Duration::from_millis(1)).min(left)));
        }
    }

    /// Waits until nothing happens.
    pub fn quiet(&self, begun: Instant) -> Checked {
        let mut last = self.activity();
        let mut since = Instant::now();
        loop {
            std::thread::sleep(GLANCE);
            let now = self.activity();
            if now != last || now.0 > 0 {
                (last, since) = (now, Instant::now());
            }
            if since.elapsed() >= QUIET {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!("still busy after {} s", PATIENCE.as_secs()));
            }
        }
    }

    /// Requests under way, and a number that stands while nothing happens.
    fn activity(&self) -> (usize, u64, u64, u64, u64) {
        let (under_way, seen) = self.gate.activity();
        let azure = self.azure_log().last().map_or(0, |entry| entry.seq);
        let starting =
            usize::from(lock(&self.running).is_some() && (!lock(&self.readiness).get() || self.probe.is_down()));
        (under_way + starting, seen, self.probe.activity(), self.history.taken(), azure)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.cluster.forget(&self.plan);
    }
}
