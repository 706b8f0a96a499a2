//! The real `ensign webhook` as processes, and a load balancer in front of them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ensign_controller::{CaInjection, WebhookProbe, WebhookTarget};
use ensign_core::webhook_configuration::{Endpoint, excluded_namespaces};
use serde_json::{Value, json};

use super::control_plane::ControlPlane;
use super::objects::{apply, apply_crds, kubectl, unique, wait_for};
use super::webhook::empty_secret;

/// What an install creates: a namespace, a Secret and a webhook configuration, all with one unique name.
pub struct Install {
    pub control_plane: &'static ControlPlane,
    pub name: String,
}

impl Install {
    pub fn new(control_plane: &'static ControlPlane, prefix: &str) -> Self {
        apply_crds(control_plane);
        let name = unique(prefix);
        kubectl(control_plane, &["create", "namespace", &name]);
        let api = "admissionregistration.k8s.io/v1";
        let registration =
            json!({"apiVersion": api, "kind": "MutatingWebhookConfiguration", "metadata": {"name": name}});
        for object in [empty_secret(&name, &name), registration] {
            apply(control_plane, &object).expect("apply what the webhook needs");
        }
        Self { control_plane, name }
    }

    /// The settings with which a controller registers the webhook at this address.
    pub fn target(&self, address: SocketAddr) -> WebhookTarget {
        WebhookTarget {
            configuration: self.name.clone(),
            namespace: self.name.clone(),
            secret: self.name.clone(),
            ca: CaInjection::Secret,
            endpoint: Endpoint::Url(format!("https://{address}")),
            probe: Some(WebhookProbe::default()),
            excluded: excluded_namespaces(&self.name, []),
            compatibility: false,
        }
    }

    pub fn start(&self, flags: &[&str]) -> WebhookProcess {
        let shared = ["--tls-secret", &self.name, "--webhook-configuration", &self.name];
        WebhookProcess::start(self.control_plane, &self.name, &[&shared[..], flags].concat())
    }

    pub fn registration(&self) -> Value {
        let arguments = ["get", "mutatingwebhookconfiguration", &self.name, "--output", "json"];
        serde_json::from_str(&kubectl(self.control_plane, &arguments)).expect("a configuration")
    }

    /// The entry of this name, if it is registered.
    pub fn entry(&self, name: &str) -> Option<Value> {
        self.registration()["webhooks"].as_array()?.iter().find(|entry| entry["name"] == name).cloned()
    }

    pub fn patch_registration(&self, patch: &Value) {
        let (kind, patch) = ("mutatingwebhookconfiguration", patch.to_string());
        kubectl(self.control_plane, &["patch", kind, &self.name, "--type", "json", "--patch", &patch]);
    }

    /// One entry of the Secret, PEM.
    pub fn secret(&self, key: &str) -> Option<String> {
        let arguments = ["get", "secret", &self.name, "--namespace", &self.name, "--output", "json"];
        let secret: Value = serde_json::from_str(&kubectl(self.control_plane, &arguments)).expect("a Secret");
        let bytes: k8s_openapi::ByteString = serde_json::from_value(secret["data"].get(key)?.clone()).expect("base64");
        Some(String::from_utf8(bytes.0).expect("PEM"))
    }
}

impl Drop for Install {
    fn drop(&mut self) {
        // Left behind, it would deny the pods of other tests.
        let arguments = ["delete", "mutatingwebhookconfiguration", &self.name, "--ignore-not-found"];
        let _ = self.control_plane.kubectl().args(arguments).output();
    }
}

/// `ensign webhook`, killed with its test.
pub struct WebhookProcess {
    pub child: Child,
    pub folder: tempfile::TempDir,
}

impl WebhookProcess {
    pub fn start(control_plane: &ControlPlane, namespace: &str, flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let log = std::fs::File::create(folder.path().join("log")).expect("a log");
        let child = Command::new(super::paths::ensign())
            .args(["webhook", "--listen=127.0.0.1:0", "--health-listen=127.0.0.1:0", "--tls-san=127.0.0.1"])
            .args(["--namespace", namespace, "--ready-file"])
            .arg(folder.path().join("ready.json"))
            .args(flags)
            .env("KUBECONFIG", &control_plane.kubeconfig)
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("start the webhook");
        Self { child, folder }
    }

