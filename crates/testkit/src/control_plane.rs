//! One real control plane per test program.
//!
//! The first test that needs it starts it, and it ends with the process: its supervisor reads from
//! a pipe and stops when that closes, which the kernel ensures even after a SIGKILL.
//!
//! `KUBECONFIG` is never read. `ENSIGN_TEST_KUBECONFIG` names a cluster to use instead; see
//! [`super::chosen_cluster`] for which may be used.

#![allow(clippy::expect_used, clippy::panic, reason = "test support: what fails here fails the test")]

use std::{
    env,
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{ChildStdin, ChildStdout, Command, Stdio},
    sync::{Mutex, OnceLock},
};

use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::Value;

use super::audit::AuditLog;
use super::chosen_cluster::rejection;

use super::paths::{self, REPOSITORY as ROOT};

/// A control plane, and how to reach it.
pub struct ControlPlane {
    /// The administrator's kubeconfig.
    pub kubeconfig: PathBuf,
    /// The CA of the API server, in PEM.
    pub ca_file: PathBuf,
    /// The service account issuer, whose discovery document can be read without credentials.
    pub issuer: String,
    /// The path of kubectl.
    pub kubectl: PathBuf,
    /// None for a cluster that the caller chose.
    own: Option<Own>,
}

struct Own {
    audit_log: AuditLog,
    /// Commands are written to it; closing it stops the control plane.
    pipes: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
}

