//! Continuous creation of pods while something happens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::policy_namespace::{PolicyNamespace, pod};
use ensign_testkit::control_plane::ControlPlane;
use ensign_testkit::objects::wait_for;

/// Creates pods of the service account `app` with dry runs until it is stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    created: Arc<AtomicUsize>,
    thread: thread::JoinHandle<Vec<String>>,
}

impl Load {
    pub fn start(control_plane: &'static ControlPlane, namespace: &str) -> Self {
        let (stop, created) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, count, namespace) = (stop.clone(), created.clone(), namespace.to_owned());
        let thread = thread::spawn(move || {
            Runtime::new().expect("a runtime").block_on(async {
                let namespace = PolicyNamespace { client: control_plane.client().await, name: namespace };
                let asks = pod(&json!({"spec": {"serviceAccountName": "app"}}));
                let mut seen = Vec::new();
                while !stopped.load(Ordering::Relaxed) {
                    seen.push(match namespace.dry_run(&asks).await {
                        Ok(pod) if is_injected(&pod) => "injected".to_owned(),
                        Ok(pod) => format!("not injected: {pod}"),
                        Err(status) => format!("denied: {}", status.message),
                    });
                    count.store(seen.len(), Ordering::Relaxed);
                }
                seen
            })
        });
        Self { stop, created, thread }
    }

    /// Waits until this many more pods have been created.
    pub fn wait_for_more(&self, pods: usize) {
        let before = self.created.load(Ordering::Relaxed);
        wait_for("more pods", || (self.created.load(Ordering::Relaxed) >= before + pods).then_some(()));
    }

    /// The outcome of each pod.
    pub fn end(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("no panic")
    }

    /// How many pods were created, all of which must be injected.
    pub fn end_without_loss(self) -> usize {
        let seen = self.end();
        let lost: Vec<_> = seen.iter().filter(|what| what.starts_with("not injected")).collect();
        assert!(lost.is_empty(), "{} of {} pods were not injected, the first: {}", lost.len(), seen.len(), lost[0]);
        for other in seen.iter().filter(|what| *what != "injected") {
            // An API server that starts to watch bindings denies pods rather than leave them without an identity.
            assert!(other.contains("not yet synced"), "{other}");
        }
        seen.len()
    }
}

/// Whether the pod's first container has a client ID.
pub fn is_injected(pod: &Value) -> bool {
    let env = pod["spec"]["containers"][0]["env"].as_array();
    env.is_some_and(|env| env.iter().any(|one| one["name"] == "AZURE_CLIENT_ID"))
}
