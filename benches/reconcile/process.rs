//! The real `ensign controller` and `ensign webhook`, each a process of its own, and what the kernel says of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ensign_azure_emulator::Emulator;
use kube::config::Kubeconfig;
use serde_json::{Value, json};

use ensign_testkit::control_plane::ControlPlane;

/// Client ID of the controller's own identity.
pub const OWN_CLIENT_ID: &str = "0e000000-0000-4000-8000-0000000000ff";
pub const SYSTEM: &str = "ensign-system";
pub const CONTROLLER: &str = "ensign-controller";
pub const WEBHOOK: &str = "ensign-webhook";
pub const AUDIENCE: &str = "api://AzureADTokenExchange";
const GLANCE: Duration = Duration::from_millis(2);
const PATIENCE: Duration = Duration::from_secs(120);
/// The kernel counts processor time in hundredths of a second on every machine that this runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Where processes run, and what they are started from.
pub struct Workshop {
    pub control_plane: &'static ControlPlane,
    pub folder: PathBuf,
    pub ensign: PathBuf,
    /// Environment variables, as the image has them.
    pub variables: Vec<(String, String)>,
}

/// What the kernel says of a process now.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Usage {
    pub rss_bytes: u64,
    /// The most that it ever was, or since it was forgotten.
    pub peak_bytes: u64,
    /// Without the pages of the program file, which the kernel takes back when memory is short.
    pub anonymous_bytes: u64,
    pub cpu_seconds: f64,
    pub descriptors: usize,
}

/// A process that ends with this one.
pub struct Process {
    child: Child,
    name: String,
    ready_file: PathBuf,
    started: Instant,
}

impl Workshop {
    /// Starts a controller with these flags besides those that say where everything is.
    pub fn controller(&self, azure: &Emulator, name: &str, flags: &[String]) -> Process {
        let info = azure.info();
        let mut command = Command::new(&self.ensign);
        command
            .args(["controller", "--azure-cloud", "custom", "--allow-private-issuer", "--propagation-delay", "0s"])
            .args(["--azure-arm-endpoint", &info.arm_endpoint, "--azure-authority-host", &info.authority_host])
            .arg("--azure-ca-file")
            .arg(&info.ca_file)
            // Nobody listens there, so that the webhook is never registered: admission is measured elsewhere.
            .args(["--health-listen", "127.0.0.1:0", "--webhook-url", "https://127.0.0.1:1"])
            .args(["--injection", "webhook"])
            .args(flags)
            .env("AZURE_CLIENT_ID", OWN_CLIENT_ID)
            .env("AZURE_TENANT_ID", &info.tenant_id)
            .env("AZURE_FEDERATED_TOKEN_FILE", self.token_file(CONTROLLER, Some(AUDIENCE)))
            .env("AZURE_AUTHORITY_HOST", &info.authority_host);
        self.start(command, name, CONTROLLER)
    }

    /// Starts a webhook that knows service accounts too.
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
        fs::create_dir_all(&self.folder).expect("make a folder");
        let ready_file = self.folder.join(format!("{name}-ready.json"));
        let _ = fs::remove_file(&ready_file);
        let path = self.folder.join(format!("{name}.log"));
        let log = fs::OpenOptions::new().create(true).append(true).open(path).expect("a log");
        command
            .arg("--ready-file")
            .arg(&ready_file)
            .env("KUBECONFIG", self.kubeconfig(account))
            .envs(self.variables.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let child = command.spawn().expect("start ensign");
        Process { child, name: name.to_owned(), ready_file, started: Instant::now() }
    }

    fn kubeconfig(&self, account: &str) -> PathBuf {
        let path = self.folder.join(format!("{account}-kubeconfig.json"));
        if !path.exists() {
            let admin = Kubeconfig::read_from(&self.control_plane.kubeconfig).expect("read the kubeconfig");
            let server = admin.clusters[0].cluster.as_ref().and_then(|cluster| cluster.server.clone());
            let config = json!({
                "apiVersion": "v1", "kind": "Config", "current-context": "bench",
                "clusters": [{"name": "bench", "cluster": {
                    "server": server, "certificate-authority": self.control_plane.ca_file,
                }}],
                "users": [{"name": "bench", "user": {"tokenFile": self.token_file(account, None)}}],
                "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
            });
            fs::write(&path, config.to_string()).expect("keep a kubeconfig");
        }
        path
    }