    /// Waits until it is ready; returns its addresses.
    pub fn ready(&mut self) -> Value {
        let path: PathBuf = self.folder.path().join("ready.json");
        wait_for("the webhook to be ready", || {
            let ended = self.child.try_wait().expect("poll the process");
            assert!(ended.is_none(), "{ended:?}: {}", self.log());
            serde_json::from_str(&std::fs::read_to_string(&path).ok()?).ok()
        })
    }

    /// Waits until it is ready; returns where it listens.
    pub fn endpoint(&mut self) -> Backend {
        let ready = self.ready();
        let url = ready["webhook_url"].as_str().expect("a URL");
        let webhook = url.split('/').nth(2).expect("a host").parse().expect("an address");
        let health = ready["health_address"].as_str().expect("an address").parse().expect("an address");
        Backend { webhook, health }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).expect("the log")
    }

    /// Memory in use, in MiB.
    pub fn memory_mib(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.split_whitespace().next().and_then(|kib| kib.parse::<usize>().ok()).expect("a number") / 1024
    }

    /// Stops it as a kubelet does, and waits until it exits.
    pub fn terminate(&mut self) -> ExitStatus {
        let signal = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(signal.expect("run kill").success());
        wait_for("the process to exit", || self.child.try_wait().expect("poll the process"))
    }
}

impl Drop for WebhookProcess {
    fn drop(&mut self) {
        // It may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The addresses of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    pub webhook: SocketAddr,
    pub health: SocketAddr,
}

/// Distributes connections like a Service: new ones go to ready replicas, open ones stay where they are.
pub struct LoadBalancer {
    pub address: SocketAddr,
    backends: Arc<Mutex<Vec<Backend>>>,
    ready: Arc<Mutex<Vec<SocketAddr>>>,
    turned_away: Arc<AtomicUsize>,
    accepted: Arc<AtomicUsize>,
}

impl LoadBalancer {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let address = listener.local_addr().expect("an address");
        let (backends, ready) = (Arc::new(Mutex::new(Vec::<Backend>::new())), Arc::new(Mutex::new(Vec::new())));
        let (turned_away, accepted) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (probed, updated) = (Arc::clone(&backends), Arc::clone(&ready));
        std::thread::spawn(move || {
            loop {
                let all = probed.lock().expect("no panic").clone();
                *updated.lock().expect("no panic") =
                    all.iter().filter(|one| is_ready(one.health)).map(|one| one.webhook).collect();
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        let (choice, turned, seen) = (Arc::clone(&ready), Arc::clone(&turned_away), Arc::clone(&accepted));
        std::thread::spawn(move || {
            for (count, client) in listener.incoming().flatten().enumerate() {
                seen.fetch_add(1, Ordering::Relaxed);
                let ready = choice.lock().expect("no panic").clone();
                let server = (!ready.is_empty()).then(|| TcpStream::connect(ready[count % ready.len()]).ok()).flatten();
                match server {
                    Some(server) => forward(client, server),
                    None => {
                        turned.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        });
        Self { address, backends, ready, turned_away, accepted }
    }

    /// Sends connections to this replica too, and waits until it is ready.
    pub fn add(&self, backend: Backend) {
        self.backends.lock().expect("no panic").push(backend);
        wait_for("the load balancer to see the replica", || {
            self.ready.lock().expect("no panic").contains(&backend.webhook).then_some(())
        });
    }

    /// How many connections were accepted.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// How many connections were closed because no replica was ready.
    pub fn turned_away(&self) -> usize {
        self.turned_away.load(Ordering::Relaxed)
    }
}

fn is_ready(health: SocketAddr) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(health)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.0 200"))
}

fn forward(client: TcpStream, server: TcpStream) {
    let pairs = [(client.try_clone(), server.try_clone()), (Ok(server), Ok(client))];
    for (from, to) in pairs {
        let (Ok(mut from), Ok(mut to)) = (from, to) else { return };
        let _ = to.set_nodelay(true);
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(std::net::Shutdown::Write);
        });
    }
}
