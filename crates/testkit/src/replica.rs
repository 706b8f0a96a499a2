//! Controllers that a test starts itself, on a control plane where no other controller runs. Each has a thread of its own,
//! so that it can be paused as a whole, like a process that the kernel stops.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use ensign_azure::ArmClient;
use ensign_controller::{
    Config, ControllerMetrics, Failpoints, InjectionTarget, IssuerWatch, LeaseConfig, PodSettings, WebhookTarget,
};
use ensign_core::acceptance::scopes::AllowedScopes;
use ensign_core::assess::Settings;
use ensign_core::credentials::ownership::Cluster;
use ensign_core::roles::RolePolicy;
use ensign_core::scheduling::backoff::Spread;
use ensign_core::scheduling::rate_limiter::RateLimits;
use ensign_runtime::clock::{SharedClock, SystemClock};
use ensign_runtime::health::Readiness;
use http::HeaderValue;
use http::header::USER_AGENT;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::azure::{AZURE_READ_LAG, FixedToken};
use super::objects::wait_for;
use super::testbed::{Testbed, TestbedLease};

/// The settings of a controller.
pub struct ReplicaOptions {
    /// Name and duration of the lease.
    pub lease: Option<(String, u64)>,
    pub clock: SharedClock,
    /// The issuer, instead of the one that is discovered.
    pub issuer: Option<String>,
    pub issuer_watch: Option<IssuerWatch>,
    /// The cluster ID, and the previous one.
    pub cluster_id: Option<String>,
    pub previous_id: Option<String>,
    /// Who injects pods, and how.
    pub injection: Option<InjectionTarget>,
    pub allowed_scopes: AllowedScopes,
    pub roles: Option<RolePolicy>,
    /// Whether it handles gated and uninjected pods.
    pub pods: Option<PodSettings>,
    /// The propagation delay of credentials.
    pub propagation_delay: Duration,
    /// The webhook that it registers.
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
            propagation_delay: Duration::ZERO,
            webhook: None,
            metrics: ControllerMetrics::default(),
        }
    }
}

impl ReplicaOptions {
    pub fn with_lease(lease: &TestbedLease<'_>) -> Self {
        Self { lease: Some((lease.name.clone(), lease.duration_seconds)), ..Self::default() }
    }
}

/// A running controller.
pub struct Replica {
    stop: CancellationToken,
    readiness: Readiness,
    pauses: tokio::sync::mpsc::UnboundedSender<PauseRequest>,
    thread: Option<JoinHandle<Result<(), String>>>,
}

struct PauseRequest {
    paused: Sender<()>,
    resume: Receiver<()>,
}

impl Replica {
    pub(super) fn start(testbed: &Testbed, name: &str, options: ReplicaOptions) -> Self {
        let (stop, readiness) = (CancellationToken::new(), Readiness::default());
        let (pauses, mut requested_pauses) = tokio::sync::mpsc::unbounded_channel::<PauseRequest>();
        let info = testbed.azure.info();
        let (cloud, connection) = (info.cloud().resolve().expect("a cloud"), info.connection());
        let credential = Arc::new(FixedToken(testbed.azure.arm_token().expect("a token for ARM")));
        let tenant_id = Some(info.tenant_id.clone());
        let (control_plane, name) = (testbed.control_plane, name.to_owned());
        let (ready, stopped) = (readiness.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                tokio::spawn(async move {
                    while let Some(pause) = requested_pauses.recv().await {
                        let _ = pause.paused.send(());
                        // Blocks the only thread of this controller.
                        let _ = pause.resume.recv();
                    }
                });
                ensign_runtime::tls::install_provider();
                let mut config = control_plane.config().await;
                config.headers.push((USER_AGENT, HeaderValue::from_str(&name).expect("a header value")));
                let client = kube::Client::try_from(config.clone()).expect("create a client");
                config.default_retry = false;
                let lease_client = kube::Client::try_from(config).expect("create a client");
                let (id, issuer) = ensign_controller::discover(&client, options.cluster_id, options.issuer)
                    .await
                    .expect("discover the cluster");
                let arm = ArmClient::new(&cloud, &connection, credential, &name).expect("create an ARM client");
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
                        propagation_delay: options.propagation_delay,
                    },
                    resync: Duration::from_secs(900),
                    azure_read_lag: AZURE_READ_LAG,
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
        Self { stop, readiness, pauses, thread: Some(thread) }
    }

    pub fn is_ready(&self) -> bool {
        self.readiness.get()
    }

    pub fn wait_ready(&self) {
        wait_for("a controller to be ready", || self.is_ready().then_some(()));
    }

    /// Stops the controller's thread where it is, until the returned guard is dropped.
    pub fn pause(&self) -> PausedReplica {
        let (paused, is_paused) = channel();
        let (resume, resumed) = channel();
        assert!(self.pauses.send(PauseRequest { paused, resume: resumed }).is_ok(), "the controller runs");
        is_paused.recv().expect("the controller is paused");
        PausedReplica { _resume: resume }
    }

    /// Shuts it down, as SIGTERM does.
    pub fn stop(mut self) -> Result<(), String> {
        self.stop.cancel();
        self.join()
    }

    /// Waits until it exits without being asked to.
    pub fn wait_exit(mut self) -> Result<(), String> {
        self.join()
    }

    fn join(&mut self) -> Result<(), String> {
        let thread = self.thread.take().expect("joined once");
        wait_for("a controller to exit", || thread.is_finished().then_some(()));
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

/// A paused controller. It resumes when this is dropped.
pub struct PausedReplica {
    _resume: Sender<()>,
}
