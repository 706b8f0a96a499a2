//! An emulator, a controller and a webhook on the shared control plane, started once per test program; or the same without
//! a webhook, where admission policies inject.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use ensign_azure::ArmClient;
use ensign_azure_emulator::state::{Credential, IdentityId, State};
use ensign_azure_emulator::{Emulator, EmulatorOptions, LogEntry, LogFilter};
use ensign_controller::{Config, ControllerMetrics, Failpoints, PodSettings};
use ensign_core::acceptance::scopes::AllowedScopes;
use ensign_core::assess::Settings;
use ensign_core::credentials::names::cluster_tag;
use ensign_core::credentials::ownership::Cluster;
use ensign_core::roles::RolePolicy;
use ensign_core::scheduling::backoff::Spread;
use ensign_core::scheduling::rate_limiter::RateLimits;
use ensign_runtime::clock::SystemClock;
use ensign_runtime::health::Readiness;
use tokio_util::sync::CancellationToken;

use super::azure::{self, AZURE_READ_LAG, EMULATOR_READ_LAG_SECONDS, FixedToken};
use super::control_plane::ControlPlane;
use super::controller_process::OWN_CLIENT_ID;
use super::objects::{apply_crds, wait_for};
use super::policies::{self, Policies};
use super::webhook::Webhook;

/// The emulator's token exchange accepts a credential at once.
const SETTLE: Duration = Duration::ZERO;

/// The emulator, the controller and, unless policies inject, the webhook.
pub struct Ensign {
    pub control_plane: &'static ControlPlane,
    pub azure: Emulator,
    /// None where policies inject.
    webhook: Option<Webhook>,
    controller: Mutex<Option<RunningController>>,
}

struct RunningController {
    stop: CancellationToken,
    thread: JoinHandle<()>,
}

