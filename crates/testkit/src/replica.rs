//! Controllers of a test's own, on a control plane where no other controller acts. Each has a thread to itself, so that
//! it can be frozen as a whole, as a process that the kernel stops.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use ensign_azure::ArmClient;
use ensign_azure_emulator::state::{ArmRights, Credential, Identity, IdentityId};
use ensign_azure_emulator::{Emulator, EmulatorOptions, LogEntry, LogFilter};
use ensign_controller;
use ensign_controller::{
    Config, ControllerMetrics, Failpoints, InjectionTarget, IssuerWatch, LeaseConfig, PodSettings, WebhookTarget,
};
use ensign_core::acceptance::scopes::AllowedScopes;
use ensign_core::assess::Settings;
use ensign_core::credentials::ownership::Cluster;
use ensign_core::roles::RolePolicy;
use ensign_core::scheduling::backoff::Spread;
use ensign_core::scheduling::rate_limiter::RateLimits;
use ensign_runtime::clock::{Clock, SharedClock, SystemClock};
use ensign_runtime::health::Readiness;
use http::HeaderValue;
use http::header::USER_AGENT;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::control_plane::ControlPlane;
use super::ensign::FixedToken;
use super::objects::{apply, apply_crds, condition_of, kubectl, unique, wait_for};

/// A cluster and an Azure without a controller. One test has them at a time: each controller acts on all objects.
pub struct Stage {
    pub control_plane: &'static ControlPlane,
    pub azure: &'static Emulator,
    _turn: MutexGuard<'static, ()>,
}

impl Stage {
    pub fn enter() -> Self {
        static AZURE: OnceLock<Emulator> = OnceLock::new();
        static TURN: Mutex<()> = Mutex::new(());
        // A test that failed has left nothing that the next one would mind.
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let control_plane = ControlPlane::separate();
        let azure = AZURE.get_or_init(|| {
            apply_crds(control_plane);
            let ca = std::fs::read_to_string(&control_plane.ca_file).expect("read the cluster's CA");
            let options = EmulatorOptions { issuer_ca_pems: vec![ca], ..EmulatorOptions::default() };
            Emulator::start(options).expect("start the stand-in for Azure")
        });
        Self { control_plane, azure, _turn: turn }
    }

    /// A namespace and an identity in Azure with the same unique name, and the objects that bind its service account.
    pub fn team(&self, prefix: &str) -> StageTeam<'_> {
        let name = unique(prefix);
        let info = self.azure.info();
        let id = IdentityId {
            subscription: info.subscription_id.clone(),
            resource_group: info.resource_group.clone(),
            name: name.clone(),
        };
        let identity = Identity {
            location: info.location.clone(),
            tags: BTreeMap::new(),
            isolation_scope: "None".to_owned(),
            client_id: Uuid::new_v4().to_string(),
            principal_id: Uuid::new_v4().to_string(),
            arm_rights: ArmRights::None,
            created_at: Timestamp::UNIX_EPOCH,
            credentials: BTreeMap::new(),
            id,
        };
        self.azure.with_state(|state| state.identities.insert(identity.id.key(), identity));
        kubectl(self.control_plane, &["create", "namespace", &name]);
        StageTeam { stage: self, name }
    }

    /// A lease that no other test has.
    pub fn lease(&self, duration_seconds: u64) -> StageLease<'_> {
        StageLease { stage: self, name: unique("lease"), duration_seconds }
    }

    /// Starts a controller whose requests carry its name, which no other controller of the stage may have.
    pub fn start(&self, name: &str, options: ReplicaOptions) -> Replica {
        Replica::start(self, name, options)
    }

    /// How often the issuer was looked at by a controller.
    pub fn looks_at_issuer(&self, replica: &str) -> usize {
        let is_look = |event: &Value| event["requestURI"] == "/.well-known/openid-configuration";
        self.requests(replica).iter().filter(|event| is_look(event)).count()
    }

    /// How often a controller wrote the registration of a webhook, and was not too late.
    pub fn registrations(&self, replica: &str) -> usize {
        let is_write = |event: &Value| {
            event["verb"] == "update"
                && event["objectRef"]["resource"] == "mutatingwebhookconfigurations"
                && event["responseStatus"]["code"] == 200
        };
        self.requests(replica).iter().filter(|event| is_write(event)).count()
    }

    /// How often a controller read the registration of a webhook.
    pub fn looks_at_registration(&self, replica: &str) -> usize {
        let is_look =
            |event: &Value| event["verb"] == "get" && event["objectRef"]["resource"] == "mutatingwebhookconfigurations";
        self.requests(replica).iter().filter(|event| is_look(event)).count()
    }

    /// How often a controller read the lease.
    pub fn looks_at_lease(&self, replica: &str) -> usize {
        let is_look = |event: &Value| event["verb"] == "get" && event["objectRef"]["resource"] == "leases";
        self.requests(replica).iter().filter(|event| is_look(event)).count()
    }

    /// What a controller wrote to Kubernetes apart from the lease.
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

