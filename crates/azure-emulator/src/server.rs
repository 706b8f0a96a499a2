//! Starts and stops an emulator, and controls one that runs in the same process.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use serde::Serialize;
use uuid::Uuid;

use super::certificates::{self, CertificateError};
use super::http::faults::{FaultPlan, FaultRule};
use super::http::log::{LogEntry, LogFilter, RequestLog};
use super::http::{self, InvalidCertificate, Issuers, Limits, Shared, Signer, SigningFailed};
use super::options::EmulatorOptions;
use super::state::{InvalidDocument, State, StateDocument};
use ensign_azure::Connection;
use ensign_azure::cloud::{CloudArgs, CloudName};
use ensign_runtime::clock::SharedClock;

const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// How to reach an emulator: the line that `ensign-azure-emulator` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EmulatorInfo {
    /// ARM, without a trailing slash.
    pub arm_endpoint: String,
    /// Entra, with a trailing slash.
    pub authority_host: String,
    /// The CA certificate that clients must trust.
    pub ca_file: PathBuf,
    /// The tenant.
    pub tenant_id: String,
    /// The subscription.
    pub subscription_id: String,
    /// The resource group.
    pub resource_group: String,
    /// The region.
    pub location: String,
    /// Seconds after which a written credential is accepted for tokens.
    pub propagation_seconds: u32,
    /// A GET returns a token for ARM with all rights.
    pub arm_token_url: String,
    /// The whole state.
    pub state_url: String,
    /// The log of requests.
    pub log_url: String,
    /// The CA certificate as PEM.
    #[serde(skip)]
    pub ca_pem: String,
}

impl EmulatorInfo {
    /// The flags that select this cloud in a client.
    pub fn cloud(&self) -> CloudArgs {
        CloudArgs {
            azure_cloud: CloudName::Custom,
            azure_arm_endpoint: Some(self.arm_endpoint.clone()),
            azure_authority_host: Some(self.authority_host.clone()),
            ..CloudArgs::default()
        }
    }

    /// A connection that trusts the emulator's CA.
    pub fn connection(&self) -> Connection {
        Connection { extra_ca: Some(self.ca_file.clone()), ..Connection::default() }
    }
}

