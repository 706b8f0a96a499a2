//! A webhook in compatibility mode, which the API server calls for the pods of labelled namespaces.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use ensign_controller::{CaInjection, WebhookTarget};
use ensign_core::admission;
use ensign_core::admission::azure_workload_identity::Compatibility;
use ensign_core::webhook_configuration::{Endpoint, MUTATE_PODS_PATH, excluded_namespaces};
use ensign_runtime::clock::SystemClock;
use ensign_runtime::health::Readiness;
use ensign_webhook;
use ensign_webhook::Options;
use ensign_webhook::certificates::{Certificates, SharedSecret};
use ensign_webhook::metrics::WebhookMetrics;
use ensign_webhook::server::limits::RequestLimits;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::azure::AUDIENCE;
use super::control_plane::ControlPlane;
use super::objects::{apply, apply_crds, kubectl, wait_for};
use super::webhook::empty_secret;

/// Sorts before the name of the other webhook, so that the API server calls it first.
const NAME: &str = "ensign-compatibility-tests";
/// The label of namespaces whose pods are sent to it.
pub const NAMESPACE_LABEL: &str = "compatibility-tests";
/// The tenant of service accounts without one of their own.
pub const TENANT: &str = "7e000000-0000-4000-8000-0000000000c0";
/// The Entra authority that pods get.
pub const AUTHORITY: &str = "https://login.example/";

/// The registered webhook.
pub struct CompatibilityWebhook {
    pub control_plane: &'static ControlPlane,
    pub url: String,
    /// Its CA, as base64 of PEM.
    pub ca: String,
}

impl CompatibilityWebhook {
    /// Shared by all tests.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<CompatibilityWebhook> = OnceLock::new();
        SHARED.get_or_init(|| {
            let control_plane = ControlPlane::shared();
            apply_crds(control_plane);
            let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAME}});
            apply(control_plane, &namespace).expect("apply the namespace");
            apply(control_plane, &empty_secret(NAME, NAME)).expect("apply the Secret");
            let url = start(control_plane);
            let output = "jsonpath={.data.ca\\.crt}";
            let ca = kubectl(control_plane, &["get", "secret", NAME, "--namespace", NAME, "--output", output]);
            let webhook = Self { control_plane, url, ca };
            webhook.register();
            webhook
        })
    }

    fn register(&self) {
        let webhook = json!({
            "name": "compatible-pods.ensign.dev",
            "clientConfig": {"url": self.url, "caBundle": self.ca},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
            "namespaceSelector": {"matchLabels": {NAMESPACE_LABEL: "true"}},
            "objectSelector": {"matchLabels": {"azure.workload.identity/use": "true"}},
            "failurePolicy": "Fail", "reinvocationPolicy": "IfNeeded", "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
        });
        let configuration = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": NAME}, "webhooks": [webhook],
        });
        apply(self.control_plane, &configuration).expect("apply the webhook configuration");
    }
}

fn start(control_plane: &'static ControlPlane) -> String {
    let (listener, address) = ensign_webhook::listen(SocketAddr::from(([127, 0, 0, 1], 0))).expect("listen");
    let options = Options {
        certificates: Certificates::Shared(SharedSecret {
            namespace: NAME.to_owned(),
            name: NAME.to_owned(),
            registration: NAME.to_owned(),
            propagation: Duration::from_secs(1),
        }),
        tls_names: vec!["127.0.0.1".to_owned()],
        config: admission::Config {
            authority_host: AUTHORITY.to_owned(),
            audience: AUDIENCE.to_owned(),
            excluded: excluded_namespaces(NAME, []),
            compatibility: Some(Compatibility { tenant_id: TENANT.to_owned() }),
            gate_pods: true,
        },
        limits: RequestLimits::default(),
        lame_duck: Duration::ZERO,
        metrics: WebhookMetrics::default(),
    };
    let readiness = Readiness::default();
    let ready = readiness.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async move {
            let client = control_plane.client().await;
            let stop = CancellationToken::new();
            let run = ensign_webhook::run(client, options, listener, ready, SystemClock::shared(), stop);
            run.await.expect("run the webhook");
        });
    });
    wait_for("the webhook to be ready", || readiness.get().then_some(()));
    format!("https://{address}{MUTATE_PODS_PATH}")
}

/// A webhook that does not listen: only its mode matters.
pub fn in_compatibility_mode() -> WebhookTarget {
    WebhookTarget {
        configuration: "none".to_owned(),
        namespace: "default".to_owned(),
        secret: "none".to_owned(),
        ca: CaInjection::Secret,
        endpoint: Endpoint::Url("https://127.0.0.1:1".to_owned()),
        probe: None,
        excluded: BTreeSet::new(),
        compatibility: true,
    }
}
