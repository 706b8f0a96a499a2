//! The one API server of a run, and a recorder of the objects of all plans.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt};
use serde_json::Value;
use tokio::runtime::Runtime;

use super::gate::LABEL;
use super::history::History;
use super::lock::lock;
use ensign_testkit::control_plane::ControlPlane;
use ensign_testkit::objects::apply_crds;

/// The API server, shared by all plans.
pub struct Cluster {
    pub control_plane: &'static ControlPlane,
    runtime: Runtime,
    client: Client,
    histories: Arc<Mutex<BTreeMap<String, Arc<History>>>>,
}

impl Cluster {
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(|| {
            let control_plane = ControlPlane::shared();
            apply_crds(control_plane);
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .thread_name("administrator")
                .enable_all()
                .build()
                .expect("a runtime");
            let client = runtime.block_on(control_plane.client());
            let histories = Arc::default();
            for kind in ["ManagedIdentity", "ManagedIdentityBinding", "ManagedIdentityClass", "Namespace"] {
                runtime.spawn(record(kind, Api::all_with(client.clone(), &resource(kind)), Arc::clone(&histories)));
            }
            Self { control_plane, runtime, client, histories }
        })
    }

    /// The history of a plan's objects from now on.
    pub fn history(&self, plan: &str) -> Arc<History> {
        lock(&self.histories).entry(plan.to_owned()).or_default().clone()
    }

    pub fn forget(&self, plan: &str) {
        lock(&self.histories).remove(plan);
    }

    pub fn create(&self, object: &Value) -> Value {
        let (api, object) = self.api_of(object);
        self.done("create", api.create(&PostParams::default(), &object))
    }

    pub fn patch(&self, kind: &str, namespace: &str, name: &str, patch: &Value) -> Value {
        let api = self.api(kind, namespace);
        self.done("patch", api.patch(name, &PatchParams::default(), &Patch::Merge(patch)))
    }

    /// The changed object; none if the API server rejects the change as invalid.
    pub fn try_patch(&self, kind: &str, namespace: &str, name: &str, patch: &Value) -> Option<Value> {
        let api = self.api(kind, namespace);
        match self.wait("patch", api.patch(name, &PatchParams::default(), &Patch::Merge(patch))) {
            Ok(object) => Some(value(&object)),
            Err(kube::Error::Api(status)) if status.code == 422 => None,
            Err(error) => panic!("patch: {error}"),
        }
    }

    /// Deletes an object, which may be gone by now; returns what is left of it, if finalizers keep it.
    pub fn delete(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        let api = self.api(kind, namespace);
        match self.wait("delete", api.delete(name, &kube::api::DeleteParams::default())) {
            Ok(answer) => answer.left().map(|object| value(&object)),
            // A controller released it meanwhile.
            Err(kube::Error::Api(status)) if status.code == 404 => None,
            Err(error) => panic!("delete: {error}"),
        }
    }

    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        let api = self.api(kind, namespace);
        self.wait("get", api.get_opt(name)).expect("get").map(|object| value(&object))
    }

    /// Runs a task beside the plans.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task);
    }

    /// Restarts the API server, for every plan, and waits until it serves.
    pub fn restart_api_server(&self) {
        self.control_plane.command("restart kube-apiserver");
        let api = self.api("Namespace", "");
        while self.wait("get", api.get("default")).is_err() {
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Compacts etcd up to the current revision, for every plan.
    pub fn compact_etcd(&self) {
        let api = self.api("Namespace", "");
        let list = self.wait("list", api.list(&kube::api::ListParams::default())).expect("list");
        self.control_plane.compact_etcd(list.metadata.resource_version.as_deref().expect("a revision"));
    }

    /// Every object of the plan.
    pub fn list(&self, kind: &str, plan: &str) -> Vec<Value> {
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource(kind));
        let selection = kube::api::ListParams::default().labels(&format!("{LABEL}={plan}"));
        let found = self.wait("list", api.list(&selection)).expect("list");
        let typed = |object: &DynamicObject| {
            let mut object = value(object);
            object["kind"] = kind.into();
            object
        };
        found.items.iter().map(typed).collect()
    }

    fn api(&self, kind: &str, namespace: &str) -> Api<DynamicObject> {
        match kind {
            "ManagedIdentityBinding" | "Lease" => Api::namespaced_with(self.client.clone(), namespace, &resource(kind)),
            _ => Api::all_with(self.client.clone(), &resource(kind)),
        }
    }

    fn api_of(&self, object: &Value) -> (Api<DynamicObject>, DynamicObject) {
        let kind = object["kind"].as_str().expect("a kind");
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
        (self.api(kind, namespace), serde_json::from_value(object.clone()).expect("an object"))
    }

    fn done(&self, act: &str, request: impl Future<Output = kube::Result<DynamicObject>>) -> Value {
        value(&self.wait(act, request).unwrap_or_else(|error| panic!("{act}: {error}")))
    }

    fn wait<T>(&self, act: &str, request: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
        let limited = async { tokio::time::timeout(Duration::from_secs(60), request).await };
        self.runtime.block_on(limited).unwrap_or_else(|_| panic!("{act}: no response"))
    }
}

fn value(object: &DynamicObject) -> Value {
    serde_json::to_value(object).expect("an object")
}

fn resource(kind: &str) -> ApiResource {
    let (group, plural) = match kind {
        "ManagedIdentity" => ("ensign.dev", "managedidentities"),
        "ManagedIdentityBinding" => ("ensign.dev", "managedidentitybindings"),
        "ManagedIdentityClass" => ("ensign.dev", "managedidentityclasses"),
        "Namespace" => ("", "namespaces"),
        "Lease" => ("coordination.k8s.io", "leases"),
        other => panic!("unknown kind {other}"),
    };
    let version = if group == "ensign.dev" { "v1alpha1" } else { "v1" };
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

/// Records each object in the history of its plan.
async fn record(kind: &'static str, api: Api<DynamicObject>, histories: Arc<Mutex<BTreeMap<String, Arc<History>>>>) {
    let config = watcher::Config::default().labels(LABEL);
    let mut events = Box::pin(watcher(api, config));
    let (mut listed, mut asked) = (BTreeSet::new(), Timestamp::now());
    while let Some(event) = events.next().await {
        let (object, gone) = match event {
            Ok(Event::Apply(object)) => (object, false),
            Ok(Event::InitApply(object)) => {
                listed.insert((object.namespace().unwrap_or_default(), object.name_any()));
                (object, false)
            }
            Ok(Event::Delete(object)) => (object, true),
            Ok(Event::Init) => {
                asked = Timestamp::now();
                continue;
            }
            Ok(Event::InitDone) => {
                // What was deleted between two watches.
                let listed = std::mem::take(&mut listed);
                lock(&histories).values().for_each(|history| history.listed(kind, asked, &listed));
                continue;
            }
            Err(_) => {
                // The API server may be restarting.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let plan = object.labels().get(LABEL).cloned().unwrap_or_default();
        let history = lock(&histories).get(&plan).cloned();
        if let Some(history) = history {
            let mut object = value(&object);
            object["kind"] = kind.into();
            history.record(&object, gone);
        }
    }
}
