//! The real `ensign controller`, as its own service account.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use kube::config::Kubeconfig;
use serde_json::json;

use crate::fleet::{Fleet, OWN_CLIENT_ID};

const SYSTEM: &str = "ensign-system";
const ACCOUNT: &str = "ensign-controller";

/// A running controller; it is killed when it is dropped.
pub struct Controller {
    child: Child,
    /// Its user at the API server.
    pub user: String,
}

impl Controller {
    pub fn start(fleet: &Fleet, resync_seconds: u64) -> Self {
        let folder = fleet.folder.join("controller");
        fs::create_dir_all(&folder).expect("make a folder");
        let kubeconfig = kubeconfig(fleet, &folder);
        let token_file = folder.join("azure-token");
        if !token_file.exists() {
            fs::write(&token_file, token(fleet, Some("api://AzureADTokenExchange"))).expect("keep a token");
        }
        let info = fleet.azure.info();
        let log = fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).expect("a log");
        let child = Command::new(env!("CARGO_BIN_EXE_ensign"))
            .args(["controller", "--azure-cloud", "custom", "--allow-private-issuer"])
            .args(["--azure-arm-endpoint", &info.arm_endpoint, "--azure-authority-host", &info.authority_host])
            .arg("--azure-ca-file")
            .arg(&info.ca_file)
            .args(["--resync-seconds", &resync_seconds.to_string(), "--health-listen", "127.0.0.1:0"])
            .args(["--lease-duration-seconds", "2"])
            .args(["--webhook-url", "https://127.0.0.1:1"])
            .env("KUBECONFIG", kubeconfig)
            .env("AZURE_CLIENT_ID", OWN_CLIENT_ID)
            .env("AZURE_TENANT_ID", &info.tenant_id)
            .env("AZURE_FEDERATED_TOKEN_FILE", token_file)
            .env("AZURE_AUTHORITY_HOST", &info.authority_host)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("start the controller");
        Self { child, user: format!("system:serviceaccount:{SYSTEM}:{ACCOUNT}") }
    }

    /// SIGKILL: it gets no chance to finish anything.
    pub fn kill(mut self) {
        self.child.kill().expect("kill the controller");
        self.child.wait().expect("it ended");
    }

    /// SIGTERM: it finishes what it is at.
    pub fn stop(mut self) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &id]).status().expect("run kill");
        assert!(sent.success());
        assert!(self.child.wait().expect("it ended").success(), "it stops cleanly");
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
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
