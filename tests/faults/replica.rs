//! One controller of a plan, with what is between it and its servers. It is restarted whenever it exits.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use ensign_azure::ArmClient;
use ensign_azure::cloud::CloudArgs;
use ensign_controller::{Config, ControllerError, ControllerMetrics, Failpoints, IssuerWatch, LeaseConfig};
use ensign_core::acceptance::scopes::AllowedScopes;
use ensign_core::assess::Settings;
use ensign_core::own_writes::READ_LAG;
use ensign_core::roles::RolePolicy;
use ensign_core::scheduling::backoff::Spread;
use ensign_core::scheduling::rate_limiter::RateLimits;
use ensign_mutants as mutants;
use ensign_runtime::health::Readiness;
use kube::client::ClientBuilder;
use kube::client::retry::RetryPolicy;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio_util::sync::CancellationToken;
use tower::buffer::BufferLayer;
use tower::retry::RetryLayer;

use ensign_testkit::clock::FakeClock;

use super::gate::{Gate, GateLayer};
use super::harness::{Checked, Harness, RESYNC};
use super::lock::lock;
use super::pause::PauseSwitch;
use super::probe::FaultProbe;
use super::tcp_proxy::TcpProxy;

/// A controller.
pub struct Replica {
    /// Its unique name, to ARM and in the leader election.
    pub name: String,
    pub clock: Arc<FakeClock>,
    pub gate: Arc<Gate>,
    pub probe: Arc<FaultProbe>,
    pub pause_switch: Arc<PauseSwitch>,
    /// Its connection to ARM.
    pub proxy: Arc<TcpProxy>,
    /// The readiness of the current process.
    readiness: Mutex<Readiness>,
    running: Mutex<Option<Running>>,
    lives: AtomicU32,
    losses: AtomicUsize,
}

struct Running {
    stop: CancellationToken,
    thread: JoinHandle<()>,
}

impl Replica {
    pub fn new(
        name: &str,
        clock: Arc<FakeClock>,
        gate: Arc<Gate>,
        probe: Arc<FaultProbe>,
        proxy: Arc<TcpProxy>,
    ) -> Self {
        Self {
            name: name.to_owned(),
            clock,
            gate,
            probe,
            proxy,
            pause_switch: Arc::default(),
            readiness: Mutex::default(),
            running: Mutex::default(),
            lives: AtomicU32::new(0),
            losses: AtomicUsize::new(0),
        }
    }

    /// Starts it. When it crashes, or exits because it lost the lease, it is restarted, as by a kubelet.
    pub fn start(self: &Arc<Self>, harness: &Arc<Harness>) {
        let stop = CancellationToken::new();
        let (replica, harness, stopped) = (self.clone(), harness.clone(), stop.clone());
        let thread = std::thread::Builder::new()
            .name(self.name.clone())
            .spawn(move || {
                mutants::activate(harness.mutant);
                while !stopped.is_cancelled() {
                    replica.live(&harness, &stopped);
                }
            })
            .expect("a thread");
        *lock(&self.running) = Some(Running { stop, thread });
    }

    fn live(&self, harness: &Harness, stop: &CancellationToken) {
        self.probe.begin();
        self.lives.fetch_add(1, Ordering::SeqCst);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            tokio::select! {
                ended = self.run(harness, stop.child_token()) => match ended {
                    Ok(()) => {}
                    Err(ControllerError::LeadershipLost(_)) => {
                        self.losses.fetch_add(1, Ordering::SeqCst);
                    }
                    Err(error) => panic!("the controller failed: {error}"),
                },
                () = self.probe.crash() => {}
                () = self.pause_switch.run() => {}
            }
        });
        // The memory of the controller is dropped with its runtime.
        runtime.shutdown_background();
    }

    pub fn stop(&self) -> Checked {
        let Some(running) = lock(&self.running).take() else { return Ok(()) };
        running.stop.cancel();
        self.gate.release();
        self.proxy.release();
        self.pause_switch.resume();
        // Otherwise, sleeping tasks would wait forever.
        self.clock.advance(Duration::from_secs(3600));
        self.probe.crash_now();
        running.thread.join().map_err(|_| format!("controller {} panicked", self.name))
    }

    /// How often it exited because it lost leadership.
    pub fn losses(&self) -> usize {
        self.losses.load(Ordering::SeqCst)
    }

    /// Whether it runs and is not paused.
    pub fn is_alive(&self) -> bool {
        lock(&self.running).is_some() && !self.pause_switch.is_paused()
    }

    /// Whether it is not ready yet.
    pub fn is_starting(&self) -> bool {
        self.is_alive() && (!lock(&self.readiness).get() || self.probe.is_down())
    }

    async fn run(&self, harness: &Harness, stop: CancellationToken) -> Result<(), ControllerError> {
        let readiness = Readiness::default();
        *lock(&self.readiness) = readiness.clone();
        let info = harness.azure.info();
        let cloud = CloudArgs { azure_arm_endpoint: Some(self.proxy.endpoint()), ..info.cloud() };
        let cloud = cloud.resolve().expect("a cloud");
        let arm = ArmClient::new(&cloud, &info.connection(), harness.tokens.clone(), &self.name)
            .expect("create an ARM client");
        let lease_seconds = *lock(&harness.lease_seconds);
        let leadership = match lease_seconds {
            None => None,
            Some(duration_seconds) => Some(LeaseConfig {
                client: self.client(harness, false).await,
                namespace: "default".to_owned(),
                name: harness.named("lease"),
                identity: format!("{}_{}", self.name, self.lives.load(Ordering::SeqCst)),
                duration_seconds,
            }),
        };
        let issuer_watch = lock(&harness.issuer_check).map(|every| IssuerWatch { every, allow_private: false });
        let config = Config {
            client: self.client(harness, true).await,
            arm,
            settings: Settings {
                cluster: harness.azure_cluster(),
                issuer_refusal: None,
                tenant_id: Some(info.tenant_id.clone()),
                own_client_id: None,
                allowed_scopes: AllowedScopes::default(),
                roles: Some(RolePolicy::default()),
                propagation_delay: Duration::ZERO,
            },
            resync: RESYNC,
            azure_read_lag: READ_LAG,
            azure_limits: RateLimits::PUBLISHED,
            spread: self.spread(),
            concurrency: 4,
            webhook: None,
            injection: None,
            clock: self.clock.clone(),
            instance: None,
            readiness,
            leadership,
            issuer_watch,
            failpoints: Failpoints::watched_by(self.probe.clone()),
            pods: None,
            metrics: ControllerMetrics::default(),
        };
        ensign_controller::run(config, stop).await
    }

    /// A jitter of its own, so that two controllers diverge, and the same in each run.
    fn spread(&self) -> Spread {
        Spread::seeded(self.name.bytes().fold(7, |seed, byte| seed.rotate_left(8) ^ u64::from(byte)))
    }

    /// The controller's default client, with the gate below its retries, or without retries.
    async fn client(&self, harness: &Harness, retries: bool) -> kube::Client {
        ensign_runtime::tls::install_provider();
        let kubeconfig = Kubeconfig::read_from(&harness.cluster.control_plane.kubeconfig).expect("read the kubeconfig");
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .expect("parse the kubeconfig");
        config.default_retry = false;
        let builder = ClientBuilder::try_from(config).expect("create a client");
        let builder = builder.with_layer(&BufferLayer::new(1024)).with_layer(&GateLayer(self.gate.clone()));
        if retries {
            builder.with_layer(&RetryLayer::new(RetryPolicy::server_retry())).build()
        } else {
            builder.build()
        }
    }
}
