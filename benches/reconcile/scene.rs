//! What all parts share: a control plane, an Azure, and the fleet that stands.

use std::path::Path;
use std::time::{Duration, Instant};

use ensign_azure_emulator::{Emulator, EmulatorOptions};
use kube::Client;

use crate::Args;
use crate::audit::{Audit, Counts};
use crate::fleet::{Fleet, PER_IDENTITY, install};
use crate::process::{CONTROLLER, Process, Workshop, cpu_seconds_in};
use ensign_testkit::control_plane::ControlPlane;

/// How long everything may take at most.
const PATIENCE: Duration = Duration::from_secs(900);

/// What all parts share.
pub struct Scene {
    pub args: Args,
    pub control_plane: &'static ControlPlane,
    pub azure: Emulator,
    pub client: Client,
    pub audit: Audit,
    pub workshop: Workshop,
    /// The fleet of the largest size, once it stands.
    pub standing: Option<Fleet>,
    started: Instant,
}

impl Scene {
    pub async fn start(args: Args) -> Self {
        let started = Instant::now();
        ensign_runtime::tls::install_provider();
        let control_plane = ControlPlane::shared();
        let ca = std::fs::read_to_string(&control_plane.ca_file).expect("read the cluster's CA");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-reconcile");
        // What an earlier run left speaks of another cluster.
        let _ = std::fs::remove_dir_all(&folder);
        let azure = Emulator::start(EmulatorOptions {
            issuer_ca_pems: vec![ca],
            data_dir: Some(folder.join("azure")),
            write_latency_ms: args.write_latency_ms,
            ..EmulatorOptions::default()
        })
        .expect("start the stand-in for Azure");
        install(control_plane, &azure);
        let audit_log = control_plane.kubeconfig.parent().unwrap_or(Path::new("")).join("audit.log");
        let workshop =
            Workshop { control_plane, folder, ensign: args.ensign.clone(), variables: args.variables.clone() };
        let scene = Self {
            client: control_plane.client().await,
            audit: Audit::new(audit_log),
            args,
            control_plane,
            azure,
            workshop,
            standing: None,
            started,
        };
        scene.say("the control plane and the stand-in for Azure run");
        scene
    }

    pub fn say(&self, text: &str) {
        eprintln!("[{:6.1} s] {text}", self.started.elapsed().as_secs_f64());
    }

    /// A fleet of so many bindings.
    pub fn fleet(&self, bindings: usize) -> Fleet {
        let namespaces = self.args.namespaces.unwrap_or(bindings.div_ceil(PER_IDENTITY).max(1));
        Fleet { client: self.client.clone(), name: format!("f{bindings}"), bindings, namespaces }
    }

    /// Whether nothing comes after the fleet's figures.
    pub fn ends_with(&self, fleet: &Fleet) -> bool {
        fleet.bindings == self.largest() && self.args.parts.len() == 1
    }

    /// The largest size.
    pub fn largest(&self) -> usize {
        self.args.sizes.iter().copied().max().unwrap_or(PER_IDENTITY)
    }

    /// The fleet of the largest size, in step with Azure, made first if it does not stand. No controller runs afterwards.
    pub async fn standing(&mut self) -> Fleet {
        if let Some(fleet) = &self.standing {
            return fleet.clone();
        }
        let fleet = self.fleet(self.largest());
        fleet.prepare(&self.azure).await;
        fleet.bind().await;
        let mut controller = self.controller(CONTROLLER, 900);
        controller.ready().await;
        self.wait_all_ready(&mut controller, &fleet).await;
        controller.stop();
        self.say(&format!("{} bindings are ready", fleet.bindings));
        self.standing = Some(fleet.clone());
        fleet
    }

    /// Starts a controller as fast as it can be.
    pub fn controller(&self, name: &str, resync_seconds: u64) -> Process {
        self.controller_with_lease(name, resync_seconds, self.args.lease_seconds)
    }

    /// The same, with another lease.
    pub fn controller_with_lease(&self, name: &str, resync_seconds: u64, lease: u64) -> Process {
        let mut flags = vec![format!("--drift-check-interval={resync_seconds}s"), format!("--lease-duration={lease}s")];
        for scope in ["identity", "subscription", "tenant"] {
            flags.extend(["writes", "lists", "gets"].map(|kind| format!("--azure-{scope}-{kind}=100000+10000")));
        }
        self.workshop.controller(&self.azure, name, &flags)
    }

    /// Processor time so far of the API server and what is behind it.
    pub fn cluster_cpu_seconds(&self) -> f64 {
        cpu_seconds_in(self.control_plane.kubeconfig.parent().unwrap_or(Path::new("")))
    }

    /// Waits until the controller has seen its own word that every binding of the fleet is ready.
    pub async fn wait_all_ready(&self, controller: &mut Process, fleet: &Fleet) {
        let labels = [r#"kind="ManagedIdentityBinding""#, r#"reason="Ready""#];
        // Counting takes the controller's time, so it is asked only when it could be true.
        let start = Instant::now();
        while fleet.trusted(&self.azure) < fleet.bindings {
            assert!(start.elapsed() < PATIENCE, "every credential is written");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        controller.reaches("ensign_objects", &labels, fleet.bindings as f64, PATIENCE).await;
    }

    /// Waits until a service account has asked for nothing of what it watches or writes for a moment. That a webhook is
    /// looked for which is not there goes on.
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
            assert!(start.elapsed() < PATIENCE, "it never comes to rest");
            tokio::time::sleep(Duration::from_millis(200)).await;
            let now = of_interest(&self.audit.of(account));
            if now != last {
                (last, since) = (now, Instant::now());
            }
        }
        self.audit.of(account)
    }
}

/// Seconds, for a report.
pub fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e6
}
