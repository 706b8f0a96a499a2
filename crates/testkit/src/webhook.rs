//! A webhook on the shared control plane; the controller registers it.

use std::net::SocketAddr;
use std::time::Duration;

use ensign_controller::{CaInjection, WebhookProbe, WebhookTarget};
use ensign_core::admission;
use ensign_core::webhook_configuration::{Endpoint, MUTATE_PODS_PATH, excluded_namespaces};
use ensign_runtime::clock::SharedClock;
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
use super::objects::{apply, wait_for};

/// Namespace of the webhook, name of its Secret and of its registration. Not the names of an install, which a cluster
/// that the caller chose may have.
pub const NAME: &str = "ensign-integration-tests";
/// Namespaces that are left to the webhook in compatibility mode: two webhooks of Ensign would correct each other's
/// annotation.
pub const COMPATIBLE_ONLY: [&str; 3] = ["compatible-allowed", "compatible-denied", "compatible-generated"];
/// A running webhook.
pub struct Webhook {
    address: SocketAddr,
}

impl Webhook {
    /// Creates what an install creates, and starts the webhook, which ends with the process.
    pub fn start(control_plane: &'static ControlPlane, authority_host: &str, clock: SharedClock) -> Self {
        let api = "admissionregistration.k8s.io/v1";
        for object in [
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAME}}),
            empty_secret(NAME, NAME),
            json!({"apiVersion": api, "kind": "MutatingWebhookConfiguration", "metadata": {"name": NAME}}),
        ] {
            apply(control_plane, &object).expect("apply what the webhook needs");
        }
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
                authority_host: authority_host.to_owned(),
                audience: AUDIENCE.to_owned(),
                excluded: excluded_namespaces(NAME, []),
                compatibility: None,
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
                let run = ensign_webhook::run(client, options, listener, ready, clock, stop);
                run.await.expect("run the webhook");
            });
        });
        wait_for("the webhook to be ready", || readiness.get().then_some(()));
        Self { address }
    }

    /// The settings with which the controller registers it.
    pub fn target(&self) -> WebhookTarget {
        WebhookTarget {
            configuration: NAME.to_owned(),
            namespace: NAME.to_owned(),
            secret: NAME.to_owned(),
            ca: CaInjection::Secret,
            probe: Some(WebhookProbe::default()),
            endpoint: Endpoint::Url(format!("https://{}{MUTATE_PODS_PATH}", self.address)),
            excluded: excluded_namespaces(NAME, COMPATIBLE_ONLY.map(str::to_owned)),
            compatibility: false,
        }
    }
}

/// The Secret as an install creates it.
pub fn empty_secret(namespace: &str, name: &str) -> serde_json::Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}, "type": "Opaque"})
}
