//! The real `ensign controller` as a process, with the service account and the RBAC rules of dev/manifests.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use ensign_azure_emulator::Emulator;
use ensign_azure_emulator::state::{ArmRights, Identity, IdentityId};

use super::azure::{self, AUDIENCE};
use super::control_plane::ControlPlane;
use super::service_account::{CONTROLLER, user, write_kubeconfig, write_token};

/// Client ID of the controller's own identity.
pub const OWN_CLIENT_ID: &str = "0e000000-0000-4000-8000-0000000000ff";
/// The controller's user at the API server.
pub const USER: &str = "system:serviceaccount:ensign-system:ensign-controller";
const POLL: Duration = Duration::from_millis(50);

/// Where controllers run.
pub struct Environment<'a> {
    pub control_plane: &'static ControlPlane,
    pub azure: &'a Emulator,
    /// For the files of controllers.
    pub folder: PathBuf,
}

/// Creates what an install consists of: CRDs and manifests in the cluster, and the controller's own identity in Azure.
pub fn install(control_plane: &ControlPlane, azure: &Emulator, subscription: &str, resource_group: &str) {
    for arguments in [
        &["apply", "--filename", "crds"][..],
        &["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"],
        &["apply", "--filename", "dev/manifests"],
    ] {
        let mut command = control_plane.kubectl();
        let done = command.args(arguments).current_dir(super::paths::REPOSITORY).output().expect("run kubectl");
        assert!(done.status.success(), "kubectl {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
    let trust = azure::credential("bootstrap", &control_plane.issuer, &user(CONTROLLER));
    let id = IdentityId {
        subscription: subscription.to_owned(),
        resource_group: resource_group.to_owned(),
        name: CONTROLLER.to_owned(),
    };
    let own = Identity {
        client_id: OWN_CLIENT_ID.to_owned(),
        arm_rights: ArmRights::All,
        credentials: [(trust.name.clone(), trust)].into(),
        ..azure::identity(id, &azure.info().location)
    };
    azure.with_state(|state| state.identities.insert(own.id.key(), own));
}

/// A controller, restarted when it exits, as a kubelet would: it exits when it loses its Lease.
pub struct ControllerProcess {
    running: Arc<Running>,
    supervisor: Option<JoinHandle<()>>,
}

struct Running {
    child: Mutex<Child>,
    stopping: AtomicBool,
}

impl ControllerProcess {
    pub fn start(environment: &Environment<'_>, flags: &[&str]) -> Self {
        let mut command = command(environment);
        command.args(flags);
        let child = command.spawn().expect("start the controller");
        let running = Arc::new(Running { child: Mutex::new(child), stopping: AtomicBool::new(false) });
        let supervised = running.clone();
        let supervisor = std::thread::spawn(move || {
            while !supervised.stopping.load(Ordering::Acquire) {
                let mut child = supervised.child.lock().expect("no thread panicked");
                if !supervised.stopping.load(Ordering::Acquire)
                    && child.try_wait().expect("poll the controller").is_some()
                {
                    *child = command.spawn().expect("start the controller again");
                }
                drop(child);
                std::thread::sleep(POLL);
            }
        });
        Self { running, supervisor: Some(supervisor) }
    }

    /// SIGKILL: it gets no chance to finish anything. Returns the signal that ended it, since it may have exited before.
    pub fn kill(self) -> Option<i32> {
        self.running.stopping.store(true, Ordering::Release);
        let mut child = self.running.child.lock().expect("no thread panicked");
        child.kill().expect("kill the controller");
        child.wait().expect("wait for the controller").signal()
    }

    /// SIGTERM: it finishes the write in progress.
    pub fn stop(self) {
        self.running.stopping.store(true, Ordering::Release);
        let mut child = self.running.child.lock().expect("no thread panicked");
        let sent = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("run kill");
        assert!(sent.success());
        assert!(child.wait().expect("wait for the controller").success(), "the controller shuts down cleanly");
    }
}

impl Drop for ControllerProcess {
    fn drop(&mut self) {
        self.running.stopping.store(true, Ordering::Release);
        if let Ok(mut child) = self.running.child.lock() {
            // It may have exited already.
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Some(supervisor) = self.supervisor.take() {
            let _ = supervisor.join();
        }
    }
}

fn command(environment: &Environment<'_>) -> Command {
    let Environment { control_plane, azure, folder } = environment;
    fs::create_dir_all(folder).expect("create a folder");
    let (token_file, kubeconfig) = (folder.join("azure-token"), folder.join("kubeconfig.json"));
    write_token(control_plane, CONTROLLER, Some(AUDIENCE), &token_file);
    write_kubeconfig(control_plane, CONTROLLER, &kubeconfig);
    let info = azure.info();
    let log = fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).expect("open a log");
    let mut command = Command::new(super::paths::ensign());
    command
        .args(["controller", "--azure-cloud", "custom", "--allow-private-issuer"])
        .args(["--azure-arm-endpoint", &info.arm_endpoint, "--azure-authority-host", &info.authority_host])
        .arg("--azure-ca-file")
        .arg(&info.ca_file)
        .args(["--health-listen", "127.0.0.1:0", "--webhook-url", "https://127.0.0.1:1"])
        .env("KUBECONFIG", kubeconfig)
        .env("AZURE_CLIENT_ID", OWN_CLIENT_ID)
        .env("AZURE_TENANT_ID", &info.tenant_id)
        .env("AZURE_FEDERATED_TOKEN_FILE", token_file)
        .env("AZURE_AUTHORITY_HOST", &info.authority_host)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    command
}