/// One team's world on the stage.
pub struct StageTeam<'a> {
    stage: &'a Stage,
    pub name: String,
}

impl StageTeam<'_> {
    pub fn bind(&self) {
        self.grant_namespace();
        self.bind_account("app");
    }

    /// Lets every service account of the namespace use the identity.
    pub fn grant_namespace(&self) {
        self.grant(&self.whole_namespace());
    }

    /// The same, but nothing is written to Azure.
    pub fn bind_observed(&self) {
        self.managed_identity("Observe", &self.whole_namespace());
        self.bind_account("app");
    }

    fn whole_namespace(&self) -> Value {
        json!([{"name": "team", "namespace": self.name, "serviceAccounts": ["*"]}])
    }

    /// Says who may use the identity.
    pub fn grant(&self, allowed: &Value) {
        self.managed_identity("Manage", allowed);
    }

    fn managed_identity(&self, policy: &str, allowed: &Value) {
        let info = self.stage.azure.info();
        let id = format!(
            "/subscriptions/{}/resourceGroups/{}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{}",
            info.subscription_id, info.resource_group, self.name
        );
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
        apply(self.stage.control_plane, object).expect("apply");
    }

    pub fn get(&self, kind: &str, name: &str) -> Option<Value> {
        let arguments = ["get", kind, name, "--namespace", &self.name, "--ignore-not-found", "--output", "json"];
        let text = kubectl(self.stage.control_plane, &arguments);
        (!text.trim().is_empty()).then(|| serde_json::from_str(&text).expect("an object"))
    }

    pub fn wait_ready(&self, account: &str) -> Value {
        wait_for(&format!("binding {account} of {} to be ready", self.name), || {
            let binding = self.get("mib", account)?;
            (condition_of(&binding, "Ready")?["status"] == "True").then_some(binding)
        })
    }

    pub fn unbind(&self, account: &str) {
        kubectl(self.stage.control_plane, &["delete", "mib", account, "--namespace", &self.name, "--timeout=60s"]);
    }

    /// Issuers and names of the credentials under the identity.
    pub fn credentials(&self) -> Vec<(String, String)> {
        self.stage.azure.with_state(|state| {
            let named = state.identities.values().find(|found| found.id.name == self.name);
            let credentials = named.into_iter().flat_map(|found| found.credentials.values());
            credentials.map(|credential| (credential.issuer.clone(), credential.name.clone())).collect()
        })
    }

    /// Puts a credential under the identity, as another program would.
    pub fn add_credential(&self, name: &str, issuer: &Value, subject: &str) {
        let credential = Credential {
            name: name.to_owned(),
            issuer: issuer.as_str().expect("an issuer").to_owned(),
            subject: subject.to_owned(),
            audiences: vec!["api://AzureADTokenExchange".to_owned()],
            written_at: SystemClock.now(),
        };
        self.stage.azure.with_state(|state| {
            let found = state.identities.values_mut().find(|found| found.id.name == self.name).expect("an identity");
            found.credentials.insert(name.to_owned(), credential);
        });
    }

    /// Makes a pod that is held.
    pub fn hold_pod(&self, name: &str) {
        wait_for("the default service account", || {
            let arguments = ["get", "serviceaccount", "default", "--namespace", &self.name, "--ignore-not-found"];
            (!kubectl(self.stage.control_plane, &arguments).trim().is_empty()).then_some(())
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

    /// Writes that ARM saw under the identity from the controller of this name.
    pub fn arm_writes(&self, replica: &str) -> Vec<LogEntry> {
        self.arm_requests("arm-write", replica)
    }

    /// How often the controller of this name asked ARM for the credentials under the identity.
    pub fn arm_lists(&self, replica: &str) -> usize {
        self.arm_requests("arm-read", replica).len()
    }

    fn arm_requests(&self, kind: &str, replica: &str) -> Vec<LogEntry> {
        let filter = LogFilter {
            kind: Some(kind.to_owned()),
            path: Some(format!("/{}/federatedIdentityCredentials", self.name)),
            ..LogFilter::default()
        };
        let from_it =
            |entry: &LogEntry| entry.user_agent.as_deref().is_some_and(|agent| agent.contains(&format!("({replica})")));
        self.stage.azure.log(&filter).into_iter().filter(from_it).collect()
    }
}

/// A lease in the namespace `default`.
pub struct StageLease<'a> {
    stage: &'a Stage,
    pub name: String,
    pub duration_seconds: u64,
}

impl StageLease<'_> {
    /// Makes the object as an install does: empty.
    pub fn make(&self) {
        self.write(&json!({}));
    }

    pub fn write(&self, spec: &Value) {
        let object = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": self.name, "namespace": "default", "labels": {"kept": "yes"}}, "spec": spec,
        });
        apply(self.stage.control_plane, &object).expect("apply the lease");
    }

    pub fn delete(&self) {
        kubectl(self.stage.control_plane, &["delete", "lease", &self.name, "--namespace", "default"]);
    }

    pub fn get(&self) -> Option<Value> {
        let arguments =
            ["get", "lease", &self.name, "--namespace", "default", "--ignore-not-found", "--output", "json"];
        let text = kubectl(self.stage.control_plane, &arguments);
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

/// What a test says of its controller.
pub struct ReplicaOptions {
    /// Name and duration of the lease.
    pub lease: Option<(String, u64)>,
    pub clock: SharedClock,
    /// The issuer, instead of the one that is discovered.
    pub issuer: Option<String>,
    pub issuer_watch: Option<IssuerWatch>,
    /// The cluster's ID and the one it had before.
    pub cluster_id: Option<String>,
    pub previous_id: Option<String>,
    /// Who injects.
    pub injection: Option<InjectionTarget>,
    pub allowed_scopes: AllowedScopes,
    pub roles: Option<RolePolicy>,
    /// What it does about pods, and the webhook that it registers.
    pub pods: Option<PodSettings>,
    /// How long credentials settle.
    pub settle: Duration,
    pub webhook: Option<WebhookTarget>,
    pub metrics: ControllerMetrics,
}

impl Default for ReplicaOptions {
    fn default() -> Self {
        Self {
            lease: None,
            clock: SystemClock::shared(),
            issuer: None,
            issuer_watch: None,
            cluster_id: None,
            previous_id: None,
            injection: None,
            allowed_scopes: AllowedScopes::default(),
            roles: None,
            pods: None,
            settle: Duration::ZERO,
            webhook: None,
            metrics: ControllerMetrics::default(),
        }
    }
}

impl ReplicaOptions {
    pub fn with_lease(lease: &StageLease<'_>) -> Self {
        Self { lease: Some((lease.name.clone(), lease.duration_seconds)), ..Self::default() }
    }
}

/// A controller.
pub struct Replica {
    stop: CancellationToken,
    readiness: Readiness,
    freezer: tokio::sync::mpsc::UnboundedSender<Pause>,
    thread: Option<JoinHandle<Result<(), String>>>,
}

struct Pause {
    frozen: Sender<()>,
    thaw: Receiver<()>,
}

impl Replica {
    fn start(stage: &Stage, name: &str, options: ReplicaOptions) -> Self {
        let (stop, readiness) = (CancellationToken::new(), Readiness::default());
        let (freezer, mut pauses) = tokio::sync::mpsc::unbounded_channel::<Pause>();
        let info = stage.azure.info();
        let (cloud, connection) = (info.cloud().resolve().expect("a cloud"), info.connection());
        let credential = Arc::new(FixedToken(stage.azure.arm_token().expect("a token for ARM")));
        let tenant_id = Some(info.tenant_id.clone());
        let (control_plane, name) = (stage.control_plane, name.to_owned());
        let (ready, stopped) = (readiness.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                tokio::spawn(async move {
                    while let Some(pause) = pauses.recv().await {
                        let _ = pause.frozen.send(());
                        // Blocks the only thread of this controller.
                        let _ = pause.thaw.recv();
                    }
                });
                ensign_runtime::tls::install_provider();
                let mut config = control_plane.config().await;
                config.headers.push((USER_AGENT, HeaderValue::from_str(&name).expect("a header")));
                let client = kube::Client::try_from(config.clone()).expect("make a client");
                config.default_retry = false;
                let lease_client = kube::Client::try_from(config).expect("make a client");
                let (id, issuer) = ensign_controller::discover(&client, options.cluster_id, options.issuer)
                    .await
                    .expect("learn the cluster");
                let arm = ArmClient::new(&cloud, &connection, credential, &name).expect("a client of ARM");
                let arm = arm.bounded(options.allowed_scopes.clone());
                let leadership = options.lease.map(|(lease, duration_seconds)| LeaseConfig {
                    client: lease_client,
                    namespace: "default".to_owned(),
                    name: lease,
                    identity: format!("{name}_{}", Uuid::new_v4()),
                    duration_seconds,
                });
                let config = Config {
                    client,
                    arm,
                    settings: Settings {
                        cluster: Cluster {
                            id,
                            previous_id: options.previous_id,
                            issuer,
                            audience: cloud.token_audience,
                        },
                        issuer_refusal: None,
                        tenant_id,
                        own_client_id: None,
                        allowed_scopes: options.allowed_scopes.clone(),
                        roles: options.roles.clone(),
                        settle: options.settle,
                    },
                    resync: Duration::from_secs(900),
                    azure_limits: RateLimits::PUBLISHED,
                    spread: Spread::seeded(1),
                    concurrency: 4,
                    webhook: options.webhook,
                    injection: options.injection,
                    clock: options.clock,
                    instance: Some(name),
                    readiness: ready,
                    leadership,
                    issuer_watch: options.issuer_watch,
                    failpoints: Failpoints::default(),
                    pods: options.pods,
                    metrics: options.metrics,
                };
                ensign_controller::run(config, stopped).await.map_err(|error| format!("{error}: {error:?}"))
            })
        });
        Self { stop, readiness, freezer, thread: Some(thread) }
    }

    pub fn is_ready(&self) -> bool {
        self.readiness.get()
    }

    pub fn wait_ready(&self) {
        wait_for("a controller to be ready", || self.is_ready().then_some(()));
    }

    /// Stops the controller's thread where it is, until the answer is dropped.
    pub fn freeze(&self) -> Frozen {
        let (frozen, is_frozen) = channel();
        let (thaw, thawed) = channel();
        assert!(self.freezer.send(Pause { frozen, thaw: thawed }).is_ok(), "the controller runs");
        is_frozen.recv().expect("the controller is frozen");
        Frozen { _thaw: thaw }
    }

    /// Stops it as SIGTERM does.
    pub fn stop(mut self) -> Result<(), String> {
        self.stop.cancel();
        self.join()
    }

    /// Waits until it ends by itself.
    pub fn wait_end(mut self) -> Result<(), String> {
        self.join()
    }

    fn join(&mut self) -> Result<(), String> {
        let thread = self.thread.take().expect("joined once");
        wait_for("a controller to end", || thread.is_finished().then_some(()));
        thread.join().expect("no controller panics")
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A controller that does nothing at all. Dropped, it goes on.
pub struct Frozen {
    _thaw: Sender<()>,
}
