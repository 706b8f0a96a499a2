//! One controller of a plan, with what stands between it and the world. It starts again whenever it ends.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use ensign_azure::ArmClient;
use ensign_azure::cloud::CloudArgs;
use ensign_controller;
use ensign_controller::{Config, ControllerError, ControllerMetrics, Failpoints, IssuerWatch, LeaseConfig};
use ensign_core::acceptance::scopes::AllowedScopes;
use ensign_core::assess::Settings;
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

use super::clock::{FakeClock, lock};
use super::freezer::Freezer;
use super::gate::{Gate, GateLayer};
use super::pipe::Pipe;
use super::probe::FaultProbe;
use super::world::{Checked, RESYNC, World};

/// A controller.
pub struct Replica {
    /// Who it is to ARM and to the other candidates; no other controller has the name.
    pub name: String,
    pub clock: Arc<FakeClock>,
    pub gate: Arc<Gate>,
    pub probe: Arc<FaultProbe>,
    pub freezer: Arc<Freezer>,
    /// Its way to ARM.
    pub pipe: Arc<Pipe>,
    /// Whether the controller of now has seen everything.
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
    pub fn new(name: &str, clock: Arc<FakeClock>, gate: Arc<Gate>, probe: Arc<FaultProbe>, pipe: Arc<Pipe>) -> Self {
        Self {
            name: name.to_owned(),
            clock,
            gate,
            probe,
            pipe,
            freezer: Arc::default(),
            readiness: Mutex::default(),
            running: Mutex::default(),
            lives: AtomicU32::new(0),
            losses: AtomicUsize::new(0),
        }
    }

    /// Starts it; when it crashes, or ends because it lost the lease, it starts again, as a kubelet would see to.
    pub fn start(self: &Arc<Self>, world: &Arc<World>) {
        let stop = CancellationToken::new();
        let (replica, world, stopped) = (self.clone(), world.clone(), stop.clone());
        let thread = std::thread::Builder::new()
            .name(self.name.clone())
            .spawn(move || {
                mutants::activate(world.mutant);
                while !stopped.is_cancelled() {
                    replica.live(&world, &stopped);
                }
            })
            .expect("a thread");
        *lock(&self.running) = Some(Running { stop, thread });
    }

    fn live(&self, world: &World, stop: &CancellationToken) {
        self.probe.begin();
        self.lives.fetch_add(1, Ordering::SeqCst);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            tokio::select! {
                ended = self.run(world, stop.child_token()) => match ended {
                    Ok(()) => {}
                    Err(ControllerError::LeadershipLost(_)) => {
                        self.losses.fetch_add(1, Ordering::SeqCst);
                    }
                    Err(error) => panic!("the controller failed: {error}"),
                },
                () = self.probe.crash() => {}
                () = self.freezer.obey() => {}
            }
        });
        // Everything that the controller held in memory goes with its runtime.
        runtime.shutdown_background();
    }

    pub fn stop(&self) -> Checked {
        let Some(running) = lock(&self.running).take() else { return Ok(()) };
        running.stop.cancel();
        self.gate.release();
        self.pipe.release();
        self.freezer.thaw();
        // What waits for the plan's clock would wait for ever.
        self.clock.pass(Duration::from_secs(3600));
        self.probe.crash_now();
        running.thread.join().map_err(|_| format!("controller {} panicked", self.name))
    }

    /// How often it ended because it led no longer.
    pub fn losses(&self) -> usize {
        self.losses.load(Ordering::SeqCst)
    }

    /// Whether it runs and could do something.
    pub fn is_alive(&self) -> bool {
        lock(&self.running).is_some() && !self.freezer.is_frozen()
    }

    /// Whether it has yet to see everything.
    pub fn is_starting(&self) -> bool {
        self.is_alive() && (!lock(&self.readiness).get() || self.probe.is_down())
    }

    async fn run(&self, world: &World, stop: CancellationToken) -> Result<(), ControllerError> {
        let readiness = Readiness::default();
        *lock(&self.readiness) = readiness.clone();
        let info = world.azure.info();
        let cloud = CloudArgs { azure_arm_endpoint: Some(self.pipe.endpoint()), ..info.cloud() };
        let cloud = cloud.resolve().expect("a cloud");
        let arm =
            ArmClient::new(&cloud, &info.connection(), world.tokens.clone(), &self.name).expect("a client of ARM");
        let lease_seconds = *lock(&world.lease_seconds);
        let leadership = match lease_seconds {
            None => None,
            Some(duration_seconds) => Some(LeaseConfig {
                client: self.client(world, false).await,
                namespace: "default".to_owned(),
                name: world.named("lease"),
                identity: format!("{}_{}", self.name, self.lives.load(Ordering::SeqCst)),
                duration_seconds,
            }),
        };
        let issuer_watch = lock(&world.issuer_check).map(|every| IssuerWatch { every, allow_private: false });
        let config = Config {
            client: self.client(world, true).await,
            arm,
            settings: Settings {
                cluster: world.azure_cluster(),
                issuer_refusal: None,
                tenant_id: Some(info.tenant_id.clone()),
                own_client_id: None,
                allowed_scopes: AllowedScopes::default(),
                roles: Some(RolePolicy::default()),
                settle: Duration::ZERO,
            },
            resync: RESYNC,
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

    /// Its own, so that two of them part after they met, and the same in each run.
    fn spread(&self) -> Spread {
        Spread::seeded(self.name.bytes().fold(7, |seed, byte| seed.rotate_left(8) ^ u64::from(byte)))
    }

    /// The client that a controller has by default, with the gate under its retries, or without any retry.
    async fn client(&self, world: &World, retries: bool) -> kube::Client {
        ensign_runtime::tls::install_provider();
        let kubeconfig = Kubeconfig::read_from(&world.cluster.control_plane.kubeconfig).expect("read the kubeconfig");
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .expect("understand the kubeconfig");
        config.default_retry = false;
        let builder = ClientBuilder::try_from(config).expect("make a client");
        let builder = builder.with_layer(&BufferLayer::new(1024)).with_layer(&GateLayer(self.gate.clone()));
        if retries {
            builder.with_layer(&RetryLayer::new(RetryPolicy::server_retry())).build()
        } else {
            builder.build()
        }
    }
}
