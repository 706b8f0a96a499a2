//! The real `ensign controller` and `ensign webhook` as processes, and their resource usage.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ensign_azure_emulator::Emulator;
use serde_json::Value;

use ensign_testkit::azure::AUDIENCE;
use ensign_testkit::control_plane::ControlPlane;
use ensign_testkit::controller_process::OWN_CLIENT_ID;
use ensign_testkit::processor_time;
pub use ensign_testkit::service_account::CONTROLLER;
use ensign_testkit::service_account::{write_kubeconfig, write_token};

pub const WEBHOOK: &str = "ensign-webhook";
const POLL: Duration = Duration::from_millis(2);
const TIMEOUT: Duration = Duration::from_secs(120);

/// Starts processes.
pub struct Launcher {
    pub control_plane: &'static ControlPlane,
    pub folder: PathBuf,
    pub ensign: PathBuf,
    /// Environment variables, as the image has them.
    pub variables: Vec<(String, String)>,
}

/// The current resource usage of a process.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Usage {
    pub rss_bytes: u64,
    /// The peak since the start, or since the last reset.
    pub peak_bytes: u64,
    /// Without the pages of the binary, which the kernel reclaims when memory is short.
    pub anonymous_bytes: u64,
    pub cpu_seconds: f64,
    pub descriptors: usize,
}

/// A process that is killed when this is dropped.
pub struct Process {
    child: Child,
    name: String,
    ready_file: PathBuf,
    started: Instant,
}

impl Launcher {
    /// Starts a controller with these flags, and those of its environment.
    pub fn controller(&self, azure: &Emulator, name: &str, flags: &[String]) -> Process {
        let info = azure.info();
        let token_file = self.folder.join("azure-token");
        write_token(self.control_plane, CONTROLLER, Some(AUDIENCE), &token_file);
        let mut command = Command::new(&self.ensign);
        command
            .args(["controller", "--azure-cloud", "custom", "--allow-private-issuer", "--propagation-delay", "0s"])
            .args(["--azure-arm-endpoint", &info.arm_endpoint, "--azure-authority-host", &info.authority_host])
            .arg("--azure-ca-file")
            .arg(&info.ca_file)
            // Nothing listens there, so that the webhook is never registered: admission is measured separately.
            .args(["--health-listen", "127.0.0.1:0", "--webhook-url", "https://127.0.0.1:1"])
            .args(["--injection", "webhook"])
            .args(flags)
            .env("AZURE_CLIENT_ID", OWN_CLIENT_ID)
            .env("AZURE_TENANT_ID", &info.tenant_id)
            .env("AZURE_FEDERATED_TOKEN_FILE", token_file)
            .env("AZURE_AUTHORITY_HOST", &info.authority_host);
        self.start(command, name, CONTROLLER)
    }

    /// Starts a webhook in compatibility mode, which caches service accounts.
    pub fn webhook(&self, azure: &Emulator) -> Process {
        let info = azure.info();
        let mut command = Command::new(&self.ensign);
        command
            .args(["webhook", "--listen", "127.0.0.1:0", "--health-listen", "127.0.0.1:0", "--tls-san", "127.0.0.1"])
            .args(["--tls-secret", "ensign-webhook-tls", "--azure-cloud", "custom", "--drain-duration", "0s"])
            .args(["--azure-authority-host", &info.authority_host])
            .args(["--azure-workload-identity-compat", "--azure-tenant-id", &info.tenant_id]);
        self.start(command, WEBHOOK, WEBHOOK)
    }

    fn start(&self, mut command: Command, name: &str, account: &str) -> Process {
        let kubeconfig = self.folder.join(format!("{account}-kubeconfig.json"));
        write_kubeconfig(self.control_plane, account, &kubeconfig);
        let ready_file = self.folder.join(format!("{name}-ready.json"));
        let _ = fs::remove_file(&ready_file);
        let path = self.folder.join(format!("{name}.log"));
        let log = fs::OpenOptions::new().create(true).append(true).open(path).expect("a log");
        command
            .arg("--ready-file")
            .arg(&ready_file)
            .env("KUBECONFIG", kubeconfig)
            .envs(self.variables.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let child = command.spawn().expect("start ensign");
        Process { child, name: name.to_owned(), ready_file, started: Instant::now() }
    }
}

impl Process {
    /// Waits until it is ready; returns the time since its start.
    pub async fn wait_ready(&mut self) -> Duration {
        while !self.ready_file.exists() {
            self.assert_running();
            assert!(self.started.elapsed() < TIMEOUT, "{} is not ready", self.name);
            tokio::time::sleep(POLL).await;
        }
        self.started.elapsed()
    }

    /// The value of a key in its ready file.
    pub fn announced(&self, key: &str) -> String {
        let text = fs::read_to_string(&self.ready_file).expect("it is ready");
        let announced: Value = serde_json::from_str(&text).expect("a ready file");
        announced[key].as_str().expect("a value of the ready file").to_owned()
    }

    /// The sum of the samples of a metric that have these labels.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let url = format!("http://{}/metrics", self.announced("health_address"));
        let text = reqwest::get(url).await.expect("get the metrics").text().await.expect("metrics");
        let samples = text.lines().filter(|line| {
            let is_it = line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
            is_it && labels.iter().all(|label| line.contains(label))
        });
        samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Waits until a metric has reached a value.
    pub async fn wait_for_metric(&mut self, name: &str, labels: &[&str], wanted: f64, timeout: Duration) {
        let start = Instant::now();
        while self.metric(name, labels).await < wanted {
            self.assert_running();
            assert!(start.elapsed() < timeout, "{}: {name} does not reach {wanted}", self.name);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub fn usage(&self) -> Usage {
        let proc = PathBuf::from(format!("/proc/{}", self.child.id()));
        let status = fs::read_to_string(proc.join("status")).expect("it runs");
        let bytes = |field: &str| {
            let line = status.lines().find(|line| line.starts_with(field)).expect("a field of /proc/…/status");
            line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok()).expect("a number") * 1024
        };
        Usage {
            rss_bytes: bytes("VmRSS:"),
            peak_bytes: bytes("VmHWM:"),
            anonymous_bytes: bytes("RssAnon:"),
            cpu_seconds: processor_time::of_process(self.child.id()).expect("it runs").as_secs_f64(),
            descriptors: fs::read_dir(proc.join("fd")).expect("its descriptors").count(),
        }
    }

    /// Resets the peak.
    pub fn reset_peak(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").expect("reset the peak");
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().expect("kill it");
        self.child.wait().expect("it ended");
    }

    /// SIGTERM, without waiting for the end.
    pub fn terminate(&self) {
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().expect("run kill");
        assert!(sent.success());
    }

    /// SIGTERM, and waits until it has exited.
    pub fn stop(mut self) {
        self.terminate();
        let status = self.child.wait().expect("it ended");
        assert!(status.success(), "{} does not shut down cleanly: {status}", self.name);
    }

    fn assert_running(&mut self) {
        let ended = self.child.try_wait().expect("look at it");
        assert!(ended.is_none(), "{} has exited: {ended:?}", self.name);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
