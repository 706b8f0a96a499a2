//! Reviews of pods as an API server sends them, of an exact size.

use serde_json::{Value, json};

use crate::seed::SeededBinding;

/// The path of the webhook and of the echo server.
pub const PATH: &str = "/mutate-pods";

/// Complete requests, to be sent in turn, spread evenly over the first `bindings` bindings.
pub fn requests(bytes: usize, bindings: usize, different: usize) -> Result<Vec<Vec<u8>>, crate::Failure> {
    let different = different.clamp(1, bindings.max(1));
    (0..different).map(|number| request(bytes, &SeededBinding::of(number * bindings / different))).collect()
}

fn request(bytes: usize, binding: &SeededBinding) -> Result<Vec<u8>, crate::Failure> {
    let body = body(bytes, binding)?;
    let head = format!(
        "POST {PATH}?timeout=5s HTTP/1.1\r\nhost: ensign-webhook.ensign-system.svc\r\nuser-agent: kube-apiserver-admission\r\n\
         content-length: {}\r\naccept: application/json, */*\r\ncontent-type: application/json\r\n\r\n",
        body.len()
    );
    Ok([head.into_bytes(), body].concat())
}

/// Grows as pods grow: first by variables of containers, up to a third of the size, then by an annotation, like that of
/// `kubectl apply`.
fn body(bytes: usize, binding: &SeededBinding) -> Result<Vec<u8>, crate::Failure> {
    let mut variables = 0;
    let spread = |variables: usize| serde_json::to_vec(&review(binding, variables, ""));
    let small = spread(0)?.len();
    if small > bytes {
        return Err(format!("the smallest review has {small} bytes, more than {bytes}").into());
    }
    let each = (spread(10)?.len() - small) / 10;
    if bytes > 2 * small {
        variables = bytes / 3 / each;
    }
    let without = spread(variables)?.len();
    let body = serde_json::to_vec(&review(binding, variables, &"x".repeat(bytes - without)))?;
    if body.len() == bytes { Ok(body) } else { Err(format!("made {} bytes, not {bytes}", body.len()).into()) }
}

fn review(binding: &SeededBinding, variables: usize, filler: &str) -> Value {
    let variables: Vec<_> = (0..variables)
        .map(|number| json!({"name": format!("SETTING_{number:04}"), "value": format!("a value of usual length {number:04}")}))
        .collect();
    let token = json!({"name": "kube-api-access-x7k2p", "readOnly": true,
        "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"});
    let container = |name: &str, env: &[Value]| {
        json!({"name": name, "image": format!("registry.example/{name}:1.2.3"), "env": env, "volumeMounts": [token],
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}}, "imagePullPolicy": "IfNotPresent"})
    };
    let (half, rest) = variables.split_at(variables.len() / 2);
    json!({
        "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
            "requestResource": {"group": "", "version": "v1", "resource": "pods"},
            "name": "app-5d8c7b9f4-x2x4z", "namespace": binding.namespace, "operation": "CREATE",
            "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller",
                "groups": ["system:serviceaccounts", "system:authenticated"]},
            "object": {
                "kind": "Pod", "apiVersion": "v1",
                "metadata": {
                    "name": "app-5d8c7b9f4-x2x4z", "generateName": "app-5d8c7b9f4-", "namespace": binding.namespace,
                    "creationTimestamp": null, "labels": {"app": "app", "pod-template-hash": "5d8c7b9f4"},
                    "annotations": {"example.com/filler": filler},
                },
                "spec": {
                    "volumes": [{"name": "kube-api-access-x7k2p", "projected": {"defaultMode": 420, "sources": [
                        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}}]}}],
                    "containers": [container("app", half), container("proxy", rest)],
                    "restartPolicy": "Always", "serviceAccountName": binding.account, "serviceAccount": binding.account,
                },
                "status": {},
            },
            "oldObject": null, "dryRun": false,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
        },
    })
}
