//! What all parts share: a control plane, an emulator, and the fleet once it is ready.

use std::path::Path;
use std::time::{Duration, Instant};

use ensign_azure_emulator::{Emulator, EmulatorOptions};
use kube::Client;

use crate::Args;
use crate::audit::{Audit, Counts};
use crate::fleet::{Fleet, PER_IDENTITY, install};
use crate::process::{CONTROLLER, Launcher, Process};
use ensign_testkit::azure::start_emulator;
use ensign_testkit::control_plane::ControlPlane;
use ensign_testkit::paths::empty_scratch;
use ensign_testkit::processor_time;

/// How long everything may take.
const TIMEOUT: Duration = Duration::from_secs(900);

/// What all parts share.
pub struct Fixture {
    pub args: Args,
    pub control_plane: &'static ControlPlane,
    pub azure: Emulator,
    pub client: Client,
    pub audit: Audit,
    pub launcher: Launcher,
    /// The fleet of the largest size, once it is ready.
    pub ready_fleet: Option<Fleet>,
    started: Instant,
}

impl Fixture {
    pub async fn start(args: Args) -> Self {
        let started = Instant::now();
        ensign_runtime::tls::install_provider();
        let control_plane = ControlPlane::shared();
        let folder = empty_scratch("run");
        let options = EmulatorOptions {
            data_dir: Some(folder.join("azure")),
            write_latency_ms: args.write_latency_ms,
            ..EmulatorOptions::default()
        };
        let azure = start_emulator(control_plane, options);
        install(control_plane, &azure);
        let audit_log = control_plane.kubeconfig.parent().unwrap_or(Path::new("")).join("audit.log");
        let launcher =
            Launcher { control_plane, folder, ensign: args.ensign.clone(), variables: args.variables.clone() };
        let fixture = Self {
            client: control_plane.client().await,
            audit: Audit::new(audit_log),
            args,
            control_plane,
            azure,
            launcher,
            ready_fleet: None,
            started,
        };
        fixture.progress("the control plane and the emulator are running");
        fixture
    }

    pub fn progress(&self, text: &str) {
        eprintln!("[{:6.1} s] {text}", self.started.elapsed().as_secs_f64());
    }

    /// A fleet of this many bindings.
    pub fn fleet(&self, bindings: usize) -> Fleet {
        let namespaces = self.args.namespaces.unwrap_or(bindings.div_ceil(PER_IDENTITY).max(1));
        Fleet { client: self.client.clone(), name: format!("f{bindings}"), bindings, namespaces }
    }

    /// Whether no other part uses the fleet afterwards.
    pub fn ends_with(&self, fleet: &Fleet) -> bool {
        fleet.bindings == self.largest() && self.args.parts.len() == 1
    }

    /// The largest size.
    pub fn largest(&self) -> usize {
        self.args.sizes.iter().copied().max().unwrap_or(PER_IDENTITY)
    }

    /// The fleet of the largest size, in sync with Azure, created if necessary. No controller runs afterwards.
    pub async fn ready_fleet(&mut self) -> Fleet {
        if let Some(fleet) = &self.ready_fleet {
            return fleet.clone();
        }
        let fleet = self.fleet(self.largest());
        fleet.prepare(&self.azure).await;
        fleet.bind().await;
        let mut controller = self.controller(CONTROLLER, 900);
        controller.wait_ready().await;
        self.wait_all_ready(&mut controller, &fleet).await;
        controller.stop();
        self.progress(&format!("{} bindings are ready", fleet.bindings));
        self.ready_fleet = Some(fleet.clone());
        fleet
    }

    /// Starts a controller without effective rate limits.
    pub fn controller(&self, name: &str, resync_seconds: u64) -> Process {
        self.controller_with_lease(name, resync_seconds, self.args.lease_seconds)
    }

    /// The same, with another lease.
    pub fn controller_with_lease(&self, name: &str, resync_seconds: u64, lease: u64) -> Process {
        let mut flags = vec![format!("--drift-check-interval={resync_seconds}s"), format!("--lease-duration={lease}s")];
        for scope in ["identity", "subscription", "tenant"] {
            flags.extend(["writes", "lists", "gets"].map(|kind| format!("--azure-{scope}-{kind}=100000+10000")));
        }
        self.launcher.controller(&self.azure, name, &flags)
    }

    /// The processor time so far of the control plane.
    pub fn cluster_cpu_seconds(&self) -> f64 {
        let folder = self.control_plane.kubeconfig.parent().unwrap_or(Path::new(""));
        processor_time::of_processes_in(folder).as_secs_f64()
    }

    /// Waits until the controller's cache has every binding of the fleet as ready.
    pub async fn wait_all_ready(&self, controller: &mut Process, fleet: &Fleet) {
        let labels = [r#"kind="ManagedIdentityBinding""#, r#"reason="Ready""#];
        // Counting costs the controller time, so it is requested only when it could be true.
        let start = Instant::now();
        while fleet.trusted(&self.azure) < fleet.bindings {
            assert!(start.elapsed() < TIMEOUT, "not every credential is written");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        controller.wait_for_metric("ensign_objects", &labels, fleet.bindings as f64, TIMEOUT).await;
    }

    /// Waits until a service account has sent no request about what it watches or writes for two seconds. Probes of a webhook
    /// that does not exist continue.
    pub async fn wait_for_rest(&mut self, account: &str) -> Counts {
        let start = Instant::now();
        let of_interest = |counts: &Counts| {
            let kinds = [" managedidentit", " namespaces", " pods", " serviceaccounts", " events"];
            let mut counts = counts.clone();
            counts.retain(|kind, _| kinds.iter().any(|part| kind.contains(part)));
            counts
        };
        let mut last = of_interest(&self.audit.of(account));
        let mut since = Instant::now();
        while since.elapsed() < Duration::from_secs(2) {
            assert!(start.elapsed() < TIMEOUT, "the writes do not stop");
            tokio::time::sleep(Duration::from_millis(200)).await;
            let now = of_interest(&self.audit.of(account));
            if now != last {
                (last, since) = (now, Instant::now());
            }
        }
        self.audit.of(account)
    }
}

/// Seconds, for the report.
pub fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e6
}
