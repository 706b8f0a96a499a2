//! What a process of Ensign gets from Kubernetes: a token of its service account, and a kubeconfig with it.

use std::fs;
use std::path::Path;

use kube::config::Kubeconfig;
use serde_json::json;

use super::control_plane::ControlPlane;
use super::objects::kubectl;

/// The namespace of everything that an install contains.
pub const SYSTEM_NAMESPACE: &str = "ensign-system";
/// The controller's service account.
pub const CONTROLLER: &str = "ensign-controller";
/// Longer than any test or benchmark.
const TOKEN_LIFETIME: &str = "24h";

/// The user that a service account of the install is to the API server.
pub fn user(account: &str) -> String {
    format!("system:serviceaccount:{SYSTEM_NAMESPACE}:{account}")
}

/// Writes a token of the service account to a file, unless the file exists.
pub fn write_token(control_plane: &ControlPlane, account: &str, audience: Option<&str>, file: &Path) {
    if file.exists() {
        return;
    }
    let mut arguments = vec!["create", "token", account, "--namespace", SYSTEM_NAMESPACE, "--duration", TOKEN_LIFETIME];
    arguments.extend(audience.into_iter().flat_map(|audience| ["--audience", audience]));
    fs::write(file, kubectl(control_plane, &arguments).trim()).expect("write a token");
}

/// Writes a kubeconfig of the service account to a file, with its token beside it, unless the file exists.
pub fn write_kubeconfig(control_plane: &ControlPlane, account: &str, file: &Path) {
    if file.exists() {
        return;
    }
    let token_file = file.with_extension("token");
    write_token(control_plane, account, None, &token_file);
    let admin = Kubeconfig::read_from(&control_plane.kubeconfig).expect("read the kubeconfig");
    let server = admin.clusters[0].cluster.as_ref().and_then(|cluster| cluster.server.clone());
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": server, "certificate-authority": control_plane.ca_file}}],
        "users": [{"name": "test", "user": {"tokenFile": token_file}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    });
    fs::write(file, config.to_string()).expect("write a kubeconfig");
}