/// The emulator can't be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is in use, or not an address of this machine.
    #[error("cannot listen on {address} (--listen)")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The data folder can't be written.
    #[error("cannot write {} (--data-dir)", path.display())]
    DataDir {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The server's thread or runtime can't be started.
    #[error("cannot start the emulator's runtime")]
    Runtime(#[source] std::io::Error),
    /// The certificates can't be created.
    #[error(transparent)]
    Certificates(#[from] CertificateError),
    /// The signing key can't be created.
    #[error(transparent)]
    Signing(#[from] SigningFailed),
    /// A CA file is invalid.
    #[error(transparent)]
    IssuerCa(#[from] InvalidCertificate),
    /// The seed is invalid.
    #[error("cannot use the seed (--seed)")]
    Seed(#[from] InvalidDocument),
}

/// A running emulator, on a thread of its own. It stops when it is dropped.
pub struct Emulator {
    info: EmulatorInfo,
    shared: Arc<Shared>,
    handle: Handle<SocketAddr>,
    thread: Option<JoinHandle<()>>,
    data: DataDir,
}

impl Emulator {
    /// Starts an emulator, which is ready to serve when this returns.
    pub fn start(options: EmulatorOptions) -> Result<Self, StartError> {
        ensign_runtime::tls::install_provider();
        let certificates = certificates::generate()?;
        let signer = Signer::of_process()?;
        let issuers = Issuers::new()?;
        for pem in &options.issuer_ca_pems {
            issuers.trust(pem)?;
        }
        let defaults = options.defaults();
        let state = options.seed.clone().into_state(&defaults, options.clock.now())?;

        let listen_failed = |source| StartError::Listen { address: options.listen, source };
        let listener = TcpListener::bind(options.listen).map_err(listen_failed)?;
        let address = listener.local_addr().map_err(listen_failed)?;
        let data = DataDir::open(options.data_dir.clone())?;
        let ca_file = data.write("ca.crt", &certificates.ca_pem)?;

        let base_url = format!("https://{}", public_address(address));
        let info = EmulatorInfo {
            arm_endpoint: base_url.clone(),
            authority_host: format!("{base_url}/"),
            ca_file,
            tenant_id: state.tenant_id.clone(),
            subscription_id: options.subscription_id,
            resource_group: options.resource_group,
            location: options.location,
            propagation_seconds: state.settings.propagation_seconds,
            arm_token_url: format!("{base_url}/_emulator/arm-token"),
            state_url: format!("{base_url}/_emulator/state"),
            log_url: format!("{base_url}/_emulator/log"),
            ca_pem: certificates.ca_pem,
        };
        let shared = Arc::new(Shared {
            state: state.into(),
            initial: options.seed,
            defaults,
            log: RequestLog::default().into(),
            faults: FaultPlan::default().into(),
            signer,
            issuers,
            base_url,
            limits: options.published_limits.then(|| Limits::new(options.clock.clone())).into(),
            lag_clock: options.clock.clone().into(),
            clock: options.clock,
        });
        let handle = Handle::new();
        let tls = RustlsConfig::from_config(Arc::new(certificates.server));
        let thread = serve(listener, tls, handle.clone(), &shared)?;
        Ok(Self { info, shared, handle, thread: Some(thread), data })
    }

    /// How to reach it.
    pub fn info(&self) -> &EmulatorInfo {
        &self.info
    }

    /// Reads or changes the state, while requests wait.
    pub fn with_state<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.shared.state.lock();
        let result = act(&mut state);
        state.record_changes(self.shared.lag_clock.lock().now());
        result
    }

    /// The whole state, as `GET /_emulator/state` returns it.
    pub fn state(&self) -> StateDocument {
        self.with_state(|state| StateDocument::from(&*state))
    }

    /// Replaces the whole state.
    pub fn set_state(&self, document: StateDocument) -> Result<(), InvalidDocument> {
        self.shared.set_state(document)
    }

    /// The requests so far, in order of arrival.
    pub fn log(&self, filter: &LogFilter) -> Vec<LogEntry> {
        self.shared.log.lock().list(filter)
    }

    /// How many requests have arrived, and how many of them have ended.
    pub fn requests(&self) -> (u64, u64) {
        self.shared.log.lock().counts()
    }

    /// Clears the log of requests.
    pub fn clear_log(&self) {
        self.shared.log.lock().clear();
    }

    /// Replaces the fault rules.
    pub fn set_faults(&self, rules: Vec<FaultRule>) {
        *self.shared.faults.lock() = FaultPlan::new(rules);
    }

    /// The fault rules, with how often each has matched and fired.
    pub fn faults(&self) -> Vec<FaultRule> {
        self.shared.faults.lock().rules().to_vec()
    }

    /// Enforces Azure's published rate limits from now on, by this clock; without one, stops enforcing them.
    pub fn limit_requests(&self, clock: Option<SharedClock>) {
        *self.shared.limits.lock() = clock.map(Limits::new);
    }

    /// Lets reads lag by this clock from now on.
    pub fn lag_by(&self, clock: SharedClock) {
        *self.shared.lag_clock.lock() = clock;
        self.shared.state.lock().forget_the_past();
    }

    /// Trusts the CAs of a PEM bundle when it reads issuers' documents.
    pub fn trust_issuer_ca(&self, pem: &str) -> Result<(), InvalidCertificate> {
        self.shared.issuers.trust(pem)
    }

    /// A bearer token for ARM with all rights.
    pub fn arm_token(&self) -> Result<String, SigningFailed> {
        self.shared.administrator_token().map(|(token, _)| token)
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.handle.shutdown();
        if let Some(thread) = self.thread.take() {
            // A panic of the server was logged when it happened.
            let _ = thread.join();
        }
        self.data.remove();
    }
}

impl std::fmt::Debug for Emulator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Emulator").field("info", &self.info).finish_non_exhaustive()
    }
}

/// Serves on a runtime of its own, so that the emulator outlives the runtime of the test that started it.
fn serve(
    listener: TcpListener,
    tls: RustlsConfig,
    handle: Handle<SocketAddr>,
    shared: &Arc<Shared>,
) -> Result<JoinHandle<()>, StartError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("azure-emulator")
        .enable_all()
        .build()
        .map_err(StartError::Runtime)?;
    let app = http::router(Arc::clone(shared)).into_make_service();
    let server = {
        // Registering the listener needs the runtime.
        let _entered = runtime.enter();
        axum_server::from_tcp(listener).map_err(StartError::Runtime)?
    };
    let acceptor = axum_server::tls_rustls::RustlsAcceptor::new(tls).handshake_timeout(HANDSHAKE_DEADLINE);
    let server = server.acceptor(acceptor).handle(handle);
    std::thread::Builder::new()
        .name("azure-emulator".to_owned())
        .spawn(move || {
            if let Err(error) = runtime.block_on(server.serve(app)) {
                tracing::error!(%error, "the emulator's server failed");
            }
            runtime.shutdown_background();
        })
        .map_err(StartError::Runtime)
}

/// The address for clients: loopback if the emulator listens on all addresses.
fn public_address(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() { SocketAddr::from(([127, 0, 0, 1], address.port())) } else { address }
}

/// The folder for files, and whether it is removed at the end.
struct DataDir {
    path: PathBuf,
    temporary: bool,
}

impl DataDir {
    fn open(given: Option<PathBuf>) -> Result<Self, StartError> {
        let temporary = given.is_none();
        let path = given
            .unwrap_or_else(|| std::env::temp_dir().join(format!("ensign-azure-emulator-{}", Uuid::new_v4().simple())));
        fs::create_dir_all(&path).map_err(|source| StartError::DataDir { path: path.clone(), source })?;
        let path = fs::canonicalize(&path).map_err(|source| StartError::DataDir { path: path.clone(), source })?;
        Ok(Self { path, temporary })
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf, StartError> {
        let path = Path::new(&self.path).join(name);
        fs::write(&path, text).map_err(|source| StartError::DataDir { path: path.clone(), source })?;
        Ok(path)
    }

    fn remove(&self) {
        if self.temporary {
            // If that fails, only a public certificate is left behind.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}