impl Ensign {
    /// Shared by all tests, with the webhook.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Ensign> = OnceLock::new();
        SHARED.get_or_init(|| {
            let (control_plane, azure) = Self::start_azure(ControlPlane::shared(), "azure");
            let webhook = Webhook::start(control_plane, &azure.info().authority_host, SystemClock::shared());
            Self::started(control_plane, azure, Some(webhook))
        })
    }

    /// Shared by all tests, with admission policies.
    pub fn with_policies() -> &'static Self {
        static SHARED: OnceLock<Ensign> = OnceLock::new();
        SHARED.get_or_init(|| {
            let (control_plane, azure) = Self::start_azure(ControlPlane::with_policies(), "azure-by-policies");
            Policies::leave_to_controllers(control_plane);
            Self::started(control_plane, azure, None)
        })
    }

    fn start_azure(control_plane: &'static ControlPlane, folder: &str) -> (&'static ControlPlane, Emulator) {
        apply_crds(control_plane);
        let data_dir = Some(super::paths::scratch().join(folder));
        let azure = azure::start_emulator(
            control_plane,
            EmulatorOptions { data_dir, read_lag_seconds: EMULATOR_READ_LAG_SECONDS, ..EmulatorOptions::default() },
        );
        (control_plane, azure)
    }

    fn started(control_plane: &'static ControlPlane, azure: Emulator, webhook: Option<Webhook>) -> Self {
        let ensign = Self { control_plane, azure, webhook, controller: Mutex::new(None) };
        ensign.start_controller();
        ensign
    }

    /// Creates a user-assigned identity in Azure, with credentials that another program may have created.
    pub fn azure_identity(&self, name: &str, client_id: Option<&str>, credentials: &[Credential]) {
        let mut identity = azure::identity(self.azure_id(name), &self.azure.info().location);
        identity.client_id = client_id.map_or(identity.client_id, str::to_owned);
        identity.credentials =
            credentials.iter().map(|credential| (credential.name.clone(), credential.clone())).collect();
        self.change_azure(|state| state.identities.insert(identity.id.key(), identity));
    }

    /// Replaces the credentials of an identity, as another program would.
    pub fn azure_identity_with(&self, name: &str, credentials: &[Credential]) {
        let credentials = credentials.iter().map(|credential| (credential.name.clone(), credential.clone())).collect();
        self.change_azure(|state| {
            let found = state.identities.values_mut().find(|found| found.id.name == name).expect("an identity");
            found.credentials = credentials;
        });
    }

    /// Changes Azure's state as somebody else does. Every read shows it at once.
    pub fn change_azure<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        self.azure.with_state(|state| {
            let result = act(state);
            state.forget_the_past();
            result
        })
    }

    pub fn arm_id(&self, name: &str) -> String {
        azure::arm_id(&self.azure_id(name))
    }

    fn azure_id(&self, name: &str) -> IdentityId {
        let info = self.azure.info();
        IdentityId {
            subscription: info.subscription_id.clone(),
            resource_group: info.resource_group.clone(),
            name: name.to_owned(),
        }
    }

    /// The federated identity credentials under an identity, as `(name, subject)`.
    pub fn credentials(&self, identity: &str) -> Vec<(String, String)> {
        self.azure.with_state(|state| {
            let named = state.identities.values().find(|found| found.id.name == identity);
            let credentials = named.into_iter().flat_map(|found| found.credentials.values());
            credentials.map(|credential| (credential.name.clone(), credential.subject.clone())).collect()
        })
    }

    /// Every write of a credential of an identity.
    pub fn arm_writes(&self, identity: &str) -> Vec<LogEntry> {
        let filter = LogFilter {
            kind: Some("arm-write".to_owned()),
            path: Some(format!("/{identity}/federatedIdentityCredentials")),
            ..LogFilter::default()
        };
        self.azure.log(&filter)
    }

    /// Every request about the credentials of an identity, in the order of arrival.
    pub fn arm_log(&self, identity: &str) -> Vec<LogEntry> {
        let path = Some(format!("/{identity}/federatedIdentityCredentials"));
        self.azure.log(&LogFilter { path, ..LogFilter::default() })
    }

    /// How often the credentials of an identity were listed.
    pub fn arm_lists(&self, identity: &str) -> usize {
        let filter = LogFilter {
            kind: Some("arm-read".to_owned()),
            path: Some(format!("/{identity}/federatedIdentityCredentials")),
            ..LogFilter::default()
        };
        self.azure.log(&filter).len()
    }

    /// Stops the controller, and starts a new one with an empty cache.
    pub fn restart_controller(&self) {
        let running = self.controller.lock().expect("no restart panicked").take();
        if let Some(running) = running {
            running.stop.cancel();
            running.thread.join().expect("join the controller");
        }
        self.start_controller();
    }

    fn start_controller(&self) {
        let stop = CancellationToken::new();
        let readiness = Readiness::default();
        let (cloud, connection) =
            (self.azure.info().cloud().resolve().expect("a cloud"), self.azure.info().connection());
        let token = self.azure.arm_token().expect("a token for ARM");
        let tenant_id = self.azure.info().tenant_id.clone();
        let webhook = self.webhook.as_ref().map(Webhook::target);
        let injection = webhook.is_none().then(|| policies::target(&self.azure.info().authority_host));
        let (control_plane, ready, stopped) = (self.control_plane, readiness.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(async move {
                let client = control_plane.client().await;
                let (id, issuer) =
                    ensign_controller::discover(&client, None, None).await.expect("discover the cluster");
                let credential = Arc::new(FixedToken(token));
                let arm =
                    ArmClient::new(&cloud, &connection, credential, &cluster_tag(&id)).expect("create an ARM client");
                let config = Config {
                    client,
                    arm,
                    settings: Settings {
                        cluster: Cluster { id, previous_id: None, issuer, audience: cloud.token_audience },
                        issuer_refusal: None,
                        tenant_id: Some(tenant_id),
                        own_client_id: Some(OWN_CLIENT_ID.to_owned()),
                        allowed_scopes: AllowedScopes::default(),
                        roles: Some(RolePolicy::default()),
                        propagation_delay: SETTLE,
                    },
                    resync: Duration::from_secs(900),
                    azure_read_lag: AZURE_READ_LAG,
                    azure_limits: RateLimits::PUBLISHED,
                    spread: Spread::seeded(1),
                    concurrency: 8,
                    webhook,
                    injection,
                    clock: SystemClock::shared(),
                    instance: None,
                    readiness: ready,
                    leadership: None,
                    issuer_watch: None,
                    failpoints: Failpoints::default(),
                    pods: Some(PodSettings { excluded: BTreeSet::new() }),
                    metrics: ControllerMetrics::default(),
                };
                ensign_controller::run(config, stopped).await.expect("run the controller");
            });
        });
        wait_for("the controller to be ready", || readiness.get().then_some(()));
        *self.controller.lock().expect("no restart panicked") = Some(RunningController { stop, thread });
    }
}