    fn token_file(&self, account: &str, audience: Option<&str>) -> PathBuf {
        fs::create_dir_all(&self.folder).expect("make a folder");
        let path = self.folder.join(format!("{account}-{}", if audience.is_some() { "azure-token" } else { "token" }));
        if !path.exists() {
            let mut command = self.control_plane.kubectl();
            command.args(["create", "token", account, "--namespace", SYSTEM, "--duration", "24h"]);
            if let Some(audience) = audience {
                command.args(["--audience", audience]);
            }
            let done = command.output().expect("run kubectl");
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            fs::write(&path, done.stdout.trim_ascii()).expect("keep a token");
        }
        path
    }
}

impl Process {
    /// Waits until it says that it is ready; answers how long that took from its start.
    pub async fn ready(&mut self) -> Duration {
        while !self.ready_file.exists() {
            self.must_run();
            assert!(self.started.elapsed() < PATIENCE, "{} gets ready", self.name);
            tokio::time::sleep(GLANCE).await;
        }
        self.started.elapsed()
    }

    /// What its announcement has under this key.
    pub fn announced(&self, key: &str) -> String {
        let text = fs::read_to_string(&self.ready_file).expect("it is ready");
        let announced: Value = serde_json::from_str(&text).expect("an announcement");
        announced[key].as_str().expect("what is announced").to_owned()
    }

    /// The sum of the samples of a metric that have these labels.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let url = format!("http://{}/metrics", self.announced("health_address"));
        let text = reqwest::get(url).await.expect("ask for metrics").text().await.expect("metrics");
        let samples = text.lines().filter(|line| {
            let is_it = line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
            is_it && labels.iter().all(|label| line.contains(label))
        });
        samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Waits until a metric has reached a value.
    pub async fn reaches(&mut self, name: &str, labels: &[&str], wanted: f64, patience: Duration) {
        let start = Instant::now();
        while self.metric(name, labels).await < wanted {
            self.must_run();
            assert!(start.elapsed() < patience, "{}: {name} reaches {wanted}", self.name);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub fn usage(&self) -> Usage {
        let proc = PathBuf::from(format!("/proc/{}", self.child.id()));
        let status = fs::read_to_string(proc.join("status")).expect("it runs");
        let bytes = |field: &str| {
            let line = status.lines().find(|line| line.starts_with(field)).expect("the kernel says it");
            line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok()).expect("a number") * 1024
        };
        Usage {
            rss_bytes: bytes("VmRSS:"),
            peak_bytes: bytes("VmHWM:"),
            anonymous_bytes: bytes("RssAnon:"),
            cpu_seconds: cpu_seconds(&proc),
            descriptors: fs::read_dir(proc.join("fd")).expect("its descriptors").count(),
        }
    }

    /// From now on the peak is counted anew.
    pub fn forget_peak(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").expect("forget the peak");
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

    /// SIGTERM, and its end.
    pub fn stop(mut self) {
        self.terminate();
        let status = self.child.wait().expect("it ended");
        assert!(status.success(), "{} stops cleanly: {status}", self.name);
    }

    fn must_run(&mut self) {
        let ended = self.child.try_wait().expect("look at it");
        assert!(ended.is_none(), "{} ended: {ended:?}", self.name);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Processor time so far of the programs of a control plane, which work in its folder: etcd and the two of Kubernetes.
pub fn cpu_seconds_in(folder: &Path) -> f64 {
    let processes = fs::read_dir("/proc").expect("the processes").filter_map(|entry| Some(entry.ok()?.path()));
    let there = |process: &PathBuf| fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd == folder);
    processes.filter(there).map(|process| cpu_seconds(&process)).sum()
}

fn cpu_seconds(proc: &Path) -> f64 {
    let stat = fs::read_to_string(proc.join("stat")).unwrap_or_default();
    // The second field is the command in parentheses and may hold anything, so count from its end.
    let fields = stat.rsplit_once(") ").map(|(_, rest)| rest).unwrap_or_default();
    let ticks = fields.split(' ').skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok());
    ticks.sum::<f64>() / TICKS_PER_SECOND
}
