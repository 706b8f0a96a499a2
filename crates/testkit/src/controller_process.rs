//! The real `ensign controller`, as its own service account, with exactly the rights of dev/manifests.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use ensign_azure_emulator::Emulator;
use ensign_azure_emulator::state::{ArmRights, Credential, Identity, IdentityId};
use k8s_openapi::jiff::Timestamp;
use kube::config::Kubeconfig;
use serde_json::json;

use super::control_plane::ControlPlane;

/// Client ID of the controller's own identity.
pub const OWN_CLIENT_ID: &str = "0e000000-0000-4000-8000-0000000000ff";
/// The controller's user at the API server.
pub const USER: &str = "system:serviceaccount:ensign-system:ensign-controller";

/// The namespace that everything of an install is in.
const SYSTEM: &str = "ensign-system";
const ACCOUNT: &str = "ensign-controller";
const AUDIENCE: &str = "api://AzureADTokenExchange";
const POLL: Duration = Duration::from_millis(50);

/// Where controllers run.
pub struct Environment<'a> {
    pub control_plane: &'static ControlPlane,
    pub azure: &'a Emulator,
    /// For the files of controllers.
    pub folder: PathBuf,
}

impl Environment<'_> {
    /// Makes what whoever installs makes, in the cluster and in Azure.
    pub fn install(&self, subscription: &str, resource_group: &str) {
        for arguments in [
            &["apply", "--filename", "crds"][..],
            &["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"],
            &["apply", "--filename", "dev/manifests"],
        ] {
            let done = self
                .control_plane
                .kubectl()
                .args(arguments)
                .current_dir(super::paths::REPOSITORY)
                .output()
                .expect("run kubectl");
            assert!(done.status.success(), "kubectl {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        }
        let credential = Credential {
            name: "bootstrap".to_owned(),
            issuer: self.control_plane.issuer.clone(),
            subject: USER.to_owned(),
            audiences: vec![AUDIENCE.to_owned()],
            written_at: Timestamp::UNIX_EPOCH,
        };
        let own = Identity {
            id: IdentityId {
                subscription: subscription.to_owned(),
                resource_group: resource_group.to_owned(),
                name: ACCOUNT.to_owned(),
            },
            location: self.azure.info().location.clone(),
            tags: BTreeMap::new(),
            isolation_scope: "None".to_owned(),
            client_id: OWN_CLIENT_ID.to_owned(),
            principal_id: uuid::Uuid::new_v4().to_string(),
            arm_rights: ArmRights::All,
            created_at: Timestamp::UNIX_EPOCH,
            credentials: [(credential.name.clone(), credential)].into(),
        };
        self.azure.with_state(|state| state.identities.insert(own.id.key(), own));
    }
}

/// A controller that is started again when it ends by itself, as a kubelet would: one that has lost its Lease ends.
pub struct ControllerProcess {
    running: Arc<Running>,
    keeper: Option<JoinHandle<()>>,
}

struct Running {
    child: Mutex<Child>,
    over: AtomicBool,
}

impl ControllerProcess {
    pub fn start(environment: &Environment<'_>, flags: &[&str]) -> Self {
        let mut command = command(environment);
        command.args(flags);
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
                std::thread::sleep(POLL);
            }
        });
        Self { running, keeper: Some(keeper) }
    }

    /// SIGKILL: it gets no chance to finish anything. Answers the signal that ended it: it may have ended by itself.
    pub fn kill(self) -> Option<i32> {
        self.running.over.store(true, Ordering::Release);
        let mut child = self.running.child.lock().expect("nobody panicked");
        child.kill().expect("kill the controller");
        child.wait().expect("it ended").signal()
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

impl Drop for ControllerProcess {
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

fn command(environment: &Environment<'_>) -> Command {
    let folder = &environment.folder;
    fs::create_dir_all(folder).expect("make a folder");
    let token_file = folder.join("azure-token");
    if !token_file.exists() {
        fs::write(&token_file, token(environment, Some(AUDIENCE))).expect("keep a token");
    }
    let info = environment.azure.info();
    let log = fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).expect("a log");
    let mut command = Command::new(super::paths::ensign());
    command
        .args(["controller", "--azure-cloud", "custom", "--allow-private-issuer"])
        .args(["--azure-arm-endpoint", &info.arm_endpoint, "--azure-authority-host", &info.authority_host])
        .arg("--azure-ca-file")
        .arg(&info.ca_file)
        .args(["--health-listen", "127.0.0.1:0", "--webhook-url", "https://127.0.0.1:1"])
        .env("KUBECONFIG", kubeconfig(environment, folder))
        .env("AZURE_CLIENT_ID", OWN_CLIENT_ID)
        .env("AZURE_TENANT_ID", &info.tenant_id)
        .env("AZURE_FEDERATED_TOKEN_FILE", token_file)
        .env("AZURE_AUTHORITY_HOST", &info.authority_host)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    command
}

fn kubeconfig(environment: &Environment<'_>, folder: &Path) -> PathBuf {
    let path = folder.join("kubeconfig.json");
    if !path.exists() {
        let admin = Kubeconfig::read_from(&environment.control_plane.kubeconfig).expect("read the kubeconfig");
        let server = admin.clusters[0].cluster.as_ref().and_then(|cluster| cluster.server.clone());
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": server, "certificate-authority": environment.control_plane.ca_file,
            }}],
            "users": [{"name": "test", "user": {"token": token(environment, None)}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        });
        fs::write(&path, config.to_string()).expect("keep a kubeconfig");
    }
    path
}

fn token(environment: &Environment<'_>, audience: Option<&str>) -> String {
    let mut command = environment.control_plane.kubectl();
    command.args(["create", "token", ACCOUNT, "--namespace", SYSTEM, "--duration", "2h"]);
    if let Some(audience) = audience {
        command.args(["--audience", audience]);
    }
    let done = command.output().expect("run kubectl");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).expect("a token").trim().to_owned()
}
