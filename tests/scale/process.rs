//! The real `ensign controller`, as its own service account.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use kube::config::Kubeconfig;
use serde_json::json;

use crate::fleet::{Fleet, OWN_CLIENT_ID};

const SYSTEM: &str = "ensign-system";
const ACCOUNT: &str = "ensign-controller";
const GLANCE: Duration = Duration::from_millis(50);

/// A controller that is started again when it ends by itself, as a kubelet would: one that has lost its Lease ends.
pub struct Controller {
    running: Arc<Running>,
    keeper: Option<JoinHandle<()>>,
    /// Its user at the API server.
    pub user: String,
}

struct Running {
    child: Mutex<Child>,
    over: AtomicBool,
}

/// How fast it asks Azure.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// As Azure's published limits allow.
    Published,
    /// As fast as it can.
    Unbounded,
}

impl Controller {
    pub fn start(fleet: &Fleet, resync_seconds: u64, lease_seconds: u64, pace: Pace) -> Self {
        let mut command = command(fleet, resync_seconds, lease_seconds);
        if pace == Pace::Unbounded {
            for scope in ["identity", "subscription", "tenant"] {
                for kind in ["writes", "lists", "gets"] {
                    command.args([&format!("--azure-{scope}-{kind}"), "100000+10000"]);
                }
            }
        }
        let child = command.spawn().expect("start the controller");
        let running = Arc::new(Running { child: Mutex::new(child), over: AtomicBool::new(false) });
        let kept = running.clone();
        let keeper = std::thread::spawn(move || {
            while !kept.over.load(Ordering::Acquire) {
                let mut child = kept.child.lock().expect("nobody panicked");
                if !kept.over.load(Ordering::Acquire) && child.try_wait().expect("look at the controller").is_some() {
                    *child = command.spawn().expect("start the controller again");
                }
                drop(child);
                std::thread::sleep(GLANCE);
            }
        });
        Self { running, keeper: Some(keeper), user: format!("system:serviceaccount:{SYSTEM}:{ACCOUNT}") }
    }

    /// SIGKILL: it gets no chance to finish anything.
    pub fn kill(self) {
        drop(self);
    }

    /// SIGTERM: it finishes what it is at.
    pub fn stop(self) {
        self.running.over.store(true, Ordering::Release);
        let mut child = self.running.child.lock().expect("nobody panicked");
        let sent = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("run kill");
        assert!(sent.success());
        assert!(child.wait().expect("it ended").success(), "it stops cleanly");
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.running.over.store(true, Ordering::Release);
        if let Ok(mut child) = self.running.child.lock() {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

fn command(fleet: &Fleet, resync_seconds: u64, lease_seconds: u64) -> Command {
    let folder = fleet.folder.join("controller");
    fs::create_dir_all(&folder).expect("make a folder");
    let token_file = folder.join("azure-token");
    if !token_file.exists() {
        fs::write(&token_file, token(fleet, Some("api://AzureADTokenExchange"))).expect("keep a token");
    }
    let info = fleet.azure.info();
    let log = fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).expect("a log");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ensign"));
    command
        .args(["controller", "--azure-cloud", "custom", "--allow-private-issuer"])
        .args(["--azure-arm-endpoint", &info.arm_endpoint, "--azure-authority-host", &info.authority_host])
        .arg("--azure-ca-file")
        .arg(&info.ca_file)
        .args(["--resync-seconds", &resync_seconds.to_string(), "--health-listen", "127.0.0.1:0"])
        .args(["--lease-duration-seconds", &lease_seconds.to_string()])
        .args(["--webhook-url", "https://127.0.0.1:1"])
        .env("KUBECONFIG", kubeconfig(fleet, &folder))
        .env("AZURE_CLIENT_ID", OWN_CLIENT_ID)
        .env("AZURE_TENANT_ID", &info.tenant_id)
        .env("AZURE_FEDERATED_TOKEN_FILE", token_file)
        .env("AZURE_AUTHORITY_HOST", &info.authority_host)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    command
}

fn kubeconfig(fleet: &Fleet, folder: &std::path::Path) -> PathBuf {
    let path = folder.join("kubeconfig.json");
    if !path.exists() {
        let admin = Kubeconfig::read_from(&fleet.control_plane.kubeconfig).expect("read the kubeconfig");
        let server = admin.clusters[0].cluster.as_ref().and_then(|cluster| cluster.server.clone());
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": server, "certificate-authority": fleet.control_plane.ca_file,
            }}],
            "users": [{"name": "test", "user": {"token": token(fleet, None)}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        });
        fs::write(&path, config.to_string()).expect("keep a kubeconfig");
    }
    path
}

fn token(fleet: &Fleet, audience: Option<&str>) -> String {
    let mut command = fleet.control_plane.kubectl();
    command.args(["create", "token", ACCOUNT, "--namespace", SYSTEM, "--duration", "2h"]);
    if let Some(audience) = audience {
        command.args(["--audience", audience]);
    }
    let done = command.output().expect("run kubectl");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).expect("a token").trim().to_owned()
}