impl ControlPlane {
    /// The control plane that all tests share.
    ///
    /// Blocks while it starts, which is why each test has a runtime of its own (`#[tokio::test]`).
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Result<ControlPlane, String>> = OnceLock::new();
        // A failure is kept too, so that every test fails at once with the same message instead of trying again.
        match SHARED.get_or_init(Self::start) {
            Ok(control_plane) => control_plane,
            Err(message) => panic!("no control plane for the tests: {message}"),
        }
    }

    /// A control plane for tests that run their own controllers, where no other controller runs.
    pub fn separate() -> &'static Self {
        static SEPARATE: OnceLock<Result<ControlPlane, String>> = OnceLock::new();
        Self::own_in(&SEPARATE)
    }

    /// A control plane where admission policies inject, shared by all tests. The policies have the names of an
    /// install, so that this is never a cluster that the caller chose.
    pub fn with_policies() -> &'static Self {
        static WITH_POLICIES: OnceLock<Result<ControlPlane, String>> = OnceLock::new();
        Self::own_in(&WITH_POLICIES)
    }

    fn own_in(place: &'static OnceLock<Result<ControlPlane, String>>) -> &'static Self {
        match place.get_or_init(|| binaries().and_then(|(program, kubectl)| Self::own_one(&program, kubectl))) {
            Ok(control_plane) => control_plane,
            Err(message) => panic!("no second control plane for the tests: {message}"),
        }
    }

    /// An administrator's client. It belongs to the runtime that created it, so every test creates its own.
    pub async fn client(&self) -> kube::Client {
        ensign_runtime::tls::install_provider();
        kube::Client::try_from(self.config().await).expect("create a client")
    }

    /// The configuration of the administrator's clients.
    pub async fn config(&self) -> kube::Config {
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig).expect("read the kubeconfig");
        kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .expect("parse the kubeconfig")
    }

    /// kubectl as the administrator.
    pub fn kubectl(&self) -> Command {
        kubectl(&self.kubectl, &self.kubeconfig)
    }

    /// The requests so far whose audit record contains this text, as events of `audit.k8s.io/v1` without bodies. An event is
    /// written when its request is answered, so the last ones may follow a moment after the response.
    pub fn audit_events_with(&self, text: &str) -> Vec<Value> {
        self.own().audit_log.events_with(text)
    }

    /// Executes a command such as `restart kube-apiserver`, and waits until it is done.
    #[allow(dead_code, reason = "the fault tests restart components")]
    pub fn command(&self, line: &str) {
        let mut pipes = self.own().pipes.lock().expect("no command panicked");
        writeln!(pipes.0, "{line}").and_then(|()| pipes.0.flush()).expect("send a command");
        let answer = read_line(&mut pipes.1).expect("a response");
        assert!(answer["error"].is_null(), "{line}: {answer}");
    }

    /// Compacts etcd up to a revision, as happens periodically.
    #[allow(dead_code, reason = "the fault tests compact")]
    pub fn compact_etcd(&self, revision: &str) {
        let folder = self.kubeconfig.parent().expect("the folder of the control plane");
        let mut socket = UnixStream::connect(folder.join("etcd.sock")).expect("connect to etcd");
        let body = format!(r#"{{"revision":"{revision}","physical":true}}"#);
        write!(
            socket,
            "POST /v3/kv/compaction HTTP/1.1\r\nHost: etcd\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .expect("send a request to etcd");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("a response of etcd");
        assert!(answer.starts_with("HTTP/1.1 200"), "etcd: {answer}");
    }

    fn own(&self) -> &Own {
        self.own.as_ref().expect("this test needs its own control plane: unset ENSIGN_TEST_KUBECONFIG")
    }

    fn start() -> Result<Self, String> {
        let (program, kubectl) = binaries()?;
        if let Some(kubeconfig) = env::var_os("ENSIGN_TEST_KUBECONFIG").filter(|path| !path.is_empty()) {
            return Self::chosen(kubectl, kubeconfig.into());
        }
        Self::own_one(&program, kubectl)
    }

    fn own_one(program: &Path, kubectl: PathBuf) -> Result<Self, String> {
        let mut child = Command::new(program)
            .args(["run", "--stop-on-stdin-eof"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("start {}: {error}", program.display()))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("the control plane has no pipes".to_owned());
        };
        let mut stdout = BufReader::new(stdout);
        // If it is not ready in time, it exits, with the reason on standard error.
        let ready = read_line(&mut stdout)?;
        let text = |key: &str| ready[key].as_str().unwrap_or_default().to_owned();
        Ok(Self {
            kubeconfig: text("kubeconfig").into(),
            ca_file: text("ca_file").into(),
            issuer: text("issuer"),
            kubectl,
            own: Some(Own { audit_log: AuditLog::new(text("audit_log").into()), pipes: Mutex::new((stdin, stdout)) }),
        })
    }

    /// The cluster that the caller chose.
    fn chosen(kubectl_path: PathBuf, kubeconfig: PathBuf) -> Result<Self, String> {
        let ask = |arguments: &[&str]| output(kubectl(&kubectl_path, &kubeconfig).args(arguments));
        let view = ["config", "view", "--raw", "--minify", "--flatten", "--output"];
        let server = ask(&[&view[..], &["jsonpath={.clusters[0].cluster.server}"]].concat())?;
        if let Some(rejection) = rejection(&server, env::var("ENSIGN_TEST_ALLOW_REMOTE").ok().as_deref()) {
            return Err(rejection);
        }
        let ca = r#"go-template={{index (index .clusters 0).cluster "certificate-authority-data" | base64decode}}"#;
        let ca_file = paths::scratch().join("chosen-cluster-ca.crt");
        fs::write(&ca_file, ask(&[&view[..], &[ca]].concat())?).map_err(|error| format!("write the CA: {error}"))?;
        let discovery: Value = serde_json::from_str(&ask(&["get", "--raw", "/.well-known/openid-configuration"])?)
            .map_err(|error| format!("read the discovery document: {error}"))?;
        let issuer = discovery["issuer"].as_str().ok_or("the discovery document names no issuer")?.to_owned();
        Ok(Self { kubeconfig, ca_file, issuer, kubectl: kubectl_path, own: None })
    }
}

/// The control plane and kubectl: those the environment names, or those of `dev/control_plane.py`, which builds them
/// if they are missing.
fn binaries() -> Result<(PathBuf, PathBuf), String> {
    if let (Some(program), Some(kubectl)) = (env::var_os("ENSIGN_CONTROL_PLANE"), env::var_os("ENSIGN_KUBECTL")) {
        return Ok((program.into(), kubectl.into()));
    }
    let answer =
        output(Command::new("python3").arg("dev/control_plane.py").current_dir(ROOT).stderr(Stdio::inherit()))?;
    let paths: Value = serde_json::from_str(&answer).map_err(|error| format!("dev/control_plane.py: {error}"))?;
    match (paths["control_plane"].as_str(), paths["kubectl"].as_str()) {
        (Some(program), Some(kubectl)) => Ok((program.into(), kubectl.into())),
        _ => Err(format!("dev/control_plane.py named no binaries: {answer}")),
    }
}

fn kubectl(program: &Path, kubeconfig: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("KUBECONFIG", kubeconfig).env("KUBERC", "off");
    command
}

fn output(command: &mut Command) -> Result<String, String> {
    let name = Path::new(command.get_program()).file_name().map(OsStr::to_os_string).unwrap_or_default();
    let failed = |why: String| format!("{}: {why}", name.display());
    let done = command.output().map_err(|error| failed(error.to_string()))?;
    if !done.status.success() {
        return Err(failed(format!("{}: {}", done.status, String::from_utf8_lossy(&done.stderr).trim())));
    }
    String::from_utf8(done.stdout).map_err(|error| failed(error.to_string()))
}

fn read_line(from: &mut impl BufRead) -> Result<Value, String> {
    let mut line = String::new();
    match from.read_line(&mut line) {
        Ok(0) => Err("the control plane exited; see its standard error".to_owned()),
        Ok(_) => serde_json::from_str(&line).map_err(|error| format!("the control plane printed {line:?}: {error}")),
        Err(error) => Err(format!("read from the control plane: {error}")),
    }
}
